"""The bounds that every store has, and its refusals beyond them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.procedures._errors import InvalidProcedureError, SignalsFullError

if TYPE_CHECKING:
    from outlast.procedures._model import Pause

SIGNALS_MAX: Final = 100
"""Signals of one record that were not taken yet."""
PAUSES_MAX: Final = 1_000


def signals_full(record_id: str, name: str) -> SignalsFullError:
    """Return the refusal of one signal more."""
    text = f"procedure {record_id} has {SIGNALS_MAX} signals not taken yet, the limit: {name!r} is not kept; try again later"
    return SignalsFullError(text)


def pauses_full(pause: Pause) -> InvalidProcedureError:
    """Return the refusal of one pause more."""
    text = f"pause {pause.kind!r} {pause.key!r}: there are {PAUSES_MAX} pauses, the limit; resume some, or pause the kind"
    return InvalidProcedureError(text)
