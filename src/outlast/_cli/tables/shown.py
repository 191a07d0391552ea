"""Tables as people read them, or in values of JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast._cli.procedures.shown import lasting
from outlast._cli.tables.points import of_point, time_text
from outlast.extend import clean, cut, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.procedures import Explanation
    from outlast.tables import ReadPoint, TableCounts, TableRecord

NAME_CHARS_MAX: Final = 60
FAULT_CHARS_MAX: Final = 300
_RIGHT: Final = frozenset({"fields", "series", "points", "size"})


def of_table(record: TableRecord, counts: TableCounts | None) -> dict[str, Any]:
    """Return a table in values of JSON."""
    found: dict[str, Any] = {"table": record.name, "fields": len(record.fields), "retention_s": record.retention_s}
    if counts is not None:
        found |= {
            "series": counts.series,
            "points": counts.points,
            "points_exact": counts.is_exact,
            "oldest": None if counts.oldest_ns is None else time_text(counts.oldest_ns),
            "newest": None if counts.newest_ns is None else time_text(counts.newest_ns),
            "stored_bytes": counts.stored_bytes,
        }
    return found


def of_refused(explained: Explanation, clears: str) -> dict[str, Any]:
    """Return a table that cannot be made, or changed, in values of JSON."""
    fault = explained.fault or explained.last
    return {
        "table": explained.key,
        "refused": None
        if fault is None
        else {
            "kind": fault.kind.value,
            "code": fault.code,
            "reason": clean(fault.reason),
            "source": fault.source,
            "hint": clean(fault.hint),
        },
        "since_s": round(explained.since_s, 3),
        "retry_after_s": round(explained.retry_after_s, 3),
        "clears": clears,
    }


def of_details(record: TableRecord, tags: Mapping[str, Sequence[str]], newest: Sequence[ReadPoint]) -> dict[str, Any]:
    """Return the rest of a table in values of JSON: `fields` are objects here, and `tags` have a few values each."""
    fields = [{"name": field.name, "type": field.type.value, "stored": field.stored} for field in record.fields]
    return {
        "stored": record.stored,
        "created": time_text(round(record.created_at * 1_000) * 1_000_000),
        "fields": fields,
        "tags": {tag: list(values) for tag, values in tags.items()},
        "newest_points": [of_point(point) for point in newest],
    }


def retention_text(retention_s: float | None) -> str:
    """Return how long points are kept: `for 30 d`, `forever`."""
    return "forever" if retention_s is None else f"for {lasting(retention_s)}"


def print_tables(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a table; below them those that cannot be made, with what clears that."""
    made = [row for row in rows if "refused" not in row]
    # SQLite does not tell the size of one table.
    has_sizes = any(row.get("stored_bytes") is not None for row in made)
    table = _table("table", "fields", "series", "points", *(["size"] if has_sizes else []), "newest", "kept")
    now_ns = time.time_ns()
    for row in made:
        size = row.get("stored_bytes")
        table.add_row(
            Text(clean(row["table"], NAME_CHARS_MAX)),
            f"{row['fields']:,}",
            *_counts(row),
            *(["" if size is None else size_text(size)] if has_sizes else []),
            _age(row.get("newest"), now_ns),
            retention_text(row["retention_s"]).removeprefix("for "),
        )
    Console().print(table if made else "no tables")
    for row in rows:
        if "refused" in row:
            _print_refused(row)


def counts_text(row: Mapping[str, Any]) -> str:
    """Return what a table holds: `1 point of 1 series`, `about 1,200 points of 3 series`."""
    series, points = _counts(row)
    what = "point" if row.get("points") == 1 else "points"
    return f"{points.replace('~', 'about ') or '?'} {what} of {series or '?'} series"


def _counts(row: Mapping[str, Any]) -> tuple[str, str]:
    if "series" not in row:
        return "", ""
    return f"{row['series']:,}", f"{'' if row['points_exact'] else '~'}{row['points']:,}"


def _age(newest: str | None, now_ns: int) -> str:
    """Return how old the newest point is, from its text: that has nanoseconds, which Python's own reader cuts."""
    if newest is None:
        return ""
    from outlast._cli.tables.points import time_of

    seconds = (now_ns - time_of(newest)) / 1e9
    return f"{lasting(seconds)} ago" if seconds >= 0 else f"in {lasting(-seconds)}"


def _print_refused(row: Mapping[str, Any]) -> None:
    click.echo(f"{clean(row['table'], NAME_CHARS_MAX)}: {click.style('cannot be made or changed', fg='red')}")
    refused = row["refused"]
    lines = [
        ("cause", cut(f"{refused['kind']}, {refused['code']}: {refused['reason']}", FAULT_CHARS_MAX) if refused else ""),
        ("hint", refused["hint"] if refused else ""),
        ("since", lasting(row["since_s"])),
        ("tried again", f"in {lasting(row['retry_after_s'])}, if somebody writes to it" if row["retry_after_s"] else ""),
        ("at once by", row["clears"]),
    ]
    for name, text in lines:
        if text:
            click.echo(f"    {name + ':':<13}{text}")


def print_table(row: Mapping[str, Any], values_max: int) -> None:
    """Print a line for each thing there is to say of a table."""
    click.echo(f"{'table:':<12}{clean(row['table'])} (stored as {clean(row['stored'])}), made {row['created']}")
    size = f", {size_text(row['stored_bytes'])}" if row.get("stored_bytes") is not None else ""
    click.echo(f"{'holds:':<12}{counts_text(row)}{size}")
    if row.get("oldest"):
        click.echo(f"{'from:':<12}{row['oldest']} to {row['newest']}")
    click.echo(f"{'kept:':<12}{retention_text(row['retention_s'])}")
    for number, field in enumerate(row["fields"]):
        stored = "" if field["stored"] == field["name"] else f" (stored as {clean(field['stored'])})"
        click.echo(f"{'' if number else 'fields:':<12}{clean(field['name'])}: {field['type']}{stored}")
    for number, (tag, values) in enumerate(row["tags"].items()):
        more = ", …" if len(values) > values_max else ""
        click.echo(f"{'' if number else 'tags:':<12}{clean(tag)}: {clean(', '.join(values[:values_max]))}{more}")
    for number, point in enumerate(row["newest_points"]):
        fields = ", ".join(f"{name}={value}" for name, value in point["fields"].items())
        tags = "".join(f", {name}={value}" for name, value in point["tags"].items())
        click.echo(f"{'' if number else 'newest:':<12}{point['time']}{clean(tags)}: {clean(fields)}")


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for title in titles:
        justify: Literal["left", "right"] = "right" if title in _RIGHT else "left"
        table.add_column(title, no_wrap=True, justify=justify)
    return table
