"""The bounds of a server: how much a client may send, how slowly, and how many of them there may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from outlast.http._app.asking import BODY_BYTES_MAX

NONE_ALLOWED = frozenset({"connections_max", "connections_per_client_max", "body_bytes_max"})
"""Limits that None switches off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a `Server`. Each has a default, and says what happens at it.

    Times are in seconds and sizes in bytes. Times are looked at every quarter of the shortest of them, at most once a second,
    so a client may have that much more. "Answered" means: with the status, `Connection: close` and a body of problem+json,
    unless an answer has begun; then the connection is cut. None, where the type allows it, is no bound.

    Raises ValueError for a limit that is not above 0.
    """

    connections_max: int | None = 4_000
    """Open connections; one beyond them is answered 503. Never more than three quarters of the files the process may open."""
    connections_per_client_max: int | None = 1_000
    """Connections from one address; one beyond them is answered 503. Behind a proxy every client has the proxy's address."""
    url_bytes_max: int = 8_192
    """The bytes of a request's target; a longer one is answered 414."""
    headers_max: int = 100
    """The number of headers of a request; one with more is answered 431."""
    headers_bytes_max: int = 32_768
    """The bytes of the request line and all headers; a request with more is answered 431."""
    headers_s: float = 10.0
    """The time from the first byte of a request to the end of its headers; then it is answered 408. A new connection that sends
    nothing at all for this time is closed."""
    body_bytes_max: int | None = BODY_BYTES_MAX
    """The bytes of a body, declared or in chunks; a larger one is answered 413."""
    body_s: float = 20.0
    """The time for a body of no length; a slower one is answered 408. While the application does not read, no time passes."""
    body_bytes_per_s_min: float = 1_024.0
    """Each such number of bytes of a body prolongs its time by a second."""
    write_s: float = 20.0
    """The time for which a client may read nothing of what waits for it; then the connection is cut."""
    write_bytes_per_s_min: float = 1_024.0
    """Each such number of bytes that a client has read prolongs its time by a second."""
    write_bytes_max: int = 65_536
    """The bytes that wait for a client before `send` of the application waits too."""
    keep_alive_s: float = 75.0
    """The time for which a connection may stay open between two requests; then it is closed."""
    pipelined_max: int = 16
    """Requests that a client may send ahead of the answers; the connection is closed after the answers to so many."""
    half_closed_s: float = 30.0
    """The time in which the answer to a client that has closed its side has to be complete; then the connection is cut."""
    drain_bytes_max: int = 16 * 1024 * 1024
    """The bytes that are read and thrown away after an answer that came early, so that the client can read the answer."""
    drain_s: float = 5.0
    """The time for which they are read; then the connection is closed."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in NONE_ALLOWED:
                continue
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                msg = f"{field.name} must be a number above 0, not {value!r}"
                raise ValueError(msg)

    @property
    def sweep_s(self) -> float:
        """The time between two looks at the clocks of the connections, in seconds."""
        times = (self.headers_s, self.body_s, self.write_s, self.keep_alive_s, self.half_closed_s, self.drain_s)
        return min(1.0, min(times) / 4.0)
