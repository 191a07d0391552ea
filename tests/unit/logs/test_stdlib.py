"""Folding for stdlib logging: what passes is untouched, what repeats is counted, what differs is shown."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from outlast._core.fold import FoldPolicy
from outlast.logs._folding.options import FoldOptions, Options
from outlast.logs.stdlib import Folding, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "folded"
UNJUDGED = {0, 2, 3}
"""How many records are on purpose such that they cannot be judged."""


class Kept(logging.Handler):
    """Keeps the records and the lines it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kept() -> Iterator[Kept]:
    logger, handler = logging.getLogger(NAME), Kept()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begin(clock: Clock) -> Iterator[Callable[..., Folding]]:
    """Begin folding whose time the test gives."""
    opened: list[Folding] = []

    def begin(*args: Any, **options: Any) -> Folding:
        opened.append(fold(*args, **{"timer": False, "clock": clock, **options}))
        return opened[-1]

    before = logging.Logger._log
    yield begin
    for handle in reversed(opened):
        handle.close()
        assert handle.unjudged in UNJUDGED
    assert logging.Logger._log is before


log = logging.getLogger(NAME)


def test_the_first_is_written_and_the_rest_is_counted(kept: Kept, begin: Callable[..., Folding], clock: Clock) -> None:
    handle = begin()
    for _ in range(1_000):
        log.error("cannot reach %s", "db-1")
        clock.now += 0.001
    assert kept.lines == ["cannot reach db-1"]
    assert handle.totals.pending == 999
    clock.now += 5.0
    handle.due()
    assert kept.lines[1:] == ["cannot reach db-1 [goes on: 999 more, 1000 in 1.0 s]"]
    log.error("cannot reach %s", "db-1")
    clock.now += 31.0
    handle.due()
    assert kept.lines[2:] == ["cannot reach db-1 [quiet since: 1 more, 1001 in 6.0 s]"]
    log.error("cannot reach %s", "db-1")
    assert kept.lines[3:] == ["cannot reach db-1"]


