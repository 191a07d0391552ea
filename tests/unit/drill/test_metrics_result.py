"""The greptime drill over HTTP: its promises, its options, and what collectors were told against what a store has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drill_arms import SHARED

from outlast._cli.drill import METRICS_FAULT_NAMES
from outlast._drill.greptime.figures import TableArm
from outlast._drill.greptime.http.collectors import Sent, acknowledged, lines, lost, percentile, twice
from outlast._drill.greptime.http.drill import METRICS_ARMS, MetricsOptions
from outlast._drill.greptime.http.faults import METRICS_FAULTS
from outlast._drill.greptime.http.promises import backoff_s_max, check, stormed
from outlast._drill.greptime.http.run import rate_percent
from outlast._drill.lab.errors import DrillUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def arm(name: str = "outlast", **changes: object) -> TableArm:
    """An arm that keeps every promise of a fault of 4 s."""
    good = TableArm(
        **SHARED,
        arm=name,
        log_lines=1,
        attempts=1,
        cpu_before_percent=5.0,
        cpu_outage_percent=30.0,
        twice=0,
        loops=500,
        lines_outage=1,
        lines_total=5,
        attempts_total=1,
        outage_s=4.0,
        fed_until_s=16.0,
        records=1,
        store_bytes=0,
        alarm=False,
        refused=2000,
        failed=0,
        pending=0,
        hung_up=0,
        refusal_ms_p50=1.0,
        refusal_ms_p99=6.0,
        failed_ms_p99=None,
        others_percent=100.0,
        others_ms_p99=30.0,
        others_ms_p99_before=31.0,
        heal_s=5.0,
        stored=20_000,
        errors_first=("503 partial write",),
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def sent(table: str, first: int, points: int = 1, status: int = 204, at_s: float = 1.0) -> Sent:
    return Sent(table, first, points, at_s - 0.01, at_s, status, None, b"")


def test_a_good_arm_keeps_all_promises() -> None:
    promises = check(arm(), "taken")
    assert [promise.name for promise in promises if not promise.held] == []
    assert all(promise.reason for promise in promises)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"log_lines": 7}, "log lines"),
        ({"records": 2}, "records of the bad table"),
        ({"records": None}, "records of the bad table"),
        ({"store_bytes": (1 << 20) + 1}, "store growth"),
        ({"refusal_ms_p99": 20.1}, "refusal, p99"),
        ({"refusal_ms_p99": None}, "refusal, p99"),
        ({"failed": 1}, "other answers"),
        ({"hung_up": 1}, "writes hung up"),
        ({"others_percent": 94.9}, "others not served"),
        ({"heal_s": 11.1}, "healed"),
        ({"heal_s": None}, "healed"),
        ({"lost": 1}, "lost"),
        ({"twice": 1}, "twice"),
        ({"exit_code": 1}, "exit code after SIGTERM"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], name: str) -> None:
    assert [promise.name for promise in check(arm(**change), "taken") if not promise.held] == [name]


@pytest.mark.parametrize(
    ("outage_s", "wait_s"), [(4.0, 10.0), (4.9, 10.0), (5.0, 30.0), (19.9, 30.0), (20.0, 90.0), (64.9, 90.0), (5000.0, 900.0)]
)
def test_the_longest_wait_of_a_table_that_only_a_person_can_mend(outage_s: float, wait_s: float) -> None:
    # Attempts come after 5, 20 and 65 s at the earliest: half of 10, of 30 and of 90 s.
    assert backoff_s_max(outage_s) == wait_s


def test_a_storm_is_a_line_for_each_write() -> None:
    assert stormed(arm("naive", lines_outage=80), "taken") is True
    assert stormed(arm("naive", lines_outage=79), "taken") is False


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fault": "refused"}, "unknown fault 'refused'; choose one of taken, denied"),
        ({"arms": ("capped",)}, "name each of naive, naive-postgres, outlast, outlast-postgres at most once"),
        (
            {"fault": "denied"},
            "fault 'denied' needs permissions, and SQLite of naive, outlast has none; say --arms naive-postgres,outlast-postgres",
        ),
    ],
)
def test_what_cannot_be_run(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(DrillUsageError, match=words):
        MetricsOptions(**wrong).validate()  # type: ignore[arg-type]


def test_a_guard_can_be_staged_where_there_are_permissions() -> None:
    MetricsOptions(fault="denied", arms=("naive-postgres", "outlast-postgres")).validate()


def test_the_command_repeats_the_drill() -> None:
    assert MetricsOptions(arms=("naive", "outlast")).command == (
        "outlast drill greptime --outage 4s --warmup 4s --cooldown 12s --fault taken --writes 500 --arms naive,outlast --seed 1"
        " --over http"
    )


def test_the_command_line_and_the_document_name_every_arm_and_fault() -> None:
    assert tuple(METRICS_FAULTS) == METRICS_FAULT_NAMES
    text = (Path(__file__).parents[3] / "docs" / "drill.md").read_text(encoding="utf-8")
    assert [name for name in (*METRICS_ARMS, *METRICS_FAULTS) if f"`{name}`" not in text] == []
    assert "outlast drill greptime --over http" in text


def test_a_point_has_its_number_as_value_and_as_time() -> None:
    assert lines("other_1", range(7, 9)) == (
        b"other_1,writer=drill n=7i,value=0.875 1700000000000000007\nother_1,writer=drill n=8i,value=1.000 1700000000000000008"
    )


def test_what_is_acknowledged_and_not_there_is_lost() -> None:
    told = [sent("a", 1, points=3), sent("a", 4, status=503), sent("b", 5, status=200), sent("b", 6, status=0)]
    assert acknowledged(told) == {"a": {1, 2, 3}, "b": {5}}
    assert lost(told, {"a": [1, 2, 3], "b": [5, 6]}) == {}, "what is there without an answer is no fault"
    assert lost(told, {"a": [1, 3]}) == {"a": {2}, "b": {5}}


def test_what_is_there_twice() -> None:
    assert list(twice({"a": [1, 2, 3], "b": [1]})) == []
    assert list(twice({"a": [1, 2, 1, 1]})) == [("a", 1), ("a", 1)]


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([], 99, None), ([3.0], 50, 3.0), (list(map(float, range(100))), 99, 99.0)]
)
def test_percentiles(values: Sequence[float], percent: int, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_others_are_compared_by_the_bodies_that_were_stored_a_second() -> None:
    before = [sent("a", 1), sent("a", 2), sent("a", 3), sent("a", 4)]
    during = [sent("a", 5), sent("a", 6, status=503)]
    assert rate_percent(during, 1.0, before, 2.0) == 50.0
    assert rate_percent(during, 0.0, before, 2.0) == 0.0
    assert rate_percent(during, 1.0, [], 2.0) == 0.0, "nothing to compare with is no success"
