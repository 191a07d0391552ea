"""A small HTTP server of the test's own, on the test's event loop: each path is one way to answer, or not to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl

BODY = b'{"well": true}'


@dataclass
class Asked:
    """A request as the server has read it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class ScriptedServer:
    """Answers by path:

    /status/503/7    that status, with Retry-After: 7       /problem       what `problem` holds
    /slow            nothing, until the client leaves        /reset         half of the head, then a reset
    /half            half of the body, then the end          /drip          a byte of the body each 10 ms, without end
    /big             as many bytes as `big_bytes`            /garbage       what is no HTTP
    /moved           302 to `location`                       /packed        a body that says it is gzip
    any other        200 and a small body

    `healthy` False: 503 for everything, the probe too. `probe_status` answers HEAD.
    """

    tls: ssl.SSLContext | None = None
    healthy: bool = True
    probe_status: int = 200
    location: str = "/ok"
    big_bytes: int = 2**20
    problem: tuple[int, bytes] = (503, b"{}")
    headers: dict[str, str] = field(default_factory=dict)
    """Added to every answer."""

    port: int = 0

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        self.asked: list[Asked] = []
        self.working = 0
        self.connections: set[asyncio.StreamWriter] = set()
        self.opened = 0
        self._server: asyncio.Server | None = None

    def counts(self) -> Counter[str]:
        return Counter(asked.method for asked in self.asked)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, sock=self.listener, ssl=self.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self.connections):
            writer.transport.abort()
        while self.connections:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        self.opened += 1
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self._body(reader, headers)
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        return await self._answer(asked, reader, writer)

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
            return body
        return await reader.readexactly(int(headers.get("content-length", "0")))

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        parts = asked.path.strip("/").split("/")
        kind = parts[0] if asked.method != "HEAD" and self.healthy else ""
        match kind:
            case "status":
                extra = {"retry-after": parts[2]} if len(parts) > 2 else {}
                self._write(writer, int(parts[1]), BODY, extra)
            case "problem":
                self._write(writer, *self.problem, {"content-type": "application/problem+json"})
            case "slow":
                await self._work(reader)
                return False
            case "reset":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-")
                await writer.drain()
                return self._reset(writer)
            case "half":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                await writer.drain()
                return False
            case "drip":
                await self._drip(writer)
            case "big":
                self._write(writer, 200, b"x" * self.big_bytes, {})
                await writer.drain()
            case "garbage":
                writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
                await writer.drain()
                return False
            case "moved":
                self._write(writer, 302, b"", {"location": self.location})
            case "packed":
                self._write(writer, 200, b"\x1f\x8b", {"content-encoding": "gzip"})
            case _:
                status = 503 if not self.healthy else self.probe_status if asked.method == "HEAD" else 200
                self._write(writer, status, b"" if asked.method == "HEAD" else BODY, {})
        return True

    def _write(self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **headers}.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def _work(self, reader: asyncio.StreamReader) -> None:
        """Work on a call until its client leaves."""
        self.working += 1
        try:
            with contextlib.suppress(OSError):
                await reader.read(1)
        finally:
            self.working -= 1

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            if writer.is_closing():
                raise ConnectionResetError
            await asyncio.sleep(0.01)

    def _reset(self, writer: asyncio.StreamWriter) -> bool:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        return False
