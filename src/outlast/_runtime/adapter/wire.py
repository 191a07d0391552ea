"""The connections that are held of a peer from one outage to the next, and ended within a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class Closable(Protocol):
    """Something that has connections of its own: a pool, a client."""

    async def aclose(self) -> None:
        """End every connection."""
        ...


C = TypeVar("C", bound=Closable)


class Wire(Generic[C]):
    """A client as long as it is used: from one outage to the next, on one event loop.

    A client of our own is closed when the last call on it has ended, since the idle connections of before an outage may be dead
    without anybody having heard of it. One that the user gave is the user's to close.
    """

    def __init__(self, client: C, *, is_own: bool, closed: Callable[[Wire[C]], None]) -> None:
        self.client = client
        self.loop = asyncio.get_running_loop()
        self.is_cut = False
        """Whether the calls on it were ended by `cut`."""
        self._is_own = is_own
        self._closed = closed
        self._is_retired = False
        self._users = 0
        self._waits: set[asyncio.Timeout] = set()
        self._closing: asyncio.Task[None] | None = None

    def enter(self) -> None:
        """Use it from now on; `leave` follows."""
        self._users += 1

    def leave(self) -> None:
        """Use it no longer."""
        self._users -= 1
        self._close_if_unused()

    def retire(self) -> None:
        """Close it when nobody uses it any more."""
        self._is_retired = True
        self._close_if_unused()

    @contextlib.asynccontextmanager
    async def limit(self, seconds: float | None) -> AsyncGenerator[None]:
        """End what is awaited in the block after so long, or when it is cut; raises `TimeoutError` then."""
        if self.is_cut:
            raise TimeoutError
        async with asyncio.timeout(seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    async def cut(self, limit_s: float) -> None:
        """End every wait on it and close it, within so long."""
        self.is_cut = self._is_retired = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(self.loop.time())
        closing = self._close()
        if closing is not None:
            await asyncio.wait({closing}, timeout=limit_s)

    def _close_if_unused(self) -> None:
        if self._is_retired and self._users == 0:
            self._close()

    def _close(self) -> asyncio.Task[None] | None:
        self._closed(self)
        if self._closing is None and self._is_own:
            self._closing = self.loop.create_task(self.client.aclose(), name="outlast http close")
        return self._closing
