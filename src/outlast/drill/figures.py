"""Figures of a drill as people read them: one place for the table in the terminal and the one in the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outlast.drill.result import ArmResult, DrillResult, Promise


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, the heading's second line, and what it is about."""

    title: str
    unit: str
    meaning: str


COLUMNS = (
    Column("log lines", "", "lines written from the fault to the request to stop"),
    Column("log size", "", "bytes of those lines"),
    Column("attempts", "outage", "connections tried during the fault"),
    Column("CPU", "outage", "share of one core during the fault"),
    Column("CPU", "total", "processor seconds of the whole run"),
    Column("memory", "peak", "largest resident set"),
    Column("recovery", "p50", "from the moment the server accepts until a loop has done a job begun after it, median"),
    Column("recovery", "last loop", "the same for the last loop; none when a loop never came back"),
    Column("connects", "100 ms", "most connection attempts in any 100 ms of the run"),
    Column("lost", "jobs", "jobs neither done nor waiting, after a grace"),
    Column("twice", "jobs", "jobs worked to their end more than once"),
    Column("exit", "code", "exit code after SIGTERM"),
)


def cells(arm: ArmResult) -> tuple[str, ...]:
    """The figures of one arm, in the order of COLUMNS."""
    return (
        f"{arm.log_lines:,}",
        format_bytes(arm.log_bytes),
        f"{arm.attempts:,}",
        f"{arm.cpu_outage_percent:.1f} %",
        f"{arm.cpu_s:.1f} s",
        f"{arm.rss_peak_mib:.0f} MiB",
        _recovery(arm.recovery_s_p50),
        _last_loop(arm),
        f"{arm.connects_100ms_max:,}",
        f"{arm.lost:,}",
        f"{arm.twice:,}",
        _exit(arm),
    )


def _recovery(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f} s"


def _last_loop(arm: ArmResult) -> str:
    if arm.recovery_s_max is not None:
        return f"{arm.recovery_s_max:.2f} s"
    return f"{arm.loops_recovered}/{arm.loops} loops"


def _exit(arm: ArmResult) -> str:
    if arm.exit_code is None:
        return "?"
    return f"{arm.exit_code}, died" if arm.stop_s is None else str(arm.exit_code)


def format_bytes(size: int) -> str:
    """A size with three digits at most and a binary unit."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def promise_line(promise: Promise) -> str:
    """One promise in words: `log lines: 4 (at most 8)`."""
    unit = f" {promise.unit}" if promise.unit else ""
    value = "none measured" if promise.value is None else f"{promise.value:.4g}{unit}"
    limit = "must be 0" if promise.limit == 0 else f"at most {promise.limit:.4g}{unit}"
    return f"{promise.name}: {value} ({limit})"


def verdict(result: DrillResult) -> str:
    """The outcome in one sentence."""
    broken = [promise.name for promise in result.promises if not promise.held]
    if broken:
        return f"The outlast arm broke {len(broken)} of {len(result.promises)} promises: {', '.join(broken)}."
    if result.stormed is False:
        return "The naive arm did not storm, so this drill proves nothing about the others."
    if not result.promises:
        return "The outlast arm did not run; nothing was promised."
    return f"The outlast arm kept all {len(result.promises)} promises."


def facts(result: DrillResult) -> Iterable[tuple[str, str]]:
    """What the figures depend on, as (name, value)."""
    yield "fault", f"{result.fault} for {result.outage_s:g} s"
    jobs = f", jobs of {result.arms[0].work_s * 1000:.0f} ms" if result.arms else ""
    yield "loops", f"{result.loops} in each arm{jobs}"
    yield "seed", str(result.seed)
    yield "started", result.started_at
    yield from result.machine.items()
