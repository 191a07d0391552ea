"""What `outlast changes` shows people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast.changes.monitor import bytes_text
from outlast.cli.tables import age

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.changes.findings import Finding
    from outlast.changes.setup import Findings
    from outlast.changes.slot_watch import Report
    from outlast.changes.survey import Publication, Session, Slot

NAMED_MAX: Final = 5
"""Tables of a publication; the others are counted."""
_STYLES: Final = {"ok": "green", "lagging": "yellow", "endangered": "bold red", "lost": "bold red"}


def print_findings(findings: Findings) -> None:
    """What there is, what was done, what is to be done with the SQL on lines of its own, and the verdict."""
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
    """One line a slot."""
    if not reports:
        Console().print("no logical replication slots in this database")
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    # What is short is never cut, what is long is broken: it has to fit into 80 columns.
    for title in ("slot", "state", "lag", "WAL retained", "lost in", "owner", "standbys"):
        table.add_column(title, no_wrap=title not in {"WAL retained", "owner"}, overflow="fold")
    for slot, report in reports.items():
        sample = report.sample
        table.add_row(
            Text(slot),
            Text(report.state.value, style=_STYLES.get(report.state.value, "")),
            f"{bytes_text(report.lag_bytes)}, {'> ' if report.lag_s_is_least else ''}{report.lag_s:.0f} s",
            Text(_retained(report)),
            _loss(report),
            Text(_owner(sample.holder)),
            "?" if sample.standbys is None else str(sample.standbys),
        )
    Console().print(table)


def _retained(report: Report) -> str:
    sample = report.sample
    status = sample.invalidation or sample.wal_status or "unknown"
    if sample.wal_status == "lost":
        return status
    limit = "no limit" if sample.safe_bytes is None else f"of {bytes_text(report.retained_bytes + max(0, sample.safe_bytes))}"
    return f"{bytes_text(report.retained_bytes)}, {limit}, {status}"


def _loss(report: Report) -> str:
    if report.loss_s is None:
        return "-"
    return "now" if report.loss_s < 1 else age(datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(report.loss_s, UTC))


def _owner(holder: Session | None) -> str:
    if holder is None:
        return "nobody"
    since = f", since {age(holder.since, datetime.now(UTC))}" if holder.since else ""
    return f"{holder.pid} {holder.application}".strip() + since
