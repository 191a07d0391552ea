"""A way from a client of httpx2 to a node in the same event loop: requests as ASGI has them, answers piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2

from outlast import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Pieces(httpx2.AsyncByteStream):
    """The body of an answer. To close it is to leave."""

    def __init__(self, queue: asyncio.Queue[bytes | None], task: asyncio.Task[None], left: asyncio.Event) -> None:
        self.queue = queue
        self.task = task
        self.left = left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self.queue.get()) is not None:
            yield piece
        if self.task.done() and not self.task.cancelled() and self.task.exception() is not None:
            raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")

    async def aclose(self) -> None:
        self.left.set()
        if not self.task.done():
            # A server cancels the handler of a client that has gone.
            self.task.cancel()
            await asyncio.wait({self.task})


class NodeTransport(httpx2.AsyncBaseTransport):
    """Answers each request by an ASGI application."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.stop = Stop()
        self.requests: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        self.requests.append((request.method, str(request.url)))
        head: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        left = asyncio.Event()
        sent = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if sent:
                return sent.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                head.set_result(message)
            else:
                queue.put_nowait(message.get("body", b"") or b"")
                if not message.get("more_body", False):
                    queue.put_nowait(None)

        raw = request.url.raw_path
        path, _, query = raw.partition(b"?")
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "raw_path": path,
            "query_string": query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": "http",
            "extensions": {"outlast.stop": self.stop},
        }

        async def run() -> None:
            try:
                await self.app(scope, receive, send)
            finally:
                queue.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            await asyncio.wait({task, head}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not head.done():
            task.result()
            raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
        message = head.result()
        return httpx2.Response(message["status"], headers=message["headers"], stream=Pieces(queue, task, left))
