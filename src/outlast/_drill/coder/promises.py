"""Promises of the coder drill about the outlast arm: every limit in one place, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from outlast._drill.lab.result import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from outlast._drill.coder.figures import JobsArm

LINES_MAX = 8
"""One line opens the incident, each new fault has one, reminders come at growing intervals, one says that it is over and one
what became of the results kept meanwhile: about 6 in a minute, and 2 spare."""

ATTEMPTS_FIRST = 40
ATTEMPTS_PER_S = 1.0
"""One prober with waits growing from 0.1 s to 1.5 s makes about 75 attempts in a minute; the quick ones at the beginning,
unlucky jitter and the connections opened on the way back need the rest of the 100 that a minute may have."""

CPU_PERCENT_MAX = 1.0
"""Waiting is free; a probe costs about a millisecond, once a second."""

CPU_S_MIN = 0.2
CPU_LOOP_S = 0.0006
"""Processor time of a short outage in all: 0.2 s, or 0.6 ms a loop if that is more. Ending the jobs in flight, keeping their
results and opening the incident cost the same however short it is, and the system counts in steps of 10 ms. From 20 s on
(60 s with 1,000 loops) the 1 % holds."""

CONNECTS_MAX = 10

PROBE_S_MAX = 1.5
"""The longest wait between two probes: the server may come back just after one."""

RELAPSE_S_MAX = 5.0
"""The longest wait of a dependency that has come back and failed again, several times within one incident."""

RAMP_S_MAX = 2.0
RAMP_LOOP_S = 0.01
"""Waiters are released over min(2 s, 10 ms × loops), so that the server is not struck by all of them at once."""

WORK_BASE_S = 0.05
"""The job length that the 2 s for fifty loops allow for; a longer job is added."""

SESSIONS_MAX = 13
"""The default `connections_max` of 10, with what is given up and has not ended on the server, and 3 beside the pool: the
probe, and what is dialled for a session of one's own."""

SLOWER_PERCENT_MAX = 50.0
"""A fault that one statement meets is its own: the jobs go on. On a busy machine their rate varies by a third by itself."""

ATTEMPTS_GIVEN_UP_PER_S = 2.0
"""Four loops give up a statement every 3 s: each such connection is dialled again, and the server is asked whether it answers."""

LEDGER_LINES_MAX = 6
PAYMENT_LINES_MAX = 4
"""A second incident, and for the loops that meet the fault a third: one line each to open, to remind, to end, one spare."""

STORM_LINES_PER_S = 100.0
"""Fewer lines a second than this from the naive arm is no storm: then the drill compares nothing."""

STORM_FAULTS = frozenset({"stop", "refuse"})
"""The faults under which a call fails at once, so that a loop without a backoff must storm. Under `freeze` it hangs,
under the others it gets work done in between."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits under one fault; None is not promised."""

    cpu_percent: float | None = CPU_PERCENT_MAX
    wait_s: float = PROBE_S_MAX
    """The longest wait that the end of the fault can fall into."""
    attempts_per_s: float = ATTEMPTS_PER_S
    one_statement: bool = False
    """Whether the fault meets one statement alone, and all else goes on."""
    wait_reason: str = "probes at most 1.5 s apart, then a ramp of min(2 s, 10 ms a loop), then the job itself"


_AWAY = Limits()
_FLAPPING = Limits(
    # Between two blows the loops work: their processor time is work, not waiting.
    cpu_percent=None,
    wait_s=RELAPSE_S_MAX,
    wait_reason="a server that keeps failing is used again after 5 s at most, then a ramp, then the job itself",
)

_ONE_STATEMENT = Limits(cpu_percent=None, attempts_per_s=ATTEMPTS_GIVEN_UP_PER_S, one_statement=True)
LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        "stop": _AWAY,
        "refuse": _AWAY,
        "freeze": _AWAY,
        "readonly": _AWAY,
        "kill-backends": _FLAPPING,
        "flap": _FLAPPING,
        "row-lock": _ONE_STATEMENT,
        "tablespace-full": _ONE_STATEMENT,
    }
)


def recovery_limit_s(loops: int, work_s: float, wait_s: float = PROBE_S_MAX) -> float:
    """Return the seconds from acceptance within which every loop has finished a job: 2.0 for fifty loops of 50 ms jobs."""
    return wait_s + min(RAMP_S_MAX, RAMP_LOOP_S * loops) + max(0.0, work_s - WORK_BASE_S)


def check(arm: JobsArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against the promises of that fault."""
    limits = LIMITS[fault]
    return (*_of_the_fault(arm, limits), *_of_the_recovery(arm, limits), *_of_the_payments(arm))


def stormed(arm: JobsArm, fault: str) -> bool | None:
    """Return whether the naive arm stormed; None under a fault that need not make it storm."""
    if fault not in STORM_FAULTS:
        return None
    return arm.lines_outage >= STORM_LINES_PER_S * arm.outage_s


def _of_the_fault(arm: JobsArm, limits: Limits) -> Iterator[Promise]:
    lines_max = LINES_MAX + (PAYMENT_LINES_MAX if arm.payments else 0) + (LEDGER_LINES_MAX if limits.one_statement else 0)
    yield Promise.at_most("log lines", lines_max, arm.log_lines, "", "do not grow with loops, retries or the outage")
    attempts_max = ATTEMPTS_FIRST + round(limits.attempts_per_s * arm.outage_s)
    yield Promise.at_most("connection attempts", attempts_max, arm.attempts, "", "one asks, everyone else waits")
    if limits.cpu_percent is not None:
        once_s = max(CPU_S_MIN, CPU_LOOP_S * arm.loops)
        percent_max = max(limits.cpu_percent, 100.0 * once_s / arm.outage_s)
        reason = "nothing can be done, so nothing is"
        yield Promise.at_most("CPU during the outage", round(percent_max, 2), arm.cpu_outage_percent, "% of a core", reason)

    if limits.one_statement:
        reason = "what is given up here is given up on the server too"
        yield Promise.at_most("sessions on the server", SESSIONS_MAX, arm.sessions_max, "", reason)
        slower = round(max(0.0, 100.0 - arm.throughput_percent), 2)
        reason = "what one statement meets concerns that statement"
        yield Promise.at_most("jobs slowed down", SLOWER_PERCENT_MAX, slower, "%", reason)


def _of_the_payments(arm: JobsArm) -> Iterator[Promise]:
    if arm.payments:
        reason = "while the service that they need is away they are not taken: each loop may find it out once"
        yield Promise.at_most("payments begun in vain", arm.loops, arm.payments_in_vain, "", reason)
        yield Promise.at_most("payments lost", 0, arm.payments_lost, "", "a job put back is a job done later")
        yield Promise.at_most("payments made twice", 0, arm.payments_twice, "", "a job that was refused had not begun")


def _of_the_recovery(arm: JobsArm, limits: Limits) -> Iterator[Promise]:
    limit_s = recovery_limit_s(arm.loops, arm.work_s, limits.wait_s)
    yield Promise.at_most("every loop has done a job", round(limit_s, 3), arm.recovery_s_max, "s", limits.wait_reason)
    reason = "a server just started is not struck by all at once"
    yield Promise.at_most("connects in any 100 ms", CONNECTS_MAX, arm.connects_100ms_max, "", reason)
    yield Promise.at_most("jobs lost", 0, arm.lost, "", "a job taken is a job done")
    yield Promise.at_most("jobs run twice", 0, arm.twice, "", "results that could not be recorded are kept, not repeated")
    yield Promise.at_most("exit code after SIGTERM", 0, arm.exit_code, "", "a stop is no failure")
