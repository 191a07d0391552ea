"""A thread that sees when the event loop stands still: a body that never awaits is named, then interrupted."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

BLOCKED_S: Final = 1.0
"""A loop that has not turned for a second is late for everything it serves."""
INTERRUPT_S: Final = 10.0
"""After ten seconds in one supervised body, the body is interrupted: the rest of the service has waited enough."""
logger = logging.getLogger("outlast")


class Spinning(BaseException):
    """Raised inside a supervised body that has blocked the event loop for too long without awaiting.

    It derives from BaseException so that a body that catches every Exception, as spinning bodies do, cannot
    swallow it. The supervisor takes it for a bug of that loop: restarted with backoff.
    """


class Watchdog:
    """Watches one event loop from a daemon thread, which looks four times a second and does nothing else.

    Interruption needs the main thread (it raises from a signal handler); elsewhere the body is only named.
    """

    def __init__(self, *, blocked_s: float = BLOCKED_S, interrupt_s: float | None = INTERRUPT_S) -> None:
        """Set the limits; `interrupt_s=None` never interrupts."""
        self.blocked_s = blocked_s
        self.interrupt_s = interrupt_s
        # Written by the event loop's thread, read by the watchdog's; `_blocked_s` the other way round. Each is one float, and a
        # value that is a look old is no error: no lock.
        self._beat_at = 0.0
        self._due_at = math.inf
        """The time of the next beat; never before `start` and after `stop`."""
        self._lag_s = 0.0
        self.late_s = 0.0
        """The seconds by which the beats of the event loop were late in all. Read from any thread, as `lag_s`."""
        self._blocked_s: float | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop_thread_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._previous: object = None
        self._interruptible = False

    def start(self) -> None:
        """Begin to watch the running event loop."""
        loop = asyncio.get_running_loop()
        self._loop_thread_id = threading.get_ident()
        self._interruptible = threading.current_thread() is threading.main_thread()
        if self._interruptible and self.interrupt_s is not None:
            self._previous = signal.signal(signal.SIGURG, self._interrupt)
        self._due_at = time.monotonic()
        self._beat(loop)
        self._thread = threading.Thread(target=self._watch, name="outlast watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch and wait for its thread, which leaves at once."""
        self._done.set()
        if self._timer is not None:
            self._timer.cancel()
            self._due_at = math.inf
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        if self._interruptible and self.interrupt_s is not None:
            signal.signal(signal.SIGURG, self._previous)  # type: ignore[arg-type] # what signal() gave us

    @property
    def blocked_for_s(self) -> float | None:
        """For how many seconds the event loop has not turned, once that is too long; None while it turns. From any thread."""
        return self._blocked_s

    @property
    def lag_s(self) -> float:
        """The seconds by which the newest beat of the event loop was late, or the next one is by now. From any thread."""
        return max(self._lag_s, time.monotonic() - self._due_at)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat_at = time.monotonic()
        self._lag_s = max(0.0, self._beat_at - self._due_at)
        self.late_s += self._lag_s
        self._due_at = self._beat_at + self.blocked_s / 2
        self._timer = loop.call_later(self.blocked_s / 2, self._beat, loop)

    def _watch(self) -> None:
        named = False
        looked_at = awake_since = time.monotonic()
        while not self._done.wait(self.blocked_s / 2):
            now = time.monotonic()
            if now - looked_at > 2 * self.blocked_s:
                # This thread stood still as well: the whole process was stopped, or starved.
                awake_since = now
            looked_at = now
            blocked_s = now - max(self._beat_at, awake_since)
            if blocked_s < self.blocked_s + self.blocked_s / 2:
                named, self._blocked_s = False, None
                continue
            self._blocked_s = blocked_s
            if not named:
                named = True
                self._name(blocked_s)
            if self._interruptible and self.interrupt_s is not None and blocked_s >= self.interrupt_s:
                signal.pthread_kill(self._loop_thread_id, signal.SIGURG)

    def _name(self, blocked_s: float) -> None:
        frame = sys._current_frames().get(self._loop_thread_id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] # documented
        where = traceback.extract_stack(frame)[-1] if frame is not None else None
        place = f"{where.filename}:{where.lineno} in {where.name}" if where is not None else "unknown place"
        logger.error(
            "the event loop has not turned for %.1f s: %s does not await; every loop of the service waits for it",
            blocked_s,
            place,
        )

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        if frame is not None and _in_supervised_body(frame):
            msg = f"interrupted after blocking the event loop for more than {self.interrupt_s:.0f} s"
            raise Spinning(msg)


def _in_supervised_body(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "metered" and frame.f_globals.get("__name__") == "outlast._runtime.service.metered":
            return True
        frame = frame.f_back
    return False
