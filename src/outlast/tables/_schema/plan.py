"""The plan by which rows of one shape go into a table: what it lacks for them, what conflicts, what is to be converted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast.tables._model import FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST: Final = 2
"""The place of the first value in a row: before it are the series and the time."""
FITS: Final = frozenset(
    {
        (FieldType.INTEGER, FieldType.INTEGER),
        (FieldType.FLOAT, FieldType.FLOAT),
        (FieldType.NUMBER, FieldType.INTEGER),
        (FieldType.NUMBER, FieldType.FLOAT),
        (FieldType.STRING, FieldType.STRING),
        (FieldType.BOOLEAN, FieldType.BOOLEAN),
    }
)
"""Types of a field, and of values that it takes as they are."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The way of rows with these fields of these types into a table as it is now."""

    lacks: Mapping[str, FieldType]
    """Fields that are not there yet, or have to be widened to take a float, with the types of the values."""
    conflict: str = ""
    """The reason for which none of the rows can ever be stored; "" if there is none."""
    to_float: tuple[int, ...] = ()
    """Places in a row of integers that go into a field of floats."""
    texts: tuple[int, ...] = ()
    """Places in a row of texts: their sizes are not known from the shape."""
    row_bytes: int = 0
    """The size of a row without its texts, about."""


def plan_of(table: str, present: Mapping[str, FieldType], fields: tuple[str, ...], types: tuple[FieldType, ...]) -> Plan:
    """Return the plan for rows with `fields` of `types` in a table that has the fields `present`."""
    lacks: dict[str, FieldType] = {}
    to_float: list[int] = []
    texts: list[int] = []
    for place, (field, value) in enumerate(zip(fields, types, strict=True), FIRST):
        has = present.get(field)
        if value is FieldType.STRING:
            texts.append(place)
        if has is None or (has is FieldType.INTEGER and value is FieldType.FLOAT):
            lacks[field] = value
        elif has is FieldType.FLOAT and value is FieldType.INTEGER:
            to_float.append(place)
        elif (has, value) not in FITS:
            article = "an" if value is FieldType.INTEGER else "a"
            reason = f"field {field!r} of table {table!r} is {has.name}, the value is {article} {value.name}"
            return Plan({}, conflict=reason)
    # A number takes 9 bytes at most in either store, and so do the series and the time.
    return Plan(lacks, "", tuple(to_float), tuple(texts), 9 * (FIRST + len(fields)))
