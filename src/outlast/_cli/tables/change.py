"""Commands that act: drop, retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outlast._cli.output import say
from outlast._cli.tables.group import acted, existing, not_there, on_store, table_argument
from outlast._cli.values import Duration

if TYPE_CHECKING:
    from outlast._cli.store import StorePlace
    from outlast.tables import Tables

    _Kept = click.ParamType[float | None]
else:
    # Older versions of click have no type argument here.
    _Kept = click.ParamType


class Kept(_Kept):
    """A duration, or `forever`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return the seconds, None for `forever`."""
        if str(value) == "forever":
            return None
        seconds = Duration().convert(value, param, ctx)
        if not seconds:
            self.fail("points are kept for longer than 0 s; outlast tables drop lets go of all", param, ctx)
        return seconds


def add_to(tables: click.Group) -> None:
    """Add the commands."""
    tables.add_command(drop)
    tables.add_command(retention)


@click.command()
@table_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_store
def drop(table: str, place: StorePlace, *, yes: bool, as_json: bool) -> int:
    """Drop TABLE with all its points. Who writes to it afterwards makes it again.

    Exit code 66 if there is none.

    Example: outlast tables drop cpu --store metrics.db
    """
    if as_json and not yes:
        raise click.UsageError("--json needs --yes: nobody can be asked.")
    if not yes:
        counts = acted(place, lambda tables: _counted(tables, place, table))
        click.confirm(f"Drop table {table} of {place} with {counts}? They are lost", abort=True, err=True)
    if not acted(place, lambda tables: tables.drop(table)):
        raise not_there(place, table)
    say({"table": table, "dropped": True}, f"table {table}: dropped", as_json=as_json)
    return 0


async def _counted(tables: Tables, place: StorePlace, table: str) -> str:
    from outlast._cli.tables.shown import counts_text, of_table

    return counts_text(of_table(await existing(tables, place, table), await tables.counts(table)))


@click.command()
@table_argument
@click.argument("kept", metavar="DURATION", type=Kept())
@on_store
def retention(table: str, kept: float | None, place: StorePlace, *, as_json: bool) -> int:
    """Set how long the points of TABLE are kept: 30d, 12h or forever. Older ones are refused, and deleted by the server,
    which learns it within a minute.

    Exit code 66 if there is no such table.

    Example: outlast tables retention cpu 30d --store metrics.db
    """
    from outlast._cli.tables.shown import retention_text

    if not acted(place, lambda tables: tables.set_retention(table, kept)):
        raise not_there(place, table)
    say({"table": table, "retention_s": kept}, f"table {table}: points are kept {retention_text(kept)}", as_json=as_json)
    return 0
