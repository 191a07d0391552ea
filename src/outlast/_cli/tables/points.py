"""Points as a table, and their times: ISO 8601 in UTC, with up to nine decimals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast.extend import clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from outlast.tables import ReadPoint

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CELL_CHARS_MAX: Final = 60
_FRACTION: Final = re.compile(r"\.(\d{1,9})(?=Z|[+-]|$)")


def time_text(time_ns: int) -> str:
    """Return a time in ISO 8601, with as many decimals as it has, by threes: `2026-01-31T12:00:00.250Z`."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    text = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    decimals = f"{rest:09d}"
    while decimals.endswith("000"):
        decimals = decimals[:-3]
    return f"{text}.{decimals}Z" if decimals else f"{text}Z"


def time_of(text: str) -> int:
    """Return the nanoseconds of a time in ISO 8601, up to nine decimals; without an offset it is local. Raises ValueError."""
    match = _FRACTION.search(text)
    whole = datetime.fromisoformat(_FRACTION.sub("", text, count=1)).astimezone(UTC)
    since = whole - EPOCH
    seconds = since.days * 86_400 + since.seconds
    return seconds * 1_000_000_000 + (int(match[1].ljust(9, "0")) if match else since.microseconds * 1_000)


def of_point(point: ReadPoint) -> dict[str, Any]:
    """Return a point in values of JSON. `time_ns` is the time as the number that it was written with."""
    return {
        "time": time_text(point.time_ns),
        "time_ns": point.time_ns,
        "tags": dict(point.tags),
        "fields": dict(point.fields),
    }


def titles(tags: Sequence[str], fields: Sequence[str]) -> list[str]:
    """Return the columns of points: the time, the tags, the fields. A name that two would have is told apart."""
    twice = (set(tags) & set(fields)) | {"time"}
    return [
        "time",
        *(f"tag.{name}" if name in twice else name for name in tags),
        *(f"field.{name}" if name in twice else name for name in fields),
    ]


def cells(point: ReadPoint, tags: Sequence[str], fields: Sequence[str]) -> list[str]:
    """Return the cells of a point; one that it has no value for is empty."""
    named = dict(point.tags)
    return [
        time_text(point.time_ns),
        *(named.get(tag, "") for tag in tags),
        *(_text(point.fields.get(field)) for field in fields),
    ]


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


async def print_table(points: AsyncIterator[ReadPoint], tags: Sequence[str], fields: Sequence[str]) -> int:
    """Print a table; return how many points there were. Tags and fields that none of them has are left out."""
    rows = [cells(point, tags, fields) async for point in points]
    used = [number for number in range(1 + len(tags) + len(fields)) if not number or any(row[number] for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    names = titles(tags, fields)
    for number in used:
        table.add_column(Text(clean(names[number])), justify="right" if number > len(tags) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(row[number], CELL_CHARS_MAX)) for number in used))
    Console().print(table if rows else "no points")
    return len(rows)
