"""A client of HTTP/1.1 that costs little: what the collectors of the drill, of the benches and of the tests send with."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

import httptools

LOST: Final = 0
"""The status of a request that was not answered: nobody listened, the connection ended, or the time was over."""
BODY_BYTES_MAX: Final = 1 << 16


class Reply(NamedTuple):
    """The answer to one request."""

    status: int
    retry_after_s: float | None = None
    body: bytes = b""


class HttpClient:
    """Sends requests to one server, each on a connection that has no other under way. Use it on one event loop only.

    A connection that is idle is used again. More than `connections_max` wait for one of them.
    """

    def __init__(self, address: str, *, connections_max: int = 256, limit_s: float = 10.0) -> None:
        """Talk with the server on `host:port`; a request that is not answered within `limit_s` is `LOST`."""
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._limit_s = limit_s
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._places = asyncio.Semaphore(connections_max)
        self._host_line = f"Host: {address}\r\n".encode()

    async def post(self, path: str, body: bytes, headers: bytes = b"") -> Reply:
        """Send a body; `headers` are whole lines."""
        return await self.ask(b"POST", path, body, headers)

    async def ask(self, method: bytes, path: str, body: bytes = b"", headers: bytes = b"") -> Reply:
        """Send a request and return the answer; `LOST` if none came."""
        head = b"%s %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n" % (method, path.encode(), self._host_line, headers, len(body))
        async with self._places:
            try:
                async with asyncio.timeout(self._limit_s):
                    while True:
                        connection, is_new = await self._connection()
                        reply = await connection.ask(head + body)
                        # The server may close one that was idle at the moment at which it is used again.
                        if reply is not None or is_new:
                            return reply or Reply(LOST)
            except (OSError, TimeoutError):
                return Reply(LOST)

    def close(self) -> None:
        """Hang up."""
        for connection in list(self._open):
            connection.abort()

    async def _connection(self) -> tuple[_Connection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                return connection, False
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._idle, self._open), self._host, self._port
        )
        return connection, True


class _Connection(asyncio.Protocol):
    """One connection. The parser calls the methods whose names it knows."""

    def __init__(self, idle: list[_Connection], open_: set[_Connection]) -> None:
        self.is_closed = False
        self._idle = idle
        self._open = open_
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Reply | None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._retry_after_s: float | None = None
        self._body = b""

    async def ask(self, request: bytes) -> Reply | None:
        """Send, and return the answer; None if the connection ended first. One that is not waited for any more is aborted."""
        assert self._transport is not None  # noqa: S101  create_connection has returned
        if self.is_closed:
            return None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Hang up at once."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  it is one of a stream
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_closed = True
        self._open.discard(self)
        self._end(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            with contextlib.suppress(ValueError):
                self._retry_after_s = float(value)

    def on_body(self, body: bytes) -> None:
        if len(self._body) < BODY_BYTES_MAX:
            self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        reply = Reply(status, self._retry_after_s, self._body)
        self._begin()
        # Asked here: the parser forgets it with the message.
        if self._parser.should_keep_alive() and not self.is_closed:
            self._idle.append(self)
        else:
            self.abort()
        self._end(reply)

    def _end(self, reply: Reply | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(reply)
