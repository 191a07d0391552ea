"""One blocking call of a kind at a time, in a thread: a disk that hangs holds up that thread, and nobody else."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.extend import OwnThread

T = TypeVar("T")


class StuckError(TimeoutError):
    """The call has not returned in time. It goes on, and another is not begun."""


class OneCall(Generic[T]):
    """Makes one call at a time. On the event loop's thread only.

    Who asks while it is under way shares it. An outcome that comes after everyone has gone is given to the next who asks,
    instead of another call: it is news still.
    """

    def __init__(self, thread: OwnThread, what: str) -> None:
        """`what` stands in the error: "statvfs". Several may share a thread: then each waits for the others' calls as well."""
        self._thread = thread
        self._what = what
        self._pending: asyncio.Future[T] | None = None
        self._began_at = 0.0
        self._inside = False
        """Whether the thread is in a call. It outlives a change of the event loop. The thread alone clears it, and only while
        it is set is no call begun, so it needs no lock."""

    @property
    def is_begun(self) -> bool:
        """Whether a call is under way, or has an outcome that nobody has asked for."""
        return self._inside or self._pending is not None

    async def outcome(self, function: Callable[[], T], limit_s: float) -> T:
        """Return what `function` returns, or raise what it raises; `StuckError` `limit_s` seconds after the call began."""
        loop = asyncio.get_running_loop()
        pending = self._pending
        if pending is None or pending.get_loop() is not loop:
            if self._inside:
                # It was begun by another event loop, which has ended; the clock is the same but for virtual time.
                raise self._stuck(loop)
            pending = self._begin(function, loop)
        left_s = limit_s - (loop.time() - self._began_at)
        if not pending.done():
            await asyncio.wait({pending}, timeout=max(0.0, left_s))
        if not pending.done():
            raise self._stuck(loop)
        if self._pending is pending:
            self._pending = None
        return pending.result()

    def forget(self) -> None:
        """Drop the outcome of a call that nobody has asked for: whoever comes later waits for a new one."""
        self._pending = None

    def _begin(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
        self._inside, self._began_at = True, loop.time()
        try:
            pending = self._thread.start(lambda: self._call(function))
        except RuntimeError as exc:
            # The system has no thread to spare. For whoever asks a disk that is the disk not answering.
            self._inside = False
            raise BlockingIOError(errno.EAGAIN, str(exc)) from exc
        # Nobody may be left to hear of it.
        pending.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._pending = pending
        return pending

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return function()
        finally:
            self._inside = False

    def _stuck(self, loop: asyncio.AbstractEventLoop) -> StuckError:
        return StuckError(f"{self._what} has not returned for {loop.time() - self._began_at:.1f} s")
