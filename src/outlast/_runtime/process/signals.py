"""What signals mean to a service that is a process, and the thread that ends the process when nothing else can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from outlast._core.phases import EXIT_FORCED, EXIT_QUIT
from outlast._runtime.process import offspring
from outlast._runtime.process.log import last_line
from outlast._runtime.process.stacks import thread_stack
from outlast.logs._last_words import bounded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

STOPPED_BY: Final = (signal.SIGTERM, signal.SIGINT)
OVERTIME_SHARE: Final = 0.05
"""The share of the deadline after which the last resort acts: phases end by themselves at the deadline."""
OVERTIME_S_MIN: Final = 0.1
BEAT_S: Final = 0.25
STANDSTILL_S: Final = 1.0
"""Four beats of the thread that were left out: starved it would be late, but not by so much."""
QUIT_S: Final = 1.0
"""SIGQUIT is carried out by the main thread; if that does not get to it in a second, by the last resort."""
KILL_S: Final = 5.0
"""At most so long thousands of child processes are looked for before the process leaves."""


class Signals:
    """TERM and INT stop the service, a second one hurries it, QUIT ends the process at once with exit code 131.

    Its thread sees a signal as soon as it arrives, also while the main thread is blocked, and ends the process with exit code
    75 when the stop has not ended it within `deadline_s` and 5 %. `on_signal` is called on the event loop. Only for the
    main thread; elsewhere nothing is installed.
    """

    def __init__(self, name: str, deadline_s: float, on_signal: Callable[[signal.Signals], None]) -> None:
        """Install nothing yet."""
        self.name = name
        self.deadline_s = deadline_s
        self.arrived_at: float | None = None
        """When the first TERM or INT arrived, on the monotonic clock."""
        self._on_signal = on_signal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[signal.Signals, object] = {}
        self._main_id = 0
        self._leave_at: float | None = None
        self._beat_at: float | None = None
        self._stood_still_s = 0.0
        self._leave_code = EXIT_FORCED
        self._wakeup_before = -1
        self._read = self._write = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Install the handlers for the running event loop, and start the thread."""
        self._loop = asyncio.get_running_loop()
        self._main_id = threading.get_ident()
        if threading.current_thread() is not threading.main_thread():
            return
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in STOPPED_BY:
            self._before[number] = signal.signal(number, self._stop)
        self._before[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, self._quit)
        self._thread = threading.Thread(target=self._watch, name="outlast last resort", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the handlers off again, and end the thread."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal() gave us
        self._before = {}
        if self._thread is not None:
            signal.set_wakeup_fd(self._wakeup_before, warn_on_full_buffer=False)
            os.write(self._write, b"\0")
            self._thread.join(timeout=QUIT_S)
            self._thread = None
            for descriptor in (self._read, self._write):
                os.close(descriptor)

    def stood_still_s(self) -> float:
        """For how many seconds, since the stop began, not even the thread has moved: the whole process was stopped."""
        still_s, beat_at = self._stood_still_s, self._beat_at
        silent_s = 0.0 if beat_at is None else time.monotonic() - beat_at
        return still_s + (silent_s if silent_s > STANDSTILL_S else 0.0)

    def left_s(self) -> float:
        """How many seconds are left before the last resort acts; infinite before the stop."""
        return float("inf") if self._leave_at is None else self._leave_at - time.monotonic()

    def stopping(self) -> None:
        """Let the deadline run from now: the stop has begun, whoever asked for it."""
        if self._leave_at is None:
            self._begin(time.monotonic())
            self._ring()

    def _begin(self, now: float) -> None:
        """Let the deadline run, and look from now on whether the process stands still: the thread may not have moved yet."""
        self._beat_at = now
        self._leave_at = now + self.deadline_s + max(OVERTIME_S_MIN, OVERTIME_SHARE * self.deadline_s)

    # On the main thread, between two bytecodes.

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(number))

    def _quit(self, _number: int, _frame: FrameType | None) -> None:
        leave(EXIT_QUIT, f"{self.name} left at once on SIGQUIT: nothing was drained, flushed or closed", self._main_id)

    # In the thread.

    def _watch(self) -> None:
        while True:
            wait_s = None if self._leave_at is None else max(0.0, min(BEAT_S, self._leave_at - time.monotonic()))
            readable, _, _ = select.select([self._read], [], [], wait_s)
            self._beat()
            if readable:
                with contextlib.suppress(BlockingIOError):
                    if not all(self._saw(number) for number in os.read(self._read, 64)):
                        return
                self._beat()
            if self._is_over():
                leave(self._leave_code, f"{self.name} did not end within {self.deadline_s:g} s", self._main_id)

    def _is_over(self) -> bool:
        """Whether the time is over; looked at again, lest the process stood still since the last beat."""
        if self._leave_at is None or time.monotonic() < self._leave_at:
            return False
        self._beat()
        return time.monotonic() >= self._leave_at

    def _beat(self) -> None:
        """Note that the process moves, and for how long it did not; that counts for no deadline."""
        if self._leave_at is None:
            # Nothing is timed yet, and nobody wakes the thread.
            return
        now = time.monotonic()
        silent_s = 0.0 if self._beat_at is None else now - self._beat_at
        # In this order: who asks in between counts the standstill at most twice, for an instant.
        if silent_s > STANDSTILL_S:
            self._leave_at += silent_s
            self._stood_still_s += silent_s
        self._beat_at = now

    def _saw(self, number: int) -> bool:
        """Take note of a signal as it arrives; False ends the thread."""
        now = time.monotonic()
        if number in STOPPED_BY:
            self.arrived_at = self.arrived_at or now
            if self._leave_at is None:
                self._begin(now)
            # The kernel may have interrupted another thread: the main thread has to wake up to run the handler.
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_nothing)
        elif number == signal.SIGQUIT:
            self._leave_at, self._leave_code = now + QUIT_S, EXIT_QUIT
        return number != 0

    def _ring(self) -> None:
        if self._thread is not None:
            # Not 0, which ends the thread, and no signal that means anything here.
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, bytes([255]))


def _nothing() -> None:
    """Only wake the event loop."""


def leave(exit_code: int, text: str, main_id: int | None = None) -> None:
    """End this process now, whatever still runs: no `finally`, no atexit. Child processes are killed first.

    Says why, and where the main thread stands if that is asked for, on stderr itself: the lock of a log handler may be
    held by what hangs. Nothing here waits for long: not for a pipe that nobody reads, and not for a lock.
    """
    # In a thread of its own, since it logs what it could not see to.
    bounded(offspring.kill_all, KILL_S)
    others = [
        f"{thread.name} in {(thread_stack(thread.ident) or ('nowhere',))[-1]}"
        for thread in threading.enumerate()
        if thread.ident not in {main_id, threading.get_ident()} and not thread.name.startswith(("outlast ", "outlast-"))
    ]
    line = f"{text}; exit code {exit_code}"
    if main_id is not None:
        line += f"; the main thread is in {' < '.join(reversed(thread_stack(main_id)[-5:]))}"
    if others:
        line += f"; other threads: {', '.join(others[:10])}"
    last_line(line)
    os._exit(exit_code)
