"""The extensions of a request: what a server of ours says to the application, and its parts to each other.

They are keys of `scope["extensions"]`. Each part works without them too, on any ASGI server: it then decides by itself, or does
without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

TICKET: Final = "outlast.ticket"
"""The ticket of admission, when the request has one. Whoever put it there releases it when the request's task has ended,
however that ends: a task that is cancelled before its first step runs nothing of the application. Releasing twice is the same
as releasing once."""
PARKED: Final = "outlast.parked"
"""True once the request has waited as a long poll or an event stream: the time that it takes is no sample of the latency."""
TOKEN: Final = "outlast.token"  # noqa: S105 - a name
"""The `Token` that the request was let in with."""
REQUEST_ID: Final = "outlast.request_id"
"""The id of the request, a text."""
STOP: Final = "outlast.stop"
"""The `outlast.Stop` of the service that serves: event streams and long polls end when it is fired."""
ABORT: Final = "outlast.abort"
"""A function without arguments that closes the connection at once, for a reader that does not read."""


def extensions(scope: Scope) -> dict[str, Any]:
    """Return the extensions of a request, which may be added to: an empty map if the server has none."""
    found: dict[str, Any] | None = scope.get("extensions")
    if found is None:
        found = scope["extensions"] = {}
    return found
