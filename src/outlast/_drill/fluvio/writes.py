"""The writes of a process, counted from outside: the kernel's count of its write calls, less the lines that it wrote."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from outlast._drill.lab.arm.instance import Instance

if TYPE_CHECKING:
    from pathlib import Path

    from outlast._drill.fluvio.producers import Producers
    from outlast._drill.lab.arm.process import ServiceProcess

TIMES_MAX: Final = 2_000_000


class WriteCount:
    """Counts the write calls of a process that went to its disk. Sockets are written to by other calls; a line is one call."""

    def __init__(self, process: ServiceProcess) -> None:
        self.attempts: deque[float] = deque(maxlen=TIMES_MAX)
        """The time of the sample that found each of them."""
        self.attempt_count = 0
        self._process = process

    def sample(self) -> int:
        """Count up to now; return the number."""
        more = self._process.write_calls() - self._process.output.lines_total - self.attempt_count
        if more > 0:
            self.attempts.extend([time.monotonic()] * more)
            self.attempt_count += more
        return self.attempt_count


class LogInstance(Instance):
    """An arm's process, with its writes, its memory over time, and what its clients were told."""

    def __init__(self, process: ServiceProcess, producers: Producers, work_log: Path) -> None:
        """Record `process`, whose clients are `producers`."""
        self.writes = WriteCount(process)
        super().__init__(process, self.writes, work_log)
        self.memory: list[tuple[float, int]] = []
        """(time, bytes resident)."""
        self._producers = producers

    def refresh(self) -> None:
        """Sample the process and its clients."""
        super().refresh()
        self.writes.sample()
        self.memory.append((time.monotonic(), self.process.rss_bytes))
        self.stored = len(self._producers.notes.acknowledged_s)
        self.refused = len(self._producers.notes.refused_s)

    def growth_mib(self, from_s: float) -> float:
        """Return how much its memory grew, at the most, after that time."""
        before = [size for at_s, size in self.memory if at_s <= from_s]
        after = [size for at_s, size in self.memory if at_s > from_s]
        return (max(after, default=0) - before[-1]) / 2**20 if before and after else 0.0
