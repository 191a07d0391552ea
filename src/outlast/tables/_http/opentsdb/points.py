"""The points of a body of `/api/put`: one JSON object, or an array of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard, cast

from outlast.tables._http.answers import RefusedError
from outlast.tables._model import INT64_MAX, INT64_MIN
from outlast.tables._query.ask import is_list
from outlast.tables._telnet.datapoints import (
    MS_MAX,
    SECONDS_MAX,
    TIMES_ALLOWED,
    BadPointError,
    BadValueError,
    Gathered,
    finite,
    integer,
    number,
    shown,
    time_ns,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.tables._model import Parsed, Series
    from outlast.tables._telnet.datapoints import Heads

DIGITS_MAX: Final = 400
"""Digits of an integer in JSON; a longer one is no number, for its point alone. Python refuses to read more than 4,300 at all."""


class Body(NamedTuple):
    """A body that was read, and its points as they came, for those that are told back."""

    parsed: Parsed
    points: list[Any]


def read(body: bytes, heads: Heads) -> Body:
    """Read a body. What is wrong with one point refuses that alone. Raises `RefusedError` (400) for one that holds no points."""
    points = _points(body)
    gathered = Gathered()
    for place, point in enumerate(points):
        try:
            tags = point["tags"]
            # Equal tags in another order are another head of the same series.
            series = heads.get((point["metric"], *tags.items()))
            at, value = point["timestamp"], point["value"]
        except (KeyError, TypeError, AttributeError):
            series = at = value = None
        # Most points are of a known series, with a plain number: they need no further look.
        if series is not None and type(at) is int and 0 < at <= MS_MAX and _is_plain(value):
            gathered.add(series, at * 1_000_000_000 if at <= SECONDS_MAX else at * 1_000_000, value, place)
            continue
        try:
            gathered.add(*_read(point, heads), place)
        except (BadPointError, BadValueError) as error:
            gathered.refuse(place, error)
    return Body(gathered.parsed(), points)


def _is_plain(value: object) -> TypeGuard[int | float]:
    """Return whether a value needs no further look: a finite float, an integer of 64 bits."""
    return (type(value) is float and value - value == 0.0) or (type(value) is int and INT64_MIN <= value <= INT64_MAX)


def _points(body: bytes) -> list[Any]:
    if not body or body.isspace():
        raise RefusedError(400, "Missing request content")
    try:
        found = _loaded(body)
    except RecursionError:
        raise RefusedError(400, "Unable to parse the given JSON: it is nested too deeply") from None
    except ValueError as error:
        # It says where; the line that it would quote is not told.
        raise RefusedError(400, f"Unable to parse the given JSON: {str(error)[:200]}") from None
    if isinstance(found, dict):
        return [found]
    if not is_list(found):
        raise RefusedError(400, "The JSON must start as an object or an array")
    if not found:
        raise RefusedError(400, "No datapoints found in content")
    return found


def _loaded(body: bytes) -> Any:  # noqa: ANN401 - anything that is JSON
    try:
        return json.loads(body)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise
    # An integer that is too long for Python: as a text it costs its point alone.
    return json.loads(body, parse_int=lambda digits: int(digits) if len(digits) <= DIGITS_MAX else digits)


def _read(point: object, heads: Heads) -> tuple[Series, int, float]:
    """Return series, time and value of a point, carefully. Raises `BadPointError` and `BadValueError`."""
    if point is None:
        raise BadPointError("Unexpected null datapoint encountered in set.")
    if not isinstance(point, dict):
        raise BadPointError(f"a data point is an object with metric, timestamp, value and tags, not {shown(point)}")
    asked = cast("dict[str, Any]", point)
    metric = asked.get("metric")
    if metric is None or metric == "":
        raise BadPointError("Metric name was empty")
    if not isinstance(metric, str):
        raise BadPointError(f"the metric is a text, not {shown(metric)}")
    at_ns = time_ns(_timestamp(asked.get("timestamp", 0)))
    value = _value(asked.get("value"))
    tags = _tags(asked.get("tags"))
    # Equal keys stand for equal texts: what had to be made a text is not remembered, for 1 equals True.
    return heads.learn((metric, *tags.items()), metric, tags, keep=tags == asked["tags"]), at_ns, value


def _timestamp(value: object) -> int:
    match value:
        case bool():
            pass
        case int():
            return value
        case float() if abs(value) <= MS_MAX:
            # A fraction is cut off, as OpenTSDB does.
            return int(value)
        case str() if value.isascii() and value.isdigit() and len(value) <= len(str(MS_MAX)):
            return int(value)
        case _:
            pass
    raise BadPointError(f"Invalid timestamp: {shown(value)}; {TIMES_ALLOWED}")


def _value(value: object) -> int | float:
    match value:
        case None | "":
            raise BadValueError("Empty value")
        case bool():
            raise BadValueError(f"Unable to parse value to a number: {str(value).lower()}; write 1 or 0")
        case int():
            return integer(value)
        case float():
            return finite(value)
        case str():
            return number(value)
        case _:
            raise BadValueError(f"Unable to parse value to a number: {shown(value)}; write 42, 4.2 or 4.2e1")


def _tags(tags: object) -> dict[str, str]:
    """Return the tags as texts, without those that have no value. Raises `BadPointError`."""
    if isinstance(tags, dict):
        found = {name: text for name, value in cast("Mapping[str, Any]", tags).items() if (text := _tag_value(name, value))}
        if found:
            return found
    elif tags is not None:
        raise BadPointError(f"the tags are an object, a value for each name, not {shown(tags)}")
    raise BadPointError("Missing tags: a data point has at least one, with a value")


def _tag_value(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            raise BadPointError(f"the value of the tag {shown(name)} is a text, not {shown(value)}")
