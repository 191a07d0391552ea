"""Durable procedures of several steps: one record for each key, and a failure is remembered. See `Procedures`.

The names are loaded when they are first used: a runner needs only the store that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.procedures._errors import InvalidProcedureError as InvalidProcedureError
    from outlast.procedures._errors import ProcedureCancelledError as ProcedureCancelledError
    from outlast.procedures._errors import ProcedureError as ProcedureError
    from outlast.procedures._errors import ProcedureExpiredError as ProcedureExpiredError
    from outlast.procedures._errors import ProcedureFailedError as ProcedureFailedError
    from outlast.procedures._errors import ProcedureGoneError as ProcedureGoneError
    from outlast.procedures._errors import ProcedureRefused as ProcedureRefused
    from outlast.procedures._errors import SignalsFullError as SignalsFullError
    from outlast.procedures._errors import WaitTimeoutError as WaitTimeoutError
    from outlast.procedures._explain import Explanation as Explanation
    from outlast.procedures._handle import ProcedureHandle as ProcedureHandle
    from outlast.procedures._model import Counts as Counts
    from outlast.procedures._model import Pause as Pause
    from outlast.procedures._model import Priority as Priority
    from outlast.procedures._model import ProcedureRecord as ProcedureRecord
    from outlast.procedures._model import ProcedureState as ProcedureState
    from outlast.procedures._model import Signal as Signal
    from outlast.procedures._procedure import Procedure as Procedure
    from outlast.procedures._procedure import Step as Step
    from outlast.procedures._procedures import Procedures as Procedures
    from outlast.procedures._recorded import RecordedSteps as RecordedSteps
    from outlast.procedures._recorded import recorded_steps as recorded_steps
    from outlast.procedures._run import RecordedStep as RecordedStep
    from outlast.procedures._run import Run as Run
    from outlast.procedures._run import StepOutcome as StepOutcome

_HOMES = {
    "Counts": "_model",
    "Explanation": "_explain",
    "InvalidProcedureError": "_errors",
    "Pause": "_model",
    "Priority": "_model",
    "Procedure": "_procedure",
    "ProcedureCancelledError": "_errors",
    "ProcedureError": "_errors",
    "ProcedureExpiredError": "_errors",
    "ProcedureFailedError": "_errors",
    "ProcedureGoneError": "_errors",
    "ProcedureHandle": "_handle",
    "ProcedureRecord": "_model",
    "ProcedureRefused": "_errors",
    "ProcedureState": "_model",
    "Procedures": "_procedures",
    "RecordedStep": "_run",
    "RecordedSteps": "_recorded",
    "Run": "_run",
    "Signal": "_model",
    "SignalsFullError": "_errors",
    "Step": "_procedure",
    "StepOutcome": "_run",
    "WaitTimeoutError": "_errors",
    "recorded_steps": "_recorded",
}

__all__ = [
    "Counts",
    "Explanation",
    "InvalidProcedureError",
    "Pause",
    "Priority",
    "Procedure",
    "ProcedureCancelledError",
    "ProcedureError",
    "ProcedureExpiredError",
    "ProcedureFailedError",
    "ProcedureGoneError",
    "ProcedureHandle",
    "ProcedureRecord",
    "ProcedureRefused",
    "ProcedureState",
    "Procedures",
    "RecordedStep",
    "RecordedSteps",
    "Run",
    "Signal",
    "SignalsFullError",
    "Step",
    "StepOutcome",
    "WaitTimeoutError",
    "recorded_steps",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
