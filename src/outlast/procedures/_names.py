"""The names that users choose: of kinds, keys, steps, signals and locks."""

from __future__ import annotations

import re
from typing import Final

from outlast.procedures._errors import InvalidProcedureError

KIND_CHARS_MAX: Final = 100
KEY_CHARS_MAX: Final = 512
STEP_CHARS_MAX: Final = 100
SHOWN_CHARS_MAX: Final = 60
_REFUSED: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters and line ends, which would break lines of logs and tables; half surrogate pairs, which no store takes."""


def check_name(what: str, text: object, chars_max: int) -> str:
    """Return the name. Raises `InvalidProcedureError` if it is no text of 1 to `chars_max` characters, none of them a control."""
    if not isinstance(text, str) or not text:
        msg = f"{what} must be a text that is not empty, not {seen(text)}"
        raise InvalidProcedureError(msg)
    if len(text) > chars_max:
        msg = f"{what} {seen(text)} has {len(text)} characters, the limit is {chars_max}"
        raise InvalidProcedureError(msg)
    if _REFUSED.search(text):
        msg = f"{what} {seen(text)} holds a control character or half a surrogate pair"
        raise InvalidProcedureError(msg)
    return text


def check_step_name(what: str, text: object) -> str:
    """Return the name of a step. Raises `InvalidProcedureError`, for a colon too: idempotency keys are put together by it."""
    name = check_name(what, text, STEP_CHARS_MAX)
    if ":" in name:
        msg = f"{what} {seen(name)} holds a colon, which separates the parts of idempotency keys"
        raise InvalidProcedureError(msg)
    return name


def seen(value: object) -> str:
    """Return a value as an error message shows it: in ASCII, cut."""
    try:
        text = ascii(value)
    except Exception:  # noqa: BLE001 - an int of more than 4,300 digits, a broken __repr__
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."
