"""Commands that act: clear, fixed, pause, resume, cancel, signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from outlast import Kind
from outlast._cli.output import say
from outlast._cli.procedures.group import EXIT_NOT_ALL, acted, on_store
from outlast._cli.values import Duration, read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._cli.store import StorePlace
    from outlast.procedures import Procedures

KINDS: Final = tuple(kind.value for kind in Kind)
CANCELLED: Final = "cancelled"


def add_to(procedures: click.Group) -> None:
    """Add the commands."""
    for command in (clear, fixed, pause, resume, cancel, signal):
        procedures.add_command(command)


def on_key(command: Callable[..., int]) -> Callable[..., int]:
    """Add what names a key, a kind, or everything."""
    every = click.option("--all", "is_all", is_flag=True, help="Everything.")
    kind = click.argument("kind", required=False, default="")
    return kind(click.argument("key", required=False, default="")(every(on_store(command))))


def _chosen(kind: str, key: str, *, is_all: bool) -> str:
    """Return what was named, for people. Raises `UsageError` if it is nothing, or everything and something."""
    from outlast._cli.procedures.shown import name_of

    if bool(kind) is is_all:
        raise click.UsageError("name a KIND, and a KEY of it if it is about one, or --all.")
    return name_of(kind, key)


@click.command()
@on_key
def clear(kind: str, key: str, place: StorePlace, *, is_all: bool, as_json: bool) -> int:
    """Let a KEY of a KIND that fails be tried at once, or all of a KIND, or --all: as if it had never failed.

    Example: outlast procedures clear create-table cpu --store work.db
    """
    what = _chosen(kind, key, is_all=is_all)
    count = acted(place, lambda p: p.clear(kind, key))
    text = f"{what}: {count:,} failing {'key' if count == 1 else 'keys'} cleared"
    say({"kind": kind, "key": key, "cleared": count}, text, as_json=as_json)
    return 0


@click.command()
@click.argument("source")
@click.argument("fault_kind", metavar="FAULT", type=click.Choice(KINDS))
@click.argument("code")
@on_store
def fixed(source: str, fault_kind: str, code: str, place: StorePlace, *, as_json: bool) -> int:
    """Say that a cause is gone: what failed by it may be tried at once, what waits for it goes on in waves.

    A cause is the SOURCE of faults, their kind (FAULT) and their CODE, as show and explain have them.

    Example: outlast procedures fixed warehouse permanent 42P01 --store work.db
    """
    count = acted(place, lambda p: p.fixed(source, Kind(fault_kind), code))
    text = f"{source}/{fault_kind}/{code} is taken for fixed: {count:,} failing {'key' if count == 1 else 'keys'} cleared"
    say({"source": source, "fault": fault_kind, "code": code, "cleared": count}, text, as_json=as_json)
    return 0


@click.command()
@on_key
def pause(kind: str, key: str, place: StorePlace, *, is_all: bool, as_json: bool) -> int:
    """Begin nothing of a KEY, of a KIND, or --all from now on, over restarts too. What runs goes on.

    Example: outlast procedures pause create-table --store work.db
    """
    what = _chosen(kind, key, is_all=is_all)
    acted(place, lambda p: p.pause(kind, key))
    say({"kind": kind, "key": key, "paused": True}, f"{what}: paused", as_json=as_json)
    return 0


@click.command()
@on_key
def resume(kind: str, key: str, place: StorePlace, *, is_all: bool, as_json: bool) -> int:
    """Take one pause back: that of a KEY, of a KIND, or of everything (--all).

    Exit code 1 if there is no such pause.

    Example: outlast procedures resume create-table --store work.db
    """
    what = _chosen(kind, key, is_all=is_all)
    was = acted(place, lambda p: p.resume(kind, key))
    text = f"{what}: {'resumed' if was else 'left as it is: it has no pause of its own; see outlast procedures pauses'}"
    say({"kind": kind, "key": key, "resumed": was}, text, as_json=as_json)
    return 0 if was else EXIT_NOT_ALL


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--wait", "wait_s", type=Duration(), default="0s", show_default=True, help="Longest wait for the end of each.")
@on_store
def cancel(ids: tuple[str, ...], wait_s: float, place: StorePlace, *, as_json: bool) -> int:
    """Ask for the end of records: what was done of them is undone first. What has ended is left as it is.

    Prints the state that holds in the end, or after --wait. Exit code 1 if one of them is unknown, or had ended before.

    Example: outlast procedures cancel 0192f3b0c1de4f5a8b7c6d5e4f3a2b1c --store work.db --wait 30s
    """
    outcome = acted(place, lambda p: _cancelled(p, ids, wait_s))
    for record_id, state, is_asked in outcome:
        text = state or "unknown"
        if is_asked:
            text += ", and asked to end"
        elif state not in {None, CANCELLED}:
            text += ", it had ended before"
        say({"id": record_id, "state": state, "asked": is_asked}, f"{record_id}: {text}", as_json=as_json)
    return 0 if all(is_asked or state == CANCELLED for _, state, is_asked in outcome) else EXIT_NOT_ALL


async def _cancelled(found: Procedures, ids: tuple[str, ...], wait_s: float) -> list[tuple[str, str | None, bool]]:
    """Cancel records; return for each its state, and whether it has still to come to its end."""
    from outlast.procedures import WaitTimeoutError

    outcome: list[tuple[str, str | None, bool]] = []
    for record_id in ids:
        try:
            state = await found.cancel(record_id, wait_s)
            outcome.append((record_id, None if state is None else state.value, False))
        except WaitTimeoutError:
            record = await found.get(record_id)
            outcome.append((record_id, None if record is None else record.state.value, record is not None))
    return outcome


@click.command()
@click.argument("record_id", metavar="ID")
@click.argument("name")
@click.argument("payload", metavar="[PAYLOAD]", default="null")
@on_store
def signal(record_id: str, name: str, payload: str, place: StorePlace, *, as_json: bool) -> int:
    """Send a signal to a record, which its step `wait` takes. PAYLOAD is JSON; `-` reads it from standard input.

    Exit code 1 if the record is unknown or has ended.

    Example: outlast procedures signal 0192f3b0c1de4f5a8b7c6d5e4f3a2b1c approved '{"by": "ada"}' --store work.db
    """
    value = read_json(payload)
    state = acted(place, lambda p: p.signal(record_id, name, value))
    became = "left as it is: unknown, or it has ended" if state is None else f"has the signal {name}; it is {state.value}"
    text = f"{record_id}: {became}"
    say({"id": record_id, "signal": name, "state": None if state is None else state.value}, text, as_json=as_json)
    return EXIT_NOT_ALL if state is None else 0
