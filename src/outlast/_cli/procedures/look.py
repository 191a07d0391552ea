"""Commands that only look: ls, show, explain, counts, pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from outlast._cli.errors import CommandError, Exit
from outlast._cli.output import dumps
from outlast._cli.procedures.group import acted, key_argument, kind_argument, on_store

if TYPE_CHECKING:
    from outlast._cli.store import StorePlace
    from outlast.procedures import ProcedureRecord, Procedures

STATES: Final = ("queued", "running", "waiting", "done", "dead", "cancelled", "expired")
LIMIT_MAX: Final = 1_000

payload_option = click.option("--payload", "whole", is_flag=True, help="Print payloads and results whole, as they are stored.")


def add_to(procedures: click.Group) -> None:
    """Add the commands."""
    for command in (ls, show, explain, counts, pauses):
        procedures.add_command(command)


@click.command()
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only in this state (repeatable).")
@click.option("--kind", default=None, help="Only of this kind.")
@click.option("--key", default=None, help="Only of this key.")
@click.option("--before", default=None, metavar="ID", help="Only older ones than this: the last ID of the page before.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="At most so many.")
@payload_option
@on_store
def ls(
    states: tuple[str, ...],
    kind: str | None,
    key: str | None,
    before: str | None,
    limit: int,
    place: StorePlace,
    *,
    whole: bool,
    as_json: bool,
) -> int:
    """Show records, the newest first. With --json an object a line.

    Example: outlast procedures ls --store work.db --state dead --kind create-table
    """
    from outlast._cli.procedures import shown
    from outlast.procedures import ProcedureState

    wanted = tuple(ProcedureState(state) for state in states)
    found = acted(place, lambda p: p.list(states=wanted, kind=kind, key=key, before=before, count=limit))
    if as_json:
        for record in found:
            click.echo(dumps(shown.of_record(record, whole=whole)))
    else:
        shown.print_records(found, whole=whole)
    return 0


@click.command()
@click.argument("words", metavar="ID | KIND KEY", nargs=-1, required=True)
@payload_option
@on_store
def show(words: tuple[str, ...], place: StorePlace, *, whole: bool, as_json: bool) -> int:
    """Show everything about one record: that with this ID, or the one that has this KEY of a KIND.

    Exit code 66 if there is none. Payload and result are cut and redacted, unless --payload is given.

    Example: outlast procedures show create-table cpu --store work.db --payload
    """
    from outlast._cli.procedures import shown

    if len(words) > 2:
        raise click.UsageError("show takes the ID of a record, or its KIND and its KEY.")

    async def look(found: Procedures) -> ProcedureRecord | None:
        return await (found.get(words[0]) if len(words) == 1 else found.of_key(*words))

    record = acted(place, look)
    if record is None:
        raise CommandError(f"{place}: there is no record {'/'.join(words)}", Exit.NO_INPUT)
    if as_json:
        click.echo(dumps(shown.of_record(record, whole=whole), indent=2))
    else:
        shown.print_record(record, whole=whole)
    return 0


@click.command()
@kind_argument
@key_argument
@on_store
def explain(kind: str, key: str, place: StorePlace, *, as_json: bool) -> int:
    """Say why a KEY of a KIND is refused or does not go on, since when, and what clears that.

    What only a running process knows is not said here: a cause that holds its kind, a dependency that is down. See its log and
    its health.

    Example: outlast procedures explain create-table cpu --store work.db
    """
    from outlast._cli.procedures import shown

    found = acted(place, lambda p: p.explain(kind, key))
    if as_json:
        click.echo(dumps(shown.of_explanation(found), indent=2))
    else:
        shown.print_explanation(found)
    return 0


@click.command()
@on_store
def counts(place: StorePlace, *, as_json: bool) -> int:
    """Show how many records there are, by kind and state.

    Example: outlast procedures counts --store work.db
    """
    from outlast._cli.procedures import shown

    found = acted(place, lambda p: p.counts())
    kinds = sorted({kind for kind, _ in found.held})
    by_kind = {kind: {state: found.held.get((kind, state), 0) for state in STATES} for kind in kinds}
    if as_json:
        click.echo(dumps({"kinds": by_kind, "oldest_due_s": round(found.oldest_due_s, 3)}, indent=2))
    else:
        shown.print_counts(by_kind, STATES)
    return 0


@click.command()
@on_store
def pauses(place: StorePlace, *, as_json: bool) -> int:
    """Show what is paused. With --json an object a line; an empty kind or key stands for all.

    Example: outlast procedures pauses --store work.db
    """
    from outlast._cli.procedures import shown

    for pause in acted(place, lambda p: p.pauses()):
        click.echo(dumps({"kind": pause.kind, "key": pause.key}) if as_json else shown.name_of(pause.kind, pause.key))
    return 0
