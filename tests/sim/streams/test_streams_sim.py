"""Streams on a disk that runs full, tears, fails and loses its power; `python -m tests.sim.streams` runs more seeds."""

from __future__ import annotations

from collections import Counter

import pytest
from stream_mutants import MUTANTS
from stream_parts import Outcome, replay_command
from stream_world import run_seed

from planting import planted

SEEDS = range(200)
MORE_SEEDS = range(1000, 9000)
FOUND_WITHIN = 40
HAPPENS = ("append", "append refused", "append unknown", "power cut", "crash", "died", "trim", "sync", "recovery failed", "close")
HAPPENS_TOO = ("recovered for reading", "sync failed", "read refused", "trim refused", "trim unknown", "died in recovery")


def run(seeds: range) -> Counter[str]:
    counts = Counter[str]()
    for seed in seeds:
        outcome = run_seed(seed)
        assert not outcome.violation, f"{outcome.violation}; replay it: {replay_command(seed)}"
        counts.update(outcome.counts)
    return counts


def test_no_promise_is_broken_and_a_healed_disk_is_used_again() -> None:
    """What is acknowledged is there after any crash, what is refused never; no position has two contents, no retry two places."""
    counts = run(SEEDS)
    assert {kind for kind in (*HAPPENS, *HAPPENS_TOO) if not counts[kind]} == set(), "each of it happened"


@pytest.mark.long
def test_no_promise_is_broken_by_more_seeds() -> None:
    run(MORE_SEEDS)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_defect_is_found(mutant: str) -> None:
    with planted(MUTANTS, mutant):
        outcome = first_failure()
        assert run_seed(outcome.seed).violation == outcome.violation, "by its seed again"
    assert not run_seed(outcome.seed).violation


def first_failure() -> Outcome:
    for seed in range(FOUND_WITHIN):
        if (outcome := run_seed(seed)).violation:
            return outcome
    pytest.fail(f"not found within {FOUND_WITHIN} seeds")


def test_a_seed_decides_everything() -> None:
    assert [run_seed(seed).digest for seed in range(5)] == [run_seed(seed).digest for seed in range(5)]
