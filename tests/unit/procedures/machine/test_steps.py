"""Steps: in order, tried again by the kind of their fault, and what counts as an attempt."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from outlast import Backoff, Kind, Unavailable
from outlast.extend import Jitter, fault_record
from outlast.procedures._machine.actions import Fail, Finish, GiveBack, RunStep, TryAgain
from outlast.procedures._machine.body import RESULTS_BYTES_MAX, Body
from outlast.procedures._machine.next_action import next_action, write_of
from outlast.procedures._model import ProcedureState
from outlast.procedures._procedure import Procedure
from procedure_rig import ID, Rig, World, dies_at, fault, nothing

NO_JITTER = Backoff(base_s=1.0, cap_s=60.0, factor=2.0, jitter=Jitter.NONE)
PASSING = [Kind.TRANSIENT, Kind.CONTENDED, Kind.EXHAUSTED, Kind.OVERLOADED, Kind.BUG]
AT_ONCE = [Kind.REJECTED, Kind.PERMANENT, Kind.FATAL]


def three(attempts_max: int = 3) -> Procedure:
    procedure = Procedure("three", attempts_max=attempts_max, backoff=NO_JITTER)
    for name in ("a", "b", "c"):
        procedure.step(name=name)(nothing).undo(nothing)
    return procedure


def test_steps_are_run_in_order_and_the_result_is_that_of_the_last() -> None:
    rig = Rig(three(), World(results={"c": '{"columns": 3}'}))
    assert rig.run() is ProcedureState.DONE
    assert rig.record.result_json == '{"columns": 3}'
    assert rig.world.effects == [f"{ID}:0:a", f"{ID}:0:b", f"{ID}:0:c"]


def test_each_step_but_the_last_costs_one_write_and_the_last_is_one_with_the_end() -> None:
    rig = Rig(three())
    rig.run()
    assert [write.state for write in rig.writes] == ["running", "running", "done"]


def test_the_results_are_not_stored_twice_with_the_end() -> None:
    rig = Rig(three(), World(results={"a": json.dumps("x" * 10_000)}))
    rig.run()
    assert [len(write.body_json) > 10_000 for write in rig.writes] == [True, True, False]
    assert json.loads(rig.record.body_json)["done"] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_tried_again_with_backoff_until_the_attempts_are_used_up(kind: Kind) -> None:
    rig = Rig(three(), World(always={"b": fault(kind)}))
    assert rig.run() is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b"] == [1, 2, 3]
    assert [write.due_s for write in rig.writes if write.state == "waiting"] == [1.0, 2.0]
    assert rig.world.done() == ["a", "b", "b:undo", "a:undo"]


def test_a_step_that_recovers_goes_on_with_the_next_one() -> None:
    rig = Rig(three(), World(meets={"b": [fault(), fault()]}))
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done() == ["a", "b", "c"]
    assert rig.record.first_fault == fault_record(fault())


@pytest.mark.parametrize("kind", AT_ONCE)
def test_what_does_not_pass_by_itself_is_undone_and_dead_at_once(kind: Kind) -> None:
    rig = Rig(three(), World(always={"b": fault(kind)}))
    assert rig.run(claims=1) is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b"] == [1]


def test_a_step_has_attempts_of_its_own() -> None:
    procedure = Procedure("own", attempts_max=5, backoff=NO_JITTER)
    procedure.step(name="a", attempts_max=2)(nothing)
    rig = Rig(procedure, World(always={"a": fault()}))
    rig.run()
    assert rig.world.seen == [("a", 1), ("a", 2)]


def test_the_wait_is_at_least_what_the_peer_asked_for() -> None:
    rig = Rig(three(), World(meets={"a": [fault(Kind.OVERLOADED, "429", retry_after_s=40.0)]}))
    rig.run()
    assert [write.due_s for write in rig.writes if write.state == "waiting"] == [40.0]


@pytest.mark.parametrize("asked_s", [1e12, float("inf"), float("nan"), -5.0])
def test_a_wait_that_makes_no_sense_is_brought_into_the_range(asked_s: float) -> None:
    rig = Rig(three(), World(meets={"a": [fault(Kind.OVERLOADED, "429", retry_after_s=asked_s)]}))
    assert rig.run() is ProcedureState.DONE
    (wait_s,) = [write.due_s for write in rig.writes if write.state == "waiting"]
    assert wait_s is not None
    assert 0.0 <= wait_s <= 86_400.0


def body_in_step(rig: Rig) -> Body:
    body = Body.of(rig.procedure, rig.record)
    assert isinstance(next_action(body, now=rig.now), RunStep)
    return body


def test_our_own_stop_does_not_count() -> None:
    rig = Rig(three(attempts_max=1))
    body = body_in_step(rig)
    after = body.step_failed(fault(Kind.STOPPING), rig.rng)
    assert after == GiveBack(0.0)
    write = write_of(rig.record, body, GiveBack(0.0))
    assert (write.state, write.due_s) == ("queued", 0.0)
    action = next_action(body, now=rig.now)
    assert isinstance(action, RunStep)
    assert action.attempt == 1


def test_a_refusal_by_a_dependency_that_is_down_does_not_count_and_is_spread() -> None:
    rig = Rig(three(attempts_max=1))
    refusal = Unavailable("db", fault(), 3.0, 10.0)
    waits = set()
    for seed in range(20):
        after = body_in_step(rig).step_failed(refusal.fault, random.Random(seed), refusal=refusal)
        assert isinstance(after, GiveBack)
        assert 10.0 <= after.seconds <= 15.0
        waits.add(after.seconds)
    assert len(waits) == 20


def test_what_failed_by_an_open_cause_does_not_count_even_if_it_would_be_dead_at_once() -> None:
    rig = Rig(three(attempts_max=1))
    after = body_in_step(rig).step_failed(fault(Kind.PERMANENT), rig.rng, cause_open=True)
    assert isinstance(after, GiveBack)


def test_what_was_given_back_is_undone_as_unknown_when_it_is_cancelled() -> None:
    rig = Rig(three())
    body = body_in_step(rig)
    body.step_failed(fault(Kind.STOPPING), rig.rng)
    rig.record = replace(rig.record, body_json=body.encode(), cancel_requested=True)
    assert rig.run() is ProcedureState.CANCELLED
    assert rig.world.known == {"a": [(False, None)]}


def test_deaths_of_runners_count_as_attempts() -> None:
    rig = Rig(three(attempts_max=3))
    rig.dies = dies_at(["after b", "after b"])
    assert rig.run() is ProcedureState.DONE
    assert [attempt for name, attempt in rig.world.seen if name == "b"] == [1, 2, 3]


def test_a_step_that_kills_its_runner_each_time_is_dead_after_its_attempts() -> None:
    rig = Rig(three(attempts_max=3))
    rig.dies = lambda place: place == "after b"
    assert rig.run() is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b"] == [1, 2, 3]
    assert rig.world.done() == ["a", "b", "b:undo", "a:undo"]
    body = Body.of(rig.procedure, rig.record)
    action = next_action(body, now=rig.now)
    assert isinstance(action, Fail)
    assert (action.fault.kind, action.fault.code) == (Kind.BUG, "runner died")
    assert "step 'b' has used up its 3 attempts" in action.fault.reason


def test_failures_and_deaths_are_one_budget() -> None:
    rig = Rig(three(attempts_max=3), World(meets={"b": [fault(), fault(), fault()]}))
    rig.dies = dies_at(["before b"])
    assert rig.run() is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b"] == [2, 3]


def test_the_budget_of_one_step_is_not_that_of_the_next() -> None:
    rig = Rig(three(attempts_max=2), World(meets={name: [fault()] for name in "abc"}))
    assert rig.run() is ProcedureState.DONE


def test_results_that_are_too_large_together_are_rejected_and_undone() -> None:
    half = json.dumps("x" * (RESULTS_BYTES_MAX // 2 - 10))
    rig = Rig(three(), World(results={"a": half, "b": half, "c": half}))
    assert rig.run() is ProcedureState.DEAD
    assert rig.world.done() == ["a", "b", "c", "c:undo", "b:undo", "a:undo"]
    action = next_action(Body.of(rig.procedure, rig.record), now=rig.now)
    assert isinstance(action, Fail)
    assert (action.fault.kind, action.fault.code) == (Kind.REJECTED, "result too large")
    assert all(len(write.body_json) < RESULTS_BYTES_MAX + 1_000 for write in rig.writes)


def test_a_revived_key_begins_again_with_other_idempotency_keys() -> None:
    rig = Rig(three(), World(meets={"b": [fault(Kind.REJECTED)]}))
    rig.run()
    rig.revive()
    rig.world.meets.clear()
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done(life=0) == ["a", "b", "b:undo", "a:undo"]
    assert rig.world.done(life=1) == ["a", "b", "c"]


def test_an_end_that_was_recorded_is_decided_again_as_the_same() -> None:
    """A body whose last step is done finishes, whatever is asked for: nothing runs twice."""
    rig = Rig(three())
    rig.run()
    action = next_action(Body.of(rig.procedure, rig.record), now=rig.now, cancel=True)
    assert isinstance(action, Finish)


def test_the_wait_after_a_fault_is_spread() -> None:
    procedure = Procedure("spread")
    procedure.step(name="a")(nothing)
    rig = Rig(procedure)
    waits = [body_in_step(rig).step_failed(fault(), random.Random(seed)) for seed in range(20)]
    assert all(isinstance(after, TryAgain) and 0.5 <= after.seconds <= 1.0 for after in waits)
    assert len(set(waits)) == 20
