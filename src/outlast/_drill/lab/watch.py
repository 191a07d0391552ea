"""Watches the processes of one arm while they run, ten times a second, and reports the rates to an observer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from outlast._drill.lab.observer import Observer, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast._drill.lab.arm.instance import Instance

_TICK_S = 0.1
_SHOW_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class _Totals:
    """Running totals at one moment, from which rates are made."""

    at_s: float
    lines: int
    attempts: int
    cpu_s: float
    jobs: int
    changes: int
    stored: int
    refused: int


class Watch:
    """A thread that refreshes the instances of an arm; a context manager."""

    def __init__(self, arm: str, instances: Sequence[Instance], observer: Observer) -> None:
        self._arm = arm
        self._instances = instances
        self._observer = observer
        self._stop = threading.Event()
        self._shown = self._totals()
        self._thread = threading.Thread(target=self._run, name="drill-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            for instance in self._instances:
                instance.refresh()
            if time.monotonic() - self._shown.at_s >= _SHOW_EVERY_S:
                self._show()

    def _totals(self) -> _Totals:
        now_s, each = time.monotonic(), self._instances
        return _Totals(
            at_s=now_s,
            lines=sum(instance.process.output.lines_total for instance in each),
            attempts=sum(instance.attempts.attempt_count for instance in each),
            cpu_s=sum(instance.cpu_s(now_s) for instance in each),
            jobs=sum(instance.jobs for instance in each),
            changes=sum(instance.changes for instance in each),
            stored=sum(instance.stored for instance in each),
            refused=sum(instance.refused for instance in each),
        )

    def _show(self) -> None:
        before, now = self._shown, self._totals()
        self._shown = now
        passed_s = now.at_s - before.at_s
        sample = Sample(
            lines_per_s=(now.lines - before.lines) / passed_s,
            attempts_per_s=(now.attempts - before.attempts) / passed_s,
            cpu_percent=100.0 * (now.cpu_s - before.cpu_s) / passed_s,
            jobs_per_s=(now.jobs - before.jobs) / passed_s,
            changes_per_s=(now.changes - before.changes) / passed_s,
            stored_per_s=(now.stored - before.stored) / passed_s,
            refused_per_s=(now.refused - before.refused) / passed_s,
        )
        self._observer.arm_sample(self._arm, sample)
