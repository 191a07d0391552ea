"""GET: records from an offset on; at the tail, where the client wants that, those that come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.streams._errors import BeyondTailError, StreamNotFoundError, TrimmedError
from outlast.streams._node import protocol
from outlast.streams._node.answers import NO_STORE, SECURITY, BrokenOffError, answer, bad_request
from outlast.streams._node.etags import etag, matches
from outlast.streams._node.live.cursors import next_cursor, parse_cursor
from outlast.streams._node.live.events import stream_events
from outlast.streams._node.live.frames import joined
from outlast.streams._node.live.long_polls import next_piece

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request, Send
    from outlast.streams._node.served import Served

    Headers = list[tuple[bytes, bytes]]

LONG_POLL: Final = "long-poll"
SSE: Final = "sse"
COMPLETE: Final = (b"cache-control", b"private, max-age=60")
"""For records that never change and lie below the tail. Private: whoever may read a stream need not be everybody."""
SLICE_BYTES: Final = 256 << 10
"""A longer body is sent in slices, and breaks off when its stream is deleted meanwhile."""


async def get(node: Node, request: Request) -> None:
    """Answer a GET. Raises `RefusalError`, and as `Stream.fetch`."""
    served = await node.find(request.name)
    query = request.query
    live = query.get("live")
    if live not in {None, LONG_POLL, SSE}:
        raise bad_request("live", f"a read waits by live={LONG_POLL} or live={SSE}, or without either it does not")
    offset = query.get("offset")
    if offset is None and live is not None:
        raise bad_request("offset", f"a read with live={live} wants an offset: -1, now, or one that this node has written")
    position = _position(served, protocol.START if offset is None else offset)
    served.touch(node.now())
    seen = parse_cursor(query.get("cursor"))
    if live == SSE:
        await stream_events(node, request, served, position, seen)
    elif live == LONG_POLL:
        await _poll(node, request, served, position, seen)
    elif offset == protocol.NOW:
        await answer(request.send, 200, _headers(served, position, NO_STORE), joined((), is_json=served.is_json))
    else:
        await _catch_up(node, request, served, position)


def _position(served: Served, offset: str) -> int:
    """Return the position of an offset. Raises `TrimmedError` and `BeyondTailError`, also where nothing would be read."""
    oldest, tail = served.oldest, served.tail
    if offset == protocol.START:
        return oldest
    if offset == protocol.NOW:
        return tail
    position = protocol.parse_offset(offset)
    if position is None:
        raise bad_request("offset", "an offset is -1, now, or one that this node has written")
    if not oldest <= position <= tail:
        raise (TrimmedError if position < oldest else BeyondTailError)(served.name, position, oldest, tail)
    return position


async def _catch_up(node: Node, request: Request, served: Served, position: int) -> None:
    chunk = await served.fetch(position, node.chunk_bytes)
    up_to_date, closed = _end(served, chunk.next)
    tag = etag(served.id, chunk.first, chunk.next, up_to_date=up_to_date, closed=closed)
    headers = _headers(served, chunk.next, NO_STORE if up_to_date and not closed else COMPLETE)
    headers.append((b"etag", tag))
    if matches(request.headers.get(b"if-none-match"), tag):
        await answer(request.send, 304, headers)
    else:
        await _send(request.send, served, headers, joined(chunk.records, is_json=served.is_json))


async def _poll(node: Node, request: Request, served: Served, position: int, seen: int | None) -> None:
    if position < served.tail:
        chunk = await served.fetch(position, node.chunk_bytes)
        following, body = chunk.next, joined(chunk.records, is_json=served.is_json)
    else:
        piece = await next_piece(node, request, served, position)
        following, body = (position, b"") if piece is None else (piece.next, piece.body)
    headers = _headers(served, following, NO_STORE)
    if not _end(served, following)[1]:
        headers.append((protocol.CURSOR, b"%d" % next_cursor(node.wall(), seen, node.rng)))
    if following == position:
        await answer(request.send, 204, headers)
    else:
        await _send(request.send, served, headers, body)


def _end(served: Served, following: int) -> tuple[bool, bool]:
    """Return whether a position is the tail, and whether that is the end of a closed stream. Raises `StreamNotFoundError`."""
    up_to_date = following == served.tail
    return up_to_date, up_to_date and served.is_closed


def _headers(served: Served, following: int, cache: tuple[bytes, bytes]) -> Headers:
    headers = [(protocol.CONTENT_TYPE, served.content_value), (protocol.NEXT_OFFSET, protocol.offset_value(following)), cache]
    up_to_date, closed = _end(served, following)
    if up_to_date:
        headers.append((protocol.UP_TO_DATE, protocol.TRUE))
    if closed:
        headers.append((protocol.CLOSED, protocol.TRUE))
    return headers


async def _send(send: Send, served: Served, headers: Headers, body: bytes) -> None:
    """Send an answer 200. Raises `BrokenOffError` in the middle of a long one whose stream is deleted."""
    if len(body) <= SLICE_BYTES:
        await answer(send, 200, headers, body)
        return
    headers = [*headers, *SECURITY, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for begin in range(0, len(body), SLICE_BYTES):
        if served.is_gone:
            raise BrokenOffError(StreamNotFoundError(served.name, "it was deleted while it was read"))
        end = begin + SLICE_BYTES
        await send({"type": "http.response.body", "body": body[begin:end], "more_body": end < len(body)})
