"""The actions that the step machine answers with: what a runner does next, and how it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.procedures._procedure import Step, Undo
    from outlast.procedures._run import StepOutcome


@dataclass(frozen=True, slots=True)
class RunStep:
    """Call the function of a step; then tell the body: `step_done` or `step_failed`."""

    step: Step
    attempt: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class RunUndo:
    """Call the undo of a step; then tell the body: `undone` or `undo_failed`."""

    step: Step
    undo: Undo
    attempt: int
    idempotency_key: str
    outcome: StepOutcome


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let go of the record; it is due in so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Let go of the record; it is due when a signal comes, or in so many seconds (None: by the signal alone)."""

    signal: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """It is done, with this result."""

    result_json: str


@dataclass(frozen=True, slots=True)
class Fail:
    """It is dead by this fault, and undone but for what the fault names."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It is cancelled, and undone."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Let go of the record; the same again in so many seconds. The attempt counted."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Let go of the record; the same again in so many seconds. The attempt did not count."""

    seconds: float


Action: TypeAlias = RunStep | RunUndo | Sleep | WaitFor | Finish | Fail | Cancelled
"""The next thing to do."""
AfterFault: TypeAlias = TryAgain | GiveBack | None
"""The consequence of a fault; None: ask for the next action."""
