"""Points from Python, as rows by shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.tables._lines.checks import sorted_tags, type_of, wrong_point
from outlast.tables._model import Parsed, PointRefusal, Rows
from outlast.tables._schema.verdict import never

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._model import FieldType, Point
    from outlast.tables._series import KnownSeries


def parsed_of(points: Sequence[Point], known: KnownSeries) -> Parsed:
    """Return points as a parser would return them; their places count from 0. One that cannot be is refused alone."""
    parsed = Parsed(points=len(points))
    shapes: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Rows] = {}
    for place, point in enumerate(points):
        tags = sorted_tags(point.tags)
        if reason := wrong_point(point.table, tags, point.fields, point.time_ns):
            outcome, fault = never("point", reason)
            parsed.refused.append(PointRefusal(place, outcome, fault))
            continue
        fields = tuple(point.fields)
        types: tuple[FieldType, ...] = tuple(map(type_of, point.fields.values()))
        shape = point.table, fields, tuple(each.value for each in types)
        rows = shapes.get(shape)
        if rows is None:
            rows = shapes[shape] = Rows(point.table, fields, types)
            parsed.rows.append(rows)
        rows.rows.append([known.get(point.table, tags), point.time_ns, *point.fields.values()])
        rows.places.append(place)
    return parsed
