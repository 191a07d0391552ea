"""Every fold judges the same lines alike: what any program prints, and the loggers of Python, as text and as templates."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import loguru
import pytest
import structlog

from outlast.logs import loguru as for_loguru
from outlast.logs import stdlib as for_stdlib
from outlast.logs import structlog as for_structlog
from outlast.logs.text import TextFold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("fold_corpus.toml").read_text(encoding="utf-8"))["group"]

Line = tuple[str, tuple[Any, ...]]
"""A template and its values; a ready-made text has none."""


class Pair(NamedTuple):
    """Two lines, and whether a fold of this sort takes them for the same."""

    one: Line
    other: Line
    same: bool


def pairs(sort: str) -> Iterator[Any]:
    """Every pair of the corpus, as `sort` (`python` or `text`) has to judge it."""
    for group in CORPUS:
        same = group.get(sort, group["same"])
        for one, other in group.get("pairs", ()):
            yield pytest.param(Pair((one, ()), (other, ()), same), id=f"{one}, {other}")
        for template, one, other in group.get("templates", ()):
            yield pytest.param(Pair((template, tuple(one)), (template, tuple(other)), same), id=f"{template}, {one}, {other}")


def judged_as_text(lines: list[Line]) -> int:
    fold = TextFold()
    fold.feed("".join(f"{template % values if values else template}\n" for template, values in lines).encode(), 0.0)
    fold.end(1.0)
    return fold.stats.shown


def judged_by_stdlib(lines: list[Line]) -> int:
    logger = logging.getLogger("corpus")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    with for_stdlib.fold(timer=False) as folding:
        for template, values in lines:
            logger.error(template, *values)
        return folding.totals.shown


def judged_by_structlog(lines: list[Line]) -> int:
    with for_structlog.fold(timer=False) as folding:
        wrapper = folding.wrap(structlog.make_filtering_bound_logger(logging.INFO))
        logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=[], wrapper_class=wrapper)
        for template, values in lines:
            logger.error(template, *values)
        return folding.totals.shown


def judged_by_loguru(lines: list[Line]) -> int:
    loguru.logger.remove()
    sink = loguru.logger.add(lambda _: None)
    with for_loguru.fold(timer=False) as folding:
        for template, values in lines:
            loguru.logger.error(template, *values)
        shown = folding.totals.shown
    loguru.logger.remove(sink)
    return shown


@pytest.mark.parametrize("pair", [*pairs("text")])
def test_what_any_program_prints_is_judged_as_the_corpus_says(pair: Pair) -> None:
    assert judged_as_text([pair.one, pair.other]) == (1 if pair.same else 2)


@pytest.mark.parametrize("pair", [*pairs("python")])
def test_the_lines_of_stdlib_logging_are_judged_as_the_corpus_says(pair: Pair) -> None:
    assert judged_by_stdlib([pair.one, pair.other]) == (1 if pair.same else 2)


@pytest.mark.parametrize("judged", [judged_by_structlog, judged_by_loguru])
@pytest.mark.parametrize("pair", [case for case in pairs("python") if not case.values[0].one[1]])
def test_ready_made_texts_of_other_loggers_are_judged_as_the_corpus_says(pair: Pair, judged: Callable[[list[Line]], int]) -> None:
    assert judged([pair.one, pair.other]) == (1 if pair.same else 2)


def test_the_corpus_gives_a_reason_for_every_judgement_and_for_every_difference() -> None:
    for group in CORPUS:
        assert group["why"]
        for sort in ("python", "text"):
            assert (sort in group) == bool(group.get(f"{sort}_why"))
            assert group.get(sort) != group["same"]
    judgements = [group["same"] for group in CORPUS for _ in group.get("pairs", group.get("templates"))]
    assert min(judgements.count(True), judgements.count(False)) >= 40
