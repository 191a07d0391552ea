"""A consumer: a durable place in a stream, which several tasks of one process may share."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from outlast import Unavailable
from outlast.streams._consumers._cursor import OPEN_MAX, SET_ASIDE_MAX, EventKind
from outlast.streams._consumers._runs import Run
from outlast.streams._errors import (
    DamagedError,
    LimitError,
    OutcomeUnknownError,
    StreamClosedError,
    StreamNotFoundError,
    TrimmedError,
)
from outlast.streams._model import Delivered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.streams._consumers._consumers import Consumers
    from outlast.streams._consumers._cursor import Cursor, Event
    from outlast.streams._consumers._state import State
    from outlast.streams._model import Chunk, Record

logger = logging.getLogger("outlast.streams")

READS_MAX: Final = 8
"""Reads of one fetch: records in line may lie far apart."""
FETCH_BYTES: Final = 1 << 20


class Consumer:
    """A named place in a stream: what was acknowledged is never handed out again, everything else is, until it is acknowledged.

    Get it with `Stream.consumer`. A record that `fetch` returned belongs to its caller for `lease_s` seconds. Not acknowledged
    by then, or before the process ended, it is handed out again, so do with a record only what bears repeating. Acknowledge in
    any order. A record that was handed out `deliveries_max` times is set aside, with one line in the log, and the others go on.

    Tasks of one process may share it; a second process cannot have it, since the folder belongs to one. On the event loop's
    thread only. Once the stream, or the consumer, is deleted, everything raises `StreamNotFoundError`.
    """

    def __init__(self, consumers: Consumers, state: State) -> None:
        """Make none yourself."""
        self.name = state.cursor.name
        self.delivered = self.acknowledged = self.skipped = 0
        """Counts since the process began."""
        self._consumers = consumers
        self._host = consumers.host
        self._state = state
        self._turn = asyncio.Lock()
        self._chunk: Chunk | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._is_deleted = False

    def __repr__(self) -> str:
        return f"<consumer {self.name!r} of stream {self._host.name!r}, next {self.cursor.next}>"

    @property
    def cursor(self) -> Cursor:
        """Its state, to look at."""
        return self._state.cursor

    @property
    def lease_s(self) -> float:
        """The time that a record belongs to whoever has fetched it."""
        return self._state.leases.lease_s

    @property
    def deliveries_max(self) -> int:
        """The number of deliveries after which a record is set aside."""
        return self._state.deliveries_max

    @property
    def lag(self) -> int:
        """The number of records that are not acknowledged yet, those under way included and those set aside not."""
        return self.cursor.remaining(self._host.tail)

    @property
    def set_aside(self) -> tuple[range, ...]:
        """The positions that were set aside, in order. Read one with `Stream.read`; then `put_back` or `acknowledge` it."""
        return tuple(range(run.first, run.end) for run in self.cursor.set_aside)

    async def fetch(self, records_max: int = 100, *, wait_s: float = 0.0, bytes_max: int = FETCH_BYTES) -> list[Delivered]:
        """Return records that nobody works on, at most so many, in order: those to be delivered again first, or else new ones.

        Returns at least one if there is one, of any size; otherwise, after `wait_s` seconds, none. Each is counted as delivered
        before it is returned, on the disk too if that has room: so a record that ends the process is set aside as well.

        Raises `StreamClosedError` when the stream is closed and all of it is acknowledged or set aside; `LimitError` when 16,384
        records are not acknowledged; `DamagedError` once for records that do not read, which are set aside; `Unavailable`.
        Cancelled, it loses nothing: what it took is in line again.
        """
        if records_max < 1 or bytes_max < 1:
            raise ValueError(
                f"consumer {self.name!r}: a fetch is of 1 record and 1 byte or more, not {records_max} and {bytes_max}"
            )
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            async with self._turn:
                if got := await self._take(min(records_max, OPEN_MAX), bytes_max):
                    return got
            if self._host.is_closed and not self.lag:
                raise StreamClosedError(self._host.name, f"it is closed, and consumer {self.name!r} has had all of it")
            if (left_s := until - loop.time()) <= 0:
                self._check_room()
                return []
            await self._news(left_s)

    async def acknowledge(self, *positions: int) -> None:
        """Record that these are done, so that nobody gets them again.

        It is on disk when this returns, or within `sync_every_s` where the stream has one. It counts as well when the lease has
        ended, and for records that are set aside; twice is the same as once. Raises ValueError for a position that was never
        handed out, `Unavailable` when the disk refuses: then all of them are handed out again. `OutcomeUnknownError`: some may
        be. Cancelled, it may happen all the same.
        """
        self._check()
        event = self._state.acknowledgement(positions)
        if self._changes(event):
            await self._consumers.store(event, sync=not self._host.options.sync_every_s, is_applied=False)

    def release(self, *positions: int) -> None:
        """End the lease of these records, so that the next fetch may have them. Those that are not leased stay as they are."""
        self._check()
        self._state.release(positions)
        self._changed()

    def renew(self, *positions: int) -> tuple[int, ...]:
        """Begin the lease of these records again, and return those still leased: the others may be with somebody else."""
        self._check()
        held = tuple(self._state.renew(positions, asyncio.get_running_loop().time()))
        self._changed()
        return held

    async def put_back(self, *positions: int) -> None:
        """Put records that were set aside in line again, counted from 0. Raises as `acknowledge`, and `LimitError`."""
        self._check()
        event = self._state.putting_back(positions)
        if not event.runs:
            return
        if sum(run.end - run.first for run in event.runs) > self._state.room:
            raise self._full()
        await self._consumers.store(event, sync=not self._host.options.sync_every_s, is_applied=False)

    # For `Consumers`.

    def check_same(self, lease_s: float, deliveries_max: int) -> None:
        """Raise ValueError if it is in use with other settings."""
        if (lease_s, deliveries_max) != (self.lease_s, self.deliveries_max):
            raise ValueError(
                f"consumer {self.name!r} of stream {self._host.name!r} is in use with lease_s={self.lease_s:g} and "
                f"deliveries_max={self.deliveries_max}, not {lease_s:g} and {deliveries_max}"
            )

    def carry_out(self, event: Event) -> None:
        """Carry out what was stored."""
        before = len(self.cursor.open) + self.cursor.set_aside.size
        self._state.apply(event)
        if event.kind is EventKind.ACKNOWLEDGED:
            self.acknowledged += before - len(self.cursor.open) - self.cursor.set_aside.size
        if not len(self.cursor.set_aside):
            self._consumers.once.clear(self.name)
        self._changed()

    def end(self) -> None:
        """Note that it was deleted."""
        self._is_deleted = True
        self._changed()

    # Handing out. Under the turn: reading and taking is one step for those who share it.

    async def _take(self, records_max: int, bytes_max: int) -> list[Delivered]:
        loop = asyncio.get_running_loop()
        self._settle(records_max, loop.time())
        if line := self._state.in_line(records_max):
            records = await self._again(line, bytes_max)
        else:
            records = await self._new(min(records_max, self._state.room), bytes_max)
        if not records:
            return []
        positions = [record.position for record in records]
        event = self._state.deliver(positions, loop.time())
        try:
            await self._consumers.store(event, sync=False, is_applied=True)
        except (Unavailable, OutcomeUnknownError) as error:
            # Reading goes on while the disk is full. The count is in memory, and is stored with the next write that works.
            self._say_uncounted(error)
        except BaseException:
            self.release(*positions)
            raise
        self.delivered += len(records)
        # Somebody who had one of them before may have acknowledged it meanwhile.
        kept = [record for record in records if record.position in self.cursor.open]
        return [Delivered(record, self.cursor.open[record.position]) for record in kept]

    def _settle(self, records_max: int, now: float) -> None:
        self._check()
        before = self.cursor.skipped
        if (news := self._state.settle(self._host.oldest, now)) is not None:
            self._consumers.note(news)
        if gone := self.cursor.skipped - before:
            self.skipped += gone
            self._say_skipped(gone)
        while (aside := self._state.too_often(records_max)) is not None:
            self._consumers.note(aside)
            self._say_set_aside(aside)

    async def _again(self, positions: Sequence[int], bytes_max: int) -> list[Record]:
        records: list[Record] = []
        size = reads = 0
        for position in positions:
            if not (self._chunk and self._chunk.first <= position < self._chunk.next):
                if reads == READS_MAX:
                    break
                reads += 1
                await self._read(position, bytes_max)
            found = _records(self._chunk, position, 1)
            size += sum(len(record.data) for record in found)
            if records and size > bytes_max:
                break
            # Somebody may have acknowledged it while it was read.
            records += [record for record in found if record.position in self._state.leases.line]
        return records

    async def _new(self, records_max: int, bytes_max: int) -> list[Record]:
        position = self.cursor.next
        if not records_max or position >= self._host.tail:
            self._chunk = None
            return []
        if not (self._chunk and self._chunk.first <= position < self._chunk.next):
            await self._read(position, bytes_max)
        return _records(self._chunk, position, records_max)

    async def _read(self, position: int, bytes_max: int) -> None:
        try:
            self._chunk = await self._host.fetch(position, bytes_max)
        except TrimmedError:
            # It was there a moment ago; the next turn finds out what is.
            self._chunk = None
        except DamagedError as error:
            self._chunk = None
            event = self._state.damaged(Run(position, max(position + 1, error.next or 0)))
            self._consumers.note(event)
            raise

    async def _news(self, timeout_s: float) -> None:
        """Wait until something is appended, acknowledged or released, a lease ends, or so long."""
        loop = asyncio.get_running_loop()
        if (ends_at := self._state.leases.ends_at) is not None:
            timeout_s = min(timeout_s, ends_at - loop.time())
        changed: asyncio.Future[None] = loop.create_future()
        self._waiters.add(changed)
        seen = self._host.tail, self._host.is_closed
        followed = loop.create_task(self._host.follow(max(0.0, timeout_s)))
        try:
            # Until the task has begun it follows nothing, and what comes meanwhile would not wake it.
            await asyncio.sleep(0)
            if seen == (self._host.tail, self._host.is_closed):
                await asyncio.wait([changed, followed], return_when=asyncio.FIRST_COMPLETED)
            if followed.done():
                followed.result()
        finally:
            self._waiters.discard(changed)
            changed.cancel()
            followed.cancel()

    def _changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Errors and lines.

    def _changes(self, event: Event) -> bool:
        return any(self.cursor.open_within(run) or self.cursor.set_aside.within(run) for run in event.runs)

    def _check(self) -> None:
        if self._is_deleted:
            raise StreamNotFoundError(self._host.name, f"its consumer {self.name!r} was deleted")
        # Raises once the stream was deleted.
        _ = self._host.tail

    def _check_room(self) -> None:
        if not self._state.room and self.cursor.next < self._host.tail:
            raise self._full()

    def _full(self) -> LimitError:
        count = len(self.cursor.open)
        text = f"consumer {self.name!r} has {count} records that are not acknowledged (limit {OPEN_MAX}): acknowledge some first"
        return LimitError(self._host.name, text)

    def _say_set_aside(self, event: Event) -> None:
        if self._consumers.once.news("set aside", subject=self.name):
            first, count = event.runs[0].first, sum(run.end - run.first for run in event.runs)
            logger.warning(
                "stream %r: consumer %r: %d record(s) from position %d on were delivered %d times and not acknowledged: set aside"
                " (at most %d runs are); see Consumer.set_aside, put_back. More of them are not logged until none is set aside",
                self._host.name,
                self.name,
                count,
                first,
                self.deliveries_max,
                SET_ASIDE_MAX,
            )

    def _say_skipped(self, count: int) -> None:
        if self._consumers.once.news("skipped", subject=(self.name, "skipped")):
            logger.warning(
                "stream %r: consumer %r: %d record(s) were gone before they were acknowledged: skipped; it goes on at %d."
                " Further ones are counted and not logged",
                self._host.name,
                self.name,
                count,
                self.cursor.next,
            )

    def _say_uncounted(self, error: Unavailable | OutcomeUnknownError) -> None:
        if self._consumers.once.news("uncounted", subject=(self.name, "uncounted")):
            logger.warning(
                "stream %r: consumer %r: deliveries are counted in memory only, until the disk takes them: %s",
                self._host.name,
                self.name,
                error,
            )


def _records(chunk: Chunk | None, position: int, records_max: int) -> list[Record]:
    """Return records of a chunk from a position on."""
    if chunk is None or not chunk.first <= position < chunk.next:
        return []
    return list(chunk.part(position, position + records_max))
