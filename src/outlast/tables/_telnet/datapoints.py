"""Data points of OpenTSDB, whichever way they come: their times, their values, their series."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, Scope
from outlast.tables._lines import checks
from outlast.tables._lines.recent import Recent
from outlast.tables._model import INT64_MAX, INT64_MIN, FieldType, Parsed, PointOutcome, PointRefusal, Rows

if TYPE_CHECKING:
    from outlast.tables._model import Series
    from outlast.tables._tables import Tables

VALUE: Final = "value"
"""The one field of such a point."""
SECONDS_MAX: Final = 2**32 - 1
"""A time up to it is in seconds, a larger one in milliseconds: the rule of OpenTSDB, which looks whether it fits 32 bits."""
MS_MAX: Final = 9_223_372_036_853
"""The last whole millisecond whose every nanosecond can be stored: 2262-04-11. OpenTSDB itself takes 9999999999999, in 2286."""
HEADS_KEPT: Final = 100_000
"""Heads (metric and tags, as they came) whose series is remembered, some 300 bytes each."""
REFUSED_KEPT: Final = 1_000
"""Refusals of one body that are told one by one; those beyond them are counted."""
SHOWN_MAX: Final = 60
"""Characters of what came that a message repeats."""
TIMES_ALLOWED: Final = f"write seconds up to {SECONDS_MAX}, or milliseconds up to {MS_MAX}"
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_DIGITS_MAX: Final = 400
"""Characters of a number. The longest double written out has some 330."""


class BadValueError(ValueError):
    """A value that is no number, or one that cannot be stored. Its text is the reason."""


class BadPointError(ValueError):
    """A point that cannot be stored for something else. Its text is the reason."""


def time_ns(timestamp: int) -> int:
    """Return the nanoseconds of a time in seconds or milliseconds. Raises `BadPointError`."""
    if 0 < timestamp <= SECONDS_MAX:
        return timestamp * 1_000_000_000
    if SECONDS_MAX < timestamp <= MS_MAX:
        return timestamp * 1_000_000
    seen = str(timestamp) if abs(timestamp) < 10**SHOWN_MAX else "a number of more than 60 digits"
    raise BadPointError(f"Invalid timestamp: {seen}; {TIMES_ALLOWED}")


def number(text: str) -> int | float:
    """Return the number that a text is: an integer of 64 bits or a finite double. Raises `BadValueError`."""
    if len(text) <= _DIGITS_MAX:
        if _INTEGER.fullmatch(text):
            return integer(int(text))
        if _FLOAT.fullmatch(text):
            return finite(float(text))
    raise BadValueError(f"Unable to parse value to a number: {shown(text)}; write 42, 4.2 or 4.2e1")


def integer(value: int) -> int:
    """Return the integer. Raises `BadValueError` for one of more than 64 bits."""
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise BadValueError(f"Unable to parse value to a number: an integer beyond {INT64_MIN} to {INT64_MAX}; send it as a float")


def finite(value: float) -> float:
    """Return the float. Raises `BadValueError` for one that is not finite."""
    if math.isfinite(value):
        return value
    raise BadValueError(f"value is NaN or Infinite: {value}; leave out points without a value, and none is above 1.7e308")


def shown(value: object) -> str:
    """Return what came, cut, for a message."""
    return checks.shown(value) if isinstance(value, str) else str(value)[:SHOWN_MAX]


class Heads:
    """The series of heads that were read before. Two heads may mean the same series; a head means one."""

    def __init__(self, tables: Tables) -> None:
        self._tables: Final = tables
        self._recent: Final = Recent[Any, "Series"](HEADS_KEPT)

    def get(self, head: object) -> Series | None:
        """Return the series of a head; None for one that is new."""
        return self._recent.get(head)

    def learn(self, head: object, metric: str, tags: dict[str, str], *, keep: bool = True) -> Series:
        """Return the series of a new head, checked; none of its tags is empty. `keep`: remember it. Raises `BadPointError`."""
        pairs = checks.sorted_tags(tags)
        if reason := checks.wrong_name("the metric", metric) or checks.wrong_tags(pairs):
            raise BadPointError(reason)
        series = self._tables.known.get(metric, pairs)
        if keep:
            self._recent.put(head, series)
        return series


class Gathered:
    """The points of one body while they are read, by shape."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, FieldType], Rows] = {}
        self._refused: list[PointRefusal] = []
        self._count = 0

    def add(self, series: Series, at_ns: int, value: float, place: int) -> None:
        """Add a point; `value` is an int or a float."""
        of_type = FieldType.FLOAT if type(value) is float else FieldType.INTEGER
        shape = self._shapes.get((series.table, of_type))
        if shape is None:
            shape = self._shapes[series.table, of_type] = Rows(series.table, (VALUE,), (of_type,))
        shape.rows.append([series, at_ns, value])
        shape.places.append(place)
        self._count += 1

    def refuse(self, place: int, error: Exception, text: str = "") -> None:
        """Add a point that can never be stored, for the reason that `error` says."""
        self._count += 1
        if len(self._refused) < REFUSED_KEPT:
            code = "value" if isinstance(error, BadValueError) else "point"
            fault = Fault(Kind.REJECTED, code, str(error), scope=Scope.CALL)
            self._refused.append(PointRefusal(place, PointOutcome.NEVER, fault, text))

    def parsed(self) -> Parsed:
        """Return all of it."""
        return Parsed(list(self._shapes.values()), self._refused, self._count)
