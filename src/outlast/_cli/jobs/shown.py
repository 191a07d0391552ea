"""Tables and lines of `outlast jobs`, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast._core.redact import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.jobs import JobRecord

FAULT_CHARS_MAX: Final = 60
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_STYLES: Final = {"running": "cyan", "done": "green", "dead": "bold red", "cancelled": "dim", "expired": "yellow"}


def print_jobs(records: Sequence[JobRecord]) -> None:
    """Print one line a job; payloads and results are left to --json."""
    if not records:
        Console().print("no jobs")
        return
    now = datetime.now(UTC)
    faulted = any(record.last_fault for record in records)
    table = _table("id", "kind", "queue", "state", "attempt", "age", "due", "ended", *(["last fault"] if faulted else []))
    for record in records:
        state = Text(record.state.value, style=_STYLES.get(record.state.value, ""))
        attempt = f"{record.attempt}/{record.attempts_max}"
        due = age(record.run_at, now) if record.run_at > now else ""
        fault = [Text(_fault(record))] if faulted else []
        times = (age(record.enqueued_at, now), due, age(record.finished_at, now))
        names = (Text(clean(record.kind)), Text(clean(record.queue)))
        table.add_row(Text(str(record.id)), *names, state, attempt, *times, *fault)
    Console().print(table)


def print_counts(counted: Mapping[str, Mapping[str, int]], states: Sequence[str]) -> None:
    """Print one line a queue."""
    if not counted:
        Console().print("no jobs")
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("queue", no_wrap=True)
    for state in states:
        table.add_column(state, justify="right", no_wrap=True)
    for name, by_state in sorted(counted.items()):
        table.add_row(Text(clean(name)), *(_count(state, by_state.get(state, 0)) for state in states))
    Console().print(table)


def _count(state: str, number: int) -> Text:
    return Text(f"{number:,}", style=_STYLES.get(state, "") if number else "dim")


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for title in titles:
        justify: Literal["left", "right"] = "right" if title in {"id", "attempt", "age", "due", "ended"} else "left"
        table.add_column(title, no_wrap=title != "last fault", justify=justify)
    return table


def age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago that was, in the largest unit that fits: `12 s`, `3 min`, `5 h`, `2 d`."""
    if moment is None:
        return ""
    age_s = (now - moment).total_seconds()
    if age_s < 0:
        return f"in {age(now, moment)}"
    unit_s, unit = next((pair for pair in _UNITS if age_s >= pair[0]), (1, "s"))
    return f"{int(age_s // unit_s)} {unit}"


def _fault(record: JobRecord) -> str:
    fault = record.last_fault
    return clean(f"{fault.get('code', '')} {fault.get('reason', '')}", FAULT_CHARS_MAX) if fault else ""
