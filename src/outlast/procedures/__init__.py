"""Durable procedures of several steps: one record for each key, and a failure is remembered. See `Procedures`.

The names are loaded when they are first used: a runner needs only the store that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.procedures._errors import InvalidProcedureError as InvalidProcedureError
    from outlast.procedures._errors import SignalsFullError as SignalsFullError
    from outlast.procedures._model import Priority as Priority
    from outlast.procedures._model import ProcedureRecord as ProcedureRecord
    from outlast.procedures._model import ProcedureState as ProcedureState

_HOMES = {
    "InvalidProcedureError": "_errors",
    "Priority": "_model",
    "ProcedureRecord": "_model",
    "ProcedureState": "_model",
    "SignalsFullError": "_errors",
}

__all__ = ["InvalidProcedureError", "Priority", "ProcedureRecord", "ProcedureState", "SignalsFullError"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
