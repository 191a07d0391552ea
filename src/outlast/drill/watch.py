"""Watches one arm while it runs: processor time, memory, work log and rates, ten times a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast.drill.observer import Observer, Sample
from outlast.drill.worklog import Step, WorkLogReader, WorkRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.drill.process import ServiceProcess

_TICK_S = 0.1
_SHOW_EVERY_S = 0.25


@dataclass(slots=True)
class _Totals:
    """Running totals at one moment, from which rates are made."""

    at_s: float
    lines: int
    attempts: int
    jobs: int
    cpu_s: float


class Watch:
    """Reads what an arm does, in a thread of its own, and tells an observer the rates."""

    def __init__(
        self, arm: str, process: ServiceProcess, log: WorkLogReader, attempts: Callable[[], int], observer: Observer
    ) -> None:
        """Watch `process` and its work log; `attempts` is the proxy's count of connection attempts."""
        self.records: list[WorkRecord] = []
        self.loops_seen: set[int] = set()
        self._ends = 0
        self._arm = arm
        self._process = process
        self._log = log
        self._attempts = attempts
        self._observer = observer
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._shown = self._totals()
        self._thread = threading.Thread(target=self._run, name="drill-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Read what is left and end."""
        self._stop.set()
        self._thread.join()
        self.refresh()

    def ended(self) -> int:
        """How many jobs have been worked to their end."""
        return self._ends

    def refresh(self) -> None:
        """Read the work log up to now."""
        with self._lock:
            for record in self._log.read_new():
                self.records.append(record)
                if record.step is Step.END:
                    self._ends += 1
                    self.loops_seen.add(record.loop)

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            self._process.sample()
            self.refresh()
            if time.monotonic() - self._shown.at_s >= _SHOW_EVERY_S:
                self._show()

    def _totals(self) -> _Totals:
        cpu_s = self._process.sample()
        return _Totals(time.monotonic(), self._process.output.lines_total, self._attempts(), self._ends, cpu_s)

    def _show(self) -> None:
        before, now = self._shown, self._totals()
        self._shown = now
        passed_s = now.at_s - before.at_s
        sample = Sample(
            lines_per_s=(now.lines - before.lines) / passed_s,
            attempts_per_s=(now.attempts - before.attempts) / passed_s,
            jobs_per_s=(now.jobs - before.jobs) / passed_s,
            cpu_percent=100.0 * (now.cpu_s - before.cpu_s) / passed_s,
            rss_mib=self._process.rss_peak_bytes / 2**20,
        )
        self._observer.arm_sample(self._arm, sample)
