"""One arm of the greptime drill: a service that makes tables, its store, a data node, and writers that do not stop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from outlast._drill.greptime.arms.table_server import WAIT_S, TableSettings
from outlast._drill.greptime.background import Background
from outlast._drill.greptime.datanode import DataNode
from outlast._drill.greptime.faults import TableStage
from outlast._drill.greptime.figures import TableArm, TableTimeline
from outlast._drill.greptime.looks import StoreLooks, grown_beyond, grown_bytes, most_records
from outlast._drill.greptime.wire import DONE, FAILED, PENDING, REFUSED
from outlast._drill.greptime.writers import BAD_TABLE, HUNG_UP, Writers
from outlast._drill.lab import measure
from outlast._drill.lab.arm.figures import Course, shared_figures
from outlast._drill.lab.arm.instance import Instance, start_module
from outlast._drill.lab.arm.run import ArmRun
from outlast._drill.lab.options import ArmKind

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from outlast._drill.greptime.drill import GreptimeOptions
    from outlast._drill.greptime.stores import TaskStore
    from outlast._drill.greptime.writers import Answered
    from outlast._drill.lab.arm.process import ServiceProcess
    from outlast._drill.lab.observer import Observer
    from outlast._drill.lab.result import Timeline

ERRORS_SHOWN = 3
ERROR_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TableKind(ArmKind):
    """One way to make tables, and where its tasks are."""

    store: Callable[[int], TaskStore]
    """Return its store; of an etcd the quota in bytes is given."""


class TableInstance(Instance):
    """An arm's process, with what its clients were told. `jobs` are the other tables that were made."""

    def __init__(self, process: ServiceProcess, node: DataNode, writers: Writers, work_log: Path) -> None:
        """Record `process`."""
        super().__init__(process, node, work_log)
        self._writers = writers
        self._counted = 0

    def refresh(self) -> None:
        """Sample the process and its clients."""
        super().refresh()
        answers = self._writers.answers
        for answer in answers[self._counted :]:
            if answer.table != BAD_TABLE:
                self.jobs += answer.what == DONE
            elif answer.what == DONE:
                self.stored += 1
            else:
                self.refused += 1
            self._counted += 1


