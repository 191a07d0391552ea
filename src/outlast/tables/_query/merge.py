"""Merging: several series become one, with a value at each time at which any of them has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.tables._query.aggregators import Missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._query.aggregators import Aggregator, Number, Series
    from outlast.tables._query.bounds import Steps


def merged(group: Sequence[Series], aggregator: Aggregator, steps: Steps, *, missing: Missing | None = None) -> Series:
    """Return one series of several. A series takes part from its first point to its last.

    `missing` is used instead of what the aggregator does. Raises `QueryTooLargeError`.
    """
    filled = [points for points in group if points]
    times = sorted({at_ms for points in filled for at_ms, _ in points})
    steps.take(len(times) * len(filled))
    columns = [_column(points, times, missing or aggregator.missing) for points in filled]
    return [
        (at_ms, aggregator([value for value in values if value is not None]))
        for at_ms, values in zip(times, zip(*columns, strict=True), strict=True)
    ]


def _column(points: Series, times: Sequence[int], missing: Missing) -> list[Number | None]:
    """Return the value of one series at each of `times`; None where it has none."""
    if len(points) == len(times):
        return [value for _, value in points]
    column: list[Number | None] = []
    following = iter(points)
    before: tuple[int, Number] | None = None
    after: tuple[int, Number] | None = next(following)
    for at_ms in times:
        if after is not None and after[0] == at_ms:
            before, after = after, next(following, None)
            column.append(before[1])
        elif before is None or after is None:
            column.append(None)
        else:
            column.append(_between(before, after, at_ms, missing))
    return column


def _between(before: tuple[int, Number], after: tuple[int, Number], at_ms: int, missing: Missing) -> Number | None:
    if missing is Missing.LEFT_OUT:
        return None
    if missing is Missing.PREVIOUS:
        return before[1]
    return before[1] + (at_ms - before[0]) * (after[1] - before[1]) / (after[0] - before[0])
