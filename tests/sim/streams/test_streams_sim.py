"""Streams on a disk that runs full, tears, fails and loses its power; `python -m tests.sim.streams` runs more seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stream_mutants import MUTANTS
from stream_parts import replay_command
from stream_world import run_seed

from planting import planted
from seeds import counted, first_failure

if TYPE_CHECKING:
    from collections import Counter

SEEDS = range(200)
MORE_SEEDS = range(1000, 9000)
FOUND_WITHIN = 40
HAPPENS = ("append", "append refused", "append unknown", "power cut", "crash", "died", "trim", "sync", "recovery failed", "close")
HAPPENS_TOO = ("recovered for reading", "sync failed", "read refused", "trim refused", "trim unknown", "died in recovery")


def run(seeds: range) -> Counter[str]:
    return counted(run_seed, replay_command, seeds)


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
        outcome = first_failure(run_seed, FOUND_WITHIN)
        assert run_seed(outcome.seed).violation == outcome.violation, "by its seed again"
    assert not run_seed(outcome.seed).violation


def test_a_seed_decides_everything() -> None:
    assert [run_seed(seed).digest for seed in range(5)] == [run_seed(seed).digest for seed in range(5)]
