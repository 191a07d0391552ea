"""What a handler beside the protocol is called with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.streams._node.beside.checking import Checks
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served
    from outlast.streams._stream import Stream
    from outlast.streams._streams import Streams


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, the store, and how a stream is found in it."""

    request: Request
    store: Streams
    find: Callable[[str], Awaitable[Served]]
    """Returns the stream of that name, as the node serves it: one that has expired is not there."""
    checks: Checks
    consumer: str = ""
    """The name of the consumer that the path has."""

    async def served(self) -> Served:
        """Return the stream of the path. Raises `StreamNotFoundError` and others."""
        return await self.find(self.request.name)

    async def stream(self) -> Stream:
        """Return the stream of the path, where it is all the same how its records are served."""
        return (await self.served()).stream

    def now(self) -> float:
        """Return the time on the clock by which dependencies are kept."""
        return asyncio.get_running_loop().time()
