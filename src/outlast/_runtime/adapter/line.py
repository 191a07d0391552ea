"""A line of tasks that wait for something, first come, first served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._runtime.service.stop import Stop

T = TypeVar("T")


class Line(Generic[T]):
    """Waiters of one event loop. A thing that is given to a waiter reaches it, or comes back: nothing is lost in between.

    `returned` is called with what was given to a waiter that was cancelled in the same instant. How many may wait is for the
    owner to bound. On the event loop's thread only, except for `len`.
    """

    def __init__(self, returned: Callable[[T], None]) -> None:
        self._returned = returned
        self._waiters: dict[asyncio.Future[T], None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self) -> asyncio.Future[T]:
        """Take the last place in the line; whoever joins must `wait`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters[future] = None
        return future

    async def wait(
        self,
        future: asyncio.Future[T],
        timeout_s: float | None,
        too_late: Callable[[], Exception] = TimeoutError,
        stop: Stop | None = None,
    ) -> T:
        """Return what is given to this waiter; raise what it is refused with, or `too_late()` after `timeout_s` seconds.

        Raises `Stopping` when `stop` is fired. Cancelled, it leaves the line.
        """
        timer = None
        if timeout_s is not None:
            timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, future, too_late)
        try:
            return await (future if stop is None else stop.until(future))
        except asyncio.CancelledError:
            # The cancellation may have come in the instant after the gift: asking for the exception also marks it as seen.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._returned(future.result())
            raise
        finally:
            self._waiters.pop(future, None)
            if timer is not None:
                timer.cancel()

    def give(self, thing: T) -> bool:
        """Hand `thing` to the first in line; return False when nobody waits."""
        while self._waiters:
            future = self._first()
            if not future.done():
                future.set_result(thing)
                return True
        return False

    def refuse(self, error: Callable[[], BaseException], count: int | None = None) -> None:
        """Raise an error of its own in the first `count` waiters, or in all."""
        left = len(self._waiters) if count is None else count
        while self._waiters and left > 0:
            future = self._first()
            if not future.done():
                future.set_exception(error())
                left -= 1

    def _first(self) -> asyncio.Future[T]:
        future = next(iter(self._waiters))
        del self._waiters[future]
        return future

    def _expire(self, future: asyncio.Future[T], too_late: Callable[[], Exception]) -> None:
        if not future.done():
            future.set_exception(too_late())
