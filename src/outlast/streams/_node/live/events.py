"""The events of one reader of a stream: what `live=sse` is answered with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast import OutlastError, Stopping
from outlast.http import EventStream
from outlast.streams._errors import StreamNotFoundError
from outlast.streams._node import protocol
from outlast.streams._node.answers import SECURITY, BrokenOffError, RefusalError, problem_for
from outlast.streams._node.live.cursors import next_cursor
from outlast.streams._node.live.frames import control_frame, error_frame

if TYPE_CHECKING:
    from outlast.streams._node.live.pieces import Piece
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served

ENCODING: Final = (b"stream-sse-data-encoding", b"base64")
# `no-cache` is what the protocol says, `no-store` is what is meant: a proxy that kept events would hand out old ones.
CACHE: Final = (b"cache-control", b"no-cache, no-store")
SLICE_BYTES: Final = 64 << 10
"""The most that is handed to the server at a time: each slice has the time that a reader may take for it."""
SPREAD: Final = 0.1
"""Readers that came together do not come back together: each is let go up to so much of the time earlier."""


async def stream_events(node: Node, request: Request, served: Served, position: int, seen: int | None) -> None:
    """Answer with the events from a position on, until the stream ends, the time is over, or the reader leaves.

    Raises as `Stream.fetch` where nothing was sent yet, afterwards `BrokenOffError`.
    """
    first = await node.pieces.at(served, position) if position < served.tail else None
    headers = [CACHE, *SECURITY] if served.is_text else [CACHE, *SECURITY, ENCODING]
    events = Events(node, served, position, seen, first)
    try:
        with node.counts.reading("sse"):
            await EventStream(events, headers=headers, rng=node.rng)(request.scope, request.receive, request.send)
    except OutlastError as error:
        raise BrokenOffError(error) from error


class Events:
    """One reader's place in a stream: an async iterator of frames, ended by `aclose`.

    It counts as a reader from its first step on: a stream that somebody reads is not idle. When it fails the reader is told by
    an event `error`, and then the stream of events breaks off: nobody takes that for the end, or for being up to date.
    """

    __slots__ = (
        "_begun",
        "_cursor",
        "_ended",
        "_error",
        "_is_over",
        "_node",
        "_piece",
        "_position",
        "_rest",
        "_served",
        "_timer",
        "_waiter",
    )

    def __init__(self, node: Node, served: Served, position: int, seen: int | None, first: Piece | None) -> None:
        self._node = node
        self._served = served
        self._position = position
        self._cursor = next_cursor(node.wall(), seen, node.rng)
        self._piece = first
        self._rest = b""
        self._error: OutlastError | None = None
        self._begun = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Events:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next frame, or the next part of a long one; wait for one if there is none."""
        if not self._rest:
            if self._error is not None:
                raise self._error
            try:
                self._rest = await self._frame()
            except Stopping:
                await self.aclose()
                raise StopAsyncIteration from None
            except (OutlastError, RefusalError) as error:
                # A refusal is no failure: the shell that cuts the connection has nothing to say about one.
                gone = StreamNotFoundError(self._served.name, "it was deleted")
                self._error = error if isinstance(error, OutlastError) else gone
                problem = problem_for(error)
                self._rest = error_frame(problem.body() if problem is not None else b"{}")
        part, self._rest = self._rest[:SLICE_BYTES], self._rest[SLICE_BYTES:]
        return part

    async def aclose(self) -> None:
        """Let go of the stream. Twice is the same as once."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._served.leave(self._node.now())

    async def _frame(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:
            self._begin()
            if self._position == self._served.tail:
                return self._control()
        piece, self._piece = self._piece, None
        if piece is None and not self._is_over:
            self._waiter = asyncio.get_running_loop().create_future()
            piece = await self._node.pieces.at(self._served, self._position, self._waiter)
        if piece is None or piece.next == piece.first:
            self._ended = self._is_over or piece is not None
            return self._control()
        return self._data(piece)

    def _begin(self) -> None:
        self._begun = True
        seconds = self._node.sse_s * (1 - SPREAD * self._node.rng.random())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._time_over)
        self._served.enter()

    def _time_over(self) -> None:
        self._is_over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _data(self, piece: Piece) -> bytes:
        served = self._served
        self._position = piece.next
        up_to_date = piece.next == served.tail
        self._ended = closed = up_to_date and served.is_closed
        return piece.frames(self._present_cursor(), up_to_date=up_to_date, closed=closed)

    def _control(self) -> bytes:
        """Return the event that only says where the reader is. One that is at the end of a closed stream is the last."""
        served = self._served
        up_to_date = self._position == served.tail
        closed = up_to_date and served.is_closed
        self._ended = self._ended or closed
        offset = protocol.offset_text(self._position)
        return control_frame(offset, cursor=self._present_cursor(), up_to_date=up_to_date, closed=closed)

    def _present_cursor(self) -> int:
        self._cursor = max(self._cursor, next_cursor(self._node.wall(), None, self._node.rng))
        return self._cursor
