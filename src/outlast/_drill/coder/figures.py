"""Figures of an arm of the coder drill, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass

from outlast._drill.lab.result import ArmResult
from outlast._drill.shown import figures
from outlast._drill.shown.figures import Column, Series, lines_and_attempts, seconds_or_never


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsArm(ArmResult):
    """The figures of one arm, with those of its jobs."""

    recovery_s_p50: float | None
    recovery_s_max: float | None
    lost: int
    loops_recovered: int
    loops_dead: int
    jobs_before: int
    jobs_during: int
    jobs_after: int
    jobs_enqueued: int
    throughput_percent: float
    """Jobs a second during the fault, of those in the warm-up."""
    cancels: int
    """Cancel requests of the whole run; they are no attempts."""
    sessions_max: int | None
    """The most sessions of the arm that the server had during the fault; None where the harness was cut off too."""
    payments: int
    """The jobs that needed a second service, which was away for the middle half of the run; 0 in arms without such jobs."""
    payments_lost: int
    payments_twice: int
    payments_in_vain: int
    """Times that one of them was begun and not brought to its end."""


def _sessions(arm: JobsArm) -> str:
    return "–" if arm.sessions_max is None else f"{arm.sessions_max:,}"


def _in_vain(arm: JobsArm) -> str:
    return f"{arm.payments_in_vain:,} of {arm.payments:,}" if arm.payments else "–"


def _last_loop(arm: JobsArm) -> str:
    if arm.recovery_s_max is not None:
        return f"{arm.recovery_s_max:.2f} s"
    return f"{arm.loops_recovered}/{arm.loops} loops"


COLUMNS: tuple[Column[JobsArm], ...] = (
    figures.LOG_LINES,
    figures.LOG_SIZE,
    figures.ATTEMPTED,
    figures.CPU_OUTAGE,
    Column("CPU", "total", "processor seconds of the whole run", lambda arm: f"{arm.cpu_s:.1f} s"),
    Column("memory", "peak", "largest resident set", lambda arm: f"{arm.rss_peak_mib:.0f} MiB"),
    Column(
        "recovery",
        "p50",
        "from the moment the server accepts until a loop has done a job begun after it, median",
        lambda arm: seconds_or_never(arm.recovery_s_p50),
    ),
    Column("recovery", "last loop", "the same for the last loop; none when a loop never came back", _last_loop),
    Column("connects", "100 ms", "most connection attempts in any 100 ms of the run", lambda arm: f"{arm.connects_100ms_max:,}"),
    Column("cancels", "", "cancel requests, which are no connection attempts", lambda arm: f"{arm.cancels:,}"),
    Column("sessions", "outage", "most sessions of the arm on the server during the fault", _sessions),
    Column("jobs", "outage", "jobs a second during the fault, of those before it", lambda arm: f"{arm.throughput_percent:.0f} %"),
    Column("payments", "in vain", "jobs begun while the second service that they need was away", _in_vain),
    Column("lost", "jobs", "jobs neither done nor waiting, after a grace", lambda arm: f"{arm.lost:,}"),
    Column("twice", "jobs", "jobs worked to their end more than once", lambda arm: f"{arm.twice:,}"),
    figures.EXIT,
)


SERIES = (figures.LINES, figures.ATTEMPTS, figures.CPU, Series("jobs", "jobs / s", "#15803d"))


def describe(arm: JobsArm) -> str:
    """Describe what happened in this arm, in words and figures."""
    if arm.recovery_s_max is not None:
        back = f"all {arm.loops} loops back at work {arm.recovery_s_max:.2f} s after the server accepted"
    else:
        back = f"{arm.loops - arm.loops_recovered} of {arm.loops} loops never came back"
    lost = f"{arm.lost:,} jobs lost" if arm.lost else "no job lost"
    twice = f"{arm.twice:,} run twice" if arm.twice else "none run twice"
    return f"{lines_and_attempts(arm)}; {back}; {lost}, {twice}."
