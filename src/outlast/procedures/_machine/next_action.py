"""The decision: what a runner does next with a record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, assert_never

from outlast.procedures._machine.actions import (
    Action,
    Cancelled,
    Fail,
    Finish,
    GiveBack,
    RunStep,
    RunUndo,
    Sleep,
    TryAgain,
    WaitFor,
)
from outlast.procedures._machine.faults import rejected, undo_failed, worn_out
from outlast.procedures._model import ProcedureState, RecordWrite
from outlast.procedures._procedure import SleepStep, Step, WaitStep
from outlast.procedures._run import StepOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.procedures._machine.body import Body
    from outlast.procedures._machine.kept import Begun
    from outlast.procedures._model import ProcedureRecord, Signal

EARLY_S: Final = 0.05
"""A record that is claimed so little before its time is not let go of again: the store's time was computed, not read."""


def next_action(body: Body, *, now: float, cancel: bool = False, signals: Sequence[Signal] = ()) -> Action:
    """Return what comes next. `now` is the store's time; `cancel`: whether the end was asked for; `signals`: those not taken yet.

    A cancel changes nothing once all steps are done, and nothing once anything is being undone.
    """
    if body.kept.undoing is None:
        forward = _forward(body, now, signals, cancel=cancel)
        if forward is not None:
            return forward
    return _backward(body)


def write_of(
    record: ProcedureRecord,
    body: Body,
    action: Action | TryAgain | GiveBack,
    *,
    fault: dict[str, Any] | None = None,
    progress: str = "",
) -> RecordWrite:
    """Return how an action is recorded; `failures` and `until_s` of DEAD are for whoever remembers failures.

    `RunStep` and `RunUndo` are recorded before they are carried out, if the body has changed (`body.dirty`); all others end the
    claim.
    """
    state = ProcedureState.WAITING
    due_s: float | None = 0.0
    match action:
        case RunStep() | RunUndo():
            state = ProcedureState.RUNNING
        case Finish():
            state = ProcedureState.DONE
        case Fail():
            state = ProcedureState.DEAD
        case Cancelled():
            state = ProcedureState.CANCELLED
        case GiveBack(due_s):
            state = ProcedureState.QUEUED
        case Sleep(due_s) | WaitFor(_, due_s) | TryAgain(due_s):
            pass
        case _:
            assert_never(action)
    return RecordWrite(
        record.id,
        record.token,
        state.value,
        # The result is the record's own then; that of the last step would be stored twice.
        body.encode(results=state is not ProcedureState.DONE),
        result_json=action.result_json if isinstance(action, Finish) else None,
        fault=fault,
        due_s=due_s,
        waits_for=action.signal if isinstance(action, WaitFor) else "",
        took_signals=tuple(body.took),
        progress=progress,
        cancel_known=body.kept.undoing is not None,
    )


def _forward(body: Body, now: float, signals: Sequence[Signal], *, cancel: bool) -> Action | None:
    """Return what comes next while nothing is undone; None: it goes back from here on."""
    action: Action | None
    while body.kept.undoing is None:
        step = body.next_step()
        if step is None:
            return Finish(body.kept.done[-1].result_json)
        if cancel:
            body.cancel()
            return None
        match step:
            case Step():
                action = _run(body, step)
            case SleepStep():
                action = _sleep(body, step, now)
            case WaitStep():
                action = _wait(body, step, now, signals)
            case _:
                assert_never(step)
        if action is not None:
            return action
    return None


def _run(body: Body, step: Step) -> RunStep | None:
    attempts = body.begun(step).attempts
    if attempts >= step.attempts_max:
        body.fail(worn_out(step.name, attempts))
        return None
    return RunStep(step, attempts + 1, f"{body.life}:{step.name}")


def _sleep(body: Body, step: SleepStep, now: float) -> Sleep | None:
    remaining_s = _remaining_s(body.begun(step), step.seconds, now)
    if remaining_s > 0:
        return Sleep(remaining_s)
    body.step_done("null")
    return None


def _wait(body: Body, step: WaitStep, now: float, signals: Sequence[Signal]) -> WaitFor | None:
    signal = next((signal for signal in signals if signal.name == step.name), None)
    if signal is not None:
        body.took.append(signal.name)
        body.step_done(signal.payload_json)
        return None
    begun = body.begun(step)
    remaining_s = None if step.timeout_s is None else _remaining_s(begun, step.timeout_s, now)
    if remaining_s is None or remaining_s > 0:
        return WaitFor(step.name, remaining_s)
    if step.default_json is None:
        body.fail(rejected("no signal", f"signal {step.name!r} did not come within {step.timeout_s:g} s"))
    else:
        body.step_done(step.default_json)
    return None


def _remaining_s(begun: Begun, seconds: float, now: float) -> float:
    """Return the rest of a time that began when it was first recorded. If the store's clock went back, never longer."""
    if begun.until_at is None or begun.until_at - now > seconds:
        begun.until_at = now + seconds
    elif begun.until_at - now <= EARLY_S:
        return 0.0
    return begun.until_at - now


def _backward(body: Body) -> RunUndo | Fail | Cancelled:
    """Return what comes next once everything is to be undone."""
    found, undoing = body.to_undo(), body.kept.undoing
    fault = undoing.fault if undoing is not None else None
    if found is None or undoing is None:
        return Cancelled() if fault is None else Fail(fault)
    step, undo, done = found
    if undoing.attempts >= undo.attempts_max:
        return Fail(undo_failed(step.name, undoing.attempts, undoing.last, body.left_to_undo(), fault))
    outcome = StepOutcome(known=False) if done is None else StepOutcome(known=True, result=json.loads(done.result_json))
    return RunUndo(step, undo, undoing.attempts + 1, f"{body.life}:{step.name}:undo", outcome)
