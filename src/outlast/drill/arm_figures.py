"""The figures of one arm, made from what was recorded of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast.drill import measure
from outlast.drill.result import ArmResult, Timeline
from outlast.drill.worklog import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.drill.arm_plan import ArmPlan
    from outlast.drill.faults import Outage
    from outlast.drill.process import ServiceProcess
    from outlast.drill.stores import Audit
    from outlast.drill.target import PostgresTarget
    from outlast.drill.watch import Watch

RECOVERY_PEAK_S = 5.0
"""After acceptance, the time whose busiest 100 ms of connects is reported apart."""

_BIN_STEPS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BINS_MAX = 400


@dataclass(slots=True)
class ArmFigures:
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
