"""The table of kinds: complete, and what follows from each row."""

from __future__ import annotations

import pytest

from outlast._core.faults import Fault, Kind, Scope
from outlast._core.reaction import PASSING, RULES, SEVERITY, Reaction


def test_the_table_has_a_row_for_every_kind_and_a_kind_for_every_reaction() -> None:
    assert set(RULES) == set(Kind) == set(SEVERITY)
    assert len(SEVERITY) == len(Kind)
    assert {rule.reaction for rule in RULES.values()} == set(Reaction)
    assert [kind for kind in Kind if RULES[kind].exit_code is not None] == [Kind.FATAL, Kind.BUG]
    assert [kind for kind in Kind if not RULES[kind].folded] == [Kind.FATAL]


def test_what_passes_by_itself() -> None:
    assert {Kind.TRANSIENT, Kind.CONTENDED, Kind.EXHAUSTED, Kind.OVERLOADED} == PASSING


@pytest.mark.parametrize("kind", Kind)
def test_only_a_stop_that_is_not_our_own_is_taken_for_something_that_passes(kind: Kind) -> None:
    fault = Fault(kind, "x", "y")
    assert fault.met_while(stopping=True) == fault
    assert fault.met_while(stopping=False).kind is (Kind.TRANSIENT if kind is Kind.STOPPING else kind)


@pytest.mark.parametrize("kind", Kind)
def test_what_the_peer_asks_for_is_a_floor_and_a_person_needs_time(kind: Kind) -> None:
    long = 5.0 if kind is Kind.PERMANENT else None
    assert Fault(kind, "x", "y").floor_s(5.0) == long
    assert Fault(kind, "x", "y", retry_after_s=2.0).floor_s(5.0) == (long or 2.0)
    assert Fault(kind, "x", "y", retry_after_s=9.0).floor_s(5.0) == 9.0


@pytest.mark.parametrize("kind", Kind)
def test_whoever_uses_what_has_ended_waits_for_a_person_and_does_not_leave(kind: Kind) -> None:
    fault = Fault(kind, "x", "y", "disk", Scope.CHILD)
    assert fault.reaction is Reaction.WAIT_LONG
    assert fault.is_evidence
    assert fault.is_folded
    assert fault.level == Fault(kind, "x", "y").level
    assert fault.floor_s(5.0) == 5.0
