"""Faults as they are stored with the work that met them, and the refusal behind an exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from outlast._core.faults import Fault, Kind, Unavailable
from outlast._core.plain_json import plain_text

if TYPE_CHECKING:
    from collections.abc import Mapping

CODE_CHARS_MAX: Final = 200
REASON_CHARS_MAX: Final = 1_000
"""Of the texts of a stored fault."""
CAUSES_MAX: Final = 8
"""The depth to which an exception is searched for a refusal."""
KINDS: Final = {kind.value: kind for kind in Kind}


def fault_record(fault: Fault) -> dict[str, Any]:
    """Return a fault as it is stored. Rules of the user's put any text into it, so each is cut and made plain."""
    return {
        "kind": fault.kind.value,
        "code": plain_text(fault.code, CODE_CHARS_MAX),
        "reason": plain_text(fault.reason, REASON_CHARS_MAX),
        "source": plain_text(fault.source, CODE_CHARS_MAX),
        "hint": plain_text(fault.hint, REASON_CHARS_MAX),
    }


def fault_of_record(record: Mapping[str, Any]) -> Fault:
    """Return the fault of a record; what is missing is empty, and a kind that this version does not know is BUG.

    The scope and the wait that a peer asked for are not stored: they meant something when it was met.
    """
    code, reason, source, hint = (str(record.get(name) or "") for name in ("code", "reason", "source", "hint"))
    return Fault(KINDS.get(str(record.get("kind")), Kind.BUG), code, reason, source, hint=hint)


def refusal_in(exc: BaseException | None, depth: int = CAUSES_MAX) -> Unavailable | None:
    """Return the refusal behind an exception: itself, the one it was raised from, or the first of a group of refusals only."""
    if exc is None or depth == 0 or isinstance(exc, Unavailable):
        return exc if isinstance(exc, Unavailable) else None
    if isinstance(exc, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", exc).exceptions
        refusals = [refusal_in(member, depth - 1) for member in members]
        return refusals[0] if all(refusal is not None for refusal in refusals) else None
    return refusal_in(exc.__cause__, depth - 1)
