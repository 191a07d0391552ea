"""`outlast tables query`: the points of a table, as text or as a picture."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from outlast._cli.output import as_json_option, printing
from outlast._cli.tables.group import StoredText, acted, existing, store_option, table_argument
from outlast._core.duration import parse_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from outlast._cli.store import StorePlace
    from outlast.tables import Range, ReadPoint, TableRecord, Tables

    _Moment = click.ParamType[int]
    _Tag = click.ParamType[tuple[str, str | None]]
else:
    # Older versions of click have no type argument here.
    _Moment = _Tag = click.ParamType

FORMATS: Final = ("table", "graph", "csv", "json", "jsonl")
LIMIT: Final = 1_000
"""Points of a table, unless it is told otherwise: it is put together in memory, and looked at."""
GRAPH_S: Final = 3_600.0
TAGS_MAX: Final = 1_000
WIDTH_MIN: Final = 10
WIDTH_MAX: Final = 120
NUMBERS_WIDTH: Final = 40
"""Columns that the numbers beside a line take."""


class Moment(_Moment):
    """A moment: how long ago, or ISO 8601; without an offset it is local time. In nanoseconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return it; a usage error for anything else."""
        from outlast._cli.tables.points import time_of

        text = str(value)
        try:
            if "T" in text or text.count("-") == 2:
                return time_of(text)
            return time.time_ns() - int(parse_duration(text) * 1e9)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is not a time; write it as 2026-01-31T12:00:00Z, or as how long ago: 90s, 1h, 7d", param, ctx)


class Tag(_Tag):
    """A tag, with a value or without: `host=a`, `host`."""

    name = "tag"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | None]:
        """Return its name and its value, None for any."""
        name, equals, text = StoredText().convert(value, param, ctx).partition("=")
        if not name or (equals and not text):
            self.fail(f"{value!r} is not a tag; write it as host=a, or host for any value", param, ctx)
        return name, text if equals else None


def add_to(tables: click.Group) -> None:
    """Add the command."""
    tables.add_command(query)


@click.command()
@table_argument
@click.option("--field", "fields", multiple=True, help="Only this field (repeatable); by default all.")
@click.option("--tag", "tags", type=Tag(), multiple=True, metavar="NAME[=VALUE]", help="Only series that have it (repeatable).")
@click.option("--since", "start", type=Moment(), help="From then on: how long ago (90s, 1h, 7d), or 2026-01-31T12:00:00Z.")
@click.option("--until", "end", type=Moment(), help="Up to then, that moment included; in the same ways.")
@click.option("--limit", type=click.IntRange(0), help=f"At most so many points; 0 is all. By default all, in a table {LIMIT:,}.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How they are printed.")
@as_json_option
@store_option
def query(
    table: str,
    fields: tuple[str, ...],
    tags: tuple[tuple[str, str | None], ...],
    start: int | None,
    end: int | None,
    limit: int | None,
    form: str,
    place: StorePlace,
    *,
    as_json: bool,
) -> int:
    """Print the points of TABLE by series and time; --json is --format jsonl, an object a line.

    The same tag with several values means any of them. graph draws a line for each field of each series, of the last hour
    unless --since says otherwise.

    Exit code 66 if there is no such table, or no such field.

    Example: outlast tables query cpu --field used --tag host=a --since 1h --format graph

    outlast tables query cpu --since 2026-01-31T00:00:00Z --until 2026-02-01T00:00:00Z --format csv > cpu.csv
    """
    from outlast.tables import Range

    form = "jsonl" if as_json else form
    if form == "graph":
        end = time.time_ns() if end is None else end
        start = end - int(GRAPH_S * 1e9) if start is None else start
    wanted: dict[str, tuple[str, ...]] = {}
    for name, value in tags:
        wanted[name] = (*wanted.get(name, ()), *(() if value is None else (value,)))
    ask = Range(table, fields, wanted)
    ask = Range(table, fields, wanted, ask.start_ns if start is None else start, ask.end_ns if end is None else end)
    if ask.start_ns > ask.end_ns:
        raise click.UsageError("--since is later than --until: there is nothing between them.")
    is_told = limit is not None
    points_max = limit or None if is_told else LIMIT if form == "table" else None

    async def look(tables: Tables) -> int:
        record = await existing(tables, place, table)
        _check_fields(record, fields, place)
        found = tables.read(ask, points_max=points_max)
        count = await _printed(tables, record, found, ask, form)
        # Only where nobody asked for so many, and there are more.
        return count if not is_told and count == points_max and await _has_more(tables, ask, count) else 0

    with printing():
        shown = acted(place, look)
    if shown:
        click.echo(f"outlast: these are the first {shown:,}; --limit 0 prints all", err=True)
    return 0


def _check_fields(record: TableRecord, fields: tuple[str, ...], place: StorePlace) -> None:
    from outlast._cli.errors import CommandError, Exit

    known = [field.name for field in record.fields]
    for field in fields:
        if field not in known:
            text = f"{place}: the table {record.name} has no field {field!r}; it has {', '.join(known[:20])}"
            raise CommandError(text + (", …" if len(known) > 20 else ""), Exit.NO_INPUT)


async def _has_more(tables: Tables, ask: Range, count: int) -> bool:
    seen = 0
    async for _ in tables.read(ask, points_max=count + 1):
        seen += 1
    return seen > count


async def _printed(tables: Tables, record: TableRecord, found: AsyncIterator[ReadPoint], ask: Range, form: str) -> int:
    """Print points in one of the forms; return how many there were in a table."""
    if form == "graph":
        return await _print_graph(found, ask)
    fields = ask.fields or tuple(field.name for field in record.fields)
    if form == "table":
        from outlast._cli.tables.points import print_table

        return await print_table(found, await tables.tag_names(record.name, count=TAGS_MAX), fields)
    # As /api/range writes them.
    from outlast.tables import RangeForm, range_text

    async for piece in range_text(found, fields, RangeForm(form)):
        click.echo(piece, nl=False)
    return 0


async def _print_graph(found: AsyncIterator[ReadPoint], ask: Range) -> int:
    from rich.console import Console
    from rich.text import Text

    from outlast._cli.tables.graph import Picture, bars, drawn
    from outlast._cli.tables.points import time_text
    from outlast.extend import clean

    console = Console()
    width = min(max(console.width - NUMBERS_WIDTH, WIDTH_MIN), WIDTH_MAX)
    picture = await drawn(found, Picture(ask.start_ns, ask.end_ns, width))
    if not picture.lines:
        console.print("no numbers" if picture.points else "no points")
        return picture.points
    # To the millisecond: a bar is longer than that.
    start, end = (time_text(moment // 1_000_000 * 1_000_000) for moment in (ask.start_ns, ask.end_ns))
    console.print(Text(f"{start} to {end}", style="dim"))
    for line in picture.lines.values():
        console.print(Text(clean(line.name), style="bold"))
        numbers = f"{line.least:.6g} to {line.most:.6g}, last {line.last:.6g}"
        console.print(Text(bars(line.means()), style="cyan") + Text(f"  {numbers}", style="dim"), overflow="crop", no_wrap=True)
    if picture.left_out:
        click.echo(f"outlast: {len(picture.lines)} lines are drawn; name a --field or a --tag for others", err=True)
    return picture.points
