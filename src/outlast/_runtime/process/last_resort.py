"""The thread that ends the process when nothing else can."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Final

from outlast._core.phases import EXIT_FORCED
from outlast._runtime.process import offspring
from outlast._runtime.process.log import last_line
from outlast._runtime.process.stacks import thread_stack
from outlast._runtime.process.standstill import BEAT_S
from outlast.logs._last_words import bounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._runtime.process.signal_pipe import SignalPipe
    from outlast._runtime.process.standstill import Standstill

OVERTIME_SHARE: Final = 0.05
"""The share of the deadline after which the last resort acts: phases end by themselves at the deadline."""
OVERTIME_S_MIN: Final = 0.1
JOIN_S: Final = 1.0
KILL_S: Final = 5.0
"""At most so long thousands of child processes are looked for before the process leaves."""
CLOSE: Final = 0
WAKE: Final = 255
"""Numbers in the pipe that are no signals': end the thread; look at the time."""


class LastResort:
    """Ends the process with exit code 75 when its stop has not ended it within `deadline_s` and 5 %.

    Its thread sees each number in `pipe` as it arrives, passes it to `arrived`, and beats for `standstill`.
    """

    def __init__(self, name: str, deadline_s: float, standstill: Standstill, arrived: Callable[[int], None]) -> None:
        """Start nothing yet. `arrived` is called in the thread, and must be quick."""
        self._name = name
        self._deadline_s = deadline_s
        self._standstill = standstill
        self._arrived = arrived
        self._leave_at: float | None = None
        """On the monotonic clock. `begin` sets it, in whichever thread sees first that the stop begins (if two do at once, to the
        same time but for an instant); after that the thread alone moves it."""
        self._leave_code = EXIT_FORCED
        self._main_id = 0
        self._pipe: SignalPipe | None = None
        self._thread: threading.Thread | None = None

    def start(self, pipe: SignalPipe) -> None:
        """Start the thread. Call it on the main thread, whose place is named when the process is ended."""
        self._pipe, self._main_id = pipe, threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(pipe,), name="outlast last resort", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None and self._pipe is not None:
            self._pipe.ring(CLOSE)
            self._thread.join(timeout=JOIN_S)

    def begin(self) -> None:
        """Let the deadline run from now, unless it does. From any thread."""
        if self._leave_at is not None:
            return
        now = time.monotonic()
        self._leave_at = now + self._deadline_s + max(OVERTIME_S_MIN, OVERTIME_SHARE * self._deadline_s)
        if self._pipe is not None:
            # From now on it matters whether the process stands still: the thread may not have moved yet.
            self._standstill.begin(now)
            self._pipe.ring(WAKE)

    def leave_in(self, seconds: float, exit_code: int) -> None:
        """End the process in so many seconds, with that exit code. In the thread."""
        self._leave_at, self._leave_code = time.monotonic() + seconds, exit_code

    def left_s(self) -> float:
        """Return how many seconds are left before it acts; infinite before the stop."""
        return float("inf") if self._leave_at is None else self._leave_at - time.monotonic()

    def _watch(self, pipe: SignalPipe) -> None:
        while True:
            wait_s = None if self._leave_at is None else max(0.0, min(BEAT_S, self.left_s()))
            readable, _, _ = select.select([pipe.fd], [], [], wait_s)
            self._beat()
            if readable:
                for number in pipe.read():
                    if number == CLOSE:
                        return
                    self._arrived(number)
                self._beat()
            if self.left_s() <= 0:
                # Looked at again: the process may have stood still since the last beat.
                self._beat()
                if self.left_s() <= 0:
                    leave(self._leave_code, f"{self._name} did not end within {self._deadline_s:g} s", self._main_id)

    def _beat(self) -> None:
        still_s = self._standstill.beat()
        if self._leave_at is not None:
            self._leave_at += still_s


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