def test_a_summary_is_a_record_of_the_first_ones_logger_level_and_line(kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin()
    child = logging.getLogger(f"{NAME}.child")
    for _ in range(3):
        child.warning("no room on %s", "/data")
    handle.close()
    first, summary = kept.records
    assert (summary.name, summary.levelno) == (f"{NAME}.child", logging.WARNING)
    assert (summary.pathname, summary.lineno, summary.funcName) == (first.pathname, first.lineno, first.funcName)
    assert summary.getMessage() == "no room on /data [so far: 2 more, 3 in 0.0 s]"
    fields = summary.__dict__["outlast"]
    assert fields["outlast.key"] == "WARNING folded.child: no room on %s | /data"
    assert (fields["outlast.count"], fields["outlast.total"]) == (2, 3)
    assert fields["outlast.since"].endswith("+00:00")
    assert (fields["outlast.what"], fields["outlast.over"]) == ("reminder", True)
    assert "outlast.incident" not in fields


def test_the_first_keeps_its_extra_its_exception_and_its_stack(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin()
    for attempt in range(3):
        try:
            raise ValueError(f"attempt {attempt}")
        except ValueError:
            log.exception("failed", extra={"order": attempt}, stack_info=True)
    (record,) = kept.records
    assert record.__dict__["order"] == 0
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "attempt 0"
    assert "test_stdlib.py" in (record.stack_info or "")
    assert "logs/stdlib.py" not in (record.stack_info or "").splitlines()[-2]


def wrapper(message: str) -> None:
    log.error(message, stacklevel=2)


def test_the_caller_is_named_as_without_folding(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin()
    line = sys._getframe().f_lineno
    log.error("one")
    wrapper("two")
    logging.LoggerAdapter(log, {}).error("three")
    log.log(logging.ERROR, "four")
    log.exception("five")  # noqa: LOG004
    assert [record.lineno - line for record in kept.records] == [1, 2, 3, 4, 5]
    assert {record.funcName for record in kept.records} == {"test_the_caller_is_named_as_without_folding"}
    assert {record.filename for record in kept.records} == {"test_stdlib.py"}


def test_the_caller_is_named_under_two_foldings(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin()
    begin()
    log.error("one")
    wrapper("two")
    assert {record.funcName for record in kept.records} == {"test_the_caller_is_named_under_two_foldings"}


def test_the_options_that_fold_takes_are_those_that_have_a_default() -> None:
    assert ["policy", *Options.__annotations__] == [field.name for field in dataclasses.fields(FoldOptions)]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"exempt": "shop.audit"}, TypeError, "such as {'shop.audit'}, not one text"),
        ({"variants_max": 0}, ValueError, "at least 1, not 0"),
        ({"window": 5.0}, TypeError, "unexpected keyword argument 'window'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_replaced(
    wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    before = logging.Logger._log
    with pytest.raises(error, match=re.escape(said)):
        fold(**wrong)
    assert logging.Logger._log is before


class OwnWay(logging.Logger):
    """A logger that names somebody else as the caller."""

    def findCaller(self, stack_info: bool = False, stacklevel: int = 1) -> tuple[str, int, str, str | None]:  # noqa: FBT001, FBT002, N802
        path, line, _, stack = super().findCaller(stack_info, stacklevel + 1)
        return path, line, "somebody else", stack


def test_a_logger_that_finds_its_caller_in_its_own_way_is_asked(begin: Callable[..., Folding]) -> None:
    logger, handler = OwnWay("folded.own"), Kept()
    logger.addHandler(handler)
    begin(logger=None)
    logger.error("one")
    assert [(record.filename, record.funcName) for record in handler.records] == [("test_stdlib.py", "somebody else")]


def test_what_somebody_put_in_the_place_of_a_method_of_logging_is_called(
    kept: Kept, begin: Callable[..., Folding], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("_log", "findCaller"):
        own = getattr(logging.Logger, name)

        @functools.wraps(own)
        def wrapped(*args: Any, own: Callable[..., Any] = own, name: str = name, **kwargs: Any) -> Any:
            asked.append(name)
            return own(*args, **kwargs)

        monkeypatch.setattr(logging.Logger, name, wrapped)
    handle = begin()
    log.error("one")
    log.error("one")
    handle.close()
    assert asked == ["_log", "findCaller"]
    assert [record.getMessage() for record in kept.records] == ["one", "one [so far: 1 more, 2 in 0.0 s]"]


def test_a_folded_record_is_not_formatted(kept: Kept, begin: Callable[..., Folding]) -> None:
    formatted = 0

    class Number(int):
        def __format__(self, spec: str) -> str:
            raise AssertionError

        def __str__(self) -> str:
            nonlocal formatted
            formatted += 1
            return "a number"

    begin()
    log.error("took %s", Number(1))
    before = formatted
    for _ in range(100):
        log.error("took %s", Number(1))
    assert formatted == before
    assert len(kept.lines) == 1


def test_loggers_and_levels_are_told_apart(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin()
    for _ in range(3):
        log.error("away")
        log.warning("away")
        log.getChild("other").error("away")
    assert len(kept.records) == 3


def test_critical_and_what_is_below_the_level_are_never_folded(kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin()
    for _ in range(3):
        log.critical("corrupt")
        log.info("served")
    assert len(kept.records) == 6
    assert handle.totals.seen == 0


def test_progress_is_folded_on_demand(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin(level=logging.DEBUG)
    for _ in range(3):
        log.info("served")
    assert len(kept.records) == 1


@pytest.mark.parametrize("exempt", [{logging.ERROR}, {NAME}, {"away: %s"}])
def test_levels_loggers_and_templates_are_exempted(exempt: Any, kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin(exempt=exempt)
    for _ in range(3):
        log.error("away: %s", "a")
        log.getChild("child").error("away: %s", "a", exc_info=ValueError())
    assert len(kept.records) == 6
    assert handle.totals.seen == 0
    log.warning("something else")
    log.warning("something else")
    assert handle.totals.seen == (0 if NAME in exempt else 2)


@pytest.mark.parametrize("which", [NAME, logging.getLogger(NAME)])
def test_a_part_of_the_loggers_is_folded(which: Any, kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin(which)
    outside = logging.getLogger(f"{NAME}-not")
    outside.addHandler(kept)
    outside.propagate = False
    for _ in range(3):
        log.error("away")
        log.getChild("child").error("away")
        outside.error("away")
        outside.error("away with %s", "a")
    outside.removeHandler(kept)
    outside.propagate = True
    assert len(kept.records) == 2 + 6
    assert handle.totals.seen == 6


def test_the_root_logger_means_all_of_them(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin(logging.getLogger())
    log.error("away")
    log.error("away")
    assert len(kept.records) == 1


def test_lines_of_outlast_are_folded_already_and_pass(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin()
    for _ in range(3):
        log.error("%s", "db is down", extra={"outlast": {}})
    assert len(kept.records) == 3


def test_levels_disabled_loggers_and_filters_hold(kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin()
    log.setLevel(logging.ERROR)
    log.warning("not enabled")
    assert handle.totals.seen == 0
    log.addFilter(reject := lambda record: "secret" not in record.getMessage())
    log.error("secret")
    log.error("open")
    log.removeFilter(reject)
    assert kept.lines == ["open"]
    log.error("open")
    log.setLevel(logging.CRITICAL)
    handle.close()
    assert kept.lines == ["open"], "a logger that is off writes no summary either"


def test_a_record_that_cannot_be_formatted_is_loggings_business(
    kept: Kept, begin: Callable[..., Folding], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = begin()
    # pytest's own handler would raise.
    monkeypatch.setattr(log, "handlers", [kept, logging.StreamHandler()])
    for _ in range(3):
        log.error("%d", "no number")
        log.error("%s and %s", "one")  # noqa: PLE1206
        log.error("{} is away", "one")  # noqa: PLE1205
        log.error("{} is away", "two")  # noqa: PLE1205
    assert capsys.readouterr().err.count("--- Logging error ---") == 6
    assert len(kept.records) == 6, "a record with too few values cannot be judged, and passes"
    assert handle.unjudged == 3
    monkeypatch.undo()


def test_a_value_that_cannot_be_judged_passes(kept: Kept, begin: Callable[..., Folding]) -> None:
    class Hostile(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise RuntimeError("no hash")

    handle = begin()
    for _ in range(2):
        log.error(Hostile("x"))
    assert len(kept.records) == 2
    assert (handle.totals.seen, handle.unjudged) == (0, 2)


def test_a_template_whose_values_are_always_new_is_one_kind_in_the_end(
    kept: Kept, begin: Callable[..., Folding], clock: Clock
) -> None:
    handle = begin(variants_max=5)
    names = [chr(ord("a") + number % 26) * (1 + number // 26) for number in range(100)]
    for name in names:
        log.error("no user %s", name)
        log.error(f"no client {name}")  # noqa: G004
    assert len(kept.records) == 2 * (5 + 1)
    clock.now += 31.0
    handle.due()
    said = [record.__dict__["outlast"] for record in kept.records[12:]]
    assert [fields["outlast.count"] for fields in said] == [94, 94]
    assert said[0]["outlast.key"] == "ERROR folded: no user %s | other values"
    assert "other values from" in said[1]["outlast.key"]
    log.error("no user %s", "somebody new")
    assert kept.lines[-1] == "no user somebody new", "when the storm is over there is room again"


def test_a_flood_of_kinds_is_bounded_in_every_place(kept: Kept, begin: Callable[..., Folding], clock: Clock) -> None:
    handle = begin(policy=FoldPolicy(keys_max=50))
    for number in range(10_000):
        log.error(f"{number:x} %s".translate(LETTERS), "a")
    assert len(handle.folder.fold) == 50
    assert len(handle._kinds.templates) <= 4_096
    assert len(kept.records) == 60
    handle.due()
    assert "too many different ones to name: 9940 more" in kept.lines[-1]
    assert handle.totals.seen == 10_000


LETTERS = str.maketrans("0123456789", "ghijklmnop")


def test_a_template_that_never_sees_a_value_again_looks_at_what_it_says(kept: Kept, begin: Callable[..., Folding]) -> None:
    begin()
    for number in range(5_000):
        log.error("order %s failed", f"A-{number + 10**6}")
        log.error("order %s failed at %s", f"A-{number + 10**6}", "db-1")
    assert len(kept.records) == 2


def test_summaries_name_the_incident_they_fell_into(kept: Kept, begin: Callable[..., Folding], clock: Clock) -> None:
    class Incident:
        said: str | None = None

        def summary(self) -> str | None:
            return self.said

    incident = Incident()
    handle = begin(incidents=[incident])
    log.error("before")
    log.error("before")
    incident.said = "db down since 1.0 s (1 fault)"
    log.error("away")
    log.error("away")
    incident.said = None
    clock.now += 5.0
    handle.due()
    before, away = (record.__dict__["outlast"] for record in kept.records[2:])
    assert "outlast.incident" not in before
    assert away["outlast.incident"] == "db down since 1.0 s (1 fault)"


def test_resolved_is_said_by_those_who_know(kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin()
    log.error("away")
    log.error("away")
    assert handle.resolve("ERROR folded: away")
    assert not handle.resolve("ERROR folded: away")
    assert kept.lines == ["away", "away [resolved: 1 more, 2 in 0.0 s]"]
    log.error("away")
    assert kept.lines[2:] == ["away"]


def test_closed_folding_passes_everything(kept: Kept, begin: Callable[..., Folding]) -> None:
    handle = begin()
    log.error("away")
    held = logging.Logger._log
    handle.close()
    handle.close()
    log.error("away")
    held(log, logging.ERROR, "away", ())
    assert kept.lines == ["away"] * 3
    assert logging.Logger._log is not held


def test_who_replaced_the_function_after_us_keeps_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.Logger, "_log", logging.Logger._log)
    handle = fold(timer=False)
    ours = logging.Logger._log

    def theirs(*args: Any, **options: Any) -> None:
        ours(*args, **options)

    monkeypatch.setattr(logging.Logger, "_log", theirs)
    handle.close()
    assert logging.Logger._log is theirs
    log.error("away")
    log.error("away")
    assert kept.lines == ["away", "away"]


def test_a_summary_that_cannot_be_written_stops_nothing(
    kept: Kept, begin: Callable[..., Folding], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    handle = begin()
    for message in ("one", "two"):
        log.error(message)
        log.error(message)
    monkeypatch.setattr(log, "makeRecord", lambda *args: 1 / 0)
    handle.close()
    assert [type(hook.exc_value) for hook in failed] == [ZeroDivisionError] * 2


def test_threads_lose_no_record_and_count_none_twice(kept: Kept, begin: Callable[..., Folding], clock: Clock) -> None:
    handle = begin(policy=FoldPolicy(burst=2, quiet_s=3.0, keys_max=8))
    start, each, threads = threading.Barrier(5), 3_000, 4

    def work() -> None:
        start.wait()
        for number in range(each):
            log.error("away %s", "abcdefghijklm"[number % 13])
            if number % 7 == 0:
                log.error("gone", exc_info=ValueError("x"))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    while any(worker.is_alive() for worker in workers):
        clock.now += 1.0
        handle.due()
        totals = handle.totals
        assert totals.seen == totals.shown + totals.summarised + totals.pending
    for worker in workers:
        worker.join()
    sent = threads * (each + len(range(0, each, 7)))
    assert handle.totals.seen == sent
    handle.close()
    summaries = [record.__dict__["outlast"] for record in kept.records if "outlast" in record.__dict__]
    assert len(kept.records) - len(summaries) + sum(fields["outlast.count"] for fields in summaries) == sent
