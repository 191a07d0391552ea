"""How a slot is claimed: at once when nobody reads it; else whoever does is named once, and looked at cheaply."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from psycopg import errors

from outlast import Backoff, BackoffState
from outlast.changes.holders import holder
from outlast.changes.survey import settle
from outlast.postgres.replication_lsn import format_lsn

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from outlast import Stop
    from outlast.postgres import Postgres
    from outlast.postgres.replication import Replication
    from outlast.postgres.replication_commands import SlotState

LOOK_S: Final = (0.005, 0.5)
"""The first and the longest pause between two looks at a slot that somebody reads: an owner that died leaves it within
milliseconds, one that bypassed the lock may keep it for hours."""
BACKOFF: Final = Backoff(base_s=0.1, cap_s=30.0)
"""Between two claims of a slot that looked free and was refused (55006). Lowest sums of the waits: 0.05, 0.15, 0.35, 0.75,
1.55, 3.15, 6.35, 12.75, 25.55, 40.55 s and 15 s each: at most fourteen in 90 s, and none while the holder can be seen."""
logger = logging.getLogger("outlast")


class Claim:
    """Claims one slot, session after session. What was told, and how often it was refused, outlives them."""

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
        self._told = ""
        self._streamed = False

    async def start(self, replication: Replication, position: int, stop: Stop) -> None:
        """Start the stream, as soon as nobody else reads the slot. Raises `Stopping`, and what the session does."""
        while True:
            state = await self.until_free(replication, stop)
            try:
                await replication.start(self._slot, position, self._options)
            except errors.ObjectInUse:
                # Taken between the look and the claim. Each claim in vain is an ERROR in the server's log.
                self.refused += 1
                self._backoff, wait_s = BACKOFF.next(self._backoff, asyncio.get_running_loop().time(), self._rng)
                await stop.sleep(BACKOFF.cap_s if wait_s is None else wait_s)
            else:
                break
        self._backoff = BackoffState()
        at = max(position, 0 if state is None else state.confirmed_lsn or 0)
        # Told the first time only: when it goes on after a fault, the incident says that it is over.
        level, self._streamed = (logging.DEBUG if self._streamed else logging.INFO), True
        logger.log(level, "changes %s: streaming from %s", self._name, format_lsn(at))

    async def until_free(self, replication: Replication, stop: Stop) -> SlotState | None:
        """Wait until nobody reads the slot; gives what the server knows of it then.

        Looks twice a second, by one query on the connection that will stream: nobody wakes who stands by.
        """
        pause_s, seen = LOOK_S[0], 0
        while True:
            state = await replication.slot_state(self._slot)
            if state is None or state.active_pid is None:
                return state
            if pause_s >= LOOK_S[1] and state.active_pid != seen:
                seen = state.active_pid
                await self._tell_holder()
            await stop.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_S[1])

    async def _tell_holder(self) -> None:
        async with self._db.connection() as conn:
            await settle(conn)
            session = await holder(conn, self._slot)
        if session is not None:
            what = f"held by {session.pid} {session.since}"
            self._say(what, f"changes {self._name}: standing by, slot {self._slot} is read by {session}")

    def _say(self, what: str, line: str) -> None:
        """Tell a change of state, once."""
        if what != self._told:
            self._told = what
            logger.info("%s", line)
