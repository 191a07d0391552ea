"""One arm of the fluvio drill: a log on a small disk, with producers that push, and an audit of what it holds at the end."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from outlast._core.quantities import size_text
from outlast._drill.fluvio.arms.log_server import LogSettings
from outlast._drill.fluvio.audit import LogAudit, audit
from outlast._drill.fluvio.faults import DiskFault, DiskStage
from outlast._drill.fluvio.figures import LogArm, LogTimeline
from outlast._drill.fluvio.producers import Producers
from outlast._drill.fluvio.wire import FrameTalk
from outlast._drill.fluvio.writes import LogInstance
from outlast._drill.lab import measure
from outlast._drill.lab.arm.figures import Course, shared_figures
from outlast._drill.lab.arm.instance import start_module
from outlast._drill.lab.arm.run import ArmRun
from outlast._drill.lab.options import ArmKind
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from outlast._drill.fluvio.drill import FluvioOptions
    from outlast._drill.fluvio.wire import Talk
    from outlast._drill.lab.arm.process import OutputCounter
    from outlast._drill.lab.faults import Outage
    from outlast._drill.lab.observer import Observer
    from outlast._drill.lab.result import Timeline

LEAD_S = 0.25
"""The fault is counted from this long before the first refusal: an arm may write its line a little before it refuses."""
STEP_S = 0.1
"""The resolution in which an arm takes appends or refuses them all."""
ERRORS_SHOWN = 5
WHOLE_IDS = "         0          0 4294967295"
"""/proc/self/uid_map outside of any user namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKind(ArmKind):
    """One way to write the log."""

    ids: Callable[[Path], list[int]]
    """Return the ids of the records that a log in this folder holds."""
    level_bytes: Callable[[int], int] = lambda size: 0 * size
    """The bytes available, on a disk of that size, below which it takes no more: 0 where it goes on until the disk refuses."""
    talk: type[Talk] = FrameTalk
    """Its clients speak with it by this."""


