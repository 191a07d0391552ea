"""Promises of the greptime drill about the outlast arms: every limit in one place, with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._drill.greptime.datanode import Trouble
from outlast._drill.greptime.faults import TABLE_FAULTS
from outlast._drill.lab.result import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._drill.greptime.figures import TableArm

LINES_MAX = 6
RECORDS_MAX = 1
REFUSAL_MS_MAX = 20.0
"""A refusal is decided from memory: it waits for no store."""
FAILED_PERCENT_MAX = 10.0
HANGING_PERCENT_MAX = 50.0
"""While an attempt is made, who asks joins it. Where it hangs it takes half a second: the first four in 8 s are 2 s."""
OTHERS_PERCENT_MIN = 95.0
STORE_BYTES_MAX = 1 << 20
HEAL_S_MORE = 1.0
"""After the backoff: the attempt itself, and a turn of a machine whose processors are all busy."""
BACKOFF_S_MAX = 60.0
CLEARED_S_MAX = 1.0


def backoff_s_max(outage_s: float) -> float:
    """Return the longest wait that a key may have come to after so long.

    The waits are at most 1, 2, 4 ... seconds, up to a minute, and at least half of that each. So after the n-th at least
    (2^n - 1) / 2 seconds have passed, and the one that follows is of 2^n seconds at most: 2^n <= 2 * outage_s + 1.
    """
    wait_s = 1.0
    while 2.0 * wait_s <= 2.0 * outage_s + 1.0:
        wait_s *= 2.0
    return min(BACKOFF_S_MAX, wait_s)


def check(arm: TableArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against the promises of that fault."""
    return tuple(_promises(arm, fault))


def stormed(arm: TableArm, fault: str) -> bool | None:
    """Return whether the naive arm stormed: its store ran full."""
    del fault
    return arm.alarm


def _promises(arm: TableArm, fault: str) -> Iterator[Promise]:
    yield Promise.at_most("log lines", LINES_MAX, arm.log_lines, "", "do not grow with refusals or the outage")
    yield Promise.at_most("records of the bad table", RECORDS_MAX, arm.records, "", "a key has one record, whoever asks")
    yield Promise.at_most("store growth", STORE_BYTES_MAX, arm.store_bytes, "bytes", "a refusal costs the store nothing")
    yield Promise.at_most("refusal, p99", REFUSAL_MS_MAX, arm.refusal_ms_p99, "ms", "decided from memory: it waits for no store")
    limit = HANGING_PERCENT_MAX if TABLE_FAULTS[fault].trouble is Trouble.HANGS else FAILED_PERCENT_MAX
    share = 100.0 * arm.failed / max(1, arm.failed + arm.refused + arm.pending)
    yield Promise.at_most("waited for an attempt", limit, share, "% of the answers", "all others are refused from memory")
    yield Promise.at_most("writes hung up", 0, arm.hung_up, "", "whoever asks is answered")
    missing = max(0.0, 100.0 - arm.others_percent)
    limit = 100.0 - OTHERS_PERCENT_MIN
    yield Promise.at_most("others not served", limit, missing, "%", "one bad table takes nothing from the others")
    if TABLE_FAULTS[fault].cleared:
        yield Promise.at_most("healed", CLEARED_S_MAX, arm.heal_s, "s", "who is told that the cause is gone waits no more")
    else:
        limit = backoff_s_max(arm.outage_s) + HEAL_S_MORE
        yield Promise.at_most("healed", limit, arm.heal_s, "s", "one attempt as soon as the backoff has passed")
    yield Promise.at_most("lost", 0, arm.lost, "", "what is acknowledged or promised is done")
    yield Promise.at_most("exit code after SIGTERM", 0, arm.exit_code, "", "a table that cannot be made ends no process")
