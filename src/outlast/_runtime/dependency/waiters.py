"""Those who wait until a dependency is usable, in the order of their coming."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._runtime.service.stop import Stop, Stopping


class Waiters:
    """A line of futures of one event loop. On that loop's thread only, but for `len`. Who may join is for others to bound."""

    def __init__(self, *, joined: Callable[[], None], lost: Callable[[], None]) -> None:
        """`joined` is called when somebody has joined, `lost` when one that was let go is cancelled before it could go."""
        self._line: dict[asyncio.Future[bool], None] = {}
        self._joined = joined
        self._lost = lost

    def __len__(self) -> int:
        return len(self._line)

    async def wait(self, timeout_s: float | None, stop: Stop | None = None) -> bool:
        """True when it was let go, False after `timeout_s` seconds. Raises `Stopping`. Cancelled, it leaves the line."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._line[future] = None
        self._joined()
        expiry = None if timeout_s is None else loop.call_later(timeout_s, _expire, future)
        try:
            return await (future if stop is None else stop.until(future))
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None and future.result():
                self._lost()
            raise
        finally:
            self._line.pop(future, None)
            if expiry is not None:
                expiry.cancel()

    def release(self, count: int) -> int:
        """Let up to `count` go, first come first served; returns how many there were."""
        released = 0
        while released < count and self._line:
            future = next(iter(self._line))
            del self._line[future]
            if not future.done():
                future.set_result(True)
                released += 1
        return released

    def fail(self, stopping: Callable[[], Stopping]) -> None:
        """Send everyone away: the service ends."""
        for future in list(self._line):
            if not future.done():
                future.set_exception(stopping())


def _expire(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
