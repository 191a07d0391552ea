"""Undo: in reverse, first of the step whose outcome is unknown, over cancels, stops and the deaths of runners."""

from __future__ import annotations

import random

import pytest

from outlast import Backoff, Kind, Unavailable
from outlast.extend import Jitter
from outlast.procedures._machine.actions import Cancelled, Fail, GiveBack, RunUndo
from outlast.procedures._machine.body import Body
from outlast.procedures._machine.next_action import next_action, write_of
from outlast.procedures._model import ProcedureState
from outlast.procedures._procedure import Procedure
from procedure_rig import ID, Rig, World, dies_at, fault, nothing

NO_JITTER = Backoff(base_s=1.0, cap_s=60.0, factor=2.0, jitter=Jitter.NONE)
TIMEOUT = fault(Kind.TRANSIENT, "timeout")


def three(*, attempts_max: int = 1, undos: str = "abc", undo_attempts_max: int = 20) -> Procedure:
    procedure = Procedure("three", attempts_max=attempts_max, backoff=NO_JITTER)
    for name in "abc":
        step = procedure.step(name=name)(nothing)
        if name in undos:
            step.undo(attempts_max=undo_attempts_max)(nothing)
    return procedure


def fault_of(rig: Rig) -> tuple[Kind, str, str]:
    action = next_action(Body.of(rig.procedure, rig.record), now=rig.now)
    assert isinstance(action, Fail)
    return action.fault.kind, action.fault.code, action.fault.reason


def test_a_step_that_did_its_work_and_timed_out_is_undone_and_told_that_its_outcome_is_unknown() -> None:
    rig = Rig(three(), World(always={"a": TIMEOUT}))
    assert rig.run() is ProcedureState.DEAD
    assert rig.world.effects == [f"{ID}:0:a", f"{ID}:0:a:undo"]
    assert rig.world.known == {"a": [(False, None)]}


def test_steps_are_undone_in_reverse_and_know_their_results() -> None:
    rig = Rig(three(), World(always={"c": TIMEOUT}, results={"a": '{"table": 7}'}))
    rig.run()
    assert rig.world.done() == ["a", "b", "c", "c:undo", "b:undo", "a:undo"]
    assert rig.world.known == {"c": [(False, None)], "b": [(True, "b")], "a": [(True, {"table": 7})]}


def test_each_undo_is_recorded_before_the_next_begins() -> None:
    rig = Rig(three(), World(always={"c": TIMEOUT}))
    order: list[str] = []
    rig.before_write = lambda write: order.append(f"{write.state} after {len(rig.world.effects)}")
    rig.run()
    assert order == [f"running after {calls}" for calls in range(1, 6)] + ["dead after 6"]


def test_a_death_between_effect_and_record_leaves_the_step_to_be_undone_as_unknown() -> None:
    """kill -9 after the effect; the next runner uses up the last attempt in it."""
    rig = Rig(three(attempts_max=2), World(always={"b": TIMEOUT}))
    rig.dies = dies_at(["after b"])
    assert rig.run() is ProcedureState.DEAD
    assert rig.world.done() == ["a", "b", "b:undo", "a:undo"]
    assert rig.world.known["b"] == [(False, None)]


def test_a_step_whose_only_runner_died_in_it_is_undone_as_unknown_when_it_is_cancelled() -> None:
    rig = Rig(three(attempts_max=5))
    rig.dies = dies_at(["after b"])
    rig.run(claims=1)
    rig.cancel()
    assert rig.run() is ProcedureState.CANCELLED
    assert rig.world.effects == [f"{ID}:0:{name}" for name in ("a", "b", "b:undo", "a:undo")]
    assert rig.world.known["b"] == [(False, None)]


def test_so_is_a_first_step_of_which_nothing_was_recorded() -> None:
    rig = Rig(three(attempts_max=5))
    rig.dies = dies_at(["after a"])
    rig.run(claims=1)
    assert rig.record.body_json == ""
    rig.cancel()
    assert rig.run() is ProcedureState.CANCELLED
    assert rig.world.known == {"a": [(False, None)]}


@pytest.mark.parametrize("place", ["after b:undo", "before b:undo", "before a write"])
def test_an_undo_whose_record_was_lost_is_begun_again_with_the_same_idempotency_key(place: str) -> None:
    rig = Rig(three(), World(always={"c": TIMEOUT}))
    died: list[str] = []

    def dies(at: str) -> bool:
        lost = at == place and not died and f"{ID}:0:c:undo" in rig.world.effects
        died.extend([at] if lost else [])
        return lost

    rig.dies = dies
    assert rig.run() is ProcedureState.DEAD
    assert died == [place]
    undos = [key for key in rig.world.effects if key.endswith(":undo")]
    assert set(undos) == {f"{ID}:0:{name}:undo" for name in "abc"}
    assert rig.world.done() == ["a", "b", "c", "c:undo", "b:undo", "a:undo"]


