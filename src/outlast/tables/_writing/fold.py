"""The fold of rows by their key, series and time: of two points with the same key the later one wins, field by field. Pure.

A row is `[series id, time, *values]`. What a point does not name keeps its value: absent never overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Row: TypeAlias = "list[Any]"
Key: TypeAlias = "tuple[int, int]"

ROWS_ENOUGH: Final = 500
"""Rows for which a statement of their own costs next to nothing a row."""
FEW: Final = 8
"""Lists of fewer rows are quicker compared by their keys."""


class Batch(Protocol):
    """Rows of one table with the same fields, from one body."""

    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> list[Row]: ...
    @property
    def places(self) -> Sequence[int]: ...
    @property
    def body(self) -> int:
        """The number of its body: bodies come in this order."""
        ...


@dataclass(slots=True)
class Folded:
    """Rows of one table with the same fields, no two with the same key."""

    fields: tuple[str, ...]
    rows: list[Row]
    sources: list[int] = field(default_factory=list[int])
    """The numbers of the batches whose points are in it: those with the key of a row."""


def fold(batches: Sequence[Batch]) -> list[Folded]:
    """Return what to write of batches of one table: written one after the other it is as if each point had been, in order."""
    if len(batches) == 1:
        batch = batches[0]
        return [Folded(batch.fields, _newest([batch.rows]), [0])]
    by_fields: dict[tuple[str, ...], list[int]] = {}
    for number, batch in enumerate(batches):
        by_fields.setdefault(batch.fields, []).append(number)
    if len(by_fields) > 1 and _mixed([(fields, [batches[number].rows for number in of]) for fields, of in by_fields.items()]):
        return _field_by_field(batches)
    return [
        Folded(fields, _newest([batches[number].rows for number in part]), part)
        for fields, of_fields in by_fields.items()
        for part in _parts(batches, of_fields)
    ]


def _parts(batches: Sequence[Batch], numbers: list[int]) -> list[list[int]]:
    """Return the numbers of batches in parts that are worth a statement of their own: they need not be compared with others."""
    parts: list[list[int]] = []
    rows = ROWS_ENOUGH
    for number in numbers:
        if rows >= ROWS_ENOUGH:
            parts.append([])
            rows = 0
        parts[-1].append(number)
        rows += len(batches[number].rows)
    return parts


def key_of(row: Row) -> Key:
    """Return the key of a row."""
    return row[0], row[1]


def _newest(lists: list[list[Row]]) -> list[Row]:
    """Return the rows of all, the last of each key; of one list itself, if no key comes twice."""
    rows = lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))
    if len(rows) == 1 or _are_apart(lists, len(rows)):
        return rows
    by_key = {(row[0], row[1]): row for row in rows}
    return rows if len(by_key) == len(rows) else list(by_key.values())


def _are_apart(lists: list[list[Row]], count: int) -> bool:
    """Return whether it is plain, without a key for each row, that no key comes twice.

    Most bodies have each series once, and all at one time; and bodies differ in their times, or in their series.
    """
    if count < FEW * len(lists):
        return False
    of_lists: list[set[int]] = [{row[0] for row in rows} for rows in lists]
    if sum(map(len, of_lists)) < count:
        return False
    if len(lists) == 1 or len(set[int]().union(*of_lists)) == count:
        return True
    times: list[set[int]] = [{row[1] for row in rows} for rows in lists]
    return len(set[int]().union(*times)) == sum(map(len, times))


def _mixed(groups: list[tuple[tuple[str, ...], list[list[Row]]]]) -> bool:
    """Return whether the order of writing matters: a key is in two of the groups, and a field of theirs too."""
    names = [name for fields, _ in groups for name in fields]
    if len(set(names)) == len(names):
        return False
    keys: set[Key] = set()
    for _, lists in groups:
        of_group = {(row[0], row[1]) for rows in lists for row in rows}
        if not keys.isdisjoint(of_group):
            return True
        keys |= of_group
    return False


def _field_by_field(batches: Sequence[Batch]) -> list[Folded]:
    ordered = sorted(
        (
            (batch.body, place, number, row)
            for number, batch in enumerate(batches)
            for place, row in zip(batch.places, batch.rows, strict=True)
        ),
        key=lambda each: each[:3],
    )
    points: dict[Key, dict[str, Any]] = {}
    for _, _, number, row in ordered:
        point = points.setdefault((row[0], row[1]), {})
        point.update(zip(batches[number].fields, row[2:], strict=True))
    # Two sets of the same names in another order are one.
    groups: dict[tuple[str, ...], Folded] = {}
    every = list(range(len(batches)))
    for (series, time), point in points.items():
        fields = tuple(sorted(point))
        folded = groups.get(fields)
        if folded is None:
            folded = groups[fields] = Folded(fields, [], every)
        folded.rows.append([series, time, *(point[name] for name in fields)])
    return list(groups.values())
