"""What the tests of the paths beside the protocol share: a node on a disk in memory, and requests one by one, without sockets."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from store_parts import opened

from asgi_exchange import Exchange
from outlast import Stop
from outlast.streams import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fake_files import FakeFiles


class Asker:
    """Asks a node, as a server with a service around it would. A body is sent as JSON, unless it is bytes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.stop = Stop()

    def begin(self, method: str, target: str, body: object = b"") -> tuple[Exchange, asyncio.Task[Exchange]]:
        """Begin a request: its client waits, until it leaves."""
        path, _, query = target.partition("?")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = Exchange(method, path, {"content-type": "application/json"}, body=data, extensions={"outlast.stop": self.stop})
        exchange.scope["query_string"] = query.encode()
        return exchange, asyncio.create_task(exchange.run(self.node))

    async def __call__(self, method: str, target: str, body: object = b"") -> Exchange:
        return await self.begin(method, target, body)[1]

    async def json(self, method: str, target: str, body: object = b"", status: int = 200) -> Any:
        """Return what is answered with this status."""
        exchange = await self(method, target, body)
        assert exchange.status == status, exchange.body
        assert exchange.headers["cache-control"] == "no-store"
        if status == 204:
            assert exchange.body == b""
            return None
        return exchange.json

    async def make(self, name: str, records: list[bytes], **headers: str) -> None:
        """Make a stream by the protocol, with records of bytes."""
        exchange = Exchange("PUT", f"/v1/stream/{name}", headers)
        await exchange.run(self.node)
        assert exchange.status == 201, exchange.body
        if records:
            await (await self.node.streams.open(name)).append(records)

    async def problem(self, method: str, target: str, body: object = b"") -> tuple[int, str]:
        """Return the status and the code of a refusal."""
        exchange = await self(method, target, body)
        assert exchange.headers["content-type"] == "application/problem+json", exchange.body
        found = exchange.json
        assert found["status"] == exchange.status
        assert found["detail"]
        return exchange.status, found["code"]


def path_of(name: str, *more: str) -> str:
    return "/".join(["/v1/streams", quote(name, safe=""), *more])


@asynccontextmanager
async def asking(files: FakeFiles, *folders: str, **options: Any) -> AsyncIterator[Asker]:
    async with opened(files, *folders, **options) as streams:
        yield Asker(Node(streams, rng=Random(1)))
