"""The errors of admission: work that may come back later, and work that can never come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outlast._core.admission.told import fault_of
from outlast._core.faults import OutlastError, Unavailable

if TYPE_CHECKING:
    from outlast._core.admission.values import Reason, Refusal


class Refused(Unavailable):
    """Work was refused by an admission, before it cost anything; the same work may come in later.

    `fault` is of kind `OVERLOADED` and concerns this call alone; its code is the value of `reason`. `retry_after_s`, jittered,
    is when it is worth coming back; `since_s`, for how long this reason has been refusing; `dependency`, the name of the
    admission. A request handler answers 429 (rate, share) or 503 with it. It travels to other processes, as `Unavailable` does.
    """

    def __init__(self, admission: str, refusal: Refusal, since_s: float = 0.0) -> None:
        """Raises ValueError for a refusal without a time to come back: that is a `TooLargeError`."""
        if refusal.retry_after_s is None:
            msg = f"a refusal by {refusal.reason.value} without retry_after_s is a TooLargeError: coming back does not help"
            raise ValueError(msg)
        fault = fault_of(refusal, admission)
        super().__init__(admission, fault, since_s, refusal.retry_after_s)
        self.refusal = refusal
        when = f"retry after {refusal.retry_after_s:.1f} s"
        self.args = (f"{admission} refused this work by {refusal.reason.value}: {fault.reason} ({when}) - {fault.hint}",)

    @property
    def reason(self) -> Reason:
        """The check that refused."""
        return self.refusal.reason

    def __reduce__(self) -> tuple[type[Refused], tuple[Any, ...]]:
        """Travel to another process whole: there is no owner."""
        return Refused, (self.dependency, self.refusal, self.since_s)


class TooLargeError(OutlastError):
    """Work was refused that can never come in: it costs more than a limit holds. Coming back does not help; dividing it may.

    The fault attached to it is of kind `REJECTED` and concerns this call alone. A request handler answers 413.
    """

    def __init__(self, admission: str, refusal: Refusal) -> None:
        fault = fault_of(refusal, admission)
        super().__init__(f"{admission} can never let this work in: {fault.reason} - {fault.hint}", fault)
        self.admission = admission
        self.refusal = refusal
        self.fault = fault

    def __reduce__(self) -> tuple[type[TooLargeError], tuple[str, Refusal]]:
        """Travel to another process whole."""
        return TooLargeError, (self.admission, self.refusal)
