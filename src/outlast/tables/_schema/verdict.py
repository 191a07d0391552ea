"""Refusals: of points of one table, or of all of a body; and the faults in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from outlast import Fault, Kind, Scope
from outlast.tables._model import PointOutcome

if TYPE_CHECKING:
    from outlast import Unavailable

SOURCE: Final = "tables"
RETRY_S: Final = 1.0
"""The time after which to come back where nothing better is known."""


class PointsRefusal(NamedTuple):
    """The answer to points that are not stored."""

    outcome: PointOutcome
    fault: Fault


def never(code: str, reason: str, hint: str = "") -> PointsRefusal:
    """Return the refusal of what can never be stored as it is."""
    return PointsRefusal(PointOutcome.NEVER, Fault(Kind.REJECTED, code, reason, SOURCE, Scope.CALL, hint=hint))


def later(
    code: str, reason: str, *, retry_after_s: float = RETRY_S, kind: Kind = Kind.OVERLOADED, hint: str = ""
) -> PointsRefusal:
    """Return the refusal of what may be stored when it is sent again."""
    return PointsRefusal(PointOutcome.LATER, Fault(kind, code, reason, SOURCE, Scope.CALL, retry_after_s, hint))


def of_unavailable(exc: Unavailable) -> PointsRefusal:
    """Return the refusal of points for which the store is away."""
    return PointsRefusal(PointOutcome.LATER, waiting(exc.fault, exc.retry_after_s))


def waiting(fault: Fault, retry_after_s: float) -> Fault:
    """Return the same fault with the time after which to come back."""
    return Fault(fault.kind, fault.code, fault.reason, fault.source, fault.scope, retry_after_s, fault.hint)


def of_row(fault: Fault) -> PointsRefusal:
    """Return the refusal of a point that the store refuses: for what it is, or for the state of its table alone."""
    match fault.kind:
        case Kind.REJECTED:
            return PointsRefusal(PointOutcome.NEVER, fault)
        case Kind.PERMANENT:
            return PointsRefusal(PointOutcome.PERSON, waiting(fault, fault.retry_after_s or RETRY_S))
        case _:
            return PointsRefusal(PointOutcome.LATER, waiting(fault, fault.retry_after_s or RETRY_S))
