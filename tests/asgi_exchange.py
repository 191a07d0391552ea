"""One request to an ASGI application, by hand: messages in, messages out, a client that does not read or leaves."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Exchange:
    """A request, its client and what the application sent. `reads`: whether the client takes what is sent."""

    def __init__(
        self,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        extensions: dict[str, Any] | None = None,
        client: str = "192.0.2.1",
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": (client, 12345),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        if extensions is not None:
            self.scope["extensions"] = extensions
        self.sent: list[dict[str, Any]] = []
        self.asked = 0
        """How often the application has asked for a message."""
        self.before_send: Callable[[], None] = lambda: None
        self._body = [{"type": "http.request", "body": body, "more_body": False}]
        self._left = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self._body and not self._left.is_set():
            return self._body.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.before_send()
        # As uvicorn: who left is sent nothing, without an error; who does not read holds the sender up.
        while not self._reads.is_set() and not self._left.is_set():
            await asyncio.wait(
                {asyncio.ensure_future(self._reads.wait()), asyncio.ensure_future(self._left.wait())},
                return_when=asyncio.FIRST_COMPLETED,
            )
        if not self._left.is_set():
            self.sent.append(dict(message))

    def leave(self) -> None:
        self._left.set()

    def stop_reading(self) -> None:
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    async def run(self, app: Any) -> Exchange:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ended(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)


async def ok(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200 without a body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
