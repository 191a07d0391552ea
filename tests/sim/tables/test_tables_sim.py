"""Tables under writers and troubles of all sorts; `python -m tests.sim.tables` runs more seeds."""

from __future__ import annotations

import pytest
from tables_mutants import MUTANTS
from tables_world import replay_command, run_seed

from planting import planted
from seeds import counted, first_failure

SEEDS = range(4)
MORE_SEEDS = range(1_000, 1_300)
FOUND_WITHIN = 30
HAPPENS = (
    "stored",
    "in line",
    "type",
    "poison",
    "refused body",
    "cancelled",
    "outage",
    "cannot be made",
    "dropped",
    "dropped here",
    "changed",
    "restart",
)

pytestmark = pytest.mark.expected_logs


def test_nothing_acknowledged_is_lost_nothing_refused_appears_and_all_is_taken_in_the_end() -> None:
    counts = counted(run_seed, replay_command, SEEDS)
    assert {what for what in HAPPENS if not counts[what]} == set(), "each of it happened"


@pytest.mark.long
def test_no_promise_is_broken_by_more_seeds() -> None:
    counts = counted(run_seed, replay_command, MORE_SEEDS)
    assert {what for what in ("name taken", "42501", "lock", "not made", "deadline") if not counts[what]} == set()


LATE = "a_refusal_is_remembered_forever"
"""It is seen only after everything is healed, which takes two minutes of the loop's time."""


@pytest.mark.parametrize("mutant", [pytest.param(each, marks=[pytest.mark.long] * (each == LATE)) for each in MUTANTS])
def test_a_planted_defect_is_found(mutant: str) -> None:
    with planted(MUTANTS, mutant):
        outcome = first_failure(run_seed, FOUND_WITHIN)
    assert not run_seed(outcome.seed).violation
