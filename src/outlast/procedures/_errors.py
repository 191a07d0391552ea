"""The errors that callers of procedures meet. Each about one record has its handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outlast import OutlastError, Unavailable
from outlast.extend import cut

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.procedures._handle import ProcedureHandle

REASON_CHARS_MAX = 500
"""Of the reason of a fault in the text of an error."""


class InvalidProcedureError(OutlastError, ValueError):
    """A procedure, a submission or a setting is out of its limits: what, the value seen, the limit. Nothing was submitted."""


class SignalsFullError(OutlastError):
    """A record has as many signals already as it may, none of them taken yet: this one is not kept."""


class ProcedureRefused(Unavailable):
    """A submission was refused, before it cost anything; the same one may come in after `retry_after_s` seconds.

    `fault` is the first cause, `since_s` for how long this goes on, `handle` that of the key's record. `why` says what refused:
    "failing" (the key), "cause", "dependency", "paused", "backlog", "admission" or "store". If it is the store, which went away
    in the middle, the record may be there all the same: submit it again, which joins it.
    """

    def __init__(self, handle: ProcedureHandle, fault: Fault, since_s: float, retry_after_s: float, why: str) -> None:
        super().__init__(f"{handle.kind}/{handle.key}", fault, since_s, retry_after_s)
        self.handle = handle
        self.why = why

    def __reduce__(self) -> tuple[type[Unavailable], tuple[Any, ...]]:
        """Travel to another process as `Unavailable`: the handle means nothing there."""
        return Unavailable, (self.dependency, self.fault, self.since_s, self.retry_after_s)


class ProcedureError(OutlastError):
    """The base of the ends of a procedure that have no result. `handle` is that of the record."""

    def __init__(self, handle: ProcedureHandle, message: str, fault: Fault | None = None) -> None:
        super().__init__(f"procedure {handle.kind}/{handle.key} ({handle.id}) {message}", fault)
        self.handle = handle


class ProcedureFailedError(ProcedureError):
    """The procedure failed. `fault` is the first cause in this life of the key, `last` the newest fault."""

    def __init__(self, handle: ProcedureHandle, fault: Fault, last: Fault) -> None:
        super().__init__(handle, f"failed: {fault.code} {cut(fault.reason, REASON_CHARS_MAX)}", fault)
        self.fault = fault
        self.last = last


class ProcedureCancelledError(ProcedureError):
    """Somebody cancelled the procedure; what was done of it has been undone, as far as its steps can."""

    def __init__(self, handle: ProcedureHandle) -> None:
        super().__init__(handle, "was cancelled")


class ProcedureExpiredError(ProcedureError):
    """The procedure was dropped unrun: it had not begun by its deadline."""

    def __init__(self, handle: ProcedureHandle) -> None:
        super().__init__(handle, "was dropped unrun: it had not begun by its deadline")


class ProcedureGoneError(ProcedureError):
    """There is no record any more: it was deleted, with its result, after the time for which results are kept."""

    def __init__(self, handle: ProcedureHandle) -> None:
        super().__init__(handle, "is gone: its record is deleted, or was never made; submit it again")


class WaitTimeoutError(ProcedureError, TimeoutError):
    """The time of the wait is over; the procedure goes on. Wait again with `handle`."""

    def __init__(self, handle: ProcedureHandle, timeout_s: float) -> None:
        super().__init__(handle, f"has not ended within {timeout_s:g} s; it goes on")
        self.timeout_s = timeout_s
