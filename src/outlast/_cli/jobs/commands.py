"""`outlast jobs`: look into a job queue and act on it."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from outlast._cli.jobs.queue import Queue
from outlast._cli.output import as_json_option
from outlast._cli.values import Duration, Time, read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.jobs import JobRecord, Jobs

STATES: Final = ("available", "running", "done", "dead", "cancelled", "expired")
STATES_FINAL: Final = ("done", "dead", "cancelled", "expired")
EXIT_NOT_ALL: Final = 1
"""Some of the jobs that were named could not be acted upon."""

ids_argument = click.argument("ids", metavar="ID...", type=click.IntRange(min=1), nargs=-1, required=True)


@click.group()
def jobs() -> None:
    """Look into a job queue and act on it.

    The server is named by --dsn, or better by the variable OUTLAST_DSN: arguments are seen in the list of processes.
    """


def on_queue(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that name a queue to a command."""
    dsn = click.option("--dsn", envvar="OUTLAST_DSN", required=True, help="The server; by default $OUTLAST_DSN.")
    schema = click.option("--schema", default="outlast", show_default=True, help="The schema of the queue's tables.")
    return dsn(schema(as_json_option(command)))


@jobs.command()
@on_queue
def migrate(dsn: str, schema: str, *, as_json: bool) -> int:
    """Make or update the tables. Safe to run at any time, also twice at once."""
    count = Queue(dsn, schema).run(lambda queue: queue.migrate())
    done = f"{count} {'migration' if count == 1 else 'migrations'} applied" if count else "nothing to do"
    _say({"schema": schema, "applied": count}, f"schema {schema}: {done}", as_json=as_json)
    return 0


@jobs.command()
@click.argument("kind")
@click.argument("payload", metavar="[PAYLOAD]", default="null")
@click.option("--queue", default="default", show_default=True)
@click.option("--priority", type=click.IntRange(-(2**31), 2**31 - 1), default=0, show_default=True, help="Higher is first.")
@click.option("--run-at", type=Time(), default=None, help="Not before this time (ISO 8601).")
@click.option("--delay", "delay_s", type=Duration(), default=None, help="Not before that long from now.")
@click.option("--deadline", "deadline_s", type=Duration(), default=None, help="Drop it if it has not begun that long from now.")
@click.option("--unique-key", default=None, help="At most one such job that is still to be done.")
@click.option("--attempts-max", type=click.IntRange(1, 1_000_000), default=None, help="Attempts before it is dead.")
@click.option("--wait", "wait_s", type=Duration(), default="0s", show_default=True, help="Longest wait for the database.")
@on_queue
def enqueue(kind: str, payload: str, dsn: str, schema: str, *, as_json: bool, **chosen: Any) -> int:  # noqa: ANN401
    """Enqueue one job of KIND. PAYLOAD is JSON; `-` reads it from standard input."""
    if chosen["run_at"] is not None and chosen["delay_s"] is not None:
        raise click.UsageError("give --run-at or --delay, not both.")
    value = read_json(payload)
    result = Queue(dsn, schema).run(lambda queue: queue.enqueue(kind, value, **_as_usage(chosen)))
    made = "enqueued" if result.created else "already there, under the same unique key"
    _say({"id": result.id, "created": result.created}, f"job {result.id} {made}", as_json=as_json)
    return 0


@jobs.command(name="list")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only jobs in this state.")
@click.option("--queue", default=None, help="Only jobs of this queue.")
@click.option("--kind", default=None, help="Only jobs of this kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@on_queue
def list_jobs(state: str | None, queue: str | None, kind: str | None, limit: int, dsn: str, schema: str, *, as_json: bool) -> int:
    """Show jobs, the newest first."""
    from outlast.jobs import JobState

    wanted = JobState(state) if state else None
    found = Queue(dsn, schema).run(lambda q: q.list(state=wanted, queue=queue, kind=kind, limit=limit))
    if as_json:
        click.echo(_dumps([_plain(record) for record in found]))
    else:
        from outlast._cli.jobs.shown import print_jobs

        print_jobs(found)
    return 0


@jobs.command()
@on_queue
def counts(dsn: str, schema: str, *, as_json: bool) -> int:
    """Show how many jobs there are, by queue and state."""
    counted = Queue(dsn, schema).run(lambda queue: queue.counts())
    if as_json:
        click.echo(_dumps({name: {state: by.get(state, 0) for state in STATES} for name, by in sorted(counted.items())}))
    else:
        from outlast._cli.jobs.shown import print_counts

        print_counts(counted, STATES)
    return 0


@jobs.command()
@ids_argument
@on_queue
def retry(ids: tuple[int, ...], dsn: str, schema: str, *, as_json: bool) -> int:
    """Make dead, cancelled or expired jobs available again, with all their attempts.

    Exit code 1 if one of them is none of these.
    """

    async def act(queue: Jobs) -> list[tuple[int, str | None]]:
        return [(number, "available" if await queue.retry(number) else None) for number in ids]

    return _acted(Queue(dsn, schema).run(act), "neither dead nor cancelled nor expired", as_json=as_json)


@jobs.command()
@ids_argument
@on_queue
def cancel(ids: tuple[int, ...], dsn: str, schema: str, *, as_json: bool) -> int:
    """Cancel jobs: at once if they wait, by cancelling their handler if they run.

    Exit code 1 if one of them is finished or unknown.
    """

    async def act(queue: Jobs) -> list[tuple[int, str | None]]:
        states = [(number, await queue.cancel(number)) for number in ids]
        return [(number, state.value if state else None) for number, state in states]

    return _acted(Queue(dsn, schema).run(act), "finished or unknown", as_json=as_json)


@jobs.command()
@click.option("--older-than", "age_s", type=Duration(), default="24h", show_default=True, help="Finished at least that long ago.")
@click.option("--state", "states", type=click.Choice(STATES_FINAL), multiple=True, help="Only these; else all finished ones.")
@on_queue
def purge(age_s: float, states: tuple[str, ...], dsn: str, schema: str, *, as_json: bool) -> int:
    """Delete finished jobs."""
    from outlast.jobs import JobState

    wanted = [JobState(state) for state in states or STATES_FINAL]
    count = Queue(dsn, schema).run(lambda queue: queue.purge(age_s=age_s, states=wanted))
    _say({"deleted": count}, f"{count} finished {'job' if count == 1 else 'jobs'} deleted", as_json=as_json)
    return 0


def _as_usage(chosen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chosen.items() if value is not None}


def _acted(outcome: list[tuple[int, str | None]], refusal: str, *, as_json: bool) -> int:
    if as_json:
        click.echo(_dumps([{"id": number, "state": state} for number, state in outcome]))
    else:
        for number, state in outcome:
            click.echo(f"job {number}: {state or 'left as it is, ' + refusal}")
    return 0 if all(state for _, state in outcome) else EXIT_NOT_ALL


def _say(value: dict[str, Any], text: str, *, as_json: bool) -> None:
    click.echo(_dumps(value) if as_json else text)


def _plain(record: JobRecord) -> dict[str, Any]:
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    return found | {"state": record.state.value}


def _dumps(value: object) -> str:
    # Half a surrogate pair, which a json column takes, is no character of any output: it is written as its escape.
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_as_text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
