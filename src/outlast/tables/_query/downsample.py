"""Downsampling: the points of a series in each interval become one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.aggregators import NONE, aggregator
from outlast.tables._query.times import duration_ms

if TYPE_CHECKING:
    from outlast.tables._query.aggregators import Aggregator, Series

ALLOWED: Final = "write INTERVAL-AGGREGATOR or INTERVAL-AGGREGATOR-FILL: 1m-avg, 1h-max-null, 0all-sum"


class Fill(Enum):
    """The value of an interval without points."""

    NONE = "none"
    """None: where series are merged, it lies between its neighbours."""
    NAN = "nan"
    NULL = "null"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Downsample:
    """An interval in milliseconds, None for all of the query, what becomes of its points, and of no points."""

    interval_ms: int | None
    aggregator: Aggregator
    fill: Fill = Fill.NONE

    @classmethod
    def parse(cls, text: str) -> Downsample:
        """Return what a text such as "1m-avg-zero" says. Raises `InvalidQueryError`."""
        parts = text.split("-")
        if not 2 <= len(parts) <= 3:
            raise InvalidQueryError(f"{text[:50]!r} is no downsampling; {ALLOWED}")
        fills = {fill.value: fill for fill in Fill}
        fill = fills.get(parts[2].lower()) if len(parts) == 3 else Fill.NONE
        if fill is None:
            raise InvalidQueryError(f"{parts[2][:50]!r} fills no interval; there are {', '.join(fills)}")
        if "all" not in parts[0] and parts[0].lower().endswith("c"):
            raise InvalidQueryError(f"intervals of the calendar, as {parts[0][:50]!r}, are not offered; write 1d for 24 hours")
        interval_ms = None if "all" in parts[0] else duration_ms(parts[0])
        chosen = aggregator(parts[1])
        if chosen is NONE:
            raise InvalidQueryError(f"{text[:50]!r} downsamples with none, which is no way to; {ALLOWED}")
        return cls(interval_ms, chosen, fill)

    def stretch(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Return the first and the last millisecond to read for a query from `start_ms` to `end_ms`, both included.

        An interval that began before the start is left out; the one of the end is read whole, as OpenTSDB does.
        """
        if self.interval_ms is None:
            return start_ms, end_ms
        first = -(-start_ms // self.interval_ms) * self.interval_ms
        return first, end_ms - end_ms % self.interval_ms + self.interval_ms - 1

    def count(self, start_ms: int, end_ms: int) -> int:
        """Return how many values a series has at least afterwards: the intervals, if they are filled."""
        if self.interval_ms is None or self.fill is Fill.NONE:
            return 0
        first, last = self.stretch(start_ms, end_ms)
        return max(0, (last + 1 - first) // self.interval_ms)

    def __call__(self, points: Series, start_ms: int, end_ms: int) -> Series:
        """Return one value, a float, for each interval; its time is that at which the interval begins."""
        if self.interval_ms is None:
            values = [value for at_ms, value in points if start_ms <= at_ms < max(end_ms, start_ms + 1)]
            return [(start_ms, float(self.aggregator(values)))] if values else []
        interval_ms = self.interval_ms
        found = {
            begin: float(self.aggregator([value for _, value in group]))
            for begin, group in groupby(points, lambda point: point[0] - point[0] % interval_ms)
        }
        if self.fill is Fill.NONE:
            return list(found.items())
        first, last = self.stretch(start_ms, end_ms)
        missing = 0.0 if self.fill is Fill.ZERO else math.nan
        return [(begin, found.get(begin, missing)) for begin in range(first, last + 1, interval_ms)]
