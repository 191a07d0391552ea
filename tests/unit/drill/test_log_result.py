"""The result of the fluvio drill: its promises, its options, its words, its pictures, what is shown while it runs."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from drill_arms import SHARED, live_text, plain_text, printed
from rich.console import Console
from rich.measure import Measurement

from outlast._cli.drill import DISK_FAULT_NAMES, LIVE_COLUMNS_MIN
from outlast._drill.fluvio.drill import FLUVIO, LOG_ARMS, FluvioOptions
from outlast._drill.fluvio.faults import DISK_FAULTS
from outlast._drill.fluvio.figures import COLUMNS, SERIES, LogArm, LogTimeline, describe
from outlast._drill.fluvio.promises import check, compare, stormed
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.observer import ArmState, Sample
from outlast._drill.lab.result import DrillResult
from outlast._drill.shown.figures import verdict
from outlast._drill.shown.live import LiveView
from outlast._drill.shown.report import render_report
from outlast._drill.shown.summary import print_summary

TIMELINE = LogTimeline(
    bin_s=5.0,
    t_s=(-5.0, 0.0, 5.0, 10.0),
    lines=(0, 90_000, 90_000, 0),
    attempts=(2500, 90_000, 90_000, 2500),
    cpu_s=(0.1, 4.0, 4.0, 0.1),
    jobs=(0, 0, 0, 0),
    changes=(0, 0, 0, 0),
    stored=(2500, 5, 0, 2500),
    refused=(0, 90_000, 90_000, 0),
    reads=(100, 99, 98, 100),
)


def arm(name: str = "outlast", **changes: object) -> LogArm:
    """An arm that keeps every promise of a fault of 20 s."""
    good = LogArm(
        **SHARED,
        arm=name,
        log_lines=4,
        attempts=12,
        cpu_before_percent=2.0,
        cpu_outage_percent=60.0,
        twice=0,
        loops=8,
        lines_outage=3,
        lines_total=6,
        attempts_total=2000,
        outage_s=20.0,
        fed_until_s=30.0,
        timeline=TIMELINE,
        heals=True,
        recovery_s=0.7,
        acknowledged=5005,
        acknowledged_outage=5,
        refused=180_000,
        unknown=0,
        phantom=0,
        readable=5005,
        hung_up=0,
        append_ms_p50=0.4,
        append_ms_p99=2.1,
        refusal_ms_p50=0.2,
        refusal_ms_p99=0.9,
        errors=1,
        errors_first=("exhausted: low space",),
        transitions=1,
        critical_lines=1,
        rss_growth_mib=3.0,
        reads=395,
        reads_failed=0,
        read_gap_s=0.06,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def result(*arms: LogArm, fault: str = "full") -> DrillResult[LogArm]:
    return DrillResult(
        drill="fluvio",
        fault=fault,
        summary="somebody fills the disk",
        seed=7,
        outage_s=20.0,
        loops=8,
        started_at="2026-01-02T03:04:05+00:00",
        command="outlast drill fluvio --seed 7",
        machine={"python": "3.11.0", "disk": "tmpfs of 64.0 MiB"},
        arms=arms or (arm(),),
        promises=check(arm(), fault),
    )


def test_the_json_has_the_shape_of_every_drill() -> None:
    found = json.loads(result().dumps())
    assert set(found["arms"][0]) == {item.name for item in fields(LogArm)}
    assert {"log_lines", "attempts", "lost", "phantom", "twice", "recovery_s", "refusal_ms_p99"} <= set(found["arms"][0])
    timeline = found["arms"][0]["timeline"]
    assert {"t_s", "lines", "attempts", "cpu_s", "jobs", "changes", "stored", "refused", "reads"} == set(timeline) - {"bin_s"}
    assert found["exit_code"] == 0


@pytest.mark.parametrize("fault", DISK_FAULTS)
def test_a_good_arm_keeps_all_promises_of_every_fault(fault: str) -> None:
    promises = (*check(arm(), fault), *compare(arm(), arm("naive", attempts=100_000), fault))
    assert [promise.name for promise in promises if not promise.held] == []
    assert all(promise.reason for promise in promises)


@pytest.mark.parametrize(
    ("change", "name", "fault"),
    [
        ({"log_lines": 7}, "log lines", "full"),
        ({"hung_up": 1}, "connections hung up", "full"),
        ({"errors": 2}, "different errors", "full"),
        ({"refusal_ms_p99": 50.1}, "refusal, p99", "full"),
        ({"refusal_ms_p99": None}, "refusal, p99", "full-at-once"),
        ({"rss_growth_mib": 32.1}, "memory grown", "full"),
        ({"reads_failed": 1}, "reads failed", "full"),
        ({"reads": 0}, "reads failed", "full"),
        ({"read_gap_s": 1.1}, "time without a read", "full"),
        ({"recovery_s": 2.1}, "appends again", "full"),
        ({"recovery_s": None}, "appends again", "oscillating"),
        ({"transitions": 3}, "changes of state", "oscillating"),
        ({"critical_lines": 0}, "CRITICAL lines", "eio"),
        ({"critical_lines": 2}, "CRITICAL lines", "read-only"),
        ({"lost": 1}, "records lost", "full"),
        ({"phantom": 1}, "phantom records", "eio"),
        ({"twice": 1}, "records twice", "full"),
        ({"exit_code": 1}, "exit code after SIGTERM", "full"),
        ({"exit_code": -9}, "exit code after SIGTERM", "eio"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], name: str, fault: str) -> None:
    assert [promise.name for promise in check(arm(**change), fault) if not promise.held] == [name]


def test_writes_are_compared_with_those_of_the_naive_arm() -> None:
    assert [promise.held for promise in compare(arm(attempts=200), arm("naive", attempts=10_000), "full")] == [True]
    assert [promise.held for promise in compare(arm(attempts=201), arm("naive", attempts=10_000), "full")] == [False]
    assert [promise.limit for promise in compare(arm(), arm("naive", attempts=5), "full")] == [20]
    assert compare(arm(), arm("naive"), "oscillating") == ()


def test_a_longer_swing_may_change_the_state_twice_a_minute() -> None:
    limits = {promise.name: promise.limit for promise in check(arm(outage_s=90.0), "oscillating")}
    assert limits["changes of state"] == 3


def test_a_storm_is_a_hundred_lines_a_second() -> None:
    assert stormed(arm("naive", lines_outage=2000), "full") is True
    assert stormed(arm("naive", lines_outage=1999), "eio") is False
    assert stormed(arm("naive", lines_outage=0), "oscillating") is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fault": "stop"}, "choose one of full"),
        ({"arms": ()}, "name each of naive, fluvio-fixed"),
        ({"outage_s": 0.0}, "outage and producers must be above 0"),
        ({"fault": "eio", "disk": "tmpfs"}, "'eio' cannot be staged on a disk of kind 'tmpfs'; choose faulty"),
        ({"fault": "full", "disk": "faulty"}, "choose tmpfs or ext4"),
        ({"size_mib": 15}, "at least 16"),
    ],
)
def test_what_cannot_be_run(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(DrillUsageError, match=words):
        FluvioOptions(**wrong).validate()  # type: ignore[arg-type]


def test_the_command_repeats_the_drill() -> None:
    assert FluvioOptions(fault="eio", arms=("naive",)).command == (
        "outlast drill fluvio --outage 20s --warmup 3s --cooldown 5s --fault eio --producers 8 --arms naive --seed 1"
        " --disk faulty --size 64"
    )


def test_it_takes_at_most_three_minutes() -> None:
    assert FluvioOptions().planned_s <= 180


def test_the_command_line_and_the_document_name_every_arm_fault_and_figure() -> None:
    assert tuple(DISK_FAULTS) == DISK_FAULT_NAMES
    text = (Path(__file__).parents[3] / "docs" / "drill.md").read_text(encoding="utf-8")
    figures = (
        "phantom",
        "refusal_ms_p99",
        "transitions",
        "rss_growth_mib",
        "reads_failed",
        "read_gap_s",
        "unknown",
        "errors",
        "hung_up",
        "append_ms_p99",
    )
    assert [name for name in (*LOG_ARMS, *DISK_FAULTS, *figures) if f"`{name}`" not in text] == []


def test_words() -> None:
    assert describe(arm()).endswith("appends were back 0.70 s after space was freed; no record lost, phantom or twice.")
    assert describe(arm(recovery_s=None, lost=3, phantom=2)).endswith("appends never came back; 3 lost, 2 refused and stored.")
    lost = arm(heals=False, recovery_s=None, refusal_ms_p99=None, reads_failed=4)
    assert "the disk was lost for good" in describe(lost)
    cells = [column.cell(lost) for column in COLUMNS]
    assert cells.count("–") == 2
    assert "395, 4 failed" in cells


def test_the_summary_has_every_arm_and_figure() -> None:
    text = printed(lambda console: print_summary(FLUVIO, result(arm("naive"), arm()), console))
    for words in (
        "naive",
        "outlast",
        "phantom, records",
        "appends, again",
        "producers 8 in each arm",
        "full for 20 s",
        "kept all 12",
    ):
        assert words in text, words


def test_both_arms_of_ours_are_held_to_the_promises() -> None:
    assert FLUVIO.proven == ("outlast", "outlast-http")
    both = (*check(arm(), "full"), *(replace(each, arm="outlast-http") for each in check(arm(lost=1), "full")))
    found = replace(result(arm(), arm("outlast-http")), promises=both)
    assert verdict(found) == "The outlast-http arm broke 1 of 24 promises: records lost."
    assert verdict(replace(found, promises=both[:13])) == "The outlast and outlast-http arms kept all 13 promises."
    text = printed(lambda console: print_summary(FLUVIO, found, console))
    assert "kept   outlast, records lost: 0" in text
    assert "BROKEN outlast-http, records lost: 1" in text
    assert "Promises of outlast and outlast-http<" in render_report(FLUVIO, found)


def test_the_report_draws_every_series_of_every_arm_and_marks_the_fault() -> None:
    html = render_report(FLUVIO, result(arm("naive"), arm()))
    assert html.count("<svg") == 2
    for words in (*(series.label for series in SERIES), "full, 20 s", "a kind of service"):
        assert html.count(f">{words}<") == 2, words
    assert "logarithmic scale: log lines / s, writes / s, refused / s, stored / s." in html
    assert "what its clients were told" in html


def test_what_is_shown_meanwhile_has_the_clients() -> None:
    sample = Sample(1234.0, 987.0, 55.0, 0.0, 0.0, stored_per_s=401.0, refused_per_s=21.0)
    assert all(words in live_text(sample, SERIES) for words in ("1,234", "987", "401", "21", "55 %", "stored/s"))
    assert plain_text(sample, SERIES) == "1,234 lines/s, 987 attempts/s, 21 refused/s, 401 stored/s, CPU 55 %"


def test_the_live_table_fits_the_narrowest_terminal_that_gets_one() -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, width=LIVE_COLUMNS_MIN, force_terminal=True)
    view = LiveView(console, tuple(LOG_ARMS), planned_s=60.0, title="drill", series=SERIES)
    view.arm_state("fluvio-fixed", ArmState.RECOVERY, 10.0)
    for _ in range(200):
        view.arm_sample(
            "fluvio-fixed", Sample(12_345.0, 12_345.0, 100.0, 0.0, 0.0, stored_per_s=12_345.0, refused_per_s=12_345.0)
        )
    table = view._table()
    assert Measurement.get(console, console.options.update(max_width=1000), table).maximum <= LIVE_COLUMNS_MIN
