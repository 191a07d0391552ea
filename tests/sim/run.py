"""Runs many seeds, over all processors, until one breaks an invariant or the number or the hours are over."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from tests.planting import planted
from tests.sim.mutants import MUTANTS
from tests.sim.schedule import Outcome, run_schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
BATCH: Final = 50
FULL_COLLECTION_EVERY: Final = 100


@dataclass(slots=True)
class Result:
    """What came of a range of seeds."""

    schedules: int = 0
    events: int = 0
    services: int = 0
    exit_codes: dict[str, int] = field(default_factory=dict)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.schedules += 1
        self.events += outcome.events
        self.services += outcome.services
        code = "start failed" if outcome.exit_code is None else str(outcome.exit_code)
        self.exit_codes[code] = self.exit_codes.get(code, 0) + 1
        if outcome.violations:
            self.failures.append(outcome)

    def take(self, other: Result) -> None:
        self.schedules += other.schedules
        self.events += other.events
        self.services += other.services
        for code, count in other.exit_codes.items():
            self.exit_codes[code] = self.exit_codes.get(code, 0) + count
        self.failures += other.failures


def run_seeds(first: int, count: int, mutant: str | None = None, *, to_first_failure: bool = True) -> Result:
    """Run `count` seeds from `first` on, in this process."""
    result = Result()
    with planted(MUTANTS, mutant):
        for number, seed in enumerate(range(first, first + count)):
            result.add(run_schedule(seed))
            if number % FULL_COLLECTION_EVERY == 0:
                gc.collect()
            if result.failures and to_first_failure:
                break
    return result


def run_parallel(first: int, count: int | None, *, hours: float | None = None, mutant: str | None = None) -> Result:
    """Run seeds in order over all processors, until the first failure, `count`, or `hours`."""
    total, until = Result(), None if hours is None else monotonic_s() + hours * 3600
    context = multiprocessing.get_context("spawn")
    batches = _batches(first, count)
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_find_tests, initargs=(str(ROOT),)) as pool:
        running: set[Future[Result]] = set()
        while not total.failures and (until is None or monotonic_s() < until):
            while len(running) < 2 * workers and (batch := next(batches, None)) is not None:
                running.add(pool.submit(run_seeds, *batch, mutant))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                total.take(future.result())
            _progress(total)
        # Earlier seeds may be under way: the first failure is the lowest.
        for future in running if total.failures else ():
            total.take(future.result())
        pool.shutdown(cancel_futures=True)
    total.failures.sort(key=lambda outcome: outcome.seed)
    return total


def replay_command(seed: int, mutant: str | None) -> str:
    """The command that runs this one again."""
    planted_too = f" --mutant {mutant}" if mutant else ""
    return f"PYTHONPATH=src python3 -m tests.sim --seed {seed} --schedules 1{planted_too}"


def told(outcome: Outcome, mutant: str | None) -> str:
    """Everything about a failure, for people."""
    lines = [f"seed {outcome.seed} breaks an invariant:", *(f"  {violation}" for violation in outcome.violations)]
    lines += ["the trace ends:", *(f"  {event}" for event in outcome.tail), f"replay: {replay_command(outcome.seed, mutant)}"]
    return "\n".join(lines)


def monotonic_s() -> float:
    """The real clock: for a budget in hours only."""
    return monotonic()


def _batches(first: int, count: int | None) -> Iterator[tuple[int, int]]:
    at = first
    while count is None or at < first + count:
        size = BATCH if count is None else min(BATCH, first + count - at)
        yield at, size
        at += size


def _find_tests(root: str) -> None:
    """A spawned process does not search where its parent was started."""
    if root not in sys.path:
        sys.path.insert(0, root)


def _progress(total: Result) -> None:
    if sys.stderr.isatty() or total.schedules % (BATCH * 20) == 0:
        print(f"{total.schedules} schedules, {total.events} events, {len(total.failures)} failed", file=sys.stderr, flush=True)  # noqa: T201
