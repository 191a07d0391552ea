"""One arm of the coder drill, from launching its server to auditing its jobs."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import outlast
from outlast.drill.arm_figures import ArmFigures
from outlast.drill.arms.service import ArmSettings
from outlast.drill.errors import DrillCancelled, DrillError
from outlast.drill.faults import FAULTS, Outage, mend
from outlast.drill.feeder import Feeder
from outlast.drill.observer import Observer, Phase
from outlast.drill.process import ServiceProcess
from outlast.drill.target import PostgresTarget, given_target, launched_target
from outlast.drill.watch import Watch
from outlast.drill.worklog import WorkLogReader

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator

    from outlast.drill.arm_plan import ArmPlan
    from outlast.drill.result import ArmResult

START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0
"""How long an arm may take to end after SIGTERM before it is killed; longer than any default deadline in it."""


class ArmRun:
    """Carries out one `ArmPlan`."""

    def __init__(self, plan: ArmPlan, observer: Observer, cancel: threading.Event) -> None:
        """Run `plan`, telling `observer`; setting `cancel` ends it with DrillCancelled."""
        self._plan = plan
        self._observer = observer
        self._cancel = cancel

    def run(self) -> tuple[ArmResult, str]:
        """Carry the plan out; returns the result and the server's version. Nothing it started is left behind."""
        plan = self._plan
        self._phase(Phase.STARTING)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outlast-drill-")))
            target = stack.enter_context(given_target(plan.dsn) if plan.dsn else launched_target())
            plan.store.create(target.direct_dsn)
            settings = ArmSettings(target.proxied_dsn, plan.loops, plan.work_s, directory / "work.log", plan.seed, directory)
            process = stack.enter_context(self._start_process(settings))
            log = WorkLogReader(settings.work_log)
            watch = Watch(plan.arm, process, log, lambda: target.proxy.attempt_count, self._observer)
            stack.enter_context(_running(watch))
            feeder = Feeder(plan.store, target, plan.loops, watch.ended)
            return self._measure(target, process, watch, feeder), target.version

    def _start_process(self, settings: ArmSettings) -> ServiceProcess:
        source = str(Path(outlast.__file__).resolve().parent.parent)
        environment = {
            **settings.as_environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return ServiceProcess([sys.executable, "-m", self._plan.module], environment)

    def _measure(self, target: PostgresTarget, process: ServiceProcess, watch: Watch, feeder: Feeder) -> ArmResult:
        plan = self._plan
        try:
            feeder.start()
            self._await_all_loops(process, watch)
            self._phase(Phase.HEALTHY, plan.warmup_s)
            self._pause(plan.warmup_s)
            outage, cpu_before_s, cpu_mended_s = self._stage_fault(target, process, feeder)
            self._phase(Phase.RECOVERY, plan.cooldown_s)
            self._pause(plan.cooldown_s)
        finally:
            feeder.stop()
        fed_until_s = time.monotonic()
        self._phase(Phase.DRAINING, plan.grace_s)
        self._drain(target, process, watch)
        self._phase(Phase.STOPPING)
        term_s = time.monotonic()
        died = process.exit_code is not None
        exit_code, stop_s = process.stop(STOP_LIMIT_S)
        watch.refresh()
        with closing(target.connect()) as conn:
            audit = plan.store.audit(conn)
        cpu_percent = 100.0 * (cpu_mended_s - cpu_before_s) / (outage.mended_s - outage.began_s)
        figures = ArmFigures(plan, target, process, watch, outage, audit, feeder.enqueued, fed_until_s, term_s)
        result = figures.result(cpu_percent, None if died else stop_s, exit_code, died=died)
        self._phase(Phase.DONE)
        self._observer.arm_done(result)
        return result

    def _stage_fault(self, target: PostgresTarget, process: ServiceProcess, feeder: Feeder) -> tuple[Outage, float, float]:
        plan = self._plan
        fault = FAULTS[plan.fault]()
        if fault.harness_cut_off:
            feeder.pause()
        self._phase(Phase.OUTAGE, plan.outage_s)
        cpu_before_s = process.sample()
        began_s = time.monotonic()
        try:
            fault.begin(target)
            fault.sustain(target, began_s + plan.outage_s, self._pause, Random(plan.seed))
        finally:
            cpu_mended_s = process.sample()
            mended_s = time.monotonic()
            accepted_s = mend(fault, target, time.sleep)
        feeder.resume()
        return Outage(began_s, mended_s, accepted_s), cpu_before_s, cpu_mended_s

    def _await_all_loops(self, process: ServiceProcess, watch: Watch) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while len(watch.loops_seen) < self._plan.loops:
            if process.exit_code is not None or time.monotonic() > deadline_s:
                ended = "still runs" if process.exit_code is None else f"ended with exit code {process.exit_code}"
                last = " | ".join([*process.output.first, *process.output.last][-3:]) or "no output"
                msg = (
                    f"arm {self._plan.arm}: {len(watch.loops_seen)} of {self._plan.loops} loops did a job within"
                    f" {START_LIMIT_S:g} s of the start, and the process {ended}; its last lines: {last}"
                )
                raise DrillError(msg)
            self._pause(0.02)

    def _drain(self, target: PostgresTarget, process: ServiceProcess, watch: Watch) -> None:
        """Let the arm finish what is queued: until all is done, or nothing has moved for `grace_s`."""
        moved_s, before = time.monotonic(), (-1, -1)
        with closing(target.connect()) as conn:
            while process.exit_code is None and time.monotonic() - moved_s < self._plan.grace_s:
                now = (self._plan.store.unfinished(conn), watch.ended())
                if now[0] == 0:
                    return
                if now != before:
                    moved_s, before = time.monotonic(), now
                self._pause(0.25)

    def _pause(self, seconds: float) -> None:
        if self._cancel.wait(seconds):
            msg = "the drill was cancelled"
            raise DrillCancelled(msg)

    def _phase(self, phase: Phase, lasts_s: float | None = None) -> None:
        self._observer.arm_phase(self._plan.arm, phase, lasts_s)


@contextmanager
def _running(watch: Watch) -> Generator[None]:
    watch.start()
    try:
        yield
    finally:
        watch.stop()
