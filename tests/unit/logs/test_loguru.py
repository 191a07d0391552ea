"""Folding for loguru."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from outlast.logs.loguru import Folding, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records() -> Iterator[list[dict[str, Any]]]:
    kept: list[dict[str, Any]] = []
    logger.remove()
    sink = logger.add(lambda message: kept.append(message.record), level="DEBUG", format="{message}")
    yield kept
    logger.remove(sink)


@pytest.fixture
def begin(clock: Clock) -> Iterator[Callable[..., Folding]]:
    opened: list[Folding] = []

    def begin(**options: Any) -> Folding:
        opened.append(fold(timer=False, clock=clock, **options))
        return opened[-1]

    yield begin
    for handle in opened:
        handle.close()
        assert handle.unjudged == 0


def texts(records: list[dict[str, Any]]) -> list[str]:
    return [record["message"] for record in records]


Records = list[dict[str, Any]]
Begin = Any


def test_the_first_is_written_and_the_rest_is_counted(records: Records, begin: Begin, clock: Clock) -> None:
    with begin() as handle:
        for attempt in range(100):
            logger.error("attempt {}: no {host}", attempt, host="db-1")
        assert texts(records) == ["attempt 0: no db-1"]
        clock.now += 5.0
        handle.due()
        first, summary = records
        assert summary["message"] == "attempt 0: no db-1 [goes on: 99 more, 100 in 0.0 s]"
        assert summary["extra"]["outlast"]["outlast.count"] == 99
        for field in ("name", "function", "module", "line"):
            assert summary[field] == first[field]
        assert summary["level"].name == "ERROR"
        assert (summary["file"].name, summary["file"].path) == (first["file"].name, first["file"].path)
        logger.error("attempt {}: no {host}", 7, host="db-1")
    assert texts(records)[2:] == ["attempt 0: no db-1 [so far: 1 more, 101 in 5.0 s]"]
    assert handle.totals.seen == 101
    logger.error("attempt {}: no {host}", 8, host="db-1")
    assert texts(records)[3:] == ["attempt 8: no db-1"], "a closed one passes everything"


def wrapper() -> None:
    logger.opt(depth=1).error("from a wrapper")


def test_the_caller_is_named_as_without_folding(records: Records, begin: Begin) -> None:
    begin()
    logger.error("one")
    wrapper()
    logger.log("ERROR", "three")
    logger.exception("four")
    assert {record["function"] for record in records} == {"test_the_caller_is_named_as_without_folding"}
    assert {record["name"] for record in records} == {__name__}
    assert len(records) == 4


def test_what_is_kept_of_the_first(records: Records, begin: Begin) -> None:
    begin()
    for attempt in range(3):
        try:
            raise ValueError(f"attempt {attempt}")
        except ValueError:
            logger.bind(order=attempt).exception("failed")
    (record,) = records
    assert record["extra"] == {"order": 0}
    assert str(record["exception"].value) == "attempt 0"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("no {}", "a"), ("no {}", "b")),
        (("no {0}", "a"), ("no {0}", "b")),
        (("no {0.stem}", PurePosixPath("/a/x")), ("no {0.stem}", PurePosixPath("/b/x"))),
        (("status {}", 500), ("status {}", 404)),
        (("HTTP 500 from a",), ("HTTP 404 from a",)),
        (("no table a {{}}",), ("no table b {{}}",)),
    ],
)
def test_what_differs_in_a_name_or_a_code_is_shown(
    first: tuple[Any, ...], second: tuple[Any, ...], records: Records, begin: Begin
) -> None:
    begin()
    for _ in range(3):
        logger.error(*first)
        logger.error(*second)
    assert len(records) == 2


def test_what_differs_by_name_is_shown(records: Records, begin: Begin) -> None:
    begin()
    for _ in range(3):
        for code in (500, 404):
            logger.error("status {s}", s=code)
            logger.error("answered", status=code)
            logger.bind(host=f"db-{code}").error("bound")
            logger.error("failed", exc_info=None, error=OSError(code, "x"))
    assert len(records) == 8


def test_members_of_a_group_are_part_of_it(records: Records, begin: Begin) -> None:
    begin()
    for _ in range(3):
        for member in (ValueError("x"), TypeError("x")):
            logger.opt(exception=ExceptionGroup("tasks failed", [member])).error("failed")
    assert len(records) == 2


def test_what_differs_in_a_count_is_folded(records: Records, begin: Begin) -> None:
    begin()
    for number in range(3):
        logger.error("took {:.1f} s", float(number))
        logger.error(f"attempt {number} failed")
        logger.bind(request_id=str(number)).error("bound")
        logger.opt(lazy=True).error("lazy {}", lambda: "value")
    assert len(records) == 4


def test_critical_and_progress_are_never_folded(records: Records, begin: Begin) -> None:
    handle = begin()
    for _ in range(3):
        logger.critical("corrupt")
        logger.success("done")
        logger.log(25, "by number")
    assert len(records) == 9
    assert handle.totals.seen == 0


def test_levels_modules_and_templates_are_exempted(records: Records, begin: Begin) -> None:
    begin(exempt={logging.WARNING, "paid {}"})
    for _ in range(3):
        logger.warning("slow")
        logger.error("paid {}", "a")
        logger.error("folded")
    assert texts(records) == ["slow", "paid a", "folded", "slow", "paid a", "slow", "paid a"]


def test_modules_are_exempted(records: Records, begin: Begin) -> None:
    begin(exempt={__name__})
    logger.error("away")
    logger.error("away")
    assert len(records) == 2


def test_what_is_switched_off_is_not_counted(records: Records, begin: Begin) -> None:
    handle = begin()
    logger.disable(__name__)
    logger.error("away")
    logger.enable(__name__)
    assert handle.totals.seen in {0, 1}
    assert records == []


def test_a_template_whose_values_never_repeat_is_one_kind_in_the_end(records: Records, begin: Begin) -> None:
    handle = begin(variants_max=4)
    for number in range(50):
        logger.error("no user {}", chr(97 + number % 26) * (1 + number // 26))
    assert len(records) == 5
    assert handle.totals.pending == 45
    handle.close()
    assert "no user" in texts(records)[-1]


def test_resolved_is_said_by_those_who_know(records: Records, begin: Begin) -> None:
    handle = begin()
    logger.error("away")
    logger.error("away")
    (key,) = handle.folder.fold._storms
    assert handle.resolve(key)
    assert texts(records) == ["away", "away [resolved: 1 more, 2 in 0.0 s]"]


def test_a_message_that_cannot_be_formatted_is_logurus_business(records: Records, begin: Begin) -> None:
    begin()
    with pytest.raises(KeyError):
        logger.error("no {name}", other="a")


def test_a_record_that_cannot_be_judged_passes(records: Records, clock: Clock) -> None:
    handle = fold(timer=False, clock=clock)
    logger.error(["no", "text"])
    logger.error(["no", "text"])
    handle.close()
    handle.close()
    assert len(records) == 2
    assert handle.unjudged == 2
