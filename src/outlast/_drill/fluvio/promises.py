"""Promises of the fluvio drill about the outlast arm: every limit in one place, with its reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from outlast._drill.fluvio.faults import DISK_FAULTS
from outlast._drill.lab.result import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._drill.fluvio.figures import LogArm

LINES_MAX = 6
"""One line says that the disk is low and what fills it, one that it is over; the dependency's incident has its own, with a
reminder in a long one."""
REFUSAL_MS_MAX = 50.0
"""A refusal is decided from what is known already: it waits for no disk."""
ATTEMPTS_PERCENT_MAX = 2.0
ATTEMPTS_MIN = 20
"""Writes that a short fault may cost in any case: those on their way when it begins, and one probe a second."""
RECOVERY_S_MAX = 2.0
"""The longest wait between two looks at a full disk is 0.5 s, between two probes 1 s; then comes the write itself."""
GROWTH_MIB_MAX = 32.0
READ_GAP_S_MAX = 1.0
"""Reads come twenty times a second; on a machine whose processors are all busy a turn may take a while."""
TRANSITIONS_PER_MINUTE = 2.0
"""In, and out. A minute of swings of 1 MiB is one incident: the thresholds are further apart than that."""
STORM_LINES_PER_S = 100.0


def check(arm: LogArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against the promises of that fault."""
    return tuple(_promises(arm, fault))


def compare(arm: LogArm, naive: LogArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against what the arm *naive* did under the same fault."""
    if not DISK_FAULTS[fault].stops_all:
        return ()
    limit = max(ATTEMPTS_MIN, int(naive.attempts * ATTEMPTS_PERCENT_MAX / 100.0))
    reason = f"{ATTEMPTS_PERCENT_MAX:g} % of the naive arm's: what is known to fail is not tried"
    return (Promise.at_most("writes on the disk", limit, arm.attempts, "", reason),)


def stormed(arm: LogArm, fault: str) -> bool | None:
    """Return whether the naive arm stormed; None under a fault that need not make it storm."""
    return arm.lines_outage >= STORM_LINES_PER_S * arm.outage_s if DISK_FAULTS[fault].stops_all else None


def _promises(arm: LogArm, fault: str) -> Iterator[Promise]:
    kind = DISK_FAULTS[fault]
    yield Promise.at_most("log lines", LINES_MAX, arm.log_lines, "", "do not grow with refusals or the outage")
    yield Promise.at_most("connections hung up", 0, arm.hung_up, "", "whoever asks is answered, whatever the disk does")
    yield Promise.at_most("different errors", 1, arm.errors, "", "a client is told the cause, whoever comes first")
    reason = "decided from what is known: it waits for no disk"
    yield Promise.at_most("refusal, p99", REFUSAL_MS_MAX, arm.refusal_ms_p99, "ms", reason)
    if kind.stops_all:
        yield Promise.at_most("memory grown", GROWTH_MIB_MAX, arm.rss_growth_mib, "MiB", "what is refused is not kept")
    else:
        limit = math.ceil(TRANSITIONS_PER_MINUTE * max(1.0, arm.outage_s / 60.0))
        reason = "the thresholds are further apart than the swing"
        yield Promise.at_most("changes of state", limit, arm.transitions, "", reason)
    yield Promise.at_most("reads failed", 0, arm.reads_failed if arm.reads else None, "", "a disk that takes nothing can be read")
    yield Promise.at_most("time without a read", READ_GAP_S_MAX, arm.read_gap_s, "s", "readers do not wait for writers")
    if kind.heals:
        yield Promise.at_most("appends again", RECOVERY_S_MAX, arm.recovery_s, "s", "without a restart")
    else:
        reason = "the volume is lost for this process: said once, not again"
        yield Promise.at_most("CRITICAL lines", 1, arm.critical_lines or None, "", reason)
    yield Promise.at_most("records lost", 0, arm.lost, "", "what is acknowledged is on the disk")
    yield Promise.at_most("phantom records", 0, arm.phantom, "", "what is refused never appears later")
    yield Promise.at_most("records twice", 0, arm.twice, "", "an append is one write")
    yield Promise.at_most(
        "exit code after SIGTERM", 0, arm.exit_code, "", "a full disk ends no process, and a stop is no failure"
    )
