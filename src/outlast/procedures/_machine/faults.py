"""The faults that the step machine itself finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.extend import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE: Final = "procedures"
TEXT_CHARS_MAX: Final = 1_000
NAMES_CHARS_MAX: Final = 400
"""Of a list of steps in a message."""


class BodyError(OutlastError):
    """A body by which nothing can be run: no step is, and the key is not blamed. `fault` is PERMANENT, with a hint.

    `body_json` is what to write back with it: the body as it was, with the deaths of runners counted in it.
    """

    def __init__(self, fault: Fault, body_json: str) -> None:
        super().__init__(fault.reason, fault)
        self.fault = fault
        self.body_json = body_json

    def __reduce__(self) -> tuple[type[BodyError], tuple[Fault, str]]:
        """Travel as it was made."""
        return type(self), (self.fault, self.body_json)


class UnreadableBodyError(BodyError):
    """The body is damaged, or of a newer format than this code reads."""


class StepsChangedError(BodyError):
    """The steps that are recorded are not those of the code."""


def permanent(code: str, reason: str, hint: str) -> Fault:
    """Return a fault by which a person has to act, for one record."""
    return Fault(Kind.PERMANENT, code, cut(reason, TEXT_CHARS_MAX), SOURCE, Scope.CALL, hint=hint)


def rejected(code: str, reason: str) -> Fault:
    """Return a fault of the procedure's own doing."""
    return Fault(Kind.REJECTED, code, reason, SOURCE, Scope.CALL)


def worn_out(step: str, attempts: int) -> Fault:
    """Return the fault of a step whose attempts were used up by runners that died in it."""
    reason = f"step {step!r} has used up its {attempts} attempts, and in the last one its runner died"
    hint = "look at what ended the runners: memory, a crash of a library; the step is begun again when the key is submitted"
    return Fault(Kind.BUG, "runner died", reason, SOURCE, Scope.CALL, hint=hint)


def undo_failed(step: str, attempts: int, last: str, left: Sequence[str], why: Fault | None) -> Fault:
    """Return the fault of a procedure one of whose undos failed too often: `left` are the steps that are not undone."""
    met = last or "its runner died"
    reason = (
        f"the undo of step {step!r} has failed {attempts} times, last by: {met}; not undone: {names(left)}; "
        f"undone because {'it was cancelled' if why is None else f'of {why.code}: {why.reason}'}"
    )
    return permanent("undo failed", reason, "undo the named steps by hand, then `outlast procedures clear`")


def names(steps: Sequence[str]) -> str:
    """Return names as a message shows them."""
    return cut(", ".join(steps) or "none", NAMES_CHARS_MAX)
