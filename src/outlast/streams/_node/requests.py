"""One request, as the handlers of the node see it, and how its parts are read."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from outlast.streams._entries import check_name
from outlast.streams._node import protocol
from outlast.streams._node.answers import RefusalError, bad_request, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

PREFIX: Final = b"/v1/stream/"
NAMES_KEPT: Final = 1024
"""Names that were read from paths lately: reading one costs more than looking it up."""
QUERY_MAX: Final = 32
LENGTH_MAX: Final = 10**19
DEADLINE_S_MAX: Final = 3600.0
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_HOST: Final = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
SINGLE: Final = frozenset(
    {
        *(b"host", b"content-length", b"content-encoding", b"transfer-encoding", b"x-request-timeout", b"sec-fetch-site"),
        *(protocol.CONTENT_TYPE, *protocol.SENT),
    }
)
"""Headers that decide something: of two of them, one would be left out."""


class ClientGoneError(Exception):
    """The client left before its body had come. There is nobody to answer."""


class Request:
    """One request about one stream. On the event loop's thread only."""

    __slots__ = ("_query", "headers", "method", "name", "receive", "scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        """`name` is the stream's. Raises `RefusalError`: a header that decides something came twice."""
        self.scope = scope
        self.receive = receive
        self.send = send
        self.name = name
        self.method: str = scope["method"]
        raw = scope["headers"]
        self.headers: Mapping[bytes, bytes] = dict(raw)
        """Names in lower case, each of them once."""
        self._query: Mapping[str, str] | None = None
        if len(self.headers) != len(raw):
            _check_single(raw)

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query, decoded. Raises `RefusalError`: one came twice, or they are no UTF-8."""
        if self._query is None:
            self._query = parse_query(self.scope.get("query_string", b""))
        return self._query

    @property
    def deadline_s(self) -> float | None:
        """The seconds within which an answer is of use, from `x-request-timeout`; a value that cannot be read counts as none."""
        value = self.headers.get(b"x-request-timeout")
        if value is None or _SECONDS.fullmatch(value) is None:
            return None
        return min(float(value), DEADLINE_S_MAX)

    @property
    def length(self) -> int | None:
        """The bytes of its body; 0: it has none; None: that is known once it has come, in chunks."""
        length = self.headers.get(b"content-length")
        if length is None:
            return None if b"transfer-encoding" in self.headers else 0
        # A server has refused what is no number; one that is too long is too large.
        return int(length) if len(length) < 20 and length.isdigit() else LENGTH_MAX

    def text(self, header: bytes) -> str | None:
        """Return the value of a header as a text; None if there is none."""
        value = self.headers.get(header)
        return None if value is None else value.decode("latin-1")

    def url(self) -> bytes:
        """Return the absolute URL of the stream, as the client has called it; only its path where the client named no host."""
        path = raw_path(self.scope)
        host = self.headers.get(b"host", b"")
        return b"%s://%s%s" % (self.scope.get("scheme", "http").encode(), host, path) if _HOST.fullmatch(host) else path

    async def body(self, bytes_max: int) -> bytes:
        """Return the body, once it is read; what is refused is not. Raises `RefusalError` (413, 415) and `ClientGoneError`."""
        headers = self.headers
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in {b"", b"identity"}:
            raise RefusalError(refusal(415, "encoded body", "send the body as it is: no Content-Encoding is taken"))
        length = self.length
        if length is not None and length > bytes_max:
            raise _too_large(length, bytes_max)
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > bytes_max:
                raise _too_large(len(body), bytes_max)
            return body
        return await self._long_body(message, bytes_max)

    async def _long_body(self, message: Message, bytes_max: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] != "http.request":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > bytes_max:
                raise _too_large(size, bytes_max)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await self.receive()


def _too_large(size: int, limit: int) -> RefusalError:
    return RefusalError(refusal(413, "too large", f"the body has {size} bytes or more, and the limit is {limit}: divide it"))


def _check_single(raw: list[tuple[bytes, bytes]]) -> None:
    seen: set[bytes] = set()
    for name, _ in raw:
        if name in seen and name in SINGLE:
            raise bad_request("repeated header", f"the header {name.decode('latin-1')!r} came more than once")
        seen.add(name)


def raw_path(scope: Scope) -> bytes:
    """Return the path as it was sent, without the query."""
    raw: bytes | None = scope.get("raw_path")
    # A server that does not say leaves what it has decoded: then an encoded slash cannot be told from a slash.
    return raw.partition(b"?")[0] if raw is not None else quote(scope["path"], errors="replace").encode()


@lru_cache(NAMES_KEPT)
def stream_name(quoted: bytes) -> str:
    """Return the name of a stream from its quoted form in a path: decoded once, UTF-8.

    Raises `RefusalError` for what is no name: an encoded slash, "." or ".." as a segment, a control character, more than 1,024
    bytes. Two paths that are different bytes after decoding are two streams; nothing else is made equal.
    """
    if b"%2f" in quoted.lower():
        raise bad_request("name", "the name of a stream has an encoded slash, which would be taken for a slash elsewhere")
    if _NO_ESCAPE.search(quoted):
        raise bad_request("name", "the name of a stream has a % without two hexadecimal digits behind it")
    try:
        name = unquote_to_bytes(quoted).decode()
        check_name(name)
    except UnicodeDecodeError:
        raise bad_request("name", "the name of a stream is no UTF-8") from None
    except ValueError as error:
        raise bad_request("name", str(error)) from None
    if "." in name and not {".", ".."}.isdisjoint(name.split("/")):
        raise bad_request("name", 'the name of a stream has "." or ".." for a segment, which proxies leave out')
    return name


def parse_query(raw: bytes) -> dict[str, str]:
    """Return the parameters of a query. Raises `RefusalError`."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_MAX)
    except ValueError:
        raise bad_request("query", f"the query is no UTF-8, or has more than {QUERY_MAX} parameters") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise bad_request("repeated parameter", "a parameter of the query came more than once")
    return query
