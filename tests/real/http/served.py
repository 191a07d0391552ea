"""A server of ours in this process, and a client that says exactly what a test wants on a socket of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import outlast
from outlast.http import Limits, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Receive = Callable[[], Awaitable[dict[str, Any]]]

LIMIT_S = 30.0
"""How long a test waits for what has to come."""


@dataclass
class Served:
    """A server at work, in a service of its own."""

    server: Server
    service: outlast.Service
    stop: outlast.Stop
    running: asyncio.Task[int]

    @property
    def cut(self) -> dict[str, int]:
        """What the server has ended by itself, by code."""
        return dict(self.server._tally.cut)

    @property
    def open(self) -> int:
        return self.server._tally.open

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def connect(self, **more: Any) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, **more)
        return Client(reader, writer)

    async def ask(self, request: bytes) -> Answer:
        """Send one request on a connection of its own, and read its answer and the end of the stream."""
        async with await self.connect() as client:
            client.send(request)
            answer = await client.answer()
            answer.rest = await client.rest()
            return answer


@asynccontextmanager
async def serving(app: Any, *, limits: Limits | None = None, deadline_s: float = 10.0, **more: Any) -> AsyncIterator[Served]:
    """Serve `app` until the block ends; a block that ends without error must have left a server that stops cleanly."""
    service = outlast.Service("shop", deadline_s=deadline_s)
    server = Server(app, "127.0.0.1:0", limits=limits, **more).attach(service)
    if "admission" in more:
        more["admission"].attach(service)
    stop = outlast.Stop()
    running = asyncio.create_task(service.run(stop))
    await asyncio.wait({running, asyncio.ensure_future(service.until_ready())}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    served = Served(server, service, stop, running)
    try:
        yield served
    finally:
        stop.fire("the test is over")
        code = await running
    assert code == 0, served.service.report


@dataclass
class Answer:
    """One answer, as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes = b""
    """What came after it, to the end of the stream."""

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        found = json.loads(self.body)
        assert found["status"] == self.status
        assert found["request_id"] == self.headers["x-request-id"]
        return dict(found)

    @property
    def code(self) -> str:
        return str(self.problem["code"])


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bool = field(default=False)
    """Whether its answers have no bodies."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def half_close(self) -> None:
        self.writer.write_eof()

    async def answer(self) -> Answer:
        """Read one answer."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            status = int(head[0].split()[1])
            if self.head or status in {100, 204, 304}:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = b"".join([chunk async for chunk in self.chunks()])
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, headers, body)

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()

    async def rest(self) -> bytes:
        """Read to the end of the stream."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.read()


def get(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: shop", *headers, "", ""]).encode("latin-1")


def post(body: bytes = b"", *headers: str, path: str = "/") -> bytes:
    """A request with a body."""
    return get(path, f"Content-Length: {len(body)}", *headers, method="POST") + body


async def answer(send: Send, body: bytes = b"ok", *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Send a whole answer, as an application does."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Receive) -> bytes | None:
    """Read a body, as an application does; None if its client went away."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


async def hello(scope: Any, receive: Receive, send: Send) -> None:
    """An application that answers "ok", without a lifespan."""
    assert scope["type"] == "http"
    await answer(send)


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    """An application that answers with the body it was sent."""
    assert scope["type"] == "http"
    body = await body_of(receive)
    if body is not None:
        await answer(send, body)
