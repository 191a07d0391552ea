"""One request, as the handlers of every protocol see it, and the routes that lead to them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from outlast.tables._http import body
from outlast.tables._http.answers import Answer, Refused, RefusedError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

PARAMETERS_MAX: Final = 64
LENGTH_MAX: Final = 10**19
DEADLINE_S_MAX: Final = 3600.0
TOKEN: Final = "outlast.token"  # noqa: S105 - the name of the extension in which `outlast.http` hands over the token
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")


class Request:
    """One request. On the event loop's thread only."""

    __slots__ = ("_query", "headers", "method", "path", "receive", "scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        """Names in lower case. Of a header that came twice, the last: a server has refused two lengths."""
        self._query: Mapping[str, str] | None = None

    @property
    def raw_query(self) -> bytes:
        """The query as it came. It may hold a secret: nothing that is shown or kept is made of it."""
        raw: bytes = self.scope.get("query_string", b"")
        return raw

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query, decoded. Raises `RefusedError` (400): one came twice, or they are no UTF-8."""
        if self._query is None:
            self._query = parameters(self.raw_query)
        return self._query

    @property
    def client(self) -> str:
        """The name of the token that let it in, the one whose quota it is; "" without tokens."""
        token = self.scope.get("extensions", {}).get(TOKEN)
        return "" if token is None else str(token.name)

    @property
    def deadline_s(self) -> float | None:
        """The seconds within which an answer is of use, from `x-request-timeout`; a value that cannot be read counts as none."""
        value = self.headers.get(b"x-request-timeout")
        if value is None or _SECONDS.fullmatch(value) is None:
            return None
        return min(float(value), DEADLINE_S_MAX)

    @property
    def length(self) -> int | None:
        """The bytes of its body as declared; None: they come in chunks."""
        length = self.headers.get(b"content-length")
        if length is None:
            return None if b"transfer-encoding" in self.headers else 0
        # A server has refused what is no number; one that is too long is too large.
        return int(length) if len(length) < 20 and length.isdigit() else LENGTH_MAX

    async def body(self, bytes_max: int) -> bytes:
        """Return the body, inflated; see `body.read`. Raises `RefusedError` (413, 415, 400) and `ClientGoneError`."""
        return await body.read(self.receive, self.headers.get(b"content-encoding", b""), self.length, bytes_max)


Handler: TypeAlias = Callable[[Request], Awaitable[Answer | None]]
"""Returns the answer, or None where it has sent one itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """The handlers of one path, by method, and the words in which its protocol says an error."""

    handlers: Mapping[str, Handler]
    said: Callable[[Refused], Answer]
    needs: str | None = "write"
    """The scope that a token has to have for it; None: it needs no token."""


Routes: TypeAlias = dict[str, Route]
"""Routes by path."""


def parameters(raw: bytes) -> dict[str, str]:
    """Return the parameters of a query or a form. Raises `RefusedError` (400): one came twice, or they are no UTF-8."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise RefusedError(400, f"the parameters are no UTF-8, or more than {PARAMETERS_MAX}") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RefusedError(400, f"the parameter {twice[:40]!r} came more than once")
    return found


async def send_answer(send: Send, answer: Answer, *, head: bool = False) -> None:
    """Send a whole answer. `head`: it answers HEAD, and only its length is sent."""
    headers = list(answer.headers)
    if answer.status != 204:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
