"""One process of an arm, with the counter of its attempts, and all that is recorded of it."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import outlast
from outlast._drill.lab import measure
from outlast._drill.lab.arm.process import ServiceProcess
from outlast._drill.lab.worklog import STREAM_LOOP, Step, WorkLogReader, WorkRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import ExitStack

    from outlast._drill.lab.arm.service import ArmSettings
    from outlast.testing import FaultProxy


class Attempts(Protocol):
    """The attempts of a process on that which fails, counted on the way there: connections by a proxy, writes by a counter."""

    @property
    def attempts(self) -> Iterable[float]:
        """The monotonic times of them."""
        ...

    @property
    def attempt_count(self) -> int:
        """Their number."""
        ...


class Instance:
    """Records what the process does: its processor time over time, its work log, how many jobs and changes that makes."""

    stored = 0
    refused = 0
    """Requests of clients, where the service has any."""

    def __init__(self, process: ServiceProcess, attempts: Attempts, work_log: Path) -> None:
        """Record `process`, whose attempts are counted by `attempts`."""
        self.process = process
        self.attempts = attempts
        self.records: list[WorkRecord] = []
        self.loops_seen: set[int] = set()
        """The loops that have done a job."""
        self.jobs = 0
        self.changes = 0
        self._cpu = [(process.started_at_s, 0.0)]
        self._log = WorkLogReader(work_log)
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Sample the process and read its work log up to now."""
        with self._lock:
            self._cpu.append((time.monotonic(), self.process.sample()))
            for record in self._log.read_new():
                self.records.append(record)
                if record.step is not Step.END:
                    continue
                if record.loop == STREAM_LOOP:
                    self.changes += 1
                else:
                    self.jobs += 1
                    self.loops_seen.add(record.loop)

    def cpu_s(self, at_s: float) -> float:
        """Return the processor seconds used until that monotonic time."""
        return measure.value_at(self._cpu, at_s)

    def ends(self, *, stream: bool) -> list[WorkRecord]:
        """Return the ends of its jobs, or the changes it received."""
        return [record for record in self.records if record.step is Step.END and (record.loop == STREAM_LOOP) is stream]


class ProxiedInstance(Instance):
    """A process that reaches its server by `proxy` only."""

    def __init__(self, process: ServiceProcess, proxy: FaultProxy, work_log: Path) -> None:
        """Record `process`."""
        super().__init__(process, proxy, work_log)
        self.proxy = proxy


def launch(stack: ExitStack, module: str, settings: ArmSettings, proxy: FaultProxy) -> ProxiedInstance:
    """Start `module` behind `proxy`; leaving `stack` kills it when it still runs."""
    return ProxiedInstance(start_module(stack, module, settings.as_environment()), proxy, settings.work_log)


def start_module(stack: ExitStack, module: str, settings: Mapping[str, str]) -> ServiceProcess:
    """Start `module` with `settings` in its environment; leaving `stack` kills it when it still runs."""
    source = str(Path(outlast.__file__).resolve().parent.parent)
    environment = {
        **settings,
        "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return stack.enter_context(ServiceProcess([sys.executable, "-m", module], environment))
