"""One arm of the greptime drill over HTTP: a server of metrics, its store, and collectors that do not stop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from outlast._drill.greptime.arms.metrics_server import MetricsSettings
from outlast._drill.greptime.background import Background
from outlast._drill.greptime.figures import TableArm, TableTimeline
from outlast._drill.greptime.http.client import LOST
from outlast._drill.greptime.http.collectors import lost, percentile, twice
from outlast._drill.greptime.http.faults import MetricsStage
from outlast._drill.greptime.http.points import stored_points
from outlast._drill.greptime.http.writers import Writers
from outlast._drill.greptime.looks import StoreLooks, grown_beyond, grown_bytes, most_records
from outlast._drill.greptime.writers import BAD_TABLE
from outlast._drill.lab import measure
from outlast._drill.lab.arm.figures import Course, shared_figures
from outlast._drill.lab.arm.instance import Instance, start_module
from outlast._drill.lab.arm.run import ArmRun
from outlast._drill.lab.options import ArmKind
from outlast.testing import free_port

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from outlast._drill.greptime.http.collectors import Sent
    from outlast._drill.greptime.http.stores import MetricsStore
    from outlast._drill.lab.arm.process import ServiceProcess
    from outlast._drill.lab.observer import Observer
    from outlast._drill.lab.options import DrillOptions
    from outlast._drill.lab.result import Timeline

REFUSALS: Final = frozenset({429, 503})
"""The statuses that say: not stored, and it may be sent again."""
WAIT_S: Final = 10.0
ERRORS_SHOWN: Final = 3
ERROR_CHARS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsKind(ArmKind):
    """One way to take metrics, and where they are kept."""

    store: Callable[[], MetricsStore]
    is_postgres: bool = False


@dataclass(slots=True)
class Attempted:
    """The attempts to make the table: those that the arm has recorded, and the answers that were one."""

    store: MetricsStore
    writers: Writers

    @property
    def attempts(self) -> list[float]:
        """The monotonic times of them."""
        return sorted(chain(self.store.attempts, (each.at_s for each in self.writers.sent if _is_failed(each))))

    @property
    def attempt_count(self) -> int:
        """Their number."""
        return len(self.attempts)


class MetricsInstance(Instance):
    """An arm's process, with what its clients were told. `jobs` are the bodies to other tables that were stored."""

    def __init__(self, process: ServiceProcess, attempts: Attempted, work_log: Path) -> None:
        """Record `process`."""
        super().__init__(process, attempts, work_log)
        self._writers = attempts.writers
        self._counted = 0

    def refresh(self) -> None:
        """Sample the process and its clients."""
        super().refresh()
        for sent in self._writers.sent[self._counted :]:
            if sent.table != BAD_TABLE:
                self.jobs += sent.is_stored
            else:
                self.stored += sent.is_stored
                self.refused += not sent.is_stored
            self._counted += 1


