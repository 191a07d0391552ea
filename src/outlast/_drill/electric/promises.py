"""Promises of the electric drill about the outlast arm: every limit in one place, with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._drill.lab.result import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._drill.electric.figures import StreamArm

LINES_MAX = 5
"""One line says who holds it or what is away, one that it is over; the dependency's incident and the standby have theirs."""
ATTEMPTS_FIRST = 8
ATTEMPTS_PER_S = 0.08
"""Fifteen in 90 s: waits of 0.5 s growing to 30 s. Each attempt at the slot has one session for the lock, and one that looks."""
CPU_PERCENT_MAX = 1.0
CPU_S_MIN = 0.2
"""Processor seconds that a short fault may use in all beyond what the other loops use anyway; from 20 s on the 1 % holds."""
SLOWER_PERCENT_MAX = 5.0
RELEASE_S_MAX = 1.0
KILLED_S_MAX = 0.25
CUT_OFF_S_MAX = 5.0
"""The keepalive, 4 s unless told otherwise, and 1 s."""
STORM_LINES_PER_S = 20.0
STORM_FAULTS = frozenset({"slot-taken", "lock-bypassed", "slot-lost"})


def check(arm: StreamArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against the promises of that fault."""
    return tuple(_promises(arm, fault))


def stormed(arm: StreamArm, fault: str) -> bool | None:
    """Return whether the naive arm stormed; None under a fault that need not make it storm."""
    return arm.lines_outage >= STORM_LINES_PER_S * arm.outage_s if fault in STORM_FAULTS else None


def _promises(arm: StreamArm, fault: str) -> Iterator[Promise]:
    attempts_max = ATTEMPTS_FIRST + round(ATTEMPTS_PER_S * arm.outage_s)
    yield Promise.at_most("log lines", LINES_MAX, arm.lines_outage, "", "do not grow with retries or the outage")
    yield Promise.at_most("connection attempts", attempts_max, arm.attempts, "", "contention is stood by for, not fought")
    if fault in STORM_FAULTS:
        percent_max = max(CPU_PERCENT_MAX, 100.0 * CPU_S_MIN / arm.outage_s)
        more = max(0.0, arm.cpu_outage_percent - arm.cpu_before_percent)
        yield Promise.at_most("CPU beyond that of before", round(percent_max, 2), more, "% of a core", "standing by is free")
    slower = round(max(0.0, 100.0 - arm.throughput_percent), 2)
    reason = "one stream's trouble never stops another loop"
    yield Promise.at_most("other loops slower by", SLOWER_PERCENT_MAX, slower, "%", reason)
    if fault != "slot-lost":
        limit_s = {"owner-killed": KILLED_S_MAX, "owner-cut-off": CUT_OFF_S_MAX}.get(fault, RELEASE_S_MAX)
        # An owner that is let in again sooner simply goes on.
        if fault != "owner-cut-off" or arm.outage_s > CUT_OFF_S_MAX:
            yield Promise.at_most("streams again", limit_s, arm.recovery_s, "s", "the next change after the slot is free")
        yield Promise.at_most("changes lost", 0, arm.lost, "", "the position moves only behind what is durable")
    yield Promise.at_most("exit code after SIGTERM", 0, arm.exit_code, "", "a stop is no failure")
