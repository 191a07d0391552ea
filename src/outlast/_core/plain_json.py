"""JSON that every store takes, PostgreSQL's `json` *and* `jsonb` too, and that Python reads again.

PostgreSQL refuses NaN and Infinity, which `json.dumps` writes. Its jsonb, and every `->>` on a json column, refuse the
character NUL and half a surrogate pair. Nesting is bounded on both sides: by `max_stack_depth` there, by the recursion limit
here.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

DEPTH_MAX: Final = 200
"""Levels of nesting. Python 3.11 reads a little less than 1,000, PostgreSQL with the smallest `max_stack_depth` a few hundred."""
SHOWN_MAX: Final = 200
"""Characters of an error's text that are passed on: it may quote the value."""

_ENCODER: Final = json.JSONEncoder(allow_nan=False)
"""One for all: `json.dumps` makes a new one for each value that it writes otherwise than by default."""
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-f]{4})|.)")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET: Final = re.compile(r"[\[\]{}]")


class NotJsonError(ValueError):
    """A value that is not JSON, or that PostgreSQL would not store or Python not read again: the message says which."""


class JsonTooLargeError(NotJsonError):
    """JSON, but of more bytes than the limit."""


def to_json(value: object, bytes_max: int) -> str:
    """Return the JSON text of `value`, in ASCII. Raises `NotJsonError`, and `JsonTooLargeError` above `bytes_max` bytes."""
    try:
        text = _ENCODER.encode(value)
    except RecursionError:
        raise NotJsonError(_too_deep()) from None
    except Exception as error:  # noqa: BLE001 - a value with methods of its own raises whatever it likes
        raise NotJsonError(str(error)[:SHOWN_MAX]) from None
    if len(text) > bytes_max:
        msg = f"it has {len(text)} bytes, the limit is {bytes_max}"
        raise JsonTooLargeError(msg)
    if "\\u0000" in text or "\\ud" in text:
        _check_characters(text)
    # Cheap where it matters: hardly any value has so many brackets.
    if text.count("[") + text.count("{") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        raise NotJsonError(_too_deep())
    return text


def from_json(text: str | None) -> Any:  # noqa: ANN401 - anything that is JSON
    """Read JSON text; None for None. Raises `NotJsonError` for what Python does not read."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except RecursionError:
        msg = f"it is nested too deeply for Python (more than {DEPTH_MAX} levels are not promised)"
        raise NotJsonError(msg) from None
    except ValueError as error:
        raise NotJsonError(str(error)[:SHOWN_MAX]) from None


def json_or_text(text: str | None) -> Any:  # noqa: ANN401 - anything that is JSON
    """Read JSON text in order to show it; return the text itself if it cannot be read."""
    try:
        return from_json(text)
    except NotJsonError:
        return text


def plain_text(text: object, chars_max: int) -> str:
    """Return text that any column takes: without NUL and half pairs, and cut to `chars_max` characters."""
    cut = str(text)[:chars_max].replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_characters(text: str) -> None:
    """Raise `NotJsonError` for the escape of a NUL or of half a pair. An escaped backslash before a `u` is neither."""
    high_ends_at = -1
    for escape in _ESCAPE.finditer(text):
        code = escape.group(1)
        paired = high_ends_at == escape.start()
        if high_ends_at >= 0 and not (paired and code is not None and "dc00" <= code <= "dfff"):
            break
        if code == "0000":
            msg = "it holds the character NUL (U+0000), which PostgreSQL does not store"
            raise NotJsonError(msg)
        if code is not None and "dc00" <= code <= "dfff" and not paired:
            high_ends_at = 0
            break
        high_ends_at = escape.end() if code is not None and "d800" <= code <= "dbff" else -1
    if high_ends_at >= 0:
        msg = "it holds half a surrogate pair (U+D800 to U+DFFF), which PostgreSQL does not store"
        raise NotJsonError(msg)


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket.group() in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _too_deep() -> str:
    return f"it is nested too deeply, the limit is {DEPTH_MAX} levels"
