"""The consumers of one stream: kept in one file, and written by one task that takes all events that have come meanwhile."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.extend import Once
from outlast.streams._consumers._codec import NAME_BYTES_MAX
from outlast.streams._consumers._consumer import Consumer
from outlast.streams._consumers._cursor import Cursor, Event, EventKind
from outlast.streams._consumers._file import CursorFile, whole
from outlast.streams._consumers._state import State
from outlast.streams._entries import check_name
from outlast.streams._errors import LimitError

if TYPE_CHECKING:
    from outlast.streams._consumers._port import Host

logger = logging.getLogger("outlast.streams")

CONSUMERS_MAX: Final = 100
"""Consumers of one stream."""
WAITING_MAX: Final = 10_000
"""Events of one stream that wait for the disk. Each is a caller that waits, so there are as many as tasks that share it."""
LEASE_S: Final = 30.0
DELIVERIES_MAX: Final = 5


@dataclass(slots=True)
class _Waiting:
    event: Event | None
    """None: only a sync is wanted."""
    sync: bool
    is_applied: bool
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class ConsumerCounts:
    """Numbers of all consumers of a stream, for figures. The first three are of now, the others since the process began."""

    lag: int
    open: int
    set_aside: int
    delivered: int
    acknowledged: int
    skipped: int


class Consumers:
    """Makes and keeps the consumers of one incarnation of a stream. On the event loop's thread only."""

    def __init__(self, host: Host) -> None:
        """Read nothing yet: the first consumer that is asked for does."""
        self.host = host
        self.once = Once(3 * CONSUMERS_MAX)
        """What was logged of which consumer: three things each."""
        self._file = CursorFile(host.folder, host.name, host.id, host.cursor_files)
        self._known: dict[str, Cursor] | None = None
        self._used: dict[str, Consumer] = {}
        self._loading = asyncio.Lock()
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._sync_timer: asyncio.TimerHandle | None = None

    async def consumer(
        self, name: str, *, lease_s: float = LEASE_S, deliveries_max: int = DELIVERIES_MAX, start: int = 0
    ) -> Consumer:
        """Return the consumer of this name, and make it if there is none. See `Stream.consumer`."""
        check_name(name, "consumer", NAME_BYTES_MAX)
        if not 0 < lease_s < float("inf"):
            raise ValueError(f"consumer {name!r}: lease_s is above 0 and finite, not {lease_s}")
        if deliveries_max < 1:
            raise ValueError(f"consumer {name!r}: deliveries_max is at least 1, not {deliveries_max}")
        if start < 0:
            raise ValueError(f"consumer {name!r}: start is a position, 0 or above, not {start}")
        # Two tasks that ask for a new one get the same.
        async with self._loading:
            if (used := self._used.get(name)) is not None:
                used.check_same(lease_s, deliveries_max)
                return used
            cursor = (await self._cursors()).get(name) or await self._begin(name, start)
            self._used[name] = consumer = Consumer(self, State(cursor, lease_s, deliveries_max))
            return consumer

    async def store(self, event: Event, *, sync: bool, is_applied: bool) -> None:
        """Write an event, and carry it out then, unless it has been. Cancelled, it may be written and carried out.

        Raises what `CursorFile.write` and the host's `store` raise: it was not stored, and not carried out.
        """
        await self._queue(event, sync=sync, is_applied=is_applied)

    def note(self, event: Event) -> None:
        """Let an event that was carried out be written with the next one. If it is lost, it is decided again."""
        self._queue(event, sync=False, is_applied=True).add_done_callback(_retrieve)

    def used(self, name: str) -> Consumer | None:
        """Return the consumer of this name if somebody has asked for it."""
        return self._used.get(name)

    async def cursors(self) -> tuple[Cursor, ...]:
        """Return the state of all consumers, in use or not, in the order of their names."""
        known = await self._cursors()
        return tuple(known[name] for name in sorted(known))

    async def delete(self, name: str) -> None:
        """Forget a consumer, durably; one that is not there is no error."""
        if name not in await self._cursors():
            return
        await self.store(Event(EventKind.DELETED, name), sync=True, is_applied=False)
        if (consumer := self._used.pop(name, None)) is not None:
            consumer.end()

    async def flush(self) -> None:
        """Make all that was stored durable: where the stream syncs at intervals, it is when this returns. Raises as `store`."""
        if self._sync_timer is not None:
            self._stop_timer()
            await self._queue(None, sync=True, is_applied=True)
        elif self._writer is not None:
            await asyncio.shield(self._writer)

    def let_go(self) -> None:
        """Close the file. In the thread that writes, when nothing is under way."""
        self._file.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all consumers; none before the first was asked for."""
        return tuple(sorted(self._known or ()))

    @property
    def counts(self) -> ConsumerCounts:
        """The numbers as they are now; from any thread, once the stream is known to be there."""
        used = list(self._used.values())
        tail = self.host.tail
        return ConsumerCounts(
            sum(consumer.cursor.remaining(tail) for consumer in used),
            sum(len(consumer.cursor.open) for consumer in used),
            sum(consumer.cursor.set_aside.size for consumer in used),
            sum(consumer.delivered for consumer in used),
            sum(consumer.acknowledged for consumer in used),
            sum(consumer.skipped for consumer in used),
        )

    async def _cursors(self) -> dict[str, Cursor]:
        if self._known is None:
            known = await self.host.load(self._file.load)
            if self._known is None:
                self._known = known
                self._go_back(known)
        return self._known

    def _go_back(self, known: dict[str, Cursor]) -> None:
        """Let cursors go back that are beyond what the log had when it was recovered.

        Of a stream that syncs at intervals a power cut may keep a cursor and lose the records: their positions come again, for
        other records, perhaps before a consumer is asked for.
        """
        tail = self.host.recovered_tail
        for cursor in known.values():
            if cursor.next > tail:
                event = Event(EventKind.LOST, cursor.name, number=tail)
                cursor.apply(event)
                self.note(event)
                logger.warning(
                    "stream %r: consumer %r goes back to position %d: what was there was not on disk and is lost, and"
                    " the positions come again",
                    self.host.name,
                    cursor.name,
                    tail,
                )

    async def _begin(self, name: str, start: int) -> Cursor:
        known = await self._cursors()
        if len(known) >= CONSUMERS_MAX:
            raise LimitError(
                self.host.name, f"it has {len(known)} consumers (limit {CONSUMERS_MAX}): delete one that is not used"
            )
        first = min(max(start, self.host.oldest), self.host.tail)
        await self.store(Event(EventKind.BEGUN, name, number=first), sync=True, is_applied=False)
        return known[name]

    def _queue(self, event: Event | None, *, sync: bool, is_applied: bool) -> asyncio.Future[None]:
        if len(self._waiting) >= WAITING_MAX:
            reason = f"{len(self._waiting)} acknowledgements and deliveries wait for the disk (limit {WAITING_MAX})"
            raise LimitError(self.host.name, reason)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(event, sync, is_applied, loop.create_future())
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = loop.create_task(self._write(), name=f"outlast consumers of {self.host.name}")
        return waiting.done

    async def _write(self) -> None:
        """Write what waits, all of it at once, until nothing does."""
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._write_batch(batch)
        finally:
            self._writer = None
            for waiting in [*batch, *self._waiting]:
                # Only if this was cancelled: the event loop is ending.
                waiting.done.cancel()
            self._waiting = []

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        # What is in memory has the events that were carried out before they were written.
        every = whole((self._known or {}).values()) if self._file.wants_whole else None
        events = [waiting.event for waiting in batch if waiting.event and not (waiting.is_applied and every is not None)]
        sync = any(waiting.sync for waiting in batch)
        try:
            await self.host.store(partial(self._file.write, every, events, sync=sync))
        except Exception as error:  # noqa: BLE001 - it is raised to each of those who wait
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        for waiting in batch:
            if waiting.event and not waiting.is_applied:
                self._carry_out(waiting.event)
            if not waiting.done.done():
                waiting.done.set_result(None)
        if sync:
            self._stop_timer()
        elif self._sync_timer is None and self.host.options.sync_every_s:
            delay_s = self.host.options.sync_every_s
            self._sync_timer = asyncio.get_running_loop().call_later(delay_s, self._sync)

    def _carry_out(self, event: Event) -> None:
        known = self._known
        assert known is not None  # noqa: S101 - nobody has a consumer before they are read
        if event.kind is EventKind.DELETED:
            known.pop(event.consumer, None)
        elif event.kind is EventKind.BEGUN:
            known[event.consumer] = Cursor(event.consumer, event.number)
        elif (consumer := self._used.get(event.consumer)) is not None:
            consumer.carry_out(event)

    def _sync(self) -> None:
        self._sync_timer = None
        self._queue(None, sync=True, is_applied=True).add_done_callback(self._synced)

    def _synced(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None and self._sync_timer is None:
            # The disk says why to whoever acknowledges, and in its own line.
            self._sync_timer = asyncio.get_running_loop().call_later(max(1.0, self.host.options.sync_every_s), self._sync)

    def _stop_timer(self) -> None:
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None


def _retrieve(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()
