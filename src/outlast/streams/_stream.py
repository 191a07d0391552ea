"""One stream, as its users have it in hand."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from outlast.streams import _reading
from outlast.streams._consumers._consumers import DELIVERIES_MAX, LEASE_S
from outlast.streams._entries import check_labels, entry_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from outlast import Admission
    from outlast.streams._consumers import Consumer
    from outlast.streams._consumers._cursor import Cursor
    from outlast.streams._held import Held
    from outlast.streams._model import Appended, Chunk, Producer, Record, StreamOptions


class Stream:
    """Records in the order in which they were appended, each at a position: 0, 1, 2 and on, never given twice.

    Get one with `Streams.create` or `Streams.open`. It is the stream that it was then: once that is deleted everything here
    raises `StreamNotFoundError`, although another one of the same name may be there. On the event loop's thread only.
    """

    def __init__(self, held: Held, admission: Admission | None = None) -> None:
        """Make none yourself."""
        self._held = held
        self._admission = admission

    def __repr__(self) -> str:
        return repr(self._held)

    @property
    def name(self) -> str:
        """Its name."""
        return self._held.name

    @property
    def id(self) -> str:
        """16 hexadecimal digits that no other stream ever has: those of its folder."""
        return f"{self._held.id:016x}"

    @property
    def options(self) -> StreamOptions:
        """The way it is kept."""
        return self._held.options

    @property
    def created(self) -> float:
        """The time at which it was made, in seconds since 1970."""
        return self._held.created_us / 1e6

    @property
    def volume(self) -> str:
        """The name of the disk that it lives on."""
        return self._held.volume.disk.name

    @property
    def producers(self) -> int:
        """The number of producers that it remembers."""
        return len(self._held.log.producers)

    @property
    def oldest(self) -> int:
        """The oldest position that can be read."""
        return self._held.log.view.oldest

    @property
    def tail(self) -> int:
        """The position that the next record will get; all below it are stored as `sync_every_s` promises."""
        return self._held.log.view.tail

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes on the disk."""
        return self._held.log.view.size_bytes

    @property
    def segments(self) -> int:
        """The number of its segments."""
        return len(self._held.log.view.segments)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self._held.log.view.closed

    @property
    def labels(self) -> Mapping[str, str]:
        """Texts that are stored with it for whoever serves it; they mean nothing here."""
        return MappingProxyType(dict(self._held.log.meta.labels))

    async def label(self, labels: Mapping[str, str]) -> None:
        """Replace its labels, durably. It works on a full disk.

        Raises `ValueError` for more than 1 KiB as JSON, `Unavailable`, and then they are the old ones, and `OutcomeUnknownError`.
        Cancelled, it may happen all the same.
        """
        held = self._held
        await held.volume.control(held, partial(held.log.label, check_labels(held.name, labels)))

    def producer_state(self, producer: str) -> tuple[int, int] | None:
        """Return the epoch of a producer and the last sequence that is stored of it; None: it is not known."""
        state = self._held.log.producers.stored.get(producer)
        return None if state is None else (state.epoch, state.sequence)

    def check(self, size_bytes: int = 0) -> None:
        """Raise what an append of so many bytes would be refused with at this moment, if it would: nobody has to make it first.

        Raises `StreamNotFoundError`, `StreamClosedError`, `Unavailable`, `LimitError` and `Stopping`; admission is not asked.
        """
        self._held.volume.check(self._held, size_bytes)

    async def append(
        self,
        records: bytes | Sequence[bytes],
        *,
        headers: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        producer: Producer | None = None,
        at: int | None = None,
        close: bool = False,
        deadline_s: float | None = None,
    ) -> Appended:
        """Store records, all of them or none, and return their positions.

        They are on disk when this returns, or will be within `sync_every_s` where the stream has one. `headers` is a mapping for
        all, or one for each record. With a `producer` a retry is stored once. With `at`, they are stored at that position or not
        at all. With `close` the stream is closed behind them, in the same step; there may be no records then, and a retry of
        the producer is a duplicate of that as well. After `deadline_s` seconds nobody waits any more: what was not begun by then
        is not stored.

        A refusal stored nothing, and nothing of it appears later: `Unavailable` (the disk is full or away, too much waits),
        `StreamClosedError`, `PositionMismatchError`, `FencedError`, `SequenceError`, `LimitError` (the quota), `ExpiredError`,
        `AppendTooLargeError`, `Stopping`. `OutcomeUnknownError` says that nobody knows: send it again with the same producer.
        Cancelled before its turn it is not stored; after that, nobody knows.
        """
        held = self._held
        entry, size = entry_of(held.name, records, headers, producer, at, closes=close)
        if self._admission is not None:
            entered = self._admission.enter(key=held.name, cost=len(entry.records), size_bytes=size, deadline_s=deadline_s)
            async with entered:
                return await held.volume.append(held, entry, size, deadline_s)
        return await held.volume.append(held, entry, size, deadline_s)

    async def read(
        self, start: int = 0, *, follow: bool = False, bytes_max: int = _reading.CHUNK_BYTES
    ) -> AsyncGenerator[Record, None]:
        """Yield the records from `start` on, up to the tail; with `follow` wait there for more, until the stream is closed.

        About `bytes_max` bytes are in memory at a time. Raises `TrimmedError` where records are gone, also in the middle;
        `BeyondTailError`; `DamagedError`, behind which reading may go on; `Unavailable`; `Stopping` while waiting at the tail.
        """
        async with aclosing(self.chunks(start, follow=follow, bytes_max=bytes_max)) as chunks:
            async for chunk in chunks:
                for record in chunk:
                    yield record

    async def chunks(
        self, start: int = 0, *, follow: bool = False, bytes_max: int = _reading.CHUNK_BYTES
    ) -> AsyncGenerator[Chunk, None]:
        """Yield as `read` does, many records at a time: it costs a fraction."""
        async with aclosing(_reading.chunks(self._held, start, bytes_max, follow=follow)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def fetch(
        self,
        position: int,
        *,
        bytes_max: int = _reading.CHUNK_BYTES,
        wait_s: float = 0.0,
        until: Callable[[], bool] | None = None,
    ) -> Chunk:
        """Return records from `position` on, about `bytes_max` bytes and at least one; at the tail none, after `wait_s` seconds.

        At the tail of a closed stream it does not wait, nor when `until` returns true: it is asked before the wait, and each time
        the stream has changed, its labels included. Raises as `read`, and what `until` raises.
        """
        return await _reading.fetch(self._held, position, bytes_max, wait_s, until)

    async def consumer(
        self, name: str, *, lease_s: float = LEASE_S, deliveries_max: int = DELIVERIES_MAX, start: int = 0
    ) -> Consumer:
        """Return the consumer of this name; a new one begins at `start`, or at the oldest position above that.

        A record that it has delivered is its caller's for `lease_s` seconds. One that was delivered `deliveries_max` times and
        not acknowledged is set aside. Raises `ValueError`, `LimitError`, `DamagedError`, `Unavailable`.
        """
        return await self._held.consumers.consumer(name, lease_s=lease_s, deliveries_max=deliveries_max, start=start)

    def used_consumer(self, name: str) -> Consumer | None:
        """Return the consumer of this name if it is in use: from the first call of `consumer` on, until the store closes."""
        self._held.check_there()
        return self._held.consumers.used(name)

    async def cursors(self) -> tuple[Cursor, ...]:
        """Return the places of all consumers, in the order of their names, to look at. Raises `DamagedError`, `Unavailable`."""
        return await self._held.consumers.cursors()

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer, durably; one of its name that is made later is a new one. Raises `Unavailable`."""
        await self._held.consumers.delete(name)

    async def trim(self, before: int) -> None:
        """Let go of all records below `before`, durably; whole segments of them are deleted. It works on a full disk.

        Raises `BeyondTailError` for a position above the tail. Cancelled, it may happen all the same.
        """
        held = self._held
        await held.volume.control(held, partial(held.log.trim, before))

    async def close(self) -> None:
        """Let nothing be added from now on, durably. What was appended before is stored; readers go on, and end at the tail.

        Closing twice is the same as closing once. If it fails the stream is open.
        """
        held = self._held
        await held.volume.control(held, held.log.close)

    async def delete(self) -> None:
        """Delete it, durably. From now on it is gone for whoever has it in hand. It works on a full disk.

        If it fails the stream is there. Cancelled, it may be deleted all the same.
        """
        await self._held.volume.delete(self._held)
