"""Figures of an arm of the greptime drill, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast._core.quantities import size_text
from outlast._drill.lab.result import ArmResult, Timeline
from outlast._drill.shown import figures
from outlast._drill.shown.figures import Column, Series, lines_and_attempts, seconds_or_never

if TYPE_CHECKING:
    from outlast._drill.lab.result import DrillResult


@dataclass(frozen=True, slots=True)
class TableTimeline(Timeline):
    """Counts per bin of time, with those of the writers and of the store. `jobs` are the other tables that were made."""

    refused: tuple[int, ...] = ()
    """Writes to the bad table that were not stored."""
    stored: tuple[int, ...] = ()
    """Writes to the bad table that were stored."""
    grown_kib: tuple[float, ...] = ()
    """By how much the store grew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableArm(ArmResult):
    """The figures of one arm, with those of its tables. `attempts` are those to make a table that could not be made."""

    records: int | None
    """The most records of the bad table that the store held during the fault."""
    store_bytes: int
    """By how much the store grew during the fault, beyond what the other tables alone make it grow."""
    alarm: bool
    """Whether the store refused every write at the end, for want of room."""
    refused: int
    """Writes to the bad table that were refused."""
    failed: int
    """Writes to the bad table that waited for an attempt, which failed."""
    pending: int
    """Writes to the bad table that were told that somebody goes on with it."""
    hung_up: int
    """Writes that were never answered."""
    refusal_ms_p50: float | None
    """From a write to the bad table to its answer, refused or pending, during the fault."""
    refusal_ms_p99: float | None
    failed_ms_p99: float | None
    """The same of those that waited for an attempt."""
    others_percent: float
    """Other tables made, of those that were asked for during the fault, in percent of that share before it."""
    others_ms_p99: float | None
    """From the write to a new table to its acknowledgement, during the fault."""
    others_ms_p99_before: float | None
    heal_s: float | None
    """From the mending of the cause to the first write to the bad table that was stored; None: never."""
    stored: int
    """Writes that were stored, to all tables."""
    errors_first: tuple[str, ...]
    """The most frequent words of those that refused."""


def milliseconds(value: float | None) -> str:
    """Return a time in words."""
    return "–" if value is None else f"{value:,.1f} ms"


def _records(arm: TableArm) -> str:
    return "–" if arm.records is None else f"{arm.records:,}"


COLUMNS: tuple[Column[TableArm], ...] = (
    figures.LOG_LINES,
    figures.LOG_SIZE,
    Column("records", "", "most records of the bad table in the store during the fault", _records),
    Column(
        "store",
        "growth",
        "by how much it grew, beyond what the others alone make it grow",
        lambda arm: size_text(arm.store_bytes),
    ),
    Column("store", "alarm", "whether the store refused every write at the end", lambda arm: "NOSPACE" if arm.alarm else "–"),
    Column("attempts", "outage", "attempts to make the table that cannot be made", lambda arm: f"{arm.attempts:,}"),
    Column("refused", "writes", "writes to the bad table that were refused", lambda arm: f"{arm.refused:,}"),
    Column("pending", "writes", "writes to it that were told that somebody goes on", lambda arm: f"{arm.pending:,}"),
    Column(
        "refusal", "p99", "from a write that was refused or pending to its answer", lambda arm: milliseconds(arm.refusal_ms_p99)
    ),
    Column("failed", "writes", "writes to it that waited for an attempt, which failed", lambda arm: f"{arm.failed:,}"),
    Column("failed", "p99", "from such a write to its answer", lambda arm: milliseconds(arm.failed_ms_p99)),
    Column(
        "others", "served", "other tables made during the fault, of those before it", lambda arm: f"{arm.others_percent:.0f} %"
    ),
    Column("others", "p99", "from the write to a new table to its acknowledgement", lambda arm: milliseconds(arm.others_ms_p99)),
    Column("others", "p99 before", "the same before the fault", lambda arm: milliseconds(arm.others_ms_p99_before)),
    figures.CPU_OUTAGE,
    Column("healed", "after", "from the mending to the first write in the bad table", lambda arm: seconds_or_never(arm.heal_s)),
    Column("lost", "", "acknowledged or promised, and never done", lambda arm: f"{arm.lost:,}"),
    figures.EXIT,
)

SERIES = (
    figures.LINES,
    Series("attempts", "attempts / s", "#1d4ed8", log=True),
    figures.CPU,
    Series("refused", "refused / s", "#be123c", log=True),
    Series("jobs", "others / s", "#15803d"),
    Series("grown_kib", "store, KiB / s", "#0f766e", log=True),
)


def load(result: DrillResult[TableArm]) -> tuple[str, str]:
    """Return the load of the drill, as (name, value)."""
    return "writes", f"{result.loops} a second to the bad table, 20 a second to new ones, in each arm"


def describe(arm: TableArm) -> str:
    """Describe what happened in this arm, in words and figures."""
    parts = [lines_and_attempts(arm, "attempts on the bad table")]
    parts.append(f"{_records(arm)} records, the store grew by {size_text(arm.store_bytes)}")
    if arm.alarm:
        parts.append("it refused every write in the end")
    parts.append(f"others at {arm.others_percent:.0f} %")
    parts.append(
        "the table was never written" if arm.heal_s is None else f"the table was written {arm.heal_s:.2f} s after the mending"
    )
    parts.append(f"{arm.lost:,} lost" if arm.lost else "nothing lost")
    return "; ".join(parts) + "."
