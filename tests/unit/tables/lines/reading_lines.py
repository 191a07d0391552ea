"""What a parser makes of bodies, in a form that tests can write down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outlast.tables._lines.parser import LineParser
from outlast.tables._series import KnownSeries

if TYPE_CHECKING:
    from outlast.tables._model import FieldType, Parsed

Point = tuple[int, str, dict[str, str], dict[str, Any], int | None]
"""Number of the line, table, tags, fields, time."""


def new_parser() -> LineParser:
    return LineParser(KnownSeries())


def points_of(parsed: Parsed) -> list[Point]:
    """All points in the order of their lines."""
    found = [
        (place, rows.table, dict(row[0].tags), dict(zip(rows.fields, row[2:], strict=True)), row[1])
        for rows in parsed.rows
        for row, place in zip(rows.rows, rows.places, strict=True)
    ]
    return sorted(found, key=lambda point: point[0])


def read(body: str | bytes, unit_ns: int | None = 1) -> list[Point]:
    """The points of a body of which nothing is refused."""
    parsed = new_parser().parse(body.encode() if isinstance(body, str) else body, unit_ns=unit_ns)
    assert [refusal.reason for refusal in parsed.refused] == []
    return points_of(parsed)


def value_of(text: str) -> Any:
    """The value that a field has which is written so."""
    ((_, _, _, fields, _),) = read(f"m v={text} 1")
    return fields["v"]


def types_of(parsed: Parsed) -> list[tuple[FieldType, ...]]:
    return [rows.types for rows in parsed.rows]


def reasons(body: str | bytes, unit_ns: int | None = 1) -> list[str]:
    """The reasons for which lines of a body are refused."""
    parsed = new_parser().parse(body.encode() if isinstance(body, str) else body, unit_ns=unit_ns)
    return [refusal.reason for refusal in parsed.refused]


def exactly(parsed: Parsed) -> tuple[object, ...]:
    """All of what was parsed, to be compared: 1, 1.0 and True differ."""
    rows = [(rows.table, rows.fields, rows.types, repr(rows.rows), rows.places) for rows in parsed.rows]
    return rows, [(refusal.place, refusal.outcome, refusal.fault, refusal.text) for refusal in parsed.refused], parsed.points
