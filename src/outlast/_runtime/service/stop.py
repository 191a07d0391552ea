"""The end of a service: its state and its cancel token in one object, changed in one step."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from outlast._core.faults import Fault, Kind, OutlastError
from outlast._runtime.dependency.incident import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

T = TypeVar("T")
logger = logging.getLogger("outlast")


class Stopping(OutlastError):  # noqa: N818 - it is not an error: it ends a wait because the service ends
    """Raised out of a wait, or instead of taking in new work, because the service is stopping.

    Let it pass: it ends a loop quietly. A request handler answers "stopping, retry elsewhere" (HTTP 503). As the message
    of a task's `cancel` it says whose doing the cancellation is.
    """

    def __init__(self, reason: str) -> None:
        """Carry the reason of the stop; the fault attached to it is of kind `STOPPING`."""
        super().__init__(f"stopping, retry elsewhere: {reason}", Fault(Kind.STOPPING, "stopping", reason))
        self.reason = reason


class Cancellable(Protocol):
    """An asyncio task or future, as `Stop.cancel` takes it."""

    def cancel(self, msg: object = None) -> bool:
        """Cancel it; `msg` becomes the argument of the `CancelledError`."""
        ...


class Stop:
    """Whether, why and since when a service is stopping. Every loop and task is given one.

    `requested`, `reason` and the waking of everyone who waits, here and in every child, happen in one step: there is no
    moment in which one is visible and the other is not. Firing twice is the same as firing once, and who begins to wait
    afterwards is told at once.

    Use it on the event loop's thread. From other threads: `requested`, `wait_in_thread`, and `fire`, which is then carried
    out on the loop's thread once somebody has waited there.
    """

    def __init__(self, parent: Stop | None = None) -> None:
        """Start out with nothing requested; below `parent`, with what has been requested there."""
        # Set once, on the loop's thread; any thread reads it without a lock.
        self.reason: str | None = None
        self.at: float | None = None
        """The time at which it was fired, on the event loop's clock."""
        self._parent = parent
        self._children: dict[Stop, None] = {}
        self._parked: dict[asyncio.Future[Any], None] = {}
        self._callbacks: dict[object, Callable[[Stop], None]] = {}
        # For `wait_in_thread`; everything else of this object belongs to the loop's thread.
        self._event = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        if parent is not None:
            parent.adopt(self)

    @property
    def requested(self) -> bool:
        """Whether the service is to end."""
        return self.reason is not None

    def __repr__(self) -> str:
        """Show the state, for logs."""
        return f"<Stop {'requested: ' + self.reason if self.reason is not None else 'not requested'}>"

    # Firing it.

    def fire(self, reason: str) -> None:
        """Request the stop, here and in all children, and wake everyone who waits for it. Only the first call counts."""
        if self._loop is not None and threading.get_ident() != self._thread_id and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.fire, reason)
            return
        if self.reason is not None:
            return
        fired = [stop for stop in self.tree() if stop.reason is None]
        now = clock()
        for stop in fired:
            stop.at = now
            stop.reason = reason
        for stop in fired:
            stop.wake()

    def child(self) -> Stop:
        """Return a stop that is fired with this one, and can be fired alone."""
        return Stop(self)

    def detach(self) -> None:
        """Leave the parent, which forgets this one: what it stopped has ended."""
        if self._parent is not None:
            self._parent.abandon(self)

    def cancel(self, task: Cancellable, why: str = "") -> None:
        """Cancel a task so that the `CancelledError` in it says that our stop is the cause."""
        task.cancel(Stopping(why or self.reason or "not requested"))

    def on_fire(self, callback: Callable[[Stop], None]) -> Callable[[], None]:
        """Call `callback` in the step that fires the stop: at once if that has happened. It must be quick.

        What it raises is logged as a bug and goes no further. Returns a function that takes the callback off the list.
        """
        if self.reason is not None:
            callback(self)
            return lambda: None
        key = object()
        self._callbacks[key] = callback

        def forget() -> None:
            self._callbacks.pop(key, None)

        return forget

    # Waiting for it.

    async def until(self, future: asyncio.Future[T]) -> T:
        """Await `future`, or raise `Stopping` as soon as the stop is fired.

        The stop fails the future itself: pass one that nobody else awaits.
        """
        if self.reason is not None:
            # Whoever catches this and asks on must not keep the others from heeding the stop, nor itself from being cancelled.
            await asyncio.sleep(0)
            raise Stopping(self.reason)
        self._bind()
        self._parked[future] = None
        try:
            return await future
        finally:
            self._parked.pop(future, None)

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
        handle = loop.call_later(seconds, finish, future)
        try:
            await self.until(future)
        finally:
            handle.cancel()

    def timeout(self, seconds: float | None) -> StopScope:
        """Guard a block as `asyncio.timeout` does, and end it when the stop is fired as well.

            async with stop.timeout(5.0):
                await download()

        Raises `TimeoutError` when the seconds are over (None: never), `Stopping` when the stop is fired or has been. The
        block is cancelled first, so that it can clean up; what it raises instead passes unchanged.
        """
        return StopScope(self, seconds)

    def wait_in_thread(self, timeout_s: float | None = None) -> bool:
        """Block a thread until the stop is fired; False if `timeout_s` seconds pass first. Not for the loop's thread."""
        # Who was born below a fired stop has the reason, and was never woken.
        return self.reason is not None or self._event.wait(timeout_s)

    # Inside.

    def adopt(self, child: Stop) -> None:
        """Adopt a child: it is fired with this one, which may have happened."""
        if self.reason is None:
            self._children[child] = None
        else:
            child.reason, child.at = self.reason, self.at

    def abandon(self, child: Stop) -> None:
        """Forget a child."""
        self._children.pop(child, None)

    def tree(self) -> Iterator[Stop]:
        """Yield this stop and all below it."""
        yield self
        for child in tuple(self._children):
            yield from child.tree()

    def _bind(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread_id = threading.get_ident()

    def wake(self) -> None:
        """Wake everyone who waits here; `fire` has set the reason."""
        reason = self.reason or ""
        self._children = {}
        parked, self._parked = self._parked, {}
        for future in parked:
            if not future.done():
                future.set_exception(Stopping(reason))
        self._event.set()
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            try:
                callback(self)
            except Exception:
                logger.exception("a callback of the stop failed; the others go on")


class StopScope:
    """A block that ends when a stop is fired. See `Stop.timeout`."""

    def __init__(self, stop: Stop, seconds: float | None) -> None:
        """Belong to `stop`; nothing happens until it is entered."""
        self._stop = stop
        self._timeout = asyncio.timeout(seconds)
        self._fired = False
        self._cancelling = 0
        self._task: asyncio.Task[Any] | None = None
        self._forget: Callable[[], None] = lambda: None

    async def __aenter__(self) -> None:
        """Enter, or raise `Stopping` if the stop has been fired."""
        if self._stop.reason is not None:
            await asyncio.sleep(0)
            raise Stopping(self._stop.reason)
        self._task = asyncio.current_task()
        await self._timeout.__aenter__()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._forget = self._stop.on_fire(self._end)

    def _end(self, stop: Stop) -> None:
        self._fired = True
        if self._task is not None:
            stop.cancel(self._task)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Turn the cancellation into what caused it."""
        self._forget()
        await self._timeout.__aexit__(kind, exc, traceback)
        ours = self._fired and self._task is not None and self._task.uncancel() <= self._cancelling
        if ours and isinstance(exc, asyncio.CancelledError):
            raise Stopping(self._stop.reason or "") from exc


def finish(future: asyncio.Future[None]) -> None:
    """Let whoever awaits `future` go on, if nobody has yet."""
    if not future.done():
        future.set_result(None)
