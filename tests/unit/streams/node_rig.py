"""What the tests of the node share: a node on a disk in memory, and its requests one by one, without sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from store_parts import disk_in_memory, opened

from asgi_exchange import Exchange
from outlast import Stop
from outlast.http import ProblemMiddleware
from outlast.streams import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from outlast.streams import Streams

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}


def offset(position: int) -> str:
    return f"{position:016d}"


class Open:
    """A request under way, and its client."""

    def __init__(self, exchange: Exchange, task: asyncio.Task[Exchange]) -> None:
        self.exchange = exchange
        self.task = task

    @property
    def cut(self) -> bool:
        """Whether the server broke the answer off."""
        return bool(self.exchange.scope["cuts"])

    async def leave(self) -> None:
        self.exchange.leave()
        await asyncio.wait({self.task})


class Rig:
    """A node, with what a server puts around it."""

    def __init__(self, node: Node, streams: Streams) -> None:
        self.node = node
        self.streams = streams
        self.stop = Stop()
        self.app = ProblemMiddleware(node)

    def begin(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Open:
        """Begin a request; `target` is what is behind `/v1/stream/`, query and all, as it is sent."""
        path, _, query = f"/v1/stream/{target}".partition("?")
        exchange = Exchange(method, path, headers, body=body)
        exchange.scope["query_string"] = query.encode()
        exchange.scope["cuts"] = cuts = list[bool]()

        def abort() -> None:
            cuts.append(True)

        exchange.scope["extensions"] = {"outlast.stop": self.stop, "outlast.abort": abort}
        return Open(exchange, asyncio.create_task(exchange.run(self.app)))

    async def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Exchange:
        """Return the whole answer to a request."""
        return await self.begin(method, target, headers, body).task

    async def put(self, target: str, headers: Mapping[str, str] = TEXT, body: bytes = b"") -> Exchange:
        exchange = await self.ask("PUT", target, headers, body)
        assert exchange.status == 201, exchange.body
        return exchange

    async def post(self, target: str, body: bytes, headers: Mapping[str, str] = TEXT) -> Exchange:
        exchange = await self.ask("POST", target, headers, body)
        assert exchange.status in {200, 204}, exchange.body
        return exchange

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Exchange:
        return await self.ask("GET", target, headers)


@asynccontextmanager
async def serving(files: Any = None, **options: Any) -> AsyncIterator[Rig]:
    """Serve a store; `options` are those of the node."""
    async with opened(files or disk_in_memory()) as streams:
        yield Rig(Node(streams, rng=Random(1), **options), streams)