class TableRun(ArmRun[TableArm, TableStage]):
    """Carries out one arm of the greptime drill."""

    _node: DataNode
    _writers: Writers
    _looks: StoreLooks

    def __init__(self, options: GreptimeOptions, kind: TableKind, observer: Observer, cancel: threading.Event) -> None:
        super().__init__(options, kind, observer, cancel)
        self._store = kind.store(options.quota_mib << 20)

    def set_up(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Launch the store, the data node and the arm."""
        depends_on = self._store.open(stack)
        self._node = DataNode()
        background = stack.enter_context(Background())
        settings = TableSettings(
            address=str(directory / "arm"),
            node=str(directory / "node"),
            store=self._store.address,
            seed=self.options.seed,
            state=str(directory),
        )
        background.run(self._node.open(settings.node))
        stack.callback(lambda: background.run(self._node.close()))
        self._writers = Writers(background, settings.address, float(self.options.loops))
        process = start_module(stack, self.kind.module, settings.as_environment())
        self.instances.append(TableInstance(process, self._node, self._writers, directory / "work.log"))
        self._looks = stack.enter_context(StoreLooks(self._store))
        return depends_on

    def target(self) -> TableStage:
        """Return the data node and the writers."""
        return TableStage(self._node, self._writers)

    def begin_work(self) -> None:
        """Do nothing: the writers come as soon as the arm listens."""

    def end_work(self) -> None:
        """Write no more."""
        self._writers.stop(WAIT_S + 1.0)

    def readiness(self) -> str:
        """Say what is missing until the first table is made."""
        if not self._writers.connect():
            return "the arm did not listen"
        return "" if any(answer.what == DONE for answer in self._writers.answers) else "no table was made"

    def left(self) -> int:
        """Count the tables that somebody was to go on with, and that are not there."""
        return len(self._promised() - set(self._node.published))

    def _promised(self) -> set[str]:
        return {answer.table for answer in self._writers.answers if answer.what == PENDING}

    def result(self, course: Course) -> TableArm:
        """Compare what the writers were told with what the data node has."""
        outage, answers, looks = course.outage, self._writers.answers, self._looks.looks
        began_s, mended_s = outage.began_s, outage.mended_s
        bad = [answer for answer in answers if answer.table == BAD_TABLE]
        others = [answer for answer in answers if answer.table != BAD_TABLE]
        during_bad = _between(bad, began_s, mended_s)
        refusal_ms = _took_ms(during_bad, REFUSED, PENDING)
        shared = shared_figures(self.instances, course)
        shared["timeline"] = self._timeline(shared["timeline"], began_s, bad, others)
        errors = Counter(answer.text[:ERROR_CHARS] for answer in answers if answer.what in {REFUSED, FAILED})
        shared["notes"] = (*shared["notes"], *self._notes(errors))
        before = _between(others, course.healthy_s, began_s)
        during = _between(others, began_s, mended_s)
        return TableArm(
            **shared,
            arm=self.kind.name,
            summary=self.kind.summary,
            records=most_records(looks, began_s, mended_s),
            store_bytes=grown_beyond(looks, course.healthy_s, began_s, mended_s),
            alarm=bool(looks) and looks[-1].alarm,
            refused=sum(answer.what == REFUSED for answer in bad),
            failed=sum(answer.what == FAILED for answer in bad),
            pending=sum(answer.what == PENDING for answer in bad),
            hung_up=self._writers.sent - sum(answer.what != HUNG_UP for answer in answers),
            refusal_ms_p50=percentile(refusal_ms, 50),
            refusal_ms_p99=percentile(refusal_ms, 99),
            failed_ms_p99=percentile(_took_ms(during_bad, FAILED), 99),
            others_percent=served_percent(during, before),
            others_ms_p99=percentile(_took_ms(during, DONE), 99),
            others_ms_p99_before=percentile(_took_ms(before, DONE), 99),
            heal_s=next((answer.at_s - mended_s for answer in bad if answer.what == DONE), None),
            stored=len(self._node.writes),
            errors_first=tuple(text for text, _ in errors.most_common(ERRORS_SHOWN)),
            lost=lost(answers, self._node),
            twice=sum(count - 1 for count in self._node.published.values()),
            loops=self.options.loops,
            work_s=0.0,
        )

    def _timeline(self, shared: Timeline, origin_s: float, bad: Sequence[Answered], others: Sequence[Answered]) -> TableTimeline:
        def count(answers: Sequence[Answered], *, done: bool) -> tuple[int, ...]:
            events = ((answer.at_s, 1) for answer in answers if (answer.what == DONE) is done)
            return tuple(measure.fill_bins(events, origin_s, shared.t_s, shared.bin_s))

        same: dict[str, Any] = {item.name: getattr(shared, item.name) for item in fields(shared)}
        starts_s = [origin_s + start_s for start_s in shared.t_s]
        grown = tuple(max(0.0, grown_bytes(self._looks.looks, at_s, at_s + shared.bin_s)) / 1024.0 for at_s in starts_s)
        same["jobs"] = count(others, done=True)
        return TableTimeline(
            **same,
            refused=count(bad, done=False),
            stored=count(bad, done=True),
            grown_kib=grown,
        )

    def _notes(self, errors: Counter[str]) -> Iterator[str]:
        if errors:
            told = ", ".join(f"{text!r} {count:,} times" for text, count in errors.most_common(ERRORS_SHOWN))
            yield f"writers were told {told}"


def lost(answers: Sequence[Answered], node: DataNode) -> int:
    """Count writes that were acknowledged and are not stored, or were told that somebody goes on with a table that never came."""
    return sum(
        (answer.what == DONE and answer.number not in node.writes)
        or (answer.what == PENDING and not node.published[answer.table])
        for answer in answers
    )


def served_percent(during: Sequence[Answered], before: Sequence[Answered]) -> float:
    """Return the share of those that were served during the fault, in percent of that share before it."""
    shares = [sum(answer.what == DONE for answer in each) / len(each) if each else 0.0 for each in (during, before)]
    return 100.0 * shares[0] / shares[1] if shares[1] else 0.0


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return that percentile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


def _between(answers: Sequence[Answered], from_s: float, until_s: float) -> list[Answered]:
    return [answer for answer in answers if from_s <= answer.sent_s < until_s]


def _took_ms(answers: Sequence[Answered], *whats: str) -> list[float]:
    return [1000.0 * (answer.at_s - answer.sent_s) for answer in answers if answer.what in whats]
