"""A node of this process on a server of ours, with its store in files; and what it holds for its clients."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from served import Answer, Served, get, post, serving

from outlast.http import Limits
from outlast.streams import Node, Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from outlast.http._server.connection import Connection

STREAM = "/v1/stream/"
DESCRIPTORS = Path("/proc/self/fd")
BYTES = "application/octet-stream"


@dataclass
class AtWork:
    """A node that is served."""

    node: Node
    served: Served

    @property
    def streams(self) -> Streams:
        return self.node.streams

    @property
    def connections(self) -> list[Connection]:
        """The connections of the server."""
        host = self.served.server._host
        assert host is not None
        return host.connections

    @property
    def requests(self) -> int:
        """How many requests the node was called for."""
        return self.served.server._tally.requests

    @property
    def readers(self) -> int:
        """How many wait at the tail of a stream, or follow one."""
        return sum(each.readers for each in self.node.served.known())

    @property
    def held(self) -> dict[str, int]:
        """What is held while clients wait: their connections, the tasks, the descriptors, those who wait at a tail."""
        return {
            "connections": self.served.open,
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(list(DESCRIPTORS.iterdir())),
            "followers": self.streams._followers.count,
            "reads": len(self.node.pieces),
            "readers": self.readers,
        }

    async def ask(self, method: str, target: str, *headers: str, body: bytes | None = None) -> Answer:
        """Return the answer to one request, on a connection of its own."""
        path = STREAM + target
        request = (
            get(path, *headers, method=method)
            if body is None
            else post(body, *headers, path=path).replace(b"POST", method.encode(), 1)
        )
        async with await self.served.connect() as client:
            client.send(request)
            return await client.answer()

    async def create(self, name: str, content_type: str = BYTES) -> None:
        assert (await self.ask("PUT", name, f"Content-Type: {content_type}")).status == 201

    def begin(self, request: bytes) -> socket.socket:
        """Send a request whose answer nobody of this process reads yet; the kernel takes the connection."""
        sock = socket.create_connection(("127.0.0.1", self.served.server.port))
        sock.sendall(request)
        return sock


def reset(sock: socket.socket) -> None:
    """Close a socket so that the other side finds a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@asynccontextmanager
async def at_work(folder: Path | Streams, *, limits: Limits | None = None, **options: Any) -> AsyncIterator[AtWork]:
    """Serve a node of a store; `options` are those of the node."""
    async with folder if isinstance(folder, Streams) else Streams(folder) as streams:
        node = Node(streams, **options)
        async with serving(node, limits=limits or Limits(connections_per_client_max=None)) as served:
            yield AtWork(node, served)
