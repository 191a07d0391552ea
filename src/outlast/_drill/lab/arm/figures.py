"""The figures that every drill has of an arm, made from what was recorded of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outlast._drill.lab import measure
from outlast._drill.lab.result import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outlast._drill.lab.arm.instance import Instance
    from outlast._drill.lab.faults import Outage

RECOVERY_PEAK_S = 5.0
"""After acceptance, the time whose busiest 100 ms of connects is reported apart."""

_BIN_STEPS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BINS_MAX = 400


@dataclass(frozen=True, slots=True)
class Course:
    """The moments at which each part of an arm's run began (monotonic), and the ends of its processes."""

    healthy_s: float
    outage: Outage
    fed_until_s: float
    term_s: float
    exit_code: int | None
    """The first that is not 0, of the processes that the fault did not kill."""
    stop_s: float | None
    """The longest stop; None when a process had ended by itself."""


def shared_figures(instances: Sequence[Instance], course: Course, cancels_s: Sequence[float] = ()) -> dict[str, Any]:
    """Return the fields of `ArmResult` that every drill measures alike. `cancels_s` are attempts that are counted apart."""
    outage = course.outage
    outputs = [instance.process.output for instance in instances]
    apart = frozenset(cancels_s)
    attempts = sorted(time_s for instance in instances for time_s in instance.attempts.attempts if time_s not in apart)
    after_s = [time_s for time_s in attempts if outage.accepted_s <= time_s < outage.accepted_s + RECOVERY_PEAK_S]
    counts = [output.between(outage.began_s, course.term_s) for output in outputs]
    return {
        "log_lines": sum(lines for lines, _ in counts),
        "log_bytes": sum(size for _, size in counts),
        "attempts": measure.count_between(attempts, outage.began_s, outage.accepted_s),
        "cpu_s": sum(instance.process.sample() for instance in instances),
        "cpu_before_percent": _cpu_percent(instances, course.healthy_s, outage.began_s),
        "cpu_outage_percent": _cpu_percent(instances, outage.began_s, outage.mended_s),
        "rss_peak_mib": max(instance.process.rss_peak_bytes for instance in instances) / 2**20,
        "connects_100ms_max": measure.peak_in_window(attempts, 0.1),
        "connects_100ms_max_recovery": measure.peak_in_window(after_s, 0.1),
        "lines_outage": sum(output.between(outage.began_s, outage.mended_s)[0] for output in outputs),
        "lines_total": sum(output.lines_total for output in outputs),
        "attempts_total": sum(instance.attempts.attempt_count for instance in instances) - len(apart),
        "outage_s": outage.mended_s - outage.began_s,
        "exit_code": course.exit_code,
        "stop_s": course.stop_s,
        "fed_until_s": course.fed_until_s - outage.began_s,
        "timeline": _timeline(instances, outage.began_s, attempts),
        "log_first": tuple(_lines(instances, [output.first for output in outputs])),
        "log_last": tuple(_lines(instances, [output.last for output in outputs])),
        "notes": tuple(_ends_of_their_own(instances, course)),
    }


def throughput_percent(owner: Instance, others: Sequence[Instance], course: Course) -> float:
    """Return the jobs that those did during the fault, on average, in percent of what `owner` did before it."""

    def per_s(instances: Sequence[Instance], from_s: float, until_s: float) -> float:
        at_s = [record.at_ns / 1e9 for instance in instances for record in instance.ends(stream=False)]
        return sum(from_s <= each_s < until_s for each_s in at_s) / (until_s - from_s)

    began_s, mended_s = course.outage.began_s, course.outage.mended_s
    before = per_s([owner], course.healthy_s, began_s)
    return 100.0 * per_s(others, began_s, mended_s) / len(others) / before if before else 0.0


def _ends_of_their_own(instances: Sequence[Instance], course: Course) -> Iterator[str]:
    for process in (instance.process for instance in instances):
        if not process.killed and process.ended_at_s is not None and process.ended_at_s < course.term_s:
            after_s = process.ended_at_s - course.outage.began_s
            yield f"the process ended by itself with exit code {process.exit_code}, {after_s:.1f} s after the fault began"


def _cpu_percent(instances: Sequence[Instance], from_s: float, until_s: float) -> float:
    """Return the percentage of one core that all of them used together."""
    used_s = sum(instance.cpu_s(until_s) - instance.cpu_s(from_s) for instance in instances)
    return 100.0 * used_s / (until_s - from_s) if until_s > from_s else 0.0


def _lines(instances: Sequence[Instance], kept: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of several processes one after another, with the number of the process where there are several."""
    for number, lines in enumerate(kept, 1):
        mark = f"{number}: " if len(instances) > 1 else ""
        yield from (mark + line for line in lines)


def _timeline(instances: Sequence[Instance], origin_s: float, attempts: list[float]) -> Timeline:
    first_s = min(instance.process.started_at_s for instance in instances) - origin_s
    last_s = time.monotonic() - origin_s
    bin_s = next((step for step in _BIN_STEPS_S if (last_s - first_s) / step <= _BINS_MAX), _BIN_STEPS_S[-1])
    starts = tuple(round(index * bin_s, 3) for index in range(int(first_s // bin_s), int(last_s // bin_s) + 1))

    def count(times_s: Sequence[float]) -> tuple[int, ...]:
        return tuple(measure.fill_bins(((time_s, 1) for time_s in times_s), origin_s, starts, bin_s))

    def ends(*, stream: bool) -> tuple[int, ...]:
        return count([record.at_ns / 1e9 for instance in instances for record in instance.ends(stream=stream)])

    def cpu_s(at_s: float) -> float:
        return sum(instance.cpu_s(origin_s + at_s) for instance in instances)

    lines = [(entry.at_s, entry.lines) for instance in instances for entry in instance.process.output.counts]
    return Timeline(
        bin_s=bin_s,
        t_s=starts,
        lines=tuple(measure.fill_bins(lines, origin_s, starts, bin_s)),
        attempts=count(attempts),
        cpu_s=tuple(cpu_s(start_s + bin_s) - cpu_s(start_s) for start_s in starts),
        jobs=ends(stream=False),
        changes=ends(stream=True),
    )
