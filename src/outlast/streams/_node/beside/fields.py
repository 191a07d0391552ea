"""The query and the body of a request beside the protocol, checked before anything is done. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from outlast.streams._model import NUMBER_MAX
from outlast.streams._node.answers import bad_request
from outlast.streams._node.protocol import parse_number

if TYPE_CHECKING:
    from collections.abc import Mapping

POSITIONS_MAX: Final = 16_384
"""Positions of one request: as many as a consumer may have open."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


class Fields:
    """The members of a JSON object, each asked for by its name. Raises `RefusalError` (400) for what is not as it should be."""

    def __init__(self, body: bytes, *names: str) -> None:
        """Read a body, which may be empty, and has no other members than `names`: a misspelt one must not pass unnoticed."""
        self._members = _parsed(body)
        if unknown := sorted(self._members.keys() - set(names)):
            known = ", ".join(names) or "none"
            raise bad_request("unknown field", f"the body has {len(unknown)} members that are not known here; known are: {known}")

    def text(self, name: str) -> str | None:
        """Return a text; None where there is none."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(name, "a text")
        return value

    def integer(self, name: str, default: int | None, *, low: int = 0, high: int = NUMBER_MAX) -> int:
        """Return an integer from `low` to `high`; without a default it has to be there."""
        value = self._members.get(name, default)
        # True is an int to Python, and no number to JSON.
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(name, f"an integer from {low} to {high}")
        return value

    def seconds(self, name: str, default: float) -> float:
        """Return a number of seconds, at least 0 and finite."""
        value = self._members.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
            raise _wrong(name, "a number of seconds, 0 or above")
        return float(value)

    def positions(self, name: str) -> list[int]:
        """Return a list of at least one position."""
        value = self._members.get(name)
        found = value if _is_list(value) else []
        if not 0 < len(found) <= POSITIONS_MAX or not all(type(each) is int and 0 <= each <= NUMBER_MAX for each in found):
            raise _wrong(name, f"a list of 1 to {POSITIONS_MAX} positions, each 0 to {NUMBER_MAX}")
        return found


def number(query: Mapping[str, str], name: str, default: int, *, low: int = 0, high: int = NUMBER_MAX) -> int:
    """Return a number of a query, at most `high`: a larger one is that. Raises `RefusalError`."""
    text = query.get(name)
    if text is None:
        return default
    found = parse_number(text.encode())
    if found is None or found < low:
        raise _wrong(name, f"a number from {low} on, in digits")
    return min(found, high)


def seconds(query: Mapping[str, str], name: str, high: float) -> float:
    """Return a duration of a query, 0 where there is none, at most `high`. Raises `RefusalError`."""
    text = query.get(name, "0")
    if _SECONDS.fullmatch(text) is None:
        raise _wrong(name, "a number of seconds, such as 20 or 0.5")
    return min(float(text), high)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip(b" \t\r\n"):
        return {}
    try:
        found = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise bad_request("json", "the body is nested too deeply") from None
    except ValueError:
        # Its message quotes the body, and numbers of thousands of digits are refused by a ValueError too.
        raise bad_request("json", "the body is no JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise bad_request("json", "the body is no JSON object")
    return cast("dict[str, Any]", found)


def _no_constant(text: str) -> float:
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _wrong(name: str, wanted: str) -> Exception:
    return bad_request("field", f"{name} is {wanted}")
