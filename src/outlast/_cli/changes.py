"""`outlast changes`: set up a change stream, look at it, and drop it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from outlast import Stop
from outlast._cli.database import exit_for, on_database, place
from outlast._cli.errors import CommandError, Exit
from outlast._cli.output import as_json_option
from outlast._cli.values import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Fault
    from outlast.changes import Finding, Findings, Report
    from outlast.postgres import Postgres

EXIT_IN_DANGER: Final = 1
"""`status`: a slot is endangered or lost."""

slot_argument = click.argument("slot")


@click.group()
def changes() -> None:
    """Set up a PostgreSQL change stream, look at it, and drop it.

    The server is named by --dsn, or better by the variable OUTLAST_DSN: arguments are seen in the list of processes.
    """


def on_server(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that name a server to a command."""
    dsn = click.option("--dsn", envvar="OUTLAST_DSN", required=True, help="The server; by default $OUTLAST_DSN.")
    return dsn(as_json_option(command))


@changes.command()
@click.argument("publication")
@click.argument("slot", required=False, default="")
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Publish this table (repeatable); without it, all.")
@click.option("--check", is_flag=True, help="Look only; create nothing.")
@click.option("--failover", is_flag=True, help="Let the slot be carried over to a standby (PostgreSQL 17).")
@click.option("--wait", "wait_s", type=Duration(), default="60s", show_default=True, help="Longest wait for open transactions.")
@on_server
def setup(
    publication: str, slot: str, tables: tuple[str, ...], dsn: str, *, wait_s: float, check: bool, failover: bool, as_json: bool
) -> int:
    """Create PUBLICATION and SLOT if they are missing, and say what else a stream needs, with the SQL to run.

    Without SLOT it is called as the publication, as a stream does. Safe to run at any time: what exists is not changed.
    Exit code 0: a stream can start; 78: somebody has to act; 69: it may pass by itself.
    """

    async def act(db: Postgres) -> Findings:
        from outlast.changes import set_up

        return await set_up(
            db,
            publication,
            slot or publication,
            tables=tables or None,
            create=not check,
            failover=failover,
            wait_s=wait_s,
            on_blocked=_tell_blocked,
        )

    findings = on_database(dsn, act)
    if as_json:
        click.echo(_dumps(_setup_plain(findings)))
    else:
        from outlast._cli.changes_tables import print_findings

        print_findings(findings)
    return 0 if findings.ready else exit_for(findings.blocking[0].fault)


@changes.command()
@click.argument("slots", metavar="[SLOT]...", nargs=-1)
@click.option("--name", default=None, help="The name of the stream, to count its standbys; by default that of the slot.")
@click.option("--over", "over_s", type=Duration(), default="1s", show_default=True, help="How long to measure rates.")
@on_server
def status(slots: tuple[str, ...], name: str | None, dsn: str, *, over_s: float, as_json: bool) -> int:
    """Show lag, retained WAL, the time until a slot is lost, who uses it, and how many stand by.

    Without SLOT: every one of the database.

    Exit code 1 if one of them is endangered or lost.
    """
    from outlast.changes import SlotState

    reports = on_database(dsn, lambda db: _reports(db, slots, name, over_s))
    missing = [slot for slot, report in reports.items() if report.sample.wal_status is None]
    if missing:
        msg = f"there is no replication slot {', '.join(missing)}; 'outlast changes setup' creates one"
        raise CommandError(msg, Exit.CONFIGURATION)
    if as_json:
        click.echo(_dumps({slot: _report_plain(report) for slot, report in reports.items()}))
    else:
        from outlast._cli.changes_tables import print_reports

        print_reports(reports)
    bad = {SlotState.ENDANGERED, SlotState.LOST}
    return EXIT_IN_DANGER if any(report.state in bad for report in reports.values()) else 0


