"""What a handler lets out that is no error, and that would end a task, a thread or the process that carried it."""

from __future__ import annotations

from outlast import OutlastError
from outlast.core.classify import bug
from outlast.core.faults import attach


class StrayExitError(OutlastError):
    """A handler let out a `SystemExit`, `KeyboardInterrupt`, `CancelledError` of somebody else, or `StopIteration`.

    It stands for that exception, which is its `__cause__`; the fault attached to it is a `BUG` of the job.
    """


def contained(exc: BaseException) -> Exception:
    """Give what may be raised on the event loop in place of `exc`: itself, if it is an ordinary error."""
    if isinstance(exc, Exception) and not isinstance(exc, StopIteration):
        return exc
    fault = bug(exc)
    stray = StrayExitError(f"the handler let out {fault.reason}, which ends nothing here but its own job")
    stray.__cause__ = exc
    attach(stray, fault)
    return stray