class MetricsRun(ArmRun[TableArm, MetricsStage]):
    """Carries out one arm of the greptime drill over HTTP."""

    _writers: Writers
    _looks: StoreLooks
    _stage: MetricsStage

    def __init__(self, options: DrillOptions, kind: MetricsKind, observer: Observer, cancel: threading.Event) -> None:
        super().__init__(options, kind, observer, cancel)
        self._store = kind.store()

    def set_up(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Launch the store and the arm."""
        depends_on = self._store.open(stack, directory)
        address = f"127.0.0.1:{free_port()}"
        settings = MetricsSettings(address=address, store=self._store.place, state=str(directory))
        self._writers = Writers(stack.enter_context(Background()), address, float(self.options.loops))
        self._stage = MetricsStage(self._store.place, self._writers)
        process = start_module(stack, self.kind.module, settings.as_environment())
        self.instances.append(MetricsInstance(process, Attempted(self._store, self._writers), directory / "work.log"))
        self._looks = stack.enter_context(StoreLooks(self._store))
        return depends_on

    def target(self) -> MetricsStage:
        """Return the store and the writers."""
        return self._stage

    def begin_work(self) -> None:
        """Do nothing: the writers come as soon as the arm listens."""

    def end_work(self) -> None:
        """Write no more."""
        self._writers.stop(WAIT_S)

    def readiness(self) -> str:
        """Say what is missing until the first body is stored."""
        if not self._writers.connect():
            return "the arm did not listen"
        return "" if any(sent.is_stored for sent in self._writers.sent) else "no body was stored"

    def left(self) -> int:
        """Return 0: what a client was not told to be stored, it sends again."""
        return 0

    def result(self, course: Course) -> TableArm:
        """Compare what the writers were told with what the store has."""
        outage, sent, looks = course.outage, self._writers.sent, self._looks.looks
        began_s, mended_s = outage.began_s, outage.mended_s
        bad = [each for each in sent if each.table == BAD_TABLE]
        others = [each for each in sent if each.table != BAD_TABLE]
        during_bad = _between(bad, began_s, mended_s)
        before, during = _between(others, course.healthy_s, began_s), _between(others, began_s, mended_s)
        refusal_ms = _took_ms(each for each in during_bad if each.status in REFUSALS)
        stored = stored_points(self._store.place)
        shared = shared_figures(self.instances, course)
        shared["timeline"] = self._timeline(shared["timeline"], began_s, bad, others)
        errors = Counter(
            f"{each.status} {each.body.decode(errors='replace')}"[:ERROR_CHARS] for each in sent if not each.is_stored
        )
        shared["notes"] = (*shared["notes"], *_notes(errors))
        return TableArm(
            **shared,
            arm=self.kind.name,
            summary=self.kind.summary,
            records=most_records(looks, began_s, mended_s),
            store_bytes=grown_beyond(looks, course.healthy_s, began_s, mended_s),
            alarm=False,
            refused=sum(each.status in REFUSALS for each in bad),
            failed=sum(_is_failed(each) for each in bad),
            pending=0,
            hung_up=sum(each.status == LOST for each in sent),
            refusal_ms_p50=percentile(refusal_ms, 50),
            refusal_ms_p99=percentile(refusal_ms, 99),
            failed_ms_p99=percentile(_took_ms(filter(_is_failed, during_bad)), 99),
            others_percent=rate_percent(during, mended_s - began_s, before, began_s - course.healthy_s),
            others_ms_p99=percentile(_took_ms(each for each in during if each.is_stored), 99),
            others_ms_p99_before=percentile(_took_ms(each for each in before if each.is_stored), 99),
            heal_s=next((each.at_s - mended_s for each in bad if each.is_stored), None),
            stored=sum(map(len, stored.values())),
            errors_first=tuple(text for text, _ in errors.most_common(ERRORS_SHOWN)),
            lost=sum(map(len, lost(sent, stored).values())),
            twice=sum(1 for _ in twice(stored)),
            loops=self.options.loops,
            work_s=0.0,
        )

    def _timeline(self, shared: Timeline, origin_s: float, bad: Sequence[Sent], others: Sequence[Sent]) -> TableTimeline:
        def count(sent: Iterable[Sent], *, is_stored: bool) -> tuple[int, ...]:
            events = ((each.at_s, 1) for each in sent if each.is_stored is is_stored)
            return tuple(measure.fill_bins(events, origin_s, shared.t_s, shared.bin_s))

        same: dict[str, Any] = {item.name: getattr(shared, item.name) for item in fields(shared)}
        starts_s = [origin_s + start_s for start_s in shared.t_s]
        grown = tuple(max(0.0, grown_bytes(self._looks.looks, at_s, at_s + shared.bin_s)) / 1024.0 for at_s in starts_s)
        same["jobs"] = count(others, is_stored=True)
        refused, stored = count(bad, is_stored=False), count(bad, is_stored=True)
        return TableTimeline(**same, refused=refused, stored=stored, grown_kib=grown)


def rate_percent(during: Sequence[Sent], during_s: float, before: Sequence[Sent], before_s: float) -> float:
    """Return the bodies that were stored a second during the fault, in percent of those before it."""
    rates = [
        sum(each.is_stored for each in sent) / seconds if seconds > 0 else 0.0
        for sent, seconds in ((during, during_s), (before, before_s))
    ]
    return 100.0 * rates[0] / rates[1] if rates[1] else 0.0


def _notes(errors: Counter[str]) -> Iterator[str]:
    if errors:
        told = ", ".join(f"{text!r} {count:,} times" for text, count in errors.most_common(ERRORS_SHOWN))
        yield f"writers were told {told}"


def _is_failed(sent: Sent) -> bool:
    return not sent.is_stored and sent.status != LOST and sent.status not in REFUSALS


def _between(sent: Sequence[Sent], from_s: float, until_s: float) -> list[Sent]:
    return [each for each in sent if from_s <= each.sent_s < until_s]


def _took_ms(sent: Iterable[Sent]) -> list[float]:
    return [1000.0 * each.took_s for each in sent]
