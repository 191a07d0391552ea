"""What becomes of a job whose handler failed."""

from __future__ import annotations

import random

import pytest

from outlast import Backoff, Fault, Kind, Scope, Unavailable
from outlast.jobs import Handling, Job, JobState
from outlast.jobs._decide import after_fault
from outlast.jobs._model import FINAL, TRANSITIONS, Outcome

HANDLING = Handling(attempts_max=3, backoff=Backoff(1.0, 100.0, factor=3.0))


def decide(kind: Kind, *, attempt: int = 1, source: str = "shop", exc: BaseException | None = None, **more: float) -> Outcome:
    fault = Fault(kind, "code", "reason", source, **more)  # type: ignore[arg-type]
    return after_fault(Job(1, "settle", None, attempt, 3), fault, exc, HANDLING, "db", random.Random(1))


@pytest.mark.parametrize("kind", [Kind.TRANSIENT, Kind.CONTENDED, Kind.EXHAUSTED, Kind.OVERLOADED, Kind.BUG])
def test_it_is_tried_again_until_its_attempts_are_used_up(kind: Kind) -> None:
    first, second, third = (decide(kind, attempt=attempt) for attempt in (1, 2, 3))
    assert (first.state, second.state, third.state) == ("available", "available", "dead")
    assert 0.5 <= first.delay_s <= 1.0
    assert 1.5 <= second.delay_s <= 3.0
    assert not first.give_back
    assert third.fault is not None
    assert third.fault["kind"] == kind.value


def test_what_needs_a_person_waits_a_minute() -> None:
    assert decide(Kind.PERMANENT).delay_s >= 60


@pytest.mark.parametrize("kind", [Kind.REJECTED, Kind.FATAL])
def test_what_no_retry_can_help_is_dead_at_once(kind: Kind) -> None:
    assert decide(kind).state == "dead"


def test_what_the_peer_asks_for_is_obeyed() -> None:
    assert decide(Kind.OVERLOADED, retry_after_s=500.0).delay_s >= 500


def test_what_was_not_its_doing_costs_no_attempt() -> None:
    for outcome, delay_s in (
        (decide(Kind.STOPPING, attempt=3), 0.0),
        (decide(Kind.TRANSIENT, attempt=3, source="db"), 0.0),
    ):
        assert (outcome.state, outcome.give_back, outcome.delay_s) == ("available", True, delay_s)


def test_those_who_were_refused_come_back_no_sooner_and_not_together() -> None:
    refusal = Unavailable("payments", Fault(Kind.TRANSIENT, "timeout", "t", "payments"), 5.0, 7.0)
    fault = Fault(Kind.TRANSIENT, "timeout", "t", "payments")
    outcomes = [
        after_fault(Job(1, "settle", None, 3, 3), fault, refusal, HANDLING, "db", random.Random(seed)) for seed in range(200)
    ]
    assert all((outcome.state, outcome.give_back) == ("available", True) for outcome in outcomes)
    waits = sorted(outcome.delay_s for outcome in outcomes)
    assert 7.0 <= waits[0] < 7.5
    assert 10.0 < waits[-1] <= 10.5
    assert max(sum(at <= wait < at + 0.7 for wait in waits) for at in waits) <= 60


@pytest.mark.parametrize(("kind", "code"), [(Kind.EXHAUSTED, "53100"), (Kind.OVERLOADED, "not ended")])
def test_what_the_queues_own_server_has_no_room_for_costs_no_attempt(kind: Kind, code: str) -> None:
    fault = Fault(kind, code, "reason", "db", Scope.CALL)
    waits = [
        after_fault(Job(1, "settle", None, 3, 3), fault, None, HANDLING, "db", random.Random(seed)).delay_s for seed in range(50)
    ]
    assert all(5 <= wait_s <= 15 for wait_s in waits)
    assert max(waits) - min(waits) > 5, "spread"
    outcome = after_fault(Job(1, "settle", None, 3, 3), fault, None, HANDLING, "db", random.Random(1))
    assert (outcome.state, outcome.give_back) == ("available", True)
    another = after_fault(Job(1, "settle", None, 3, 3), fault, None, HANDLING, "another db", random.Random(1))
    assert another.state == "dead"


def test_the_states_fit_together() -> None:
    assert set(TRANSITIONS) == set(JobState)
    for state in FINAL:
        assert TRANSITIONS[state] <= {JobState.AVAILABLE}
    assert TRANSITIONS[JobState.DONE] == frozenset()
