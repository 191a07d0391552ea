"""Pieces of streams for those who wait at the tail: each is read once, and made into an event once, however many wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast.streams._log.recent import Recent
from outlast.streams._node.live.frames import control_frame, data_frame, joined
from outlast.streams._node.protocol import offset_text

if TYPE_CHECKING:
    from outlast.streams._model import Chunk
    from outlast.streams._node.served import Served

PIECE_BYTES: Final = 64 << 10
"""The records of a piece, unless a single one is larger: a slow reader holds no more than this at a time."""
KEPT_BYTES: Final = 4 << 20
"""The pieces of a node that are kept for readers who come a little later, their records and their events together."""
_EACH_BYTES: Final = 512


class Piece:
    """The records `first` to `next` - 1 of one stream; none at the end of one that is closed."""

    __slots__ = ("_chunk", "_data", "_joined", "_served", "_whole", "_whole_for", "first", "next")

    def __init__(self, served: Served, chunk: Chunk) -> None:
        self.first = chunk.first
        self.next = chunk.next
        self._served = served
        self._chunk = chunk
        self._joined: bytes | None = None
        self._data: bytes | None = None
        self._whole = b""
        self._whole_for: tuple[int, bool, bool] | None = None

    @property
    def body(self) -> bytes:
        """The records as the answer to a GET has them."""
        if self._joined is None:
            self._joined = joined(self._chunk.records, is_json=self._served.is_json)
        return self._joined

    def frames(self, cursor: int, *, up_to_date: bool, closed: bool) -> bytes:
        """Return the event of the records and the one behind it. Those who are at the same place share one."""
        wanted = cursor, up_to_date, closed
        if self._whole_for != wanted:
            if self._data is None:
                served = self._served
                self._data = data_frame(self._chunk.records, is_json=served.is_json, is_text=served.is_text)
            control = control_frame(offset_text(self.next), cursor=cursor, up_to_date=up_to_date, closed=closed)
            self._whole, self._whole_for = self._data + control, wanted
        return self._whole

    @property
    def weight(self) -> int:
        """About the bytes that it takes with all that may be made of it: records, body, and base64 twice."""
        return _EACH_BYTES + 5 * sum(map(len, self._chunk.records))


class _Flight:
    """A piece on its way, and those who wait for it."""

    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[Piece]) -> None:
        self.task = task
        self.waiters: set[asyncio.Future[None]] = set()


class Pieces:
    """The pieces of all streams of one node. On the event loop's thread only.

    Those who want the same piece at the same time wait for one read; it ends with the last of them. So a thousand readers at the
    tail are one follower of the stream.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept: Recent[tuple[str, int], Piece] = Recent(kept_bytes)
        self._flights: dict[tuple[str, int], _Flight] = {}

    def __len__(self) -> int:
        """Return how many are on their way."""
        return len(self._flights)

    async def at(self, served: Served, position: int, waiter: asyncio.Future[None] | None = None) -> Piece | None:
        """Return the piece at a position; at the tail wait for one, or for the end of the stream.

        Whoever passes a `waiter` may wake this up by it: then it returns None, unless the piece is there. Raises as
        `Stream.fetch`.
        """
        key = served.id, position
        # What was let go of is not served from memory either: `fetch` says where to go on.
        if position >= served.oldest and (kept := self._kept.get(key)) is not None:
            return kept
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.get_running_loop().create_task(_read(served, position)))
            flight.task.add_done_callback(lambda task: self._landed(key, flight, task))
        waiter = waiter or asyncio.get_running_loop().create_future()
        flight.waiters.add(waiter)
        try:
            await waiter
        finally:
            flight.waiters.discard(waiter)
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)
        return flight.task.result() if flight.task.done() else None

    def _landed(self, key: tuple[str, int], flight: _Flight, task: asyncio.Task[Piece]) -> None:
        self._forget(key, flight)
        # One that failed has raised to all who still wait.
        if not task.cancelled() and task.exception() is None and (piece := task.result()).next > piece.first:
            self._kept.put(key, piece, piece.weight)
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self, key: tuple[str, int], flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _read(served: Served, position: int) -> Piece:
    return Piece(served, await served.fetch(position, PIECE_BYTES, float("inf")))