def test_once_undoing_has_begun_no_step_runs_again_whoever_dies() -> None:
    rig = Rig(three(attempts_max=9), World(always={"c": fault(Kind.REJECTED)}))
    rig.dies = dies_at(["before c:undo", "after c:undo", "before b:undo", "after a:undo"])
    assert rig.run() is ProcedureState.DEAD
    assert [name for name, _ in rig.world.seen if ":" not in name] == ["a", "b", "c"]


def test_steps_without_an_undo_are_passed_over() -> None:
    rig = Rig(three(undos="a"), World(always={"c": TIMEOUT}))
    rig.run()
    assert rig.world.done() == ["a", "b", "c", "a:undo"]


def test_a_procedure_without_undos_is_dead_with_one_write() -> None:
    rig = Rig(three(undos=""), World(always={"a": fault(Kind.REJECTED)}))
    rig.run()
    assert [write.state for write in rig.writes] == ["dead"]


def test_a_cancel_in_a_step_undoes_it_as_unknown_and_then_the_others() -> None:
    """The task of step c was cancelled: it has no outcome, and the runner asks for the next action."""
    rig = Rig(three())
    rig.before_write = lambda write: rig.cancel() if len(rig.writes) == 1 else None
    rig.dies = dies_at(["before c"])
    assert rig.run() is ProcedureState.CANCELLED
    assert rig.world.done() == ["a", "b", "c:undo", "b:undo", "a:undo"]
    assert rig.world.known["c"] == [(False, None)]


def test_a_cancel_between_two_steps_undoes_what_is_done() -> None:
    rig = Rig(three())
    body = Body.of(rig.procedure, rig.record)
    next_action(body, now=rig.now)
    body.step_done('"a"')
    action = next_action(body, now=rig.now, cancel=True)
    assert isinstance(action, RunUndo)
    assert (action.step.name, action.outcome.known) == ("a", True)
    body.undone()
    assert next_action(body, now=rig.now, cancel=True) == Cancelled()


def test_a_second_cancel_changes_nothing() -> None:
    once, twice = Rig(three()), Rig(three())
    for rig in (once, twice):
        rig.dies = dies_at(["after c"])
        rig.run(claims=1)
        rig.cancel()
    twice.before_write = lambda _: twice.cancel()
    assert once.run() is twice.run() is ProcedureState.CANCELLED
    assert once.world.effects == twice.world.effects
    assert [write.state for write in once.writes] == [write.state for write in twice.writes]


def test_a_cancel_while_a_failure_is_undone_changes_nothing() -> None:
    rig = Rig(three(), World(always={"b": fault(Kind.REJECTED, "bad")}, meets={"b:undo": [fault()]}))
    rig.run(claims=1)
    rig.cancel()
    assert rig.run() is ProcedureState.DEAD
    assert fault_of(rig)[1] == "bad"
    assert rig.world.done() == ["a", "b", "b:undo", "a:undo"]


def test_a_cancel_after_the_last_step_changes_nothing() -> None:
    rig = Rig(three())
    rig.before_write = lambda _: rig.cancel() if len(rig.world.effects) == 3 else None
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done() == ["a", "b", "c"]


def test_a_cancel_of_what_was_never_begun_has_nothing_to_undo() -> None:
    rig = Rig(three())
    rig.cancel()
    assert rig.run() is ProcedureState.CANCELLED
    assert rig.world.effects == []


def test_a_stop_is_no_cancel_and_the_next_runner_goes_on_undoing() -> None:
    """SIGTERM in the first undo: it is given back uncounted, and only the undos that were not recorded run again."""
    rig = Rig(three(), World(always={"c": TIMEOUT}, meets={"b:undo": [fault(Kind.STOPPING)]}))
    rig.run(claims=1)
    assert (rig.record.state, rig.record.due_at) == (ProcedureState.QUEUED, rig.now)
    assert rig.run() is ProcedureState.DEAD
    assert [(name, attempt) for name, attempt in rig.world.seen if "undo" in name] == [
        ("c:undo", 1),
        ("b:undo", 1),
        ("b:undo", 1),
        ("a:undo", 1),
    ]


