"""The steps of a record, for people who look at it: its code is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast.extend import from_json
from outlast.procedures._machine.kept import Kept, decode
from outlast.procedures._run import RecordedStep

if TYPE_CHECKING:
    from outlast.procedures._model import ProcedureRecord


@dataclass(frozen=True, slots=True)
class RecordedSteps:
    """The steps of a record that have their effects: those that are done, in order, and last the one that was begun."""

    version: int
    """Of the code that recorded them."""
    steps: tuple[RecordedStep, ...] = ()
    attempts: int = 0
    """Attempts that failed of the step that was begun; while it is undone, of the undo that is next."""
    undoing: bool = False
    """Whether it goes back: the steps are undone, the last one first."""
    undone: tuple[str, ...] = ()
    """The steps that were undone already, in that order."""
    has_results: bool = True
    """False of a record that is done: its own result is kept, and no longer those of its steps."""


def recorded_steps(record: ProcedureRecord) -> RecordedSteps:
    """Return the steps of a record.

    Raises `OutlastError` with a PERMANENT fault if they cannot be read: they are damaged, or of a newer format.
    """
    kept = decode(record.body_json) if record.body_json else Kept(record.version)
    has_results = all(step.result_json for step in kept.done)
    done = [RecordedStep(step.name, result=from_json(step.result_json) if has_results else None) for step in kept.done]
    begun = [RecordedStep(kept.at.name or "?", done=False)] if kept.at is not None else []
    counted = kept.undoing or kept.at
    return RecordedSteps(
        kept.version,
        (*done, *begun),
        attempts=counted.attempts if counted is not None else 0,
        undoing=kept.undoing is not None,
        undone=tuple(kept.undone),
        has_results=has_results,
    )
