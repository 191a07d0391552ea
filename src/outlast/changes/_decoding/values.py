"""Python values for the common types, out of the text that PostgreSQL sends.

| PostgreSQL | Python |
|---|---|
| boolean | bool |
| smallint, integer, bigint, oid | int |
| real, double precision | float |
| numeric | `decimal.Decimal`, with the digits that were sent; NaN and the infinities too |
| bytea | bytes |
| date, time, timetz, timestamp, timestamptz | those of `datetime`; with the offset that was sent |
| interval | `Interval`, since a month has no length |
| uuid | `uuid.UUID` |
| json, jsonb | str; what `json.loads` makes of it when asked |
| arrays of these, and of text, varchar and char | lists, nested by dimension, NULL as None |

What Python cannot hold stays the text it was: `infinity` as a date, timestamp or interval, years before 1 (`BC`) and after 9999,
the time 24:00, arrays with bounds of their own (`[0:2]={…}`). Every other type stays text. It is the text of a session with
DateStyle ISO, IntervalStyle postgres and bytea_output hex; text in another style raises ValueError.
"""

from __future__ import annotations

import datetime as dt
import json as json_module
import re
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TextDecoder: TypeAlias = "Callable[[str], object]"

DIMENSIONS_MAX: Final = 6
"""MAXDIM of PostgreSQL."""
_INFINITIES: Final = frozenset({"infinity", "-infinity"})
_HOURS_24: Final = "24:"
_INTERVAL: Final = re.compile(
    r"(?:(-?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?"
)
_INTERVAL_LENGTH_MAX: Final = 100
"""Longer than any interval that PostgreSQL writes."""
_ELEMENT: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"|([^",{}\\\s][^",{}\\]*)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time in the three units of which PostgreSQL keeps it: neither a month nor a day has a fixed length."""

    months: int = 0
    days: int = 0
    microseconds: int = 0

    def as_timedelta(self) -> dt.timedelta:
        """Return the same with days of 24 hours. Raises ValueError where there are months."""
        if self.months:
            msg = f"an interval of {self.months} months has no fixed length"
            raise ValueError(msg)
        return dt.timedelta(days=self.days, microseconds=self.microseconds)


def text_decoder(type_oid: int, *, json: bool = False) -> TextDecoder | None:
    """Return what makes a Python value of this type's text, raising ValueError or ArithmeticError; None if it stays text."""
    if json and type_oid in _JSON:
        return json_module.loads
    element = ELEMENTS.get(type_oid)
    if element is not None:
        return _array_decoder(text_decoder(element, json=json))
    return _SCALARS.get(type_oid)


def _bool(text: str) -> bool:
    if text not in {"t", "f"}:
        raise ValueError("a boolean is t or f")
    return text == "t"


def _bytea(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError("bytea that is not in hexadecimal digits")
    return bytes.fromhex(text[2:])


def _beyond_python(text: str) -> bool:
    """Return whether it is a date or timestamp of no year from 1 to 9999."""
    return text in _INFINITIES or text.endswith(" BC") or text[4:5] != "-"


def _date(text: str) -> dt.date | str:
    return text if _beyond_python(text) and _is_date_like(text) else dt.date.fromisoformat(text)


def _timestamp(text: str) -> dt.datetime | str:
    return text if _beyond_python(text) and _is_date_like(text) else dt.datetime.fromisoformat(text)


def _is_date_like(text: str) -> bool:
    """Return whether it begins as ISO does; other styles would pass for years beyond 9999."""
    return text in _INFINITIES or text.split("-", 1)[0].isdecimal()


def _time(text: str) -> dt.time | str:
    return text if text.startswith(_HOURS_24) else dt.time.fromisoformat(text)


def _interval(text: str) -> Interval | str:
    if text in _INFINITIES:
        return text
    match = _INTERVAL.fullmatch(text) if 0 < len(text) < _INTERVAL_LENGTH_MAX else None
    if match is None:
        raise ValueError("an interval in another style than postgres")
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups(default="")
    whole_s = (int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
    microseconds = whole_s * 1_000_000 + int(fraction.ljust(6, "0") if fraction else 0)
    return Interval(int(years or 0) * 12 + int(months or 0), int(days or 0), -microseconds if sign == "-" else microseconds)


def _array_decoder(element: TextDecoder | None) -> TextDecoder:
    def decode(text: str) -> object:
        return text if text.startswith("[") else _array(text, element)

    return decode


def _array(text: str, element: TextDecoder | None) -> list[object]:
    """Nested lists. One pass without recursion; anything that PostgreSQL would not write is a ValueError."""
    root: list[object] = []
    open_lists = [root]
    at, size = 0, len(text)
    wants_element = True
    while at < size:
        character = text[at]
        if character == "{" and wants_element:
            inner: list[object] = []
            open_lists[-1].append(inner)
            open_lists.append(inner)
            if len(open_lists) > DIMENSIONS_MAX + 1:
                raise ValueError("an array of too many dimensions")
            at += 1
        elif character == "}" and len(open_lists) > 1 and (not wants_element or not open_lists[-1]):
            open_lists.pop()
            wants_element = False
            at += 1
        elif character == "," and not wants_element and len(open_lists) > 1:
            wants_element = True
            at += 1
        else:
            match = _ELEMENT.match(text, at)
            if match is None or not wants_element or len(open_lists) == 1:
                raise ValueError("an array that is not well formed")
            open_lists[-1].append(_element(match, element))
            wants_element = False
            at = match.end()
    if len(open_lists) != 1 or len(root) != 1 or not isinstance(root[0], list):
        raise ValueError("an array that is not well formed")
    return cast("list[object]", root[0])


def _element(match: re.Match[str], element: TextDecoder | None) -> object:
    quoted, plain = match.groups()
    if quoted is None and plain.upper() == "NULL":
        return None
    text = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
    return text if element is None else element(text)


_JSON: Final = frozenset({114, 3802})

_SCALARS: Final[Mapping[int, TextDecoder]] = {
    16: _bool,
    17: _bytea,
    20: int,
    21: int,
    23: int,
    26: int,
    700: float,
    701: float,
    1082: _date,
    1083: _time,
    1114: _timestamp,
    1184: _timestamp,
    1186: _interval,
    1266: _time,
    1700: Decimal,
    2950: uuid.UUID,
}
"""By the ids of the built-in types (pg_type.dat), which never change."""

ELEMENTS: Final[Mapping[int, int]] = {
    199: 114,
    1000: 16,
    1001: 17,
    1005: 21,
    1007: 23,
    1009: 25,
    1014: 1042,
    1015: 1043,
    1016: 20,
    1021: 700,
    1022: 701,
    1028: 26,
    1115: 1114,
    1182: 1082,
    1183: 1083,
    1185: 1184,
    1187: 1186,
    1231: 1700,
    1270: 1266,
    2951: 2950,
    3807: 3802,
}
"""The array types, and what their elements are."""
