"""Figures of an arm of the electric drill, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass

from outlast._drill.lab.result import ArmResult
from outlast._drill.shown import figures
from outlast._drill.shown.figures import Column, Series, lines_and_attempts, seconds_or_never


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamArm(ArmResult):
    """The figures of one arm, with those of its change stream and of its other loops."""

    heals: bool
    """Whether the stream could go on at all; if not, nothing is said of recovery and loss."""
    recovery_s: float | None
    """From the release of the slot, or from the loss of the owner, to the next change."""
    changes: int
    throughput_percent: float
    """The work of the other loops during the fault, of what those of the owner did before it. Where the owner is lost, those of
    the other process are compared with them."""


def _recovery(arm: StreamArm) -> str:
    return seconds_or_never(arm.recovery_s) if arm.heals else "–"


def _lost(arm: StreamArm) -> str:
    return "–" if arm.lost is None else f"{arm.lost:,}"


COLUMNS: tuple[Column[StreamArm], ...] = (
    Column("log lines", "outage", "lines written until the repair", lambda arm: f"{arm.lines_outage:,}"),
    figures.LOG_LINES,
    figures.LOG_SIZE,
    figures.ATTEMPTED,
    Column("CPU", "before", "share of one core before the fault", lambda arm: f"{arm.cpu_before_percent:.1f} %"),
    figures.CPU_OUTAGE,
    Column(
        "other loops",
        "",
        "jobs of the other loops during the fault, of those before it",
        lambda arm: f"{arm.throughput_percent:.0f} %",
    ),
    Column("streams", "again", "from the release of the slot, or the loss of the owner, to the next change", _recovery),
    Column("changes", "", "changes committed while the arm ran", lambda arm: f"{arm.changes:,}"),
    Column("lost", "changes", "changes that never arrived", _lost),
    Column("twice", "changes", "changes that arrived again: the slot keeps the position", lambda arm: f"{arm.twice:,}"),
    figures.EXIT,
)


SERIES = (
    figures.LINES,
    figures.ATTEMPTS,
    figures.CPU,
    Series("changes", "changes / s", "#15803d", log=True),
    Series("jobs", "other loops / s", "#0f766e"),
)


def describe(arm: StreamArm) -> str:
    """Describe what happened in this arm, in words and figures."""
    parts = [lines_and_attempts(arm), f"the other loops did {arm.throughput_percent:.0f} % of their work during the fault"]
    if not arm.heals:
        parts.append("the stream cannot go on")
    elif arm.recovery_s is None:
        parts.append("the stream never came back")
    else:
        parts.append(f"the stream was back after {arm.recovery_s:.2f} s")
    if arm.lost is not None:
        parts.append(f"{arm.lost:,} changes lost" if arm.lost else "no change lost")
    return "; ".join(parts) + "."
