"""The fold of rows by their key, series and time: of two points with the same key the later one wins, field by field. Pure.

A row is `[series id, time, *values]`. What a point does not name keeps its value: absent never overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Row: TypeAlias = "list[Any]"
Key: TypeAlias = "tuple[int, int]"


@dataclass(slots=True)
class Batch:
    """Rows of one table with the same fields, from one body. `body` is the number of it: bodies come in this order."""

    fields: tuple[str, ...]
    rows: list[Row]
    places: Sequence[int]
    body: int = 0


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
        return [Folded(batch.fields, _newest(batch.rows), [0])]
    by_fields: dict[tuple[str, ...], Folded] = {}
    for number, batch in enumerate(batches):
        folded = by_fields.get(batch.fields)
        if folded is None:
            by_fields[batch.fields] = Folded(batch.fields, batch.rows, [number])
        else:
            # A new list each time but the first would be quadratic; the rows of a batch are not to be changed.
            if len(folded.sources) == 1:
                folded.rows = folded.rows.copy()
            folded.rows += batch.rows
            folded.sources.append(number)
    if len(by_fields) > 1 and _mixed(list(by_fields.values())):
        return _field_by_field(batches)
    for folded in by_fields.values():
        folded.rows = _newest(folded.rows)
    return list(by_fields.values())


def key_of(row: Row) -> Key:
    """Return the key of a row."""
    return row[0], row[1]


def _newest(rows: list[Row]) -> list[Row]:
    """Return the last row of each key; the same list if no key comes twice."""
    if len(rows) == 1 or len({row[0] for row in rows}) == len(rows):
        # Most bodies have each series once: no key is made.
        return rows
    by_key = {(row[0], row[1]): row for row in rows}
    return rows if len(by_key) == len(rows) else list(by_key.values())


def _mixed(groups: list[Folded]) -> bool:
    """Return whether the order of writing matters: a key is in two of the groups, and a field of theirs too."""
    names = [name for group in groups for name in group.fields]
    if len(set(names)) == len(names):
        return False
    keys: set[Key] = set()
    for group in groups:
        of_group = {(row[0], row[1]) for row in group.rows}
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
