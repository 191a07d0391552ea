"""What an arm of the coder drill did, and how people read it."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.drill import figures
from outlast.drill.figures import Column, Series, lines_and_attempts, seconds_or_never
from outlast.drill.result import ArmResult


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsArm(ArmResult):
    """What one arm did with its jobs."""

    recovery_s_p50: float | None
    recovery_s_max: float | None
    lost: int
    loops_recovered: int
    loops_dead: int
    jobs_before: int
    jobs_during: int
    jobs_after: int
    jobs_enqueued: int


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
    Column("lost", "jobs", "jobs neither done nor waiting, after a grace", lambda arm: f"{arm.lost:,}"),
    Column("twice", "jobs", "jobs worked to their end more than once", lambda arm: f"{arm.twice:,}"),
    figures.EXIT,
)


SERIES = (figures.LINES, figures.ATTEMPTS, figures.CPU, Series("jobs", "jobs / s", "#15803d"))


def describe(arm: JobsArm) -> str:
    """What happened in this arm, in words and figures."""
    if arm.recovery_s_max is not None:
        back = f"all {arm.loops} loops back at work {arm.recovery_s_max:.2f} s after the server accepted"
    else:
        back = f"{arm.loops - arm.loops_recovered} of {arm.loops} loops never came back"
    lost = f"{arm.lost:,} jobs lost" if arm.lost else "no job lost"
    twice = f"{arm.twice:,} run twice" if arm.twice else "none run twice"
    return f"{lines_and_attempts(arm)}; {back}; {lost}, {twice}."
