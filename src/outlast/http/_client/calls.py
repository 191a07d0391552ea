"""One call: the request it becomes, and the answer as it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.extend import clean
from outlast.http._client.answers import Answer, AnswerTooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping

    from outlast.http._client.wire import Response, Wire

SUCCESS: Final = range(200, 300)
PATH_CHARS_MAX: Final = 100
NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
"""RFC 9110, 5.1 and 5.5."""
ENCODING: Final = "accept-encoding"


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """A request before it is made. The names of `headers` are in lower case."""

    method: str
    path: str
    accept: Container[int] = SUCCESS
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: Any = None
    json: Any = None

    def __str__(self) -> str:
        """Show the method and the path, without a query."""
        return f"{clean(self.method, PATH_CHARS_MAX)} {clean(self.path.partition('?')[0] or '/', PATH_CHARS_MAX)}"


def lowered(headers: Mapping[str, str] | None, source: str) -> dict[str, str]:
    """Return the headers with names in lower case, of which none comes twice. Raises `OutlastError` (REJECTED) for one that HTTP
    does not allow: the libraries would quote its value, a token with a line feed at its end for one.
    """
    found: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if NAME.fullmatch(name) is None or VALUE.fullmatch(value) is None:
            text = f"{source}: HTTP does not allow the name or value of header {clean(name, 40)!r} (a line feed at its end?)"
            raise OutlastError(text, Fault(Kind.REJECTED, "bad header", text, source, Scope.CALL))
        found[name.lower()] = value
    return found


class AnswerStream:
    """An answer whose body is read piece by piece, inside the block of `HttpPeer.stream`.

        async for piece in answer: ...

    The peer has the deadline of the call for each piece. With an older `epoch` than the peer's it began before the last outage.
    """

    def __init__(
        self,
        response: Response,
        wire: Wire,
        epoch: int,
        deadline_s: float,
        failed: Callable[[Exception], Awaitable[Exception]],
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)
        self.epoch = epoch
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self._wire = wire
        self._deadline_s = deadline_s
        self._failed = failed

    async def read(self) -> bytes:
        """Return the next piece as it has come, b"" at the end. Raises `TimeoutError`, and what the library raises."""
        try:
            async with self._wire.limit(self._deadline_s):
                return await anext(self._pieces, b"")
        except Exception as exc:
            error = await self._failed(exc)
            if error is exc:
                raise
            raise error from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces to the end."""
        while piece := await self.read():
            yield piece


async def whole(response: Response, asked: str, bytes_max: int) -> Answer:
    """Read an answer to its end. Raises `AnswerTooLargeError`."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > bytes_max:
            raise AnswerTooLargeError(asked, response.status_code, bytes_max)
    return Answer(response.status_code, dict(response.headers), bytes(body))


async def beginning(response: Response, bytes_max: int) -> Answer:
    """Read an answer as far as it is worth it; its connection is of use again when that is all of it."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > bytes_max:
            break
    return Answer(response.status_code, dict(response.headers), bytes(body[:bytes_max]))


def check_encoding(response: Response, call: Call, asked: str) -> None:
    """Raise when the body is packed although that was not asked for: unpacked it may be a thousand times as large."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity" or ENCODING in call.headers:
        return
    text = f"{asked}: the body came as {clean(encoding, 20)}, though it was asked for as it is: allow that by accept-encoding"
    raise OutlastError(text, Fault(Kind.PERMANENT, "encoding", text, scope=Scope.CALL))
