"""Promises of the greptime drill over HTTP about the outlast arms: every limit with its reason."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from outlast._drill.greptime.promises import (
    HEAL_S_MORE,
    LINES_MAX,
    OTHERS_PERCENT_MIN,
    RECORDS_MAX,
    REFUSAL_MS_MAX,
    STORE_BYTES_MAX,
)
from outlast._drill.lab.result import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._drill.greptime.figures import TableArm

WAITS_S: Final = (10.0, 30.0, 90.0, 270.0, 810.0, 900.0)
"""The longest waits of a key after failures that only a person can mend (docs/procedures.md), each at least half of that."""
STORM_LINES_PER_S: Final = 20.0
"""The naive arm logs each failure with its traceback; a storm is at least so many lines a second."""


def backoff_s_max(outage_s: float) -> float:
    """Return the longest wait that the table may have come to after so long."""
    passed_s = 0.0
    for wait_s, longer_s in pairwise(WAITS_S):
        passed_s += wait_s / 2.0
        if passed_s > outage_s:
            return wait_s
        if longer_s == WAITS_S[-1]:
            break
    return WAITS_S[-1]


def check(arm: TableArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against the promises."""
    del fault
    return tuple(_promises(arm))


def stormed(arm: TableArm, fault: str) -> bool | None:
    """Return whether the naive arm stormed: it logged every write."""
    del fault
    return arm.lines_outage >= STORM_LINES_PER_S * arm.outage_s


def _promises(arm: TableArm) -> Iterator[Promise]:
    yield Promise.at_most("log lines", LINES_MAX, arm.log_lines, "", "do not grow with refusals or the outage")
    yield Promise.at_most("records of the bad table", RECORDS_MAX, arm.records, "", "a table has one record, whoever writes")
    yield Promise.at_most("store growth", STORE_BYTES_MAX, arm.store_bytes, "bytes", "a refusal costs the store nothing")
    yield Promise.at_most("refusal, p99", REFUSAL_MS_MAX, arm.refusal_ms_p99, "ms", "decided from memory: it waits for no store")
    yield Promise.at_most("other answers", 0, arm.failed, "", "503 or 429 and nothing else: it can be stored later")
    yield Promise.at_most("writes hung up", 0, arm.hung_up, "", "whoever asks is answered")
    missing = max(0.0, 100.0 - arm.others_percent)
    yield Promise.at_most("others not served", 100.0 - OTHERS_PERCENT_MIN, missing, "%", "a bad table takes nothing from others")
    limit = backoff_s_max(arm.outage_s) + HEAL_S_MORE
    yield Promise.at_most("healed", limit, arm.heal_s, "s", "one attempt as soon as the backoff has passed")
    yield Promise.at_most("lost", 0, arm.lost, "", "what is acknowledged is in the store")
    yield Promise.at_most("twice", 0, arm.twice, "", "a body that is sent again changes nothing")
    yield Promise.at_most("exit code after SIGTERM", 0, arm.exit_code, "", "a table that cannot be made ends no process")
