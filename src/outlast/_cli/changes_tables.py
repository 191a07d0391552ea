"""The texts and tables that `outlast changes` prints for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast._cli.jobs.shown import age
from outlast.extend import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.changes import Finding, Findings, Publication, Report, Slot
    from outlast.postgres.sessions import Session

NAMED_MAX: Final = 5
"""Tables of a publication; the others are counted."""
_STYLES: Final = {"ok": "green", "lagging": "yellow", "endangered": "bold red", "lost": "bold red"}


def print_findings(findings: Findings) -> None:
    """Print what there is, what was done, what is to be done with the SQL on lines of its own, and the verdict."""
    console, survey = Console(soft_wrap=True, highlight=False), findings.survey
    version = f"{survey.server.version // 10000}.{survey.server.version % 10000}"
    console.print(Text(f"PostgreSQL {version}, database {survey.server.database}, user {survey.server.user}"))
    console.print(Text(f"publication {survey.publication_name}: {_publication(survey.publication)}"))
    console.print(Text(f"slot {survey.slot_name}: {_slot(survey.slot)}"))
    for statement in findings.done:
        console.print(Text("done: ", style="green") + Text(statement))
    for finding in findings.findings:
        _print_finding(console, finding)
    ready = Text("ready: a stream can start", style="green")
    if survey.slot is not None and survey.slot.holder is not None:
        ready = Text("ready: a stream stands by until the slot is free", style="green")
    console.print(ready if findings.ready else Text("not ready", style="bold red"))


def _print_finding(console: Console, finding: Finding) -> None:
    head = Text("missing: ", style="bold red") if finding.blocks else Text("note: ", style="yellow")
    console.print(head + Text(f"{finding.fault.reason} ({finding.fault.code})"))
    for statement in finding.statements:
        console.print(Text(f"    {statement};"))
    if finding.advice:
        console.print(Text(f"    {finding.advice}", style="dim"))


def _publication(publication: Publication | None) -> str:
    if publication is None:
        return "none"
    if publication.all_tables:
        return f"all tables, {len(publication.tables):,} now"
    names = [f"{table.schema}.{table.name}" for table in publication.tables]
    more = f" and {len(names) - NAMED_MAX:,} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more or "no table"


def _slot(slot: Slot | None) -> str:
    if slot is None:
        return "none"
    failover = ", carried over to standbys" if slot.failover else ""
    return f"{slot.plugin or 'physical'}, WAL {slot.wal_status or 'not reserved'}{failover}, used by {slot.holder or 'nobody'}"


def print_reports(reports: Mapping[str, Report]) -> None:
    """Print four lines a slot: what is known of one does not fit beside one another."""
    if not reports:
        Console().print("no logical replication slots in this database")
    for slot, report in reports.items():
        sample = report.sample
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(Text(slot), Text(report.state.value, style=_STYLES.get(report.state.value, "")))
        table.add_row("  lag", f"{size_text(report.lag_bytes)}, {'> ' if report.lag_s_is_least else ''}{report.lag_s:.0f} s")
        table.add_row("  WAL", Text(_retained(report)))
        standbys = "?" if sample.standbys is None else str(sample.standbys)
        table.add_row("  owner", Text(f"{_owner(sample.holder)}; standbys: {standbys}"))
        Console().print(table)


def _retained(report: Report) -> str:
    sample = report.sample
    status = sample.invalidation or sample.wal_status or "unknown"
    if sample.wal_status == "lost":
        return status
    safe = sample.safe_bytes
    limit = "no limit" if safe is None else f"at most {size_text(report.retained_bytes + max(0, safe))}"
    loss = "" if report.loss_s is None else f"; lost in {_loss(report.loss_s)}"
    return f"{size_text(report.retained_bytes)} retained, {limit}; {status}{loss}"


def _loss(loss_s: float) -> str:
    return "no time" if loss_s < 1 else age(datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(loss_s, UTC))


def _owner(holder: Session | None) -> str:
    if holder is None:
        return "nobody"
    since = f", since {age(holder.since, datetime.now(UTC))}" if holder.since else ""
    return f"{holder.pid} {holder.application}".strip() + since
