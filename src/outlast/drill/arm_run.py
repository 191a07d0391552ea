"""One arm of the coder drill, from launching its server to auditing its jobs."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import outlast
from outlast.drill import measure
from outlast.drill.arms.service import ArmSettings
from outlast.drill.errors import DrillCancelled, DrillError
from outlast.drill.faults import FAULTS, Outage, mend
from outlast.drill.feeder import Feeder
from outlast.drill.observer import Observer, Phase
from outlast.drill.process import ServiceProcess
from outlast.drill.result import ArmResult, Timeline
from outlast.drill.target import PostgresTarget, given_target, launched_target
from outlast.drill.watch import Watch
from outlast.drill.worklog import Step, WorkLogReader

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

    from outlast.drill.stores import Audit, JobStore

START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0
"""How long an arm may take to end after SIGTERM before it is killed; longer than any default deadline in it."""

RECOVERY_PEAK_S = 5.0
"""After acceptance, the time whose busiest 100 ms of connects is reported apart."""

_BIN_STEPS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BINS_MAX = 400


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """What to run in one arm and how long each part takes."""

    arm: str
    module: str
    store: JobStore
    grace_s: float
    """How long to wait for progress, after the cool-down, before unfinished jobs are called lost."""

    fault: str
    loops: int
    work_s: float
    warmup_s: float
    outage_s: float
    cooldown_s: float
    seed: int
    dsn: str | None


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
        figures = _Figures(plan, target, process, watch, outage, audit, feeder.enqueued, fed_until_s, term_s)
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


@dataclass(slots=True)
class _Figures:
    """Everything recorded of one arm, and the figures made from it."""

    plan: ArmPlan
    target: PostgresTarget
    process: ServiceProcess
    watch: Watch
    outage: Outage
    audit: Audit
    enqueued: int
    fed_until_s: float
    term_s: float

    def result(self, cpu_percent: float, stop_s: float | None, exit_code: int | None, *, died: bool) -> ArmResult:
        """Make the arm's result."""
        output, outage = self.process.output, self.outage
        attempts = sorted(self.target.proxy.attempts)
        after_s = [time_s for time_s in attempts if outage.accepted_s <= time_s < outage.accepted_s + RECOVERY_PEAK_S]
        recovered = measure.recovery(self.watch.records, outage.accepted_ns, self.plan.loops)
        jobs = measure.account(self.enqueued, self.watch.records, self.audit.done, self.audit.waiting)
        ends_s = [record.at_ns / 1e9 for record in self.watch.records if record.step is Step.END]
        lines, size = output.between(outage.began_s, self.term_s)
        return ArmResult(
            arm=self.plan.arm,
            log_lines=lines,
            log_bytes=size,
            attempts=measure.count_between(attempts, outage.began_s, outage.accepted_s),
            cpu_s=self.process.sample(),
            cpu_outage_percent=cpu_percent,
            rss_peak_mib=self.process.rss_peak_bytes / 2**20,
            recovery_s_p50=recovered.p50_s,
            recovery_s_max=recovered.max_s,
            connects_100ms_max=measure.peak_in_window(attempts, 0.1),
            connects_100ms_max_recovery=measure.peak_in_window(after_s, 0.1),
            lost=jobs.lost,
            twice=jobs.twice,
            loops=self.plan.loops,
            loops_recovered=recovered.loops_recovered,
            loops_dead=self.plan.loops if died else self.plan.loops - recovered.loops_recovered,
            jobs_before=measure.count_between(ends_s, 0.0, outage.began_s),
            jobs_during=measure.count_between(ends_s, outage.began_s, outage.accepted_s),
            jobs_after=measure.count_between(ends_s, outage.accepted_s, float("inf")),
            jobs_enqueued=self.enqueued,
            lines_outage=output.between(outage.began_s, outage.accepted_s)[0],
            lines_total=output.lines_total,
            attempts_total=self.target.proxy.attempt_count,
            outage_s=outage.mended_s - outage.began_s,
            work_s=self.plan.work_s,
            exit_code=exit_code,
            stop_s=stop_s,
            fed_until_s=self.fed_until_s - outage.began_s,
            timeline=self._timeline(attempts, ends_s),
            log_first=tuple(output.first),
            log_last=tuple(output.last),
            notes=tuple(self._notes(jobs, died=died)),
        )

    def _notes(self, jobs: measure.Account, *, died: bool) -> Iterator[str]:
        if died:
            after_s = (self.process.ended_at_s or self.term_s) - self.outage.began_s
            code = self.process.exit_code
            yield f"the process ended by itself with exit code {code}, {after_s:.1f} s after the fault began"
        if jobs.lost_results:
            yield f"{jobs.lost_results} of the lost jobs were worked to their end, but the result was never recorded"
        if jobs.waiting:
            yield f"{jobs.waiting} jobs were still waiting to be taken at the end; they are not counted as lost"

    def _timeline(self, attempts: list[float], ends_s: list[float]) -> Timeline:
        origin_s = self.outage.began_s
        first_s, last_s = self.process.started_at_s - origin_s, time.monotonic() - origin_s
        bin_s = next((step for step in _BIN_STEPS_S if (last_s - first_s) / step <= _BINS_MAX), _BIN_STEPS_S[-1])
        first_bin = int(first_s // bin_s)
        starts = tuple(round(index * bin_s, 3) for index in range(first_bin, int(last_s // bin_s) + 1))
        lines = [(count.at_s, count.lines) for count in self.process.output.counts]
        return Timeline(
            bin_s=bin_s,
            t_s=starts,
            lines=tuple(measure.fill_bins(lines, origin_s, starts, bin_s)),
            attempts=tuple(measure.fill_bins(((time_s, 1) for time_s in attempts), origin_s, starts, bin_s)),
            jobs=tuple(measure.fill_bins(((time_s, 1) for time_s in ends_s), origin_s, starts, bin_s)),
        )
