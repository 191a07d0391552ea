"""Measure what a folded record costs, in shares of an emitted one: stdlib logging, structlog, loguru, and a filter from PyPI.

    python bench/logging_fold.py            # median of 41 rounds of 1,000 calls

Records go to a StreamHandler (or what structlog and loguru have in its place) that writes to the null device. A case and the
emitted record it is compared with take short turns, one after the other, so that a slow moment of the machine falls on both;
the figure is the median of the ratios, in processor time. The exit code is 1 when a promise does not hold:

- a folded record costs at most 1/8 of an emitted one, structlog's at most 1/10, `logger.exception` ten frames deep at most 1/10;
- a record that passes costs at most 1.15 times what it costs without folding.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import itertools
import logging
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structlog.typing import BindableLogger, Processor

    from outlast._core.fold import FoldPolicy
    from outlast.logs.stdlib import Folding

NUMBERS = itertools.count()
WORDS = itertools.cycle(["".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3)])
NULL = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # for the life of the process


class Case(NamedTuple):
    """A call, what it is compared with, and how the ratio is bounded: at most `limit` times `base`."""

    name: str
    call: Callable[[], object]
    around: Callable[[], Any]
    base: str = ""
    limit: float | None = None
    share: float = 1.0
    """The share of the calls that is run: slow ones need fewer."""


def stdlib_logger(name: str, format_: str) -> logging.Logger:
    logger = logging.getLogger(name)
    handler = logging.StreamHandler(NULL)
    handler.setFormatter(logging.Formatter(format_))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


@contextmanager
def nothing() -> Iterator[None]:
    yield


def folding(policy: FoldPolicy | None = None) -> Callable[[], Folding]:
    from outlast._core.fold import FoldPolicy
    from outlast.logs.stdlib import fold

    return lambda: fold(policy=policy or FoldPolicy())


def raises(frames: int) -> None:
    if frames:
        raises(frames - 1)
    raise ValueError("no order 17")


def stdlib_cases() -> Iterator[Case]:
    from outlast._core.fold import FoldPolicy

    plain = stdlib_logger("bench.plain", logging.BASIC_FORMAT)
    shows_all = FoldPolicy(burst=10**9)
    messages: dict[str, Callable[[], object]] = {
        "constant text": lambda: plain.error("connection lost"),
        "one name": lambda: plain.error("cannot reach %s", "db-1"),
        "a number and a name": lambda: plain.error("attempt %d: cannot reach %s", next(NUMBERS), "db-1"),
    }
    for name, call in messages.items():
        yield Case(f"stdlib, {name}: emitted", call, nothing)
        yield Case(f"stdlib, {name}: folded", call, folding(), f"stdlib, {name}: emitted", 1 / 8)
        yield Case(f"stdlib, {name}: passes", call, folding(policy=shows_all), f"stdlib, {name}: emitted", 1.15)

    def info() -> None:
        plain.info("served %s in %d ms", "/orders", 7)

    yield Case("stdlib, below the level: emitted", info, nothing)
    yield Case("stdlib, below the level: passes", info, folding(), "stdlib, below the level: emitted", 1.15)

    refused = OSError(111, "refused")
    harder: dict[str, Callable[[], object]] = {
        "a field of extra": lambda: plain.error("cannot reach", extra={"host": "db-1"}),
        "an exception as a value": lambda: plain.error("failed: %s", refused),
        "a text made by an f-string": lambda: plain.error(f"attempt {next(NUMBERS)}: cannot reach db-1"),
        "a text with a word that never repeats": lambda: plain.error(f"cannot serve {next(WORDS)}: no such thing in 17 places"),
        "an id that never repeats": lambda: plain.error("no order %s", f"A-{next(NUMBERS) + 10**6}"),
    }
    for name, call in harder.items():
        yield Case(f"stdlib, {name}: emitted", call, nothing)
        yield Case(f"stdlib, {name}: folded", call, folding(), f"stdlib, {name}: emitted")

    def exception() -> None:
        try:
            raises(9)
        except ValueError:
            plain.exception("failed")

    yield Case("stdlib, exception ten deep: emitted", exception, nothing, share=0.05)
    yield Case("stdlib, exception ten deep: folded", exception, folding(), "stdlib, exception ten deep: emitted", 1 / 10, 0.2)


def filter_from_pypi() -> Iterator[Case]:
    from log_rate_limit import StreamRateLimitFilter

    logger = stdlib_logger("bench.filtered", logging.BASIC_FORMAT)

    @contextmanager
    def filtered() -> Iterator[None]:
        limit = StreamRateLimitFilter(period_sec=3_600)
        logger.addFilter(limit)
        yield
        logger.removeFilter(limit)

    for name, call in {
        "one name": lambda: logger.error("cannot reach %s", "db-1"),
        "a number and a name": lambda: logger.error("attempt %d: cannot reach %s", next(NUMBERS), "db-1"),
    }.items():
        yield Case(f"log-rate-limit, {name}: limited", call, filtered, f"stdlib, {name}: emitted")


def structlog_cases() -> Iterator[Case]:
    import structlog

    from outlast.logs.structlog import fold

    native = structlog.make_filtering_bound_logger(logging.INFO)

    def logger(wrapper: type[Any] = native, *first: Processor) -> BindableLogger:
        processors = structlog.processors
        chain = [*first, processors.add_log_level, processors.TimeStamper(fmt="iso"), processors.format_exc_info]
        made = structlog.wrap_logger(
            structlog.WriteLogger(NULL), processors=[*chain, processors.JSONRenderer()], wrapper_class=wrapper
        )
        return made.bind(service="shop")

    plain = logger()
    yield Case("structlog: emitted", lambda: plain.error("cannot reach", host="db-1"), nothing)
    in_front = logger(fold().wrap(native))
    yield Case(
        "structlog, wrapped: folded", lambda: in_front.error("cannot reach", host="db-1"), nothing, "structlog: emitted", 1 / 10
    )
    from outlast._core.fold import FoldPolicy

    through = logger(fold(FoldPolicy(burst=10**9)).wrap(native))
    yield Case("structlog, wrapped: passes", lambda: through.error("cannot reach", host="db-1"), nothing, "structlog: emitted")
    first = logger(native, fold())
    yield Case("structlog, processor: folded", lambda: first.error("cannot reach", host="db-1"), nothing, "structlog: emitted")


def loguru_cases() -> Iterator[Case]:
    from loguru import logger

    from outlast._core.fold import FoldPolicy
    from outlast.logs.loguru import fold

    logger.remove()
    logger.add(NULL, format="{time} {level} {name} {message}")

    def call() -> None:
        logger.error("cannot reach {}", "db-1")

    yield Case("loguru: emitted", call, nothing, share=0.5)
    yield Case("loguru: folded", call, fold, "loguru: emitted", 1 / 8)
    yield Case("loguru: passes", call, lambda: fold(policy=FoldPolicy(burst=10**9)), "loguru: emitted", share=0.5)


def seconds(case: Case, calls: int) -> float:
    call = case.call
    with ExitStack() as stack:
        stack.enter_context(case.around())
        call()
        gc.collect()
        began = time.process_time()
        for _ in range(calls):
            call()
        return (time.process_time() - began) / calls


def measured(case: Case, base: Case | None, arguments: argparse.Namespace) -> tuple[float, float]:
    """Return seconds a call, and the ratio to the base: medians of many short turns, each next to one of the base."""
    turns, ratios = [], []
    calls = max(20, int(arguments.calls * case.share))
    for _ in range(arguments.rounds):
        before = seconds(base, max(20, int(calls * base.share / case.share))) if base else 1.0
        turns.append(seconds(case, calls))
        ratios.append(turns[-1] / before)
    return statistics.median(turns), statistics.median(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    arguments = parser.parse_args()
    cases = [*stdlib_cases(), *filter_from_pypi(), *structlog_cases(), *loguru_cases()]
    by_name = {case.name: case for case in cases}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("structlog", "loguru", "log-rate-limit"))
    print(f"Python {platform.python_version()}, {versions}; median of {arguments.rounds} rounds of {arguments.calls:,} calls\n")
    missed: list[str] = []
    for case in cases:
        if not case.name.startswith(arguments.only):
            continue
        turn, ratio = measured(case, by_name.get(case.base), arguments)
        micros = turn * 1e6
        if not case.base:
            print(f"{case.name:52}{micros:9.2f} us")
            continue
        said = f"1/{1 / ratio:.1f}" if ratio < 0.67 else f"{ratio:.2f} x"
        limit = "" if case.limit is None else f"at most {f'1/{1 / case.limit:.0f}' if case.limit < 1 else case.limit}"
        if case.limit is not None and ratio > case.limit:
            limit += "  MISSED"
            missed.append(case.name)
        print(f"{case.name:52}{micros:9.2f} us {said:>8}  {limit}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
