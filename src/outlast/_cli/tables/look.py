"""Commands that only look: ls, show."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from outlast._cli.output import dumps, printing
from outlast._cli.tables.group import acted, existing, on_store, table_argument

if TYPE_CHECKING:
    from outlast._cli.store import StorePlace
    from outlast.tables import Tables

LIMIT_MAX: Final = 10_000
PAGE: Final = 1_000
REFUSED_MAX: Final = 1_000
"""Tables that cannot be made, as `ls` shows them."""
TAGS_MAX: Final = 1_000
VALUES_SHOWN: Final = 5
"""Values of a tag, as `show` shows them."""


def add_to(tables: click.Group) -> None:
    """Add the commands."""
    for command in (ls, show):
        tables.add_command(command)


@click.command()
@click.option("--after", default="", metavar="TABLE", help="Only those behind this one: the last of the page before.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=1_000, show_default=True, help="At most so many.")
@on_store
def ls(after: str, limit: int, place: StorePlace, *, as_json: bool) -> int:
    """Show tables, and those that cannot be made: why, since when, and what clears that. With --json an object a line.

    Example: outlast tables ls --store metrics.db
    """
    from outlast._cli.tables import shown

    async def look(tables: Tables) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        last = after
        while len(rows) < limit and (page := await tables.tables(after=last, count=min(PAGE, limit - len(rows)))):
            rows += [shown.of_table(record, await tables.counts(record.name)) for record in page]
            last = page[-1].name
        return rows + await _refused(tables, place)

    rows = acted(place, look)
    with printing():
        if as_json:
            for row in rows:
                click.echo(dumps(row))
        else:
            shown.print_tables(rows)
    return 0


async def _refused(tables: Tables, place: StorePlace) -> list[dict[str, Any]]:
    """Return the tables that cannot be made, or changed, as the records of their procedures say."""
    from outlast._cli.tables import shown
    from outlast.procedures import Procedures, ProcedureState
    from outlast.tables import SHAPE_KIND

    procedures = Procedures(tables.dependency, schema=place.schema, make=False)
    rows: list[dict[str, Any]] = []
    try:
        for record in await procedures.list(states=(ProcedureState.DEAD,), kind=SHAPE_KIND, count=REFUSED_MAX):
            explained = await procedures.explain(record.kind, record.key)
            # The file is no secret; a DSN may be one.
            where = f" --store {shlex.quote(place.text)}" if place.scheme == "sqlite" else ""
            rows.append(shown.of_refused(explained, f"{explained.clears}{where}"))
    finally:
        await procedures.close()
    return rows


@click.command()
@table_argument
@click.option("--series", type=click.IntRange(0, PAGE), default=10, show_default=True, help="Newest points of so many series.")
@on_store
def show(table: str, series: int, place: StorePlace, *, as_json: bool) -> int:
    """Show a table: its fields and their types, its tags, what it holds, and the newest point of some series.

    Exit code 66 if there is none.

    Example: outlast tables show cpu --store metrics.db
    """
    from outlast._cli.tables import shown

    async def look(tables: Tables) -> dict[str, Any]:
        record = await existing(tables, place, table)
        tags = await tables.tag_names(table, count=TAGS_MAX)
        values = {tag: await tables.tag_values(tag, table=table, count=VALUES_SHOWN + 1) for tag in tags}
        newest = await tables.newest(table, count=series) if series else []
        return shown.of_table(record, await tables.counts(table)) | shown.of_details(record, values, newest)

    row = acted(place, look)
    if as_json:
        click.echo(dumps(row, indent=2))
    else:
        shown.print_table(row, VALUES_SHOWN)
    return 0
