"""GET: records from an offset on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.streams._node import protocol
from outlast.streams._node.answers import NO_STORE, answer, bad_request

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request


async def get(node: Node, request: Request) -> None:
    """Answer a GET."""
    served = await node.find(request.name)
    offset = request.query.get("offset", protocol.START)
    position = served.oldest if offset == protocol.START else protocol.parse_offset(offset)
    if offset == protocol.NOW:
        position = served.tail
    if position is None:
        raise bad_request("offset", "an offset is -1, now, or one that this node has written")
    chunk = await served.fetch(position, node.chunk_bytes)
    served.touch(node.now())
    body = b"[" + b",".join(chunk.records) + b"]" if served.is_json else b"".join(chunk.records)
    headers = [
        (protocol.CONTENT_TYPE, served.content_value),
        (protocol.NEXT_OFFSET, protocol.offset_value(chunk.next)),
        NO_STORE,
    ]
    if chunk.next == served.tail:
        headers.append((protocol.UP_TO_DATE, protocol.TRUE))
        if served.is_closed:
            headers.append((protocol.CLOSED, protocol.TRUE))
    await answer(request.send, 200, headers, body)
