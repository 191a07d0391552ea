"""Arithmetic on what was recorded: peaks, bins, recovery times, lost and repeated work. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from outlast._drill.lab.worklog import Step, WorkRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Recovery:
    """The seconds that loops took, from the moment the dependency accepted, to finish a job that they began after it."""

    loops_recovered: int
    p50_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """The account of the jobs that were enqueued.

    `lost` jobs are neither recorded as done nor waiting to be taken, or recorded as done without having run;
    `twice` counts jobs that ran to their end more than once; `waiting` ones can still be taken by a later worker.
    """

    enqueued: int
    done: int
    waiting: int
    lost: int
    lost_results: int
    twice: int


def peak_in_window(times_s: Sequence[float], window_s: float) -> int:
    """Return the most events in any window of that length (half open: an event exactly `window_s` later is outside)."""
    ordered = sorted(times_s)
    peak = start = 0
    for end, time_s in enumerate(ordered):
        while time_s - ordered[start] >= window_s:
            start += 1
        peak = max(peak, end - start + 1)
    return peak


def count_between(times_s: Sequence[float], from_s: float, until_s: float) -> int:
    """Return how many of the ascending times lie in [from_s, until_s)."""
    return bisect_left(times_s, until_s) - bisect_left(times_s, from_s)


def fill_bins(events: Iterable[tuple[float, int]], origin_s: float, starts_s: Sequence[float], bin_s: float) -> list[int]:
    """Sum (time, count) events into bins that start at `starts_s`, seconds after `origin_s`; others are dropped."""
    bins = [0] * len(starts_s)
    if not bins:
        return bins
    for time_s, count in events:
        index = int((time_s - origin_s - starts_s[0]) // bin_s)
        if 0 <= index < len(bins):
            bins[index] += count
    return bins


def value_at(curve: Sequence[tuple[float, float]], time_s: float) -> float:
    """Return a rising count at some time, on straight lines between the (time, count) points; level before and after them."""
    index = bisect_left(curve, (time_s,))
    if index == 0 or index == len(curve):
        return curve[max(0, index - 1)][1] if curve else 0.0
    (from_s, low), (until_s, high) = curve[index - 1], curve[index]
    return low + (high - low) * (time_s - from_s) / (until_s - from_s)


def recovery(records: Iterable[WorkRecord], accepted_ns: int, loops: int) -> Recovery:
    """Return the time until each loop has finished a job that it *began* after `accepted_ns`.

    A median or maximum is given over all loops or not at all: while some loop never recovers the maximum does not
    exist, and neither does the median when it is more than half of them.
    """
    began: dict[tuple[int, int], int] = {}
    first_end: dict[int, int] = {}
    for record in records:
        key = (record.loop, record.job)
        if record.step is Step.START:
            began[key] = record.at_ns
        elif began.get(key, -1) >= accepted_ns and record.loop not in first_end:
            first_end[record.loop] = record.at_ns
    took_s = sorted((at_ns - accepted_ns) / 1e9 for at_ns in first_end.values())
    missing = max(0, loops - len(took_s))
    with_missing = took_s + [float("inf")] * missing
    p50 = median(with_missing) if with_missing else float("inf")
    return Recovery(
        loops_recovered=len(took_s),
        p50_s=p50 if p50 != float("inf") else None,
        max_s=took_s[-1] if took_s and not missing else None,
    )


def account(enqueued: int, records: Iterable[WorkRecord], done: set[int], waiting: set[int], first: int = 1) -> Account:
    """Compare `enqueued` numbers from `first` on with what ran (the work log) and with what the store recorded."""
    everything = range(first, first + enqueued)
    ends = Counter(record.job for record in records if record.step is Step.END and record.job in everything)
    lost = sum(1 for job in everything if (job in done and not ends[job]) or (job not in done and job not in waiting))
    lost_results = sum(1 for job in everything if ends[job] and job not in done and job not in waiting)
    return Account(
        enqueued=enqueued,
        done=sum(job in everything for job in done),
        waiting=sum(job in everything for job in waiting),
        lost=lost,
        lost_results=lost_results,
        twice=sum(1 for count in ends.values() if count > 1),
    )


def in_vain(records: Iterable[WorkRecord], first: int) -> int:
    """Count how many times a job numbered `first` or higher was begun and not brought to its end."""
    steps = Counter(record.step for record in records if record.job >= first)
    return steps[Step.START] - steps[Step.END]
