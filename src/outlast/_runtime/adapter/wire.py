"""The connections that are held of a peer from one outage to the next, and ended within a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from outlast._runtime.service.stop import Stopping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator


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


class Wires(Generic[C]):
    """The wire that is in use, and those on which calls still come to their end. On one event loop at a time."""

    def __init__(self, make: Callable[[], C], *, is_own: bool = True) -> None:
        """`make` returns a new client; not `is_own`: always the user's, which is never closed here."""
        self.closings = 0
        """The number of times that all were cut: what a probe says which that ended says nothing."""
        self._make = make
        self._is_own = is_own
        self._current: Wire[C] | None = None
        self._all: set[Wire[C]] = set()

    def current(self) -> Wire[C]:
        """Return the one in use on this event loop."""
        if self._current is None or self._current.loop is not asyncio.get_running_loop():
            if self._current is not None:
                # Its event loop has ended, and it with that.
                self._all.discard(self._current)
            self._current = Wire(self._make(), is_own=self._is_own, closed=self._all.discard)
            self._all.add(self._current)
        return self._current

    @contextlib.contextmanager
    def lent(self) -> Generator[Wire[C]]:
        """Lend it for a block. Raises `Stopping` in place of what the block raises when it was cut meanwhile."""
        wire = self.current()
        wire.enter()
        try:
            yield wire
        except Exception:
            if wire.is_cut:
                raise self.closed() from None
            raise
        finally:
            wire.leave()

    def closed(self) -> Stopping:
        """Return the error of a call that our own close has ended, or refuses."""
        return Stopping("it is closed, and nothing is asked any more")

    def retire(self) -> None:
        """Use a new one from now on, unless it is the user's: the idle connections of this may be dead."""
        if self._current is not None and self._is_own:
            wire, self._current = self._current, None
            wire.retire()

    async def cut(self, limit_s: float) -> None:
        """End every wait on any of them and close them, within so long for each."""
        self.closings += 1
        self._current = None
        for wire in tuple(self._all):
            await wire.cut(limit_s)
