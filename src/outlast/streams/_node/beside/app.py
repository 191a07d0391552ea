"""The paths beside the protocol, and the handler of each."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from outlast.streams._consumers._codec import NAME_BYTES_MAX
from outlast.streams._entries import check_name
from outlast.streams._node.answers import RefusalError, bad_request, refusal
from outlast.streams._node.beside import checking, consumers, health, listing, records
from outlast.streams._node.beside.asked import Asked
from outlast.streams._node.requests import Request, raw_path, stream_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from outlast.streams._node.beside.answer import Answer
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Receive, Scope, Send

    Handler = Callable[[Asked], Awaitable[Answer | None]]

NAME: Final = b"*"
"""In the place of a name: that of a stream is the third part of a path, that of a consumer the fifth."""
NAMES_AT: Final = frozenset({2, 4})
_STREAMS = (b"v1", b"streams")
_STREAM = (*_STREAMS, NAME)
_CONSUMER = (*_STREAM, b"consumers", NAME)
ROUTES: Mapping[tuple[bytes, ...], Mapping[str, Handler]] = MappingProxyType(
    {
        _STREAMS: {"GET": listing.page},
        # These two are not below the streams, where they would hide one of their name.
        (b"v1", b"usage"): {"GET": listing.usage},
        (b"v1", b"verify"): {"POST": checking.check},
        _STREAM: {"GET": listing.one},
        (*_STREAM, b"records"): {"GET": records.read},
        (*_STREAM, b"trim"): {"POST": records.trim},
        (*_STREAM, b"consumers"): {"GET": consumers.all_of},
        _CONSUMER: {"GET": consumers.one, "PUT": consumers.put, "DELETE": consumers.delete},
        (*_CONSUMER, b"fetch"): {"POST": consumers.fetch},
        (*_CONSUMER, b"acknowledge"): {"POST": consumers.acknowledge},
        (*_CONSUMER, b"put_back"): {"POST": consumers.put_back},
        (*_CONSUMER, b"renew"): {"POST": consumers.renew},
        (*_CONSUMER, b"release"): {"POST": consumers.release},
        (b"livez",): {"GET": health.live},
        (b"readyz",): {"GET": health.ready},
    }
)
"""The handlers by path and method."""


class Beside:
    """An ASGI application: all that a node serves beside the protocol. It raises what goes wrong."""

    def __init__(self, node: Node) -> None:
        """Do nothing yet."""
        self._node = node
        self._checks = checking.Checks()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises `RefusalError` and the errors of the store."""
        parts = raw_path(scope).split(b"/")[1:]
        handlers = ROUTES.get(tuple(NAME if place in NAMES_AT else part for place, part in enumerate(parts)))
        if handlers is None:
            raise RefusalError(
                refusal(
                    404,
                    "no such path",
                    "there is nothing here: streams are below /v1/stream/, and what is beside them below /v1/streams",
                )
            )
        request = Request(scope, receive, send, _name(parts[2]) if len(parts) > 2 else "")
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(sorted(handlers) + ["HEAD"] * ("GET" in handlers))
            text = f"this path takes {allowed}"
            raise RefusalError(refusal(405, "method", text, headers=[(b"allow", allowed.encode())]))
        consumer = _consumer_name(parts[4]) if len(parts) > 4 else ""
        said = await handler(Asked(request, self._node, self._checks, consumer))
        if said is not None:
            await said.send(request)


def _name(segment: bytes) -> str:
    """Return the name of a stream from one segment of a path, in which its slashes are encoded."""
    return stream_name(segment.replace(b"%2F", b"/").replace(b"%2f", b"/"))


def _consumer_name(segment: bytes) -> str:
    try:
        name = unquote_to_bytes(segment).decode()
        check_name(name, "consumer", NAME_BYTES_MAX)
    except UnicodeDecodeError:
        raise bad_request("name", "the name of a consumer is no UTF-8") from None
    except ValueError as error:
        raise bad_request("name", str(error)) from None
    return name
