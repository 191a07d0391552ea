"""Folding for structlog: as a processor, and in front of the chain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from outlast._core.fold import FoldPolicy
from outlast.logs.structlog import Folding, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Bench:
    """A logger with its folding, and what arrived at the end of the chain."""

    def __init__(self, way: str, folding: Folding, wrapper: Any = None) -> None:
        self.folding = folding
        self.events: list[dict[str, Any]] = []

        def keep(logger: Any, method: str, event_dict: dict[str, Any]) -> str:
            self.events.append({**event_dict, "method": method})
            return ""

        wrapper = wrapper or structlog.make_filtering_bound_logger(logging.INFO)
        first = [folding] if way == "processor" else []
        callsite = structlog.processors.CallsiteParameterAdder({structlog.processors.CallsiteParameter.FUNC_NAME})
        structlog.configure(
            processors=[*first, callsite, structlog.processors.format_exc_info, keep],
            wrapper_class=wrapper if way == "processor" else folding.wrap(wrapper),
            logger_factory=structlog.ReturnLoggerFactory(),
        )
        self.log: Any = structlog.get_logger()

    @property
    def texts(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture(params=["processor", "wrapped"])
def begin(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Callable[..., Bench]]:
    opened: list[Bench] = []

    def begin(wrapper: Any = None, **options: Any) -> Bench:
        opened.append(Bench(request.param, fold(timer=False, clock=clock, **options), wrapper))
        return opened[-1]

    yield begin
    for bench in opened:
        bench.folding.close()
        assert bench.folding.unjudged == 0
    structlog.reset_defaults()


def test_the_first_is_written_and_the_rest_is_counted(begin: Callable[..., Bench], clock: Clock) -> None:
    bench = begin()
    with bench.folding as folding:
        for attempt in range(100):
            bench.log.error("cannot reach", host="db-1", attempt=attempt)
        assert bench.texts == ["cannot reach"]
        assert bench.events[0]["attempt"] == 0
        assert bench.events[0]["func_name"] == "test_the_first_is_written_and_the_rest_is_counted"
        clock.now += 5.0
        folding.due()
        summary = bench.events[1]
        assert summary["event"] == "cannot reach [goes on: 99 more, 100 in 0.0 s]"
        assert (summary["outlast.count"], summary["outlast.total"], summary["method"]) == (99, 100, "error")
        assert summary["outlast.key"] == "ERROR: cannot reach | host=db-1"
        bench.log.error("cannot reach", host="db-1")
    assert bench.texts[2:] == ["cannot reach [so far: 1 more, 101 in 5.0 s]"]
    totals = folding.totals
    assert (totals.seen, totals.shown, totals.summarised, totals.pending) == (101, 1, 100, 0)
    bench.log.error("cannot reach", host="db-1")
    assert bench.texts[3:] == ["cannot reach"], "a closed one passes everything"


def test_what_is_bound_tells_kinds_apart(begin: Callable[..., Bench]) -> None:
    bench = begin()
    for host in ("db-1", "db-2", "db-1", "db-2"):
        for request in ("one", "two"):
            bench.log.bind(host=host, request_id=request).error("cannot reach")
    assert [event["host"] for event in bench.events] == ["db-1", "db-2"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"status": 500}, {"status": 404}),
        ({"http_status": 500}, {"http_status": 404}),
        ({"table": "orders"}, {"table": "users"}),
        ({"path": "/a"}, {"path": "/b"}),
        ({"a": "x"}, {"b": "x"}),
        ({"error": OSError(111, "x")}, {"error": OSError(113, "x")}),
        ({"exc_info": ValueError("x")}, {"exc_info": TypeError("x")}),
        ({"exc_info": ExceptionGroup("x", [ValueError()])}, {"exc_info": ExceptionGroup("x", [TypeError()])}),
        ({"tables": ["a"]}, {"tables": ["b"]}),
    ],
)
def test_what_differs_in_a_name_or_a_code_is_shown(
    first: dict[str, Any], second: dict[str, Any], begin: Callable[..., Bench]
) -> None:
    bench = begin()
    for _ in range(3):
        bench.log.error("failed", **first)
        bench.log.error("failed", **second)
    assert len(bench.events) == 2


def test_values_of_a_template_tell_kinds_apart(begin: Callable[..., Bench]) -> None:
    bench = begin()
    for attempt in range(3):
        for host in ("db-1", "db-2"):
            bench.log.error("attempt %d: no %s", attempt, host)
            bench.log.error("%(n)d: no %(host)s", {"n": attempt, "host": host})
    assert sorted(bench.texts) == ["0: no db-1", "0: no db-2", "attempt 0: no db-1", "attempt 0: no db-2"]


def test_critical_and_progress_are_never_folded(begin: Callable[..., Bench]) -> None:
    bench = begin()
    for _ in range(3):
        bench.log.critical("corrupt")
        bench.log.info("served")
        bench.log.debug("not enabled")
    assert bench.texts == ["corrupt", "served"] * 3
    assert bench.folding.totals.seen == 0


def test_levels_and_events_are_exempted(begin: Callable[..., Bench]) -> None:
    bench = begin(exempt={logging.WARNING, "paid"})
    for _ in range(3):
        bench.log.warning("slow")
        bench.log.error("paid", customer="a")
        bench.log.error("folded")
    assert bench.texts == ["slow", "paid", "folded", "slow", "paid", "slow", "paid"]


def test_an_exception_is_shown_once_a_kind(begin: Callable[..., Bench]) -> None:
    bench = begin()
    for attempt in range(3):
        try:
            raise ValueError(f"attempt {attempt}")
        except ValueError:
            bench.log.exception("failed")
    assert len(bench.events) == 1
    assert "ValueError: attempt 0" in bench.events[0]["exception"]
    bench.folding.close()
    assert bench.texts[1] == "failed (ValueError: attempt 0) [so far: 2 more, 3 in 0.0 s]"


def test_an_event_whose_values_never_repeat_is_one_kind_in_the_end(begin: Callable[..., Bench]) -> None:
    bench = begin(variants_max=4)
    for number in range(50):
        bench.log.error("no user", user=chr(97 + number % 26) * (1 + number // 26))
    assert len(bench.events) == 5
    assert bench.folding.totals.pending == 45


def test_resolved_is_said_by_those_who_know(begin: Callable[..., Bench]) -> None:
    bench = begin()
    bench.log.error("away")
    bench.log.error("away")
    assert bench.folding.resolve("ERROR: away")
    assert bench.texts[1:] == ["away [resolved: 1 more, 2 in 0.0 s]"]


def test_other_wrapper_classes_are_asked_for_too(begin: Callable[..., Bench]) -> None:
    bench = begin(structlog.BoundLogger)
    bench.log.error("away", host="a")
    bench.log.error("away", host="a")
    bench.log.info("served")
    assert bench.texts == ["away", "served"]
    assert bench.events[0]["func_name"] == "test_other_wrapper_classes_are_asked_for_too"


def test_the_name_of_a_stdlib_logger_tells_kinds_apart(clock: Clock) -> None:
    with fold(timer=False, clock=clock, exempt={"noisy"}, policy=FoldPolicy(burst=1)) as folding:
        seen: list[str] = []

        def keep(logger: Any, method: str, event_dict: dict[str, Any]) -> Any:
            seen.append(logger.name)
            raise structlog.DropEvent

        for _ in range(3):
            for name in ("shop", "shop.db", "noisy"):
                structlog.wrap_logger(
                    logging.getLogger(name), processors=[keep], wrapper_class=folding.wrap(structlog.stdlib.BoundLogger)
                ).error("away")
        assert seen == ["shop", "shop.db", "noisy", "noisy", "noisy"]


def test_an_event_that_cannot_be_judged_passes(clock: Clock) -> None:
    folding = fold(timer=False, clock=clock)
    for way in ("processor", "wrapped"):
        bench = Bench(way, folding)
        bench.log.error(["no", "text"])
        bench.log.error(["no", "text"])
        assert len(bench.events) == 2
    assert folding.unjudged == 4
    structlog.reset_defaults()
