"""Figures of a drill as people read them: one place for the table in the terminal and the one in the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from outlast._core.quantities import size_text
from outlast._drill.lab.result import ArmResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlast._drill.lab.drills import Drill
    from outlast._drill.lab.result import A, DrillResult, Promise

A_contra = TypeVar("A_contra", bound=ArmResult, contravariant=True)


@dataclass(frozen=True, slots=True)
class Column(Generic[A_contra]):
    """One column: its heading, the heading's second line, what it is about, and the figure of an arm."""

    title: str
    unit: str
    meaning: str
    cell: Callable[[A_contra], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the picture: which counts, in which colour, and how they are scaled."""

    field: str
    label: str
    color: str
    log: bool = False
    factor: float = 1.0


LINES = Series("lines", "log lines / s", "#c2410c", log=True)
ATTEMPTS = Series("attempts", "connects / s", "#1d4ed8", log=True)
CPU = Series("cpu_s", "CPU, %", "#7c3aed", factor=100.0)


def lines_and_attempts(arm: ArmResult, attempts: str = "connection attempts") -> str:
    """Describe what an arm wrote and tried; `attempts` are the word for that."""
    per_s = arm.lines_outage / arm.outage_s if arm.outage_s else 0.0
    lines = f"{arm.log_lines:,} log {'line' if arm.log_lines == 1 else 'lines'} ({per_s:,.1f} a second during the fault)"
    return f"{lines}, {arm.attempts:,} {attempts}"


def seconds_or_never(seconds: float | None) -> str:
    """Return a recovery time in words, "never" for None."""
    return "never" if seconds is None else f"{seconds:.2f} s"


def _exit(arm: ArmResult) -> str:
    if arm.exit_code is None:
        return "?"
    return f"{arm.exit_code}, died" if arm.stop_s is None else str(arm.exit_code)


LOG_LINES: Column[ArmResult] = Column(
    "log lines", "", "lines written from the fault to the request to stop", lambda arm: f"{arm.log_lines:,}"
)
LOG_SIZE: Column[ArmResult] = Column("log size", "", "bytes of those lines", lambda arm: size_text(arm.log_bytes))
CPU_OUTAGE: Column[ArmResult] = Column(
    "CPU", "outage", "share of one core during the fault", lambda arm: f"{arm.cpu_outage_percent:.1f} %"
)
ATTEMPTED: Column[ArmResult] = Column("attempts", "outage", "connections tried during the fault", lambda arm: f"{arm.attempts:,}")
EXIT: Column[ArmResult] = Column("exit", "code", "exit code after SIGTERM", _exit)


def promise_line(promise: Promise) -> str:
    """Describe one promise: `outlast, log lines: 4 (at most 8)`."""
    unit = f" {promise.unit}" if promise.unit else ""
    value = "none measured" if promise.value is None else f"{promise.value:.4g}{unit}"
    limit = "must be 0" if promise.limit == 0 else f"at most {promise.limit:.4g}{unit}"
    return f"{promise.arm}, {promise.name}: {value} ({limit})"


def verdict(result: DrillResult[A]) -> str:
    """Describe the outcome in one sentence."""
    broken = [promise for promise in result.promises if not promise.held]
    if broken:
        names = ", ".join(promise.name for promise in broken)
        return f"{_arms(promise.arm for promise in broken)} broke {len(broken)} of {len(result.promises)} promises: {names}."
    if result.stormed is False:
        return "The naive arm did not storm, so this drill proves nothing about the others."
    if not result.promises:
        return "The outlast arm did not run; nothing was promised."
    return f"{_arms(result.proven)} kept all {len(result.promises)} promises."


def _arms(names: Iterable[str]) -> str:
    """Return the names of one or more arms as the beginning of a sentence."""
    different = list(dict.fromkeys(names))
    return f"The {' and '.join(different)} arm{'s' if len(different) > 1 else ''}"


def loops_and_jobs(result: DrillResult[A]) -> tuple[str, str]:
    """Return the load of a drill of loops, as (name, value)."""
    jobs = f", jobs of {result.arms[0].work_s * 1000:.0f} ms" if result.arms else ""
    return "loops", f"{result.loops} in each arm{jobs}"


def facts(drill: Drill[Any, A], result: DrillResult[A]) -> Iterable[tuple[str, str]]:
    """Yield what the figures depend on, as (name, value)."""
    yield "fault", f"{result.fault} for {result.outage_s:g} s: {result.summary}"
    yield drill.load(result)
    yield "seed", str(result.seed)
    yield "started", result.started_at
    yield from result.machine.items()
