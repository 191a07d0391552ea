"""Sleeps and waits for signals: their time counts from when they were first recorded, whoever dies."""

from __future__ import annotations

import pytest

from outlast import Kind
from outlast.procedures._machine.actions import Fail, Sleep, WaitFor
from outlast.procedures._machine.body import Body
from outlast.procedures._machine.next_action import next_action
from outlast.procedures._model import ProcedureState
from outlast.procedures._procedure import Procedure
from procedure_rig import Rig, World, dies_at, fault, nothing

BEGAN = 1_000.0


def sleeping() -> Procedure:
    procedure = Procedure("sleeping", attempts_max=9)
    procedure.step(name="a")(nothing).undo(nothing)
    procedure.sleep("pause", 60.0)
    procedure.step(name="b")(nothing)
    return procedure


def waiting(**options: object) -> Procedure:
    procedure = Procedure("waiting", attempts_max=9)
    procedure.step(name="a")(nothing).undo(nothing)
    procedure.wait("approved", **{"timeout_s": 60.0, **options})  # type: ignore[arg-type]
    procedure.step(name="b")(nothing)
    return procedure


def test_a_sleep_lets_go_of_the_record_and_goes_on_after_its_time() -> None:
    rig = Rig(sleeping())
    rig.run(claims=1)
    assert (rig.record.state, rig.record.due_at) == (ProcedureState.WAITING, BEGAN + 60.0)
    assert rig.run() is ProcedureState.DONE
    assert rig.now == BEGAN + 60.0
    assert rig.world.done() == ["a", "b"]


def test_the_step_before_a_sleep_and_its_begin_are_one_write() -> None:
    rig = Rig(sleeping())
    rig.run(claims=1)
    assert [write.state for write in rig.writes] == ["waiting"]


@pytest.mark.parametrize("make", [sleeping, waiting])
def test_deaths_at_30_and_50_seconds_do_not_begin_the_time_anew(make: object) -> None:
    rig = Rig(make())  # type: ignore[operator]
    rig.run(claims=1)
    for later in (30.0, 50.0):
        # Something had it claimed early, and its runner died in it.
        rig.now = BEGAN + later
        rig.dies = lambda place: place == "claimed"
        rig.claim()
    rig.dies = dies_at([])
    rig.claim()
    assert rig.record.state is ProcedureState.WAITING
    assert rig.record.due_at == BEGAN + 60.0
    rig.run()
    assert rig.now == BEGAN + 60.0


def test_a_store_whose_clock_was_set_back_does_not_make_it_longer_than_it_was() -> None:
    """Stores have clocks that are not set back; where a server's is all the same, at most the whole time is waited again."""
    rig = Rig(sleeping())
    rig.run(claims=1)
    rig.now -= 3_600.0
    rig.claim()
    assert rig.record.due_at == rig.now + 60.0
    body = Body.of(rig.procedure, rig.record)
    assert next_action(body, now=rig.now + 59.0) == Sleep(1.0)


def test_a_claim_that_comes_a_little_early_goes_on() -> None:
    rig = Rig(sleeping())
    rig.run(claims=1)
    rig.now = BEGAN + 59.99
    rig.claim()
    assert rig.record.state is ProcedureState.DONE


def test_a_sleep_of_a_moment_is_one_all_the_same() -> None:
    procedure = Procedure("moment")
    procedure.sleep("pause", 0.01)
    rig = Rig(procedure)
    rig.run(claims=1)
    assert (rig.record.state, rig.record.due_at) == (ProcedureState.WAITING, BEGAN + 0.01)
    assert rig.run() is ProcedureState.DONE


def test_a_wait_that_gets_no_signal_in_its_time_fails_and_is_undone() -> None:
    rig = Rig(waiting())
    assert rig.run() is ProcedureState.DEAD
    assert rig.now == BEGAN + 60.0
    assert rig.world.done() == ["a", "a:undo"]
    action = next_action(Body.of(rig.procedure, rig.record), now=rig.now)
    assert isinstance(action, Fail)
    assert (action.fault.kind, action.fault.code) == (Kind.REJECTED, "no signal")
    assert "signal 'approved' did not come within 60 s" in action.fault.reason


