"""Figures of an arm of the fluvio drill, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast._drill.lab.result import ArmResult, Timeline
from outlast._drill.shown import figures
from outlast._drill.shown.figures import Column, Series, lines_and_attempts, seconds_or_never

if TYPE_CHECKING:
    from outlast._drill.lab.result import DrillResult


@dataclass(frozen=True, slots=True)
class LogTimeline(Timeline):
    """Counts per bin of time, with those of the clients."""

    stored: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogArm(ArmResult):
    """The figures of one arm, with those of its log. `attempts` are its write calls."""

    heals: bool
    """Whether appends could be taken again at all; if not, nothing is said of recovery."""
    recovery_s: float | None
    """From the moment space was freed to the next acknowledgement; None: never."""
    acknowledged: int
    acknowledged_outage: int
    refused: int
    unknown: int
    """Appends of which nobody can say whether they are stored."""
    phantom: int
    """Refused, and found in the log at the end."""
    readable: int
    hung_up: int
    """Connections that the arm ended without an answer."""
    append_ms_p50: float | None
    """From an append to its acknowledgement, in the healthy time before the fault."""
    append_ms_p99: float | None
    refusal_ms_p50: float | None
    refusal_ms_p99: float | None
    errors: int
    """Different errors that refused clients were told."""
    errors_first: tuple[str, ...]
    transitions: int
    """The changes between taking appends and refusing them all, in steps of 100 ms, from the fault to its end."""
    critical_lines: int
    rss_growth_mib: float
    """The most that the memory grew after the fault began."""
    reads: int
    """Records that were read during the fault."""
    reads_failed: int
    read_gap_s: float
    """The longest time without a record read, from the fault to its end."""


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _recovery(arm: LogArm) -> str:
    return seconds_or_never(arm.recovery_s) if arm.heals else "–"


def _reads(arm: LogArm) -> str:
    return f"{arm.reads:,}, {arm.reads_failed:,} failed" if arm.reads_failed else f"{arm.reads:,}"


COLUMNS: tuple[Column[LogArm], ...] = (
    figures.LOG_LINES,
    figures.LOG_SIZE,
    Column("writes", "outage", "write calls of the arm on its disk during the fault", lambda arm: f"{arm.attempts:,}"),
    Column(
        "append",
        "p99",
        "from an append to its acknowledgement, in the healthy time",
        lambda arm: _milliseconds(arm.append_ms_p99),
    ),
    Column("stored", "outage", "appends acknowledged during the fault", lambda arm: f"{arm.acknowledged_outage:,}"),
    Column("refused", "", "appends refused", lambda arm: f"{arm.refused:,}"),
    Column("refusal", "p99", "from an append to its refusal, during the fault", lambda arm: _milliseconds(arm.refusal_ms_p99)),
    Column("hung up", "", "connections that the arm ended without an answer", lambda arm: f"{arm.hung_up:,}"),
    Column("errors", "", "different errors that refused clients were told", lambda arm: f"{arm.errors:,}"),
    figures.CPU_OUTAGE,
    Column("memory", "growth", "the most that it grew after the fault began", lambda arm: f"{arm.rss_growth_mib:.1f} MiB"),
    Column("reads", "outage", "records read during the fault, by one client", _reads),
    Column("changes", "of state", "from taking appends to refusing them all, and back", lambda arm: f"{arm.transitions:,}"),
    Column("appends", "again", "from the moment space is freed to the next acknowledgement", _recovery),
    Column("lost", "records", "acknowledged, and not in the log at the end", lambda arm: f"{arm.lost:,}"),
    Column("phantom", "records", "refused, and in the log at the end", lambda arm: f"{arm.phantom:,}"),
    Column("twice", "records", "in the log more than once", lambda arm: f"{arm.twice:,}"),
    figures.EXIT,
)


SERIES = (
    figures.LINES,
    Series("attempts", "writes / s", "#1d4ed8", log=True),
    figures.CPU,
    Series("refused", "refused / s", "#be123c", log=True),
    Series("stored", "stored / s", "#15803d", log=True),
    Series("reads", "reads / s", "#0f766e"),
)


def load(result: DrillResult[LogArm]) -> tuple[str, str]:
    """Return the load of the drill, as (name, value)."""
    return "producers", f"{result.loops} in each arm, records of 1 KiB"


def describe(arm: LogArm) -> str:
    """Describe what happened in this arm, in words and figures."""
    parts = [lines_and_attempts(arm, "writes on the disk"), f"{arm.refused:,} appends refused"]
    if not arm.heals:
        parts.append("the disk was lost for good")
    elif arm.recovery_s is None:
        parts.append("appends never came back")
    else:
        parts.append(f"appends were back {arm.recovery_s:.2f} s after space was freed")
    kinds = ((arm.lost, "lost"), (arm.phantom, "refused and stored"), (arm.twice, "stored twice"))
    wrong = [f"{count:,} {word}" for count, word in kinds if count]
    parts.append(", ".join(wrong) if wrong else "no record lost, phantom or twice")
    return "; ".join(parts) + "."