class LogRun(ArmRun[LogArm, DiskStage]):
    """Carries out one arm of the fluvio drill."""

    _disk: SmallDisk
    _producers: Producers
    _instance: LogInstance
    _struck_s: float
    """The moment from which the fault was felt; lines are counted from a little before."""

    def __init__(self, options: FluvioOptions, kind: LogKind, observer: Observer, cancel: threading.Event) -> None:
        super().__init__(options, kind, observer, cancel)
        self._disk = SmallDisk(options.size_bytes, options.disk_kind)
        self._ids, self._level_of, self._talk = kind.ids, kind.level_bytes, kind.talk
        self._writes_before = self._writes_after = 0
        self._refused = threading.Event()
        self._refused_s: float | None = None

    def set_up(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Mount the disk, start the arm on it."""
        disk = stack.enter_context(self._disk)
        self._disk_fault.prepare(disk)
        settings = LogSettings(self._talk.new_address(directory), disk.path, self.options.seed)
        self._directory = directory
        self._producers = Producers(self._talk.to(settings.address), self.options.loops, self.options.seed)
        process = start_module(stack, self.kind.module, settings.as_environment())
        self._instance = LogInstance(process, self._producers, directory / "work.log")
        self.instances.append(self._instance)
        return {"disk": f"{disk.kind} of {size_text(disk.size_bytes)}", "rights": _rights()}

    def target(self) -> DiskStage:
        """Return the disk and the producers."""
        # Of an ext4 a part is its own.
        room = os.statvfs(self._disk.path)
        level_bytes = self._level_of(room.f_blocks * room.f_frsize)
        return DiskStage(self._disk, self._producers, level_bytes, self._refused, self.pause)

    @property
    def _disk_fault(self) -> DiskFault:
        assert isinstance(self.fault, DiskFault)  # noqa: S101  the options of this drill have no others
        return self.fault

    def begin_work(self) -> None:
        """Do nothing: the producers come as soon as the arm listens."""

    def end_work(self) -> None:
        """Append no more."""
        self._producers.stop()

    def readiness(self) -> str:
        """Say how many producers have had a record stored; empty when all have."""
        if not self._producers.connect():
            return "the arm did not listen"
        ready = self._producers.ready
        return "" if ready >= self.options.loops else f"{ready} of {self.options.loops} producers had a record stored"

    def left(self) -> int:
        """Return 0: all answers are there when the producers have ended."""
        return 0

    def stage_fault(self) -> Outage:
        """Lead up to it, and note the writes from the first refusal to the moment space is there again."""
        self._producers.at_refusal(self._note_refusal)
        self._disk_fault.lead_up(self.target())
        if not self._refused.is_set():
            self._writes_before = self._instance.writes.sample()
            self._producers.at_refusal(self._refused.set)
        outage = super().stage_fault()
        self._struck_s = outage.began_s
        self._writes_after = self._instance.writes.sample()
        if self._refused_s is not None and self._refused_s < outage.began_s:
            self._struck_s = self._refused_s
            outage = replace(outage, began_s=self._refused_s - LEAD_S)
        return outage

    def _note_refusal(self) -> None:
        self._refused_s = time.monotonic()
        self._writes_before = self._instance.writes.sample()
        self._refused.set()

    def result(self, course: Course) -> LogArm:
        """Read the log back, and count."""
        notes, outage = self._producers.notes, course.outage
        account = audit(notes.positions, notes.refused, self._read_back())
        began_s, mended_s, accepted_s = self._struck_s, outage.mended_s, outage.accepted_s
        shared = shared_figures(self.instances, course)
        shared["timeline"] = self._timeline(shared["timeline"], outage.began_s)
        shared["attempts"] = self._writes_after - self._writes_before
        shared["notes"] = (*shared["notes"], *self._notes(account))
        appends_ms = _percentiles(
            notes.acknowledged_s, notes.append_s, course.healthy_s, course.healthy_s + self.options.warmup_s
        )
        refusals_ms = _percentiles(notes.refused_s, notes.refusal_s, began_s, accepted_s)
        output = self._instance.process.output
        return LogArm(
            **shared,
            arm=self.kind.name,
            summary=self.kind.summary,
            heals=self.fault.heals,
            recovery_s=_next_after(notes.acknowledged_s, accepted_s) if self.fault.heals else None,
            acknowledged=len(notes.acknowledged_s),
            acknowledged_outage=measure.count_between(notes.acknowledged_s, began_s, mended_s),
            refused=len(notes.refused),
            unknown=len(notes.unknown),
            lost=account.lost,
            phantom=account.phantom,
            twice=account.twice,
            readable=account.readable,
            hung_up=self._producers.broken,
            append_ms_p50=appends_ms[0],
            append_ms_p99=appends_ms[1],
            refusal_ms_p50=refusals_ms[0],
            refusal_ms_p99=refusals_ms[1],
            errors=len(notes.errors),
            errors_first=tuple(text for text, _ in notes.errors.most_common(ERRORS_SHOWN)),
            transitions=transitions(notes.acknowledged_s, notes.refused_s, began_s, mended_s),
            critical_lines=sum("CRITICAL" in line for line in _kept_lines(output)),
            rss_growth_mib=self._instance.growth_mib(began_s),
            reads=measure.count_between(notes.reads_s, began_s, mended_s),
            reads_failed=len(notes.reads_failed_s),
            read_gap_s=longest_gap(notes.reads_s, began_s, mended_s),
            loops=self.options.loops,
            work_s=0.0,
        )

    def _read_back(self) -> list[int]:
        # A copy, so that a disk that takes no changes is no obstacle to whoever opens the log.
        copy = self._directory / "copy"
        shutil.copytree(self._disk.path, copy)
        try:
            return self._ids(copy)
        finally:
            shutil.rmtree(copy)

    def _timeline(self, shared: Timeline, origin_s: float) -> LogTimeline:
        def count(times_s: Sequence[float]) -> tuple[int, ...]:
            return tuple(measure.fill_bins(((time_s, 1) for time_s in times_s), origin_s, shared.t_s, shared.bin_s))

        notes = self._producers.notes
        same = {item.name: getattr(shared, item.name) for item in fields(shared)}
        return LogTimeline(**same, stored=count(notes.acknowledged_s), refused=count(notes.refused_s), reads=count(notes.reads_s))

    def _notes(self, account: LogAudit) -> Iterator[str]:
        notes = self._producers.notes
        if notes.errors:
            told = ", ".join(f"{text!r} {count:,} times" for text, count in notes.errors.most_common(ERRORS_SHOWN))
            yield f"clients were told {told}"
        if notes.read_errors:
            yield f"reads failed: {', '.join(notes.read_errors)}"
        if notes.unknown:
            yield f"of {len(notes.unknown):,} appends nobody knows whether they are stored"
        if self._producers.broken:
            yield f"{self._producers.broken} connections were ended by the arm without an answer"
        if account.lost or account.phantom or account.twice:
            yield f"{account.readable:,} records can be read, {len(notes.positions):,} were acknowledged"


def transitions(acknowledged_s: Sequence[float], refused_s: Sequence[float], from_s: float, until_s: float) -> int:
    """Count the changes between steps in which appends were taken and steps in which all were refused."""
    starts = [index * STEP_S for index in range(math.ceil((until_s - from_s) / STEP_S))]
    taken, refused = (
        measure.fill_bins(((time_s, 1) for time_s in times_s if time_s < until_s), from_s, starts, STEP_S)
        for times_s in (acknowledged_s, refused_s)
    )
    states = [bool(yes) for yes, no in zip(taken, refused, strict=True) if yes or no]
    return sum(before is not after for before, after in pairwise(states))


def longest_gap(times_s: Sequence[float], from_s: float, until_s: float) -> float:
    """Return the longest time between two of the ascending times in [from_s, until_s), whose ends count as well."""
    inside = times_s[bisect_left(times_s, from_s) : bisect_left(times_s, until_s)]
    return max(after - before for before, after in pairwise([from_s, *inside, until_s]))


def _next_after(times_s: Sequence[float], at_s: float) -> float | None:
    index = bisect_left(times_s, at_s)
    return times_s[index] - at_s if index < len(times_s) else None


def _percentiles(
    times_s: Sequence[float], took_s: Sequence[float], from_s: float, until_s: float
) -> tuple[float | None, float | None]:
    """Return the median and the 99th percentile, in milliseconds, of what ended in [from_s, until_s)."""
    took = sorted(took_s[bisect_left(times_s, from_s) : bisect_left(times_s, until_s)])
    if not took:
        return None, None
    return 1000.0 * took[len(took) // 2], 1000.0 * took[min(len(took) - 1, len(took) * 99 // 100)]


def _kept_lines(output: OutputCounter) -> list[str]:
    """Return the lines that were kept, each once."""
    return [*output.first, *output.last]


def _rights() -> str:
    """Return whose rights the disk was mounted with."""
    return "root" if Path("/proc/self/uid_map").read_text(encoding="ascii").rstrip() == WHOLE_IDS else "root of a user namespace"
