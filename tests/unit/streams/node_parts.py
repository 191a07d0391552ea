"""What the tests of the node share: a client that calls it as an ASGI server does, without a socket."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store_parts import opened

from outlast.streams import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping, Sequence

    from fake_files import FakeFiles

GONE = b"the client has left"
"""A part of a body that never comes: the client has left instead."""

SLOW = b"a second passes"
"""A second that passes before the next part."""


@dataclass
class Got:
    """One answer. `reads`: how often the node has asked for the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    reads: int

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found

    @property
    def next(self) -> str:
        return self.headers["stream-next-offset"]


class NodeClient:
    """Calls a node. Header names are written with underscores; None leaves one out."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.host = b"node:4437"
        self.last: Got | None = None
        """The answer that came last, or is under way."""

    async def __call__(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        /,
        raw: Sequence[tuple[bytes, bytes]] = (),
        **headers: str,
    ) -> Got:
        """Send a request; a body in several parts comes in chunks, without a length."""
        parts = [body] if isinstance(body, bytes) else list(body)
        lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        if not isinstance(body, bytes):
            lines.append((b"transfer-encoding", b"chunked"))
        elif body or method in {"POST", "PUT"}:
            lines.append((b"content-length", b"%d" % len(body)))
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [(b"host", self.host), *lines, *raw],
        }
        got = self.last = Got(0, {}, b"", 0)

        async def receive() -> MutableMapping[str, Any]:
            got.reads += 1
            part = parts.pop(0) if parts else GONE
            if part is SLOW:
                await asyncio.sleep(1.0)
                part = parts.pop(0)
            if part is GONE:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                got.status = message["status"]
                got.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                assert len(got.headers) == len(message["headers"])
            else:
                got.body += message.get("body", b"")

        await self.node(scope, receive, send)
        return got

    async def put(self, name: str, body: bytes | Sequence[bytes] = b"", content_type: str = "text/plain", **headers: str) -> Got:
        return await self("PUT", f"/v1/stream/{name}", body, content_type=content_type, **headers)

    async def post(self, name: str, body: bytes | Sequence[bytes], content_type: str = "text/plain", **headers: str) -> Got:
        return await self("POST", f"/v1/stream/{name}", body, content_type=content_type, **headers)

    async def get(self, name: str, query: str = "", **headers: str) -> Got:
        return await self("GET", f"/v1/stream/{name}{query}", **headers)

    async def head(self, name: str) -> Got:
        return await self("HEAD", f"/v1/stream/{name}")


def producer(name: str, epoch: object, sequence: object) -> dict[str, str]:
    """Return the headers of a producer."""
    return {"producer_id": name, "producer_epoch": str(epoch), "producer_seq": str(sequence)}


@asynccontextmanager
async def served(
    files: FakeFiles, *folders: str, streams: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[NodeClient]:
    """Open a store and a node of it."""
    async with opened(files, *folders, **streams or {}) as store:
        yield NodeClient(Node(store, **options))
