"""HEAD, DELETE and OPTIONS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.streams._node import protocol
from outlast.streams._node.answers import NO_STORE, answer, settled

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served

_METHODS: Final = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"
_PREFLIGHT: Final = (
    (b"allow", _METHODS),
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", b"authorization, content-type, if-none-match, " + b", ".join(protocol.SENT)),
)


async def head(node: Node, request: Request) -> None:
    """Answer a HEAD: the stream as it is, and it begins no TTL again."""
    await answer(request.send, 200, described(await node.find(request.name)))


async def delete(node: Node, request: Request) -> None:
    """Answer a DELETE."""
    await settled(node.delete(await node.find(request.name)), request)
    await answer(request.send, 204, [])


async def options(node: Node, request: Request) -> None:
    """Answer an OPTIONS, of any name: it says what may be sent. Which origins may is for whoever stands in front to say."""
    _ = node
    await answer(request.send, 204, list(_PREFLIGHT))


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
