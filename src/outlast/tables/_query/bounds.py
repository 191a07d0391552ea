"""The bounds of a query, and the error at each of them: what is asked for is too much, never cut without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outlast.tables._errors import InvalidQueryError

NARROW: Final = "ask for a shorter time, name tags, or downsample (1m-avg)"


class QueryTooLargeError(InvalidQueryError):
    """A query that would take more than one may; a smaller one is answered."""

    code = "too large"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """The bounds of queries. One beyond them is refused: 413; 504 beyond `deadline_s`, 503 if it only waited for others."""

    points_max: int = 1_000_000
    """Points that one query may read, and values that it may make of them."""
    series_max: int = 5_000
    """Series that one query may read."""
    steps_max: int = 5_000_000
    """Values that the series of one query may need where they are merged: their number times the times of all of them."""
    queries_max: int = 4
    """Queries that are worked on at a time; others wait for their turn, within their deadline."""
    parts_max: int = 20
    """Parts of one query."""
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("points_max", "series_max", "steps_max", "queries_max", "parts_max", "deadline_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")


def check_points(count: int, limits: QueryLimits) -> None:
    """Raise `QueryTooLargeError` for more points than a query may have."""
    if count > limits.points_max:
        raise QueryTooLargeError(f"the query has more than {limits.points_max} points; {NARROW}")


def check_series(count: int, limits: QueryLimits) -> None:
    """Raise `QueryTooLargeError` for more series than a query may have."""
    if count > limits.series_max:
        raise QueryTooLargeError(f"the query has more than {limits.series_max} series; name tags")


class Steps:
    """Counts the values that are merged in one query."""

    def __init__(self, limits: QueryLimits) -> None:
        self._max: Final = limits.steps_max
        self._taken = 0

    def take(self, count: int) -> None:
        """Count some more. Raises `QueryTooLargeError` for too many."""
        self._taken += count
        if self._taken > self._max:
            msg = f"to merge these series takes {self._taken} values, the limit is {self._max}; downsample them (1m-avg)"
            raise QueryTooLargeError(msg)