def test_a_wait_with_a_default_goes_on_with_that() -> None:
    rig = Rig(waiting(default={"by": "nobody"}))
    assert rig.run() is ProcedureState.DONE
    body = Body.of(rig.procedure, rig.record)
    assert '"by": "nobody"' in rig.writes[-2].body_json
    assert body.next_step() is None


def test_a_default_of_none_is_a_default() -> None:
    assert Rig(waiting(default=None)).run() is ProcedureState.DONE


def test_a_wait_without_a_time_waits_for_the_signal_alone() -> None:
    rig = Rig(waiting(timeout_s=None))
    assert rig.run() is ProcedureState.WAITING
    assert (rig.record.waits_for, rig.record.due_at) == ("approved", None)
    rig.signal("approved", '{"by": "somebody"}')
    assert rig.run() is ProcedureState.DONE


def test_a_signal_is_the_result_of_its_wait_and_is_taken_once() -> None:
    rig = Rig(waiting())
    rig.run(claims=1)
    rig.signal("other")
    assert rig.record.due_at == BEGAN + 60.0
    rig.signal("approved", '{"by": "one"}')
    rig.signal("approved", '{"by": "two"}')
    assert rig.run() is ProcedureState.DONE
    assert rig.now == BEGAN
    assert '["approved", {"by": "one"}]' in rig.writes[-2].body_json
    assert [write.took_signals for write in rig.writes] == [(), ("approved",), ()]
    assert [signal.payload_json for signal in rig.record.signals] == ["null", '{"by": "two"}']


def test_a_signal_that_came_before_the_wait_is_taken_at_once() -> None:
    rig = Rig(waiting())
    rig.signal("approved")
    assert rig.run(claims=1) is ProcedureState.DONE


def test_a_signal_that_came_while_the_wait_was_being_recorded_is_not_missed() -> None:
    rig = Rig(waiting(timeout_s=None))
    rig.before_write = lambda write: rig.signal("approved") if write.waits_for else None
    assert rig.run() is ProcedureState.DONE


def test_a_signal_in_time_wins_over_a_claim_that_comes_late() -> None:
    rig = Rig(waiting())
    rig.run(claims=1)
    rig.now = BEGAN + 500.0
    rig.signal("approved")
    assert rig.run() is ProcedureState.DONE


@pytest.mark.parametrize("place", ["claimed", "before a write", "before b", "after b"])
def test_a_signal_is_taken_once_wherever_the_runner_dies(place: str) -> None:
    rig = Rig(waiting())
    rig.run(claims=1)
    rig.signal("approved")
    rig.dies = dies_at([place])
    assert rig.run() is ProcedureState.DONE
    assert sum(len(write.took_signals) for write in rig.writes) == 1
    assert rig.record.signals == ()


@pytest.mark.parametrize("make", [sleeping, waiting])
def test_a_cancel_ends_the_time_and_undoes(make: object) -> None:
    rig = Rig(make())  # type: ignore[operator]
    rig.run(claims=1)
    rig.now += 10.0
    rig.cancel()
    assert rig.run() is ProcedureState.CANCELLED
    assert rig.now == BEGAN + 10.0
    assert rig.world.done() == ["a", "a:undo"]


def test_a_procedure_of_a_sleep_alone_has_no_result() -> None:
    procedure = Procedure("alone")
    procedure.sleep("pause", 5.0)
    rig = Rig(procedure)
    assert rig.run() is ProcedureState.DONE
    assert rig.record.result_json == "null"


def test_a_retry_and_a_sleep_hold_no_claim() -> None:
    rig = Rig(sleeping(), World(meets={"b": [fault()]}))
    rig.run()
    assert [write.state for write in rig.writes] == ["waiting", "running", "waiting", "done"]


def test_what_is_waited_for_is_told_with_its_rest() -> None:
    body = Body.of(waiting(), Rig(waiting()).record)
    next_action(body, now=BEGAN)
    body.step_done("1")
    assert next_action(body, now=BEGAN) == WaitFor("approved", 60.0)
    assert next_action(body, now=BEGAN + 12.0) == WaitFor("approved", 48.0)
