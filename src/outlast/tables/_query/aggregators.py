"""The aggregators: what becomes of the values that several series have at one time, or one series in one interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from outlast.tables._errors import InvalidQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Number: TypeAlias = int | float
Series: TypeAlias = "list[tuple[int, Number]]"
"""Times in milliseconds, ascending, and values."""


class Missing(Enum):
    """The value of a series at a time between two of its points."""

    LINEAR = "linear"
    """On the line between them."""
    PREVIOUS = "previous"
    """That of the point before."""
    LEFT_OUT = "left out"
    """None."""


@dataclass(frozen=True, slots=True)
class Aggregator:
    """One of them. `of` gets at least one value, and none is NaN."""

    name: str
    of: Callable[[Sequence[Number]], Number]
    missing: Missing = Missing.LINEAR

    def __call__(self, values: Sequence[Number]) -> Number:
        """Return what becomes of `values`: NaN where there is none but NaN, and 0 for `count` then."""
        known = [value for value in values if value == value]  # noqa: PLR0124 - NaN alone differs from itself
        if known:
            return self.of(known)
        return 0 if self.name == "count" else math.nan


def _mean(values: Sequence[Number]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[Number]) -> float:
    """Return the standard deviation of all, by Welford's method: no sum of squares whose digits would cancel."""
    mean, squares = 0.0, 0.0
    for count, value in enumerate(values, 1):
        off = value - mean
        mean += off / count
        squares += off * (value - mean)
    return math.sqrt(max(squares, 0.0) / len(values))


def _median(values: Sequence[Number]) -> Number:
    """Return the value in the middle; the upper one of two, as OpenTSDB does."""
    return sorted(values)[len(values) // 2]


def _percentile(share: float) -> Callable[[Sequence[Number]], float]:
    """Return a percentile at the place p(n+1) of the sorted values, as the R-6 rule of OpenTSDB's library has it."""

    def percentile(values: Sequence[Number]) -> float:
        ordered = sorted(values)
        place = share * (len(ordered) + 1)
        if place < 1:
            return float(ordered[0])
        if place >= len(ordered):
            return float(ordered[-1])
        below = math.floor(place)
        return ordered[below - 1] + (place - below) * (ordered[below] - ordered[below - 1])

    return percentile


AGGREGATORS: Final = {
    each.name: each
    for each in (
        # `none` merges nothing: every series is an answer of its own.
        Aggregator("none", lambda values: values[0], Missing.LEFT_OUT),
        Aggregator("sum", sum),
        Aggregator("avg", _mean),
        Aggregator("min", min),
        Aggregator("max", max),
        Aggregator("dev", _deviation),
        Aggregator("diff", lambda values: values[-1] - values[0]),
        Aggregator("median", _median),
        Aggregator("mult", lambda values: math.prod(map(float, values))),
        Aggregator("pfsum", sum, Missing.PREVIOUS),
        Aggregator("zimsum", sum, Missing.LEFT_OUT),
        Aggregator("mimmin", min, Missing.LEFT_OUT),
        Aggregator("mimmax", max, Missing.LEFT_OUT),
        Aggregator("squareSum", lambda values: sum(value * value for value in values), Missing.LEFT_OUT),
        Aggregator("count", len, Missing.LEFT_OUT),
        Aggregator("first", lambda values: values[0], Missing.LEFT_OUT),
        Aggregator("last", lambda values: values[-1], Missing.LEFT_OUT),
        Aggregator("p50", _percentile(0.5)),
        Aggregator("p75", _percentile(0.75)),
        Aggregator("p90", _percentile(0.9)),
        Aggregator("p95", _percentile(0.95)),
        Aggregator("p99", _percentile(0.99)),
        Aggregator("p999", _percentile(0.999)),
    )
}
"""Those of OpenTSDB, by name. In two things they differ: OpenTSDB puts a 0 for a missing value, which `count`, `first` and `last`
take for a real one, and cuts the mean of integers to an integer."""
NONE: Final = AGGREGATORS["none"]


def aggregator(name: str) -> Aggregator:
    """Return the aggregator of a name. Raises `InvalidQueryError`."""
    found = AGGREGATORS.get(name)
    if found is None:
        raise InvalidQueryError(f"No such aggregation function: {name[:50]}; there are {', '.join(sorted(AGGREGATORS))}")
    return found
