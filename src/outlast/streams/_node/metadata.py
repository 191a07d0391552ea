"""HEAD and DELETE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.streams._node import protocol
from outlast.streams._node.answers import NO_STORE, answer

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served


async def head(node: Node, request: Request) -> None:
    """Answer a HEAD: the stream as it is, and it begins no TTL again."""
    await answer(request.send, 200, described(await node.find(request.name)))


async def delete(node: Node, request: Request) -> None:
    """Answer a DELETE."""
    await node.delete(await node.find(request.name))
    await answer(request.send, 204, [])


def described(served: Served) -> list[tuple[bytes, bytes]]:
    """Return the headers that describe a stream."""
    headers = [
        (protocol.CONTENT_TYPE, served.content_value),
        (protocol.NEXT_OFFSET, protocol.offset_value(served.tail)),
        NO_STORE,
    ]
    if served.ttl_s is not None:
        headers.append((protocol.TTL, b"%d" % served.ttl_s))
    if served.expires_text is not None:
        headers.append((protocol.EXPIRES_AT, served.expires_text.encode("latin-1")))
    if served.is_closed:
        headers.append((protocol.CLOSED, protocol.TRUE))
    return headers
