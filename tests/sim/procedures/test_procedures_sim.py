"""Procedures whose keys fail, for themselves and all together; `python -m tests.sim.procedures` runs more seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from procedure_mutants import MUTANTS
from procedure_world import replay_command, run_seed

from planting import planted
from seeds import counted, first_failure

if TYPE_CHECKING:
    from collections import Counter

SEEDS = range(12)
MORE_SEEDS = range(1000, 4000)
FOUND_WITHIN = 20
HAPPENS = ("OPENED", "FAILED", "GONE", "BACK", "TOLD", "OVER", "canary", "cancelled", "expired", "killed", "clear", "no", "the")


def run(seeds: range) -> Counter[str]:
    return counted(run_seed, replay_command, seeds)


def test_no_promise_is_broken_and_whoever_is_still_wanted_ends_well() -> None:
    """A refusal is true, a join is to what is live, no canary is alone too long or in company; a cause counts against no key."""
    counts = run(SEEDS)
    assert {what for what in HAPPENS if not counts[what]} == set(), "each of it happened"


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
    assert [run_seed(seed).digest for seed in range(3)] == [run_seed(seed).digest for seed in range(3)]
