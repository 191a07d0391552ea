"""The answers that a server makes by itself, and the codes of connections that it ends without one."""

from __future__ import annotations

from typing import Final

from outlast import Kind
from outlast.http._app.problem import Problem

REJECTED: Final = Kind.REJECTED.value
OVERLOADED: Final = Kind.OVERLOADED.value

STOPPING: Final = Problem(
    503, "stopping", Kind.STOPPING.value, "The server is stopping and takes no more requests.", retry_after_s=1.0, close=True
)
TOO_MANY: Final = Problem(
    503, "too many connections", OVERLOADED, "All connections of the server are in use.", retry_after_s=2.0, close=True
)
TOO_MANY_OF_CLIENT: Final = Problem(
    503,
    "too many connections of one client",
    OVERLOADED,
    "This address has as many connections as one may have.",
    retry_after_s=2.0,
    close=True,
)
MALFORMED: Final = Problem(400, "malformed request", REJECTED, "It is no request of HTTP/1.1.", close=True)
URL_TOO_LONG: Final = Problem(414, "url too long", REJECTED, "The target of the request has too many bytes.", close=True)
HEADERS_TOO_LARGE: Final = Problem(431, "headers too large", REJECTED, "The headers are too many or too long.", close=True)
HEADERS_TOO_SLOW: Final = Problem(408, "headers too slow", REJECTED, "The headers took too long to come.", close=True)
BODY_TOO_LARGE: Final = Problem(413, "body too large", REJECTED, "The body has too many bytes.", close=True)
BODY_TOO_SLOW: Final = Problem(408, "body too slow", REJECTED, "The body did not keep to the lowest rate.", close=True)
BROKEN: Final = Problem(500, Kind.BUG.value, Kind.BUG.value, close=True)

IDLE: Final = "idle"
READER_TOO_SLOW: Final = "reader too slow"
HALF_CLOSED: Final = "half closed too long"
PIPELINED: Final = "too many pipelined"
TLS_FAILED: Final = "tls handshake failed"
DROPPED: Final = "connection dropped"
"""Codes of connections that are closed without an answer."""
