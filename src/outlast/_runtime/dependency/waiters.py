"""Those who wait until a dependency is usable, in the order of their coming."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._runtime.adapter.line import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._runtime.service.stop import Stop, Stopping


class Waiters:
    """A line of one event loop. On that loop's thread only, except for `len`. The owner bounds how many may join."""

    def __init__(self, *, joined: Callable[[], None], lost: Callable[[], None]) -> None:
        """`joined` is called when somebody has joined, `lost` when one that was let go is cancelled before it could go."""
        self._line: Line[bool] = Line(lambda _: lost())
        self._joined = joined

    def __len__(self) -> int:
        return len(self._line)

    async def wait(self, timeout_s: float | None, stop: Stop | None = None) -> bool:
        """Return True when it was let go, False after `timeout_s` seconds. Raises `Stopping`. Cancelled, it leaves the line."""
        future = self._line.join()
        self._joined()
        try:
            return await self._line.wait(future, timeout_s, TimeoutError, stop)
        except TimeoutError:
            return False

    def release(self, count: int) -> int:
        """Let up to `count` go, first come first served; return how many there were."""
        released = 0
        while released < count and self._line.give(True):
            released += 1
        return released

    def fail(self, stopping: Callable[[], Stopping]) -> None:
        """Send everyone away: the service ends."""
        self._line.refuse(stopping)
