"""The peer of the outbox: an HTTP server, as a dependency with its classifier and its probe."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

from outlast import Classifiers, Dependency, Fault, Kind, OutlastError, Scope

KINDS: Final = {401: Kind.PERMANENT, 403: Kind.PERMANENT, 404: Kind.PERMANENT, 408: Kind.TRANSIENT, 429: Kind.OVERLOADED}


class AnswerError(OutlastError):
    """The peer answered with another status than 2xx."""

    def __init__(self, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(f"the peer answered {status}")
        self.status = status
        self.retry_after_s = retry_after_s


def classify(exc: BaseException, _phase: str) -> Fault | None:
    """Return the fault of an answer. The errors of sockets are known to Outlast."""
    if isinstance(exc, ValueError | IndexError | asyncio.LimitOverrunError):
        return Fault(Kind.TRANSIENT, "no HTTP", "the peer answered what is no HTTP")
    if not isinstance(exc, AnswerError):
        return None
    kind = KINDS.get(exc.status, Kind.TRANSIENT if exc.status >= 500 else Kind.REJECTED)
    scope = Scope.CALL if kind is Kind.REJECTED else Scope.DEPENDENCY
    return Fault(kind, f"HTTP {exc.status}", str(exc), scope=scope, retry_after_s=exc.retry_after_s)


class HttpPeer(Dependency):
    """A server that takes POST requests, and says by its answer to HEAD whether it is well."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        super().__init__("peer", classifiers=Classifiers([classify]))
        self.url = urlsplit(url)
        self.timeout_s = timeout_s

    async def probe(self) -> None:
        """Ask whether it answers."""
        await self._request("HEAD", "", b"")

    async def post(self, key: str, body: bytes) -> None:
        """Post a message; the peer recognises by `key` what it has already. Raises what `use` raises, and `AnswerError`."""
        async with self.use("post"):
            await self._request("POST", f"Idempotency-Key: {key}\r\n", body)

    async def _request(self, method: str, headers: str, body: bytes) -> None:
        head = f"{method} {self.url.path or '/'} HTTP/1.1\r\nHost: {self.url.netloc}\r\nConnection: close\r\n{headers}"
        async with asyncio.timeout(self.timeout_s):
            reader, writer = await asyncio.open_connection(self.url.hostname, self.url.port or 80)
            try:
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            finally:
                writer.close()
        status = int(answer[0].split()[1])
        waits = [line.split(":")[1].strip() for line in answer if line.startswith("retry-after:")]
        if not 200 <= status < 300:
            raise AnswerError(status, float(waits[0]) if waits and waits[0].isdigit() else None)
