"""For how long the whole process stood still: stopped by SIGSTOP, in a frozen cgroup, on a suspended machine."""

from __future__ import annotations

import time
from typing import Final

from outlast._runtime.service.clock import Clock

BEAT_S: Final = 0.25
STANDSTILL_S: Final = 1.0
"""Four beats of the thread that were left out: starved it would be late, but not by so much."""


class Standstill(Clock):
    """Measures it by a thread that beats, and leaves it out of the time that a stop goes by.

    Only that thread calls `beat`; any thread may read. It has no lock: each field is written by one thread, in an order in which
    whoever reads in between counts a standstill at most twice, for an instant.
    """

    def __init__(self) -> None:
        self.began = False
        self._beat_at = 0.0
        self._stood_still_s = 0.0

    def begin(self, now: float) -> None:
        """Measure from now on, on the monotonic clock: nothing is timed before, and nobody wakes the thread."""
        self._beat_at = now
        self.began = True

    def now(self) -> float:
        """Return the event loop's time without the standstill, which counts for no deadline."""
        silent_s = time.monotonic() - self._beat_at if self.began else 0.0
        return super().now() - self._stood_still_s - (silent_s if silent_s > STANDSTILL_S else 0.0)

    def beat(self) -> float:
        """Note that the process moves; return for how many seconds it did not since the last beat."""
        if not self.began:
            return 0.0
        now = time.monotonic()
        silent_s = now - self._beat_at
        still_s = silent_s if silent_s > STANDSTILL_S else 0.0
        self._stood_still_s += still_s
        self._beat_at = now
        return still_s
