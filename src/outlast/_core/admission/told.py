"""A refusal as people read it. Text is made only when somebody reads it: a refusal itself is two numbers and a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from outlast._core.admission.values import Reason
from outlast._core.faults import Fault, Kind, Scope
from outlast._core.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._core.admission.values import Refusal

TOO_LARGE: Final = "too large"
"""The code of a fault for work that can never come in: it costs more than the limit holds."""

AGREED: Final = frozenset({Reason.RATE, Reason.SHARE})
"""The reasons by which some are refused so that the others are served as agreed: the callers' business."""

HINTS: Final[Mapping[Reason, str]] = {
    Reason.DEADLINE: "send less, or allow more time",
    Reason.RATE: "send less, or agree on a higher rate",
    Reason.CONCURRENCY: "send less, or add a process; the limit follows the latency",
    Reason.MEMORY: "give the process more memory, or less to do",
    Reason.SHARE: "send less at a time; others have their shares",
}
"""The next step, by the check that refused."""


def told(refusal: Refusal) -> str:
    """Return what was compared: `120 a second, limit 100`."""
    seen, limit = refusal.seen, refusal.limit
    match refusal.reason:
        case Reason.DEADLINE:
            return f"it would take {seen:.3g} s, and there are {limit:.3g} s" if limit > 0 else f"it is {-limit:.3g} s too late"
        case Reason.RATE:
            return f"{seen:.6g} a second, limit {limit:.6g}"
        case Reason.CONCURRENCY:
            return f"{seen:.6g} under way or waiting, limit {limit:.6g}"
        case Reason.MEMORY:
            return f"{size_text(seen)} in use, limit {size_text(limit)}"
        case Reason.SHARE:
            return f"{seen:.6g} of the same key or tenant under way or waiting, its share is {limit:.6g}"
        case _:
            assert_never(refusal.reason)


def fault_of(refusal: Refusal, source: str) -> Fault:
    """Return the fault of a refusal by the admission called `source`.

    It concerns this call alone: that one caller is refused says nothing about the others. Work that may come in later is
    OVERLOADED, with the reason as its code; work that never can is REJECTED.
    """
    if refusal.retry_after_s is None:
        hint = "divide it, or raise the limit"
        return Fault(Kind.REJECTED, TOO_LARGE, f"{refusal.reason.value}: {told(refusal)}", source, Scope.CALL, hint=hint)
    return Fault(
        Kind.OVERLOADED,
        refusal.reason.value,
        told(refusal),
        source,
        Scope.CALL,
        refusal.retry_after_s,
        HINTS[refusal.reason],
    )
