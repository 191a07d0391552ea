"""The claim of a slot: at once when nobody reads it; else whoever does is named once, and looked at cheaply."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from psycopg import errors

from outlast import Backoff
from outlast.changes._slot.catalog import settle
from outlast.extend import BackoffState, Once, clean
from outlast.postgres.replication import format_lsn, read_slot

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from outlast import Stop
    from outlast.postgres import Postgres
    from outlast.postgres.replication import Replication, Slot
    from outlast.postgres.sessions import Session

LOOK_S: Final = (0.005, 0.5)
"""The first and the longest pause between two looks at a slot that somebody reads: an owner that died leaves it within
milliseconds, one that bypassed the lock may keep it for hours."""
BACKOFF: Final = Backoff(base_s=0.1, cap_s=30.0)
"""After an attempt in vain: a claim that was refused (55006) although the slot looked free, or a session that was given up
before the slot was free. Lowest sums of the waits: 0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 6.35, 12.75, 25.55, 40.55 s and 15 s
each: at most fourteen attempts in 90 s, and one if the reader can be seen all the time."""
logger = logging.getLogger("outlast.changes")


class Claim:
    """Claims one slot, session after session. What was seen, refused and logged outlives them, and a loop that crashes."""

    def __init__(self, db: Postgres, slot: str, name: str, *, options: Mapping[str, str], rng: random.Random) -> None:
        """Describe it; `options` are those of the output plugin."""
        self.refused = 0
        """How often the server refused it (55006)."""
        self._db = db
        self._slot = slot
        self._name = name
        self._options = options
        self._rng = rng
        self._backoff = BackoffState()
        self._next_at = 0.0
        """No attempt before, on the event loop's clock."""
        self._look_at = 0.0
        """No look from outside of a session before, on the same clock."""
        self._epoch = db.epoch
        """How often the server had recovered by the last attempt in vain."""
        self._reader = 0
        """The process that read the slot at the last look of a session; 0 when nobody did."""
        self._reader_said = Once()
        """That somebody else reads the slot: cleared when we do."""
        self._streaming_said = Once()

    @property
    def stands_by(self) -> bool:
        """Whether it was logged that somebody else reads the slot, and we have not read it since."""
        return self._reader_said.said() is not None

    async def until_worthwhile(self, stop: Stop) -> None:
        """Wait until a new session may get the slot, after one that was given up in vain; otherwise return at once.

        Without a session of its own, and without the lock: as long as the one who was seen reading it still does. It asks no
        more than twice a second, however often it is called.
        """
        loop = asyncio.get_running_loop()
        self._forget_before_outage()
        while self._reader:
            await stop.sleep(self._look_at - loop.time())
            self._look_at = loop.time() + LOOK_S[1]
            session = await self._holder()
            if session is None:
                # It is free: what there was to wait for is over.
                self._reader, self._next_at = 0, 0.0
            elif session.pid != self._reader:
                # Another reader is one of us perhaps, who has the lock: then that is what to wait for.
                break
            else:
                self._log(session)
        await stop.sleep(self._next_at - loop.time())

    async def start(self, replication: Replication, position: int, stop: Stop) -> None:
        """Start the stream, as soon as nobody else reads the slot. Raises `Stopping`, and what the session does."""
        while True:
            state = await self.until_free(replication, stop)
            try:
                await replication.start(self._slot, position, self._options)
            except errors.ObjectInUse as exc:
                # Taken between the look and the claim. Each claim in vain is an ERROR in the server's log.
                self.refused += 1
                wait_s = self._postpone()
                if self._backoff.attempt > 1:
                    self._log(await self._holder(), clean(exc.diag.message_primary or ""))
                await stop.sleep(wait_s)
            else:
                break
        self._backoff = BackoffState()
        self._reader_said.clear()
        at = max(position, 0 if state is None else state.confirmed_lsn or 0)
        # Told the first time only: when it goes on after a fault, the incident says that it is over.
        level = logging.INFO if self._streaming_said.news() else logging.DEBUG
        logger.log(level, "changes %s: streaming from %s", self._name, format_lsn(at))

    async def until_free(self, replication: Replication, stop: Stop) -> Slot | None:
        """Wait until nobody reads the slot; return what the server knows of it then.

        Looks twice a second, by one query on the connection that will stream: nobody wakes who stands by.
        """
        pause_s = LOOK_S[0]
        try:
            while True:
                state = await replication.slot_state(self._slot)
                self._reader = 0 if state is None or state.holder is None else state.holder.pid
                if not self._reader:
                    return state
                if pause_s >= LOOK_S[1] and not self.stands_by:
                    self._log(await self._holder())
                await stop.sleep(pause_s)
                pause_s = min(2 * pause_s, LOOK_S[1])
        except BaseException:
            if self._reader:
                self._postpone()
            raise

    def _postpone(self) -> float:
        """Record an attempt in vain; return the seconds until the next."""
        now = asyncio.get_running_loop().time()
        self._forget_before_outage()
        self._backoff, wait_s = BACKOFF.next_always(self._backoff, now, self._rng)
        self._next_at = now + wait_s
        return wait_s

    def _forget_before_outage(self) -> None:
        """Begin again when the server was away: whoever read the slot is gone, and what was given up then was not in vain."""
        if self._epoch != self._db.epoch:
            self._epoch = self._db.epoch
            self._backoff, self._next_at, self._reader = BackoffState(), 0.0, 0

    async def _holder(self) -> Session | None:
        async with self._db.connection() as conn:
            await settle(conn)
            slot = await read_slot(conn, self._slot)
        return None if slot is None else slot.holder

    def _log(self, reader: Session | None, refusal: str = "") -> None:
        """Say who reads the slot, or what the server said, once until we have read it."""
        if (reader or refusal) and self._reader_said.news():
            what = refusal if reader is None else f"slot {self._slot} is read by {reader}"
            logger.info("changes %s: standing by, %s", self._name, what)
