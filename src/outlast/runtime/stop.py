"""The end of a service: its state and its cancel token in one object, changed in one step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from outlast.core.faults import Fault, Kind, OutlastError, attach

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Stopping(OutlastError):  # noqa: N818 - it is not an error: it ends a wait because the service ends
    """Raised out of a wait because the service is stopping. Let it pass: it ends a loop quietly."""

    def __init__(self, reason: str) -> None:
        """Carry the reason of the stop; the fault attached to it is of kind `STOPPING`."""
        super().__init__(f"stopping: {reason}")
        self.reason = reason
        attach(self, Fault(Kind.STOPPING, "stopping", reason))


class Stop:
    """Whether, why and since when a service is stopping. Every loop and task is given one.

    `requested`, `reason` and the waking of everyone who waits happen in one step: there is no moment in
    which one is visible and the other is not. Firing twice is the same as firing once. Use it on the event
    loop's thread; from another thread, `loop.call_soon_threadsafe(stop.fire, reason)`.
    """

    def __init__(self) -> None:
        """Start out with nothing requested."""
        self.reason: str | None = None
        self.at: float | None = None
        """When it was fired, on the event loop's clock."""
        self._parked: set[asyncio.Future[Any]] = set()
        self._callbacks: dict[object, Callable[[Stop], None]] = {}

    @property
    def requested(self) -> bool:
        """Whether the service is to end."""
        return self.reason is not None

    def __repr__(self) -> str:
        """Show the state, for logs."""
        return f"<Stop {'requested: ' + self.reason if self.reason is not None else 'not requested'}>"

    def fire(self, reason: str) -> None:
        """Request the stop and wake everyone who waits for it. Only the first call counts."""
        if self.reason is not None:
            return
        self.reason = reason
        self.at = asyncio.get_running_loop().time()
        parked, self._parked = self._parked, set()
        for future in parked:
            if not future.done():
                future.set_exception(Stopping(reason))
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            callback(self)

    def on_fire(self, callback: Callable[[Stop], None]) -> Callable[[], None]:
        """Call `callback` when the stop is fired: at once if that has happened.

        Gives back a function that takes the callback off the list.
        """
        if self.reason is not None:
            callback(self)
            return lambda: None
        key = object()
        self._callbacks[key] = callback

        def forget() -> None:
            self._callbacks.pop(key, None)

        return forget

    async def until(self, future: asyncio.Future[T]) -> T:
        """Await `future`, or raise `Stopping` as soon as the stop is fired.

        The stop fails the future itself: pass one that nobody else awaits.
        """
        if self.reason is not None:
            raise Stopping(self.reason)
        self._parked.add(future)
        try:
            return await future
        finally:
            self._parked.discard(future)

    async def wait(self) -> None:
        """Return when the stop is fired; at once if it has been."""
        try:
            await self.until(asyncio.get_running_loop().create_future())
        except Stopping:
            return

    async def sleep(self, seconds: float) -> None:
        """Sleep, and raise `Stopping` at once when the stop is fired meanwhile or has been."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        handle = loop.call_later(seconds, _wake, future)
        try:
            await self.until(future)
        finally:
            handle.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