@changes.command()
@slot_argument
@click.option("--publication", default=None, help="Drop this publication as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_server
def drop(slot: str, publication: str | None, dsn: str, *, yes: bool, as_json: bool) -> int:
    """Drop SLOT: what it has not delivered is gone, and its WAL is released. Refused while somebody uses it."""
    if as_json and not yes:
        raise click.UsageError("--json needs --yes: nobody can be asked.")
    if not yes:
        where = on_database(dsn, _where)
        click.confirm(f"Drop replication slot {slot} on {where}? What it has not delivered is lost", abort=True, err=True)

    async def act(db: Postgres) -> tuple[bool, bool]:
        from outlast.changes import drop_publication, drop_slot

        dropped = await drop_slot(db, slot)
        return dropped, await drop_publication(db, publication) if publication else False

    slot_dropped, publication_dropped = on_database(dsn, act)
    if as_json:
        click.echo(_dumps({"slot": slot_dropped, "publication": publication_dropped}))
        return 0
    click.echo(f"slot {slot}: {'dropped' if slot_dropped else 'there is none'}")
    if publication:
        click.echo(f"publication {publication}: {'dropped' if publication_dropped else 'there is none'}")
    return 0


@changes.command()
@click.argument("publication")
@click.option("--typed", is_flag=True, help="Numbers, times and the like as such, where JSON has a type for them.")
@click.option("--dsn", envvar="OUTLAST_DSN", required=True, help="The server; by default $OUTLAST_DSN.")
def tail(publication: str, dsn: str, *, typed: bool) -> int:
    """Print what changes in the tables of PUBLICATION from now on, as JSON lines, until interrupted.

    Each change is a line with its table and values, and each transaction ends with a line `{"op":"commit",...}`. The slot is
    temporary: nothing is kept for a tail that is not running, and nobody else's stream is touched. Lines hold row contents.
    """

    async def act(db: Postgres) -> None:
        from outlast.changes import StdoutSink
        from outlast.changes import tail as follow

        async with db.connection() as conn:
            found = await conn.execute("SELECT FROM pg_catalog.pg_publication WHERE pubname = %s", (publication,))
        if not found.rowcount:
            msg = f"{place(db)}: there is no publication {publication}; 'outlast changes setup {publication}' creates one"
            raise CommandError(msg, Exit.CONFIGURATION)
        stop = Stop()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.fire, number.name)
        click.echo(f"outlast: following publication {publication}; interrupt to end", err=True)
        with contextlib.suppress(BrokenPipeError):
            # Whoever reads may have seen enough.
            await follow(db, publication, StdoutSink(), stop, typed=typed)

    on_database(dsn, act)
    return 0


async def _reports(db: Postgres, slots: tuple[str, ...], name: str | None, over_s: float) -> dict[str, Report]:
    from outlast.changes import Monitor, list_slots
    from outlast.postgres.ownership import lock_key

    names = slots or tuple(await list_slots(db))
    monitors = {slot: Monitor(db, slot, lock_key=lock_key(name or slot), on_change=lambda _: None) for slot in names}
    for monitor in monitors.values():
        await monitor.sample()
    if over_s > 0 and monitors:
        await asyncio.sleep(over_s)
        for monitor in monitors.values():
            await monitor.sample()
    return {slot: monitor.report for slot, monitor in monitors.items() if monitor.report is not None}


async def _where(db: Postgres) -> str:
    return place(db)


def _tell_blocked(fault: Fault) -> None:
    click.echo(f"outlast: {fault.reason}; {fault.hint}", err=True)


def _setup_plain(findings: Findings) -> dict[str, Any]:
    return {
        "ready": findings.ready,
        "done": list(findings.done),
        "findings": [_finding_plain(finding) for finding in findings.findings],
        "server": asdict(findings.survey.server),
        "publication": None if findings.survey.publication is None else asdict(findings.survey.publication),
        "slot": None if findings.survey.slot is None else asdict(findings.survey.slot),
    }


def _finding_plain(finding: Finding) -> dict[str, Any]:
    fault = finding.fault
    return {
        "kind": fault.kind.value,
        "code": fault.code,
        "reason": fault.reason,
        "statements": list(finding.statements),
        "advice": finding.advice,
        "blocks": finding.blocks,
    }


def _report_plain(report: Report) -> dict[str, Any]:
    sample = report.sample
    return {
        "state": report.state.value,
        "wal_status": sample.wal_status,
        "invalidation": sample.invalidation,
        "lag_bytes": report.lag_bytes,
        "lag_s": round(report.lag_s, 3),
        "lag_s_is_least": report.lag_s_is_least,
        "retained_bytes": report.retained_bytes,
        "safe_bytes": sample.safe_bytes,
        "limit_bytes": sample.limit_bytes,
        "wal_bytes_per_s": round(report.wal_rate, 1),
        "growth_bytes_per_s": round(report.growth_rate, 1),
        "loss_s": None if report.loss_s is None else round(report.loss_s, 1),
        "owner": None if sample.holder is None else asdict(sample.holder),
        "standbys": sample.standbys,
    }


def _dumps(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_as_text)


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