def test_an_undo_that_waits_after_a_cancel_is_not_made_due_at_once() -> None:
    rig = Rig(three(), World(meets={"a:undo": [fault(), fault(), fault()]}))
    rig.dies = dies_at(["after b"])
    rig.run(claims=1)
    rig.cancel()
    assert rig.run() is ProcedureState.CANCELLED
    waits = [write for write in rig.writes if write.state == "waiting"]
    assert [write.due_s for write in waits] == [1.0, 2.0, 4.0]
    assert all(write.cancel_known for write in waits)
    assert rig.now == 1_007.0


@pytest.mark.parametrize("kind", [Kind.TRANSIENT, Kind.REJECTED, Kind.PERMANENT, Kind.BUG, Kind.FATAL])
def test_an_undo_that_fails_is_tried_again_whatever_the_kind(kind: Kind) -> None:
    rig = Rig(three(), World(always={"b": TIMEOUT}, meets={"b:undo": [fault(kind)] * 3}))
    assert rig.run() is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b:undo"] == [1, 2, 3, 4]
    assert fault_of(rig)[1] == "timeout"


def test_an_undo_that_fails_too_often_ends_dead_and_says_what_is_not_undone() -> None:
    rig = Rig(three(), World(always={"c": fault(Kind.REJECTED, "bad"), "b:undo": fault(Kind.PERMANENT, "denied")}))
    assert rig.run() is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b:undo"] == list(range(1, 21))
    kind, code, reason = fault_of(rig)
    assert (kind, code) == (Kind.PERMANENT, "undo failed")
    assert "the undo of step 'b' has failed 20 times, last by: denied it is denied" in reason
    assert "not undone: b, a;" in reason
    assert "bad: it is bad" in reason


def test_a_cancel_whose_undo_fails_too_often_ends_dead_too() -> None:
    rig = Rig(three(undo_attempts_max=2), World(always={"a:undo": fault()}))
    rig.dies = dies_at(["after b"])
    rig.run(claims=1)
    rig.cancel()
    assert rig.run() is ProcedureState.DEAD
    assert "undone because it was cancelled" in fault_of(rig)[2]


def test_deaths_in_an_undo_count_as_its_attempts() -> None:
    rig = Rig(three(undo_attempts_max=3), World(always={"b": TIMEOUT}))
    rig.dies = lambda place: place == "after b:undo"
    assert rig.run() is ProcedureState.DEAD
    assert [attempt for name, attempt in rig.world.seen if name == "b:undo"] == [1, 2, 3]
    assert "last by: its runner died" in fault_of(rig)[2]


def test_the_attempts_of_one_undo_are_not_those_of_the_next() -> None:
    faults = {f"{name}:undo": [fault(), fault()] for name in "abc"}
    rig = Rig(three(undo_attempts_max=3), World(always={"c": TIMEOUT}, meets=faults))
    assert rig.run() is ProcedureState.DEAD
    assert fault_of(rig)[1] == "timeout"


def test_an_undo_that_a_dependency_refused_does_not_count() -> None:
    rig = Rig(three(), World(always={"a": TIMEOUT}))
    rig.dies = dies_at(["before a:undo"])
    rig.run(claims=1)
    body = Body.of(rig.procedure, rig.record)
    refusal = Unavailable("db", fault(), 3.0, 10.0)
    assert isinstance(next_action(body, now=rig.now), RunUndo)
    for _ in range(50):
        after = body.undo_failed(refusal.fault, random.Random(0), refusal=refusal)
        assert isinstance(after, GiveBack)
        assert write_of(rig.record, body, after).state == "queued"
    action = next_action(body, now=rig.now)
    assert isinstance(action, RunUndo)
    body.undone()
    assert isinstance(next_action(body, now=rig.now), Fail)


def test_the_undo_of_an_own_number_of_attempts_and_time() -> None:
    procedure = Procedure("own", timeout_s=9.0)
    first = procedure.step(name="a", timeout_s=5.0)(nothing)
    second = procedure.step(name="b")(nothing)
    first.undo(nothing)
    second.undo(attempts_max=2, timeout_s=1.0)(nothing)
    assert first.undoing is not None
    assert second.undoing is not None
    assert (first.undoing.attempts_max, first.undoing.timeout_s) == (20, 5.0)
    assert (second.undoing.attempts_max, second.undoing.timeout_s) == (2, 1.0)


def test_nothing_is_undone_while_nothing_failed() -> None:
    body = Body.of(three(), Rig(three()).record)
    with pytest.raises(RuntimeError, match="nothing is to be undone"):
        body.undone()
    body.cancel()
    assert isinstance(next_action(body, now=0.0), Cancelled)
