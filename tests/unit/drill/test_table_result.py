"""The result of the greptime drill: its promises, its options, its words, its pictures, what is shown while it runs."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from drill_arms import SHARED, live_text, plain_text, printed

from outlast._cli.drill import TABLE_FAULT_NAMES
from outlast._drill.greptime.drill import GREPTIME, TABLE_ARMS, GreptimeOptions
from outlast._drill.greptime.faults import TABLE_FAULTS
from outlast._drill.greptime.figures import COLUMNS, SERIES, TableArm, TableTimeline, describe
from outlast._drill.greptime.promises import backoff_s_max, check, stormed
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.observer import Sample
from outlast._drill.lab.result import DrillResult
from outlast._drill.shown.report import render_report
from outlast._drill.shown.summary import print_summary

TIMELINE = TableTimeline(
    bin_s=5.0,
    t_s=(-5.0, 0.0, 5.0, 10.0),
    lines=(0, 4, 0, 1),
    attempts=(0, 3, 1, 0),
    cpu_s=(0.1, 1.0, 1.0, 0.1),
    jobs=(100, 100, 99, 100),
    changes=(0, 0, 0, 0),
    refused=(0, 5000, 3000, 1000),
    stored=(0, 0, 0, 4000),
    grown_kib=(80.0, 90.0, 90.0, 80.0),
)


def arm(name: str = "outlast", **changes: object) -> TableArm:
    """An arm that keeps every promise of a fault of 8 s."""
    good = TableArm(
        **SHARED,
        arm=name,
        log_lines=3,
        attempts=4,
        cpu_before_percent=5.0,
        cpu_outage_percent=30.0,
        twice=0,
        loops=1000,
        lines_outage=2,
        lines_total=5,
        attempts_total=4,
        outage_s=8.0,
        fed_until_s=17.0,
        timeline=TIMELINE,
        records=1,
        store_bytes=40_000,
        alarm=False,
        refused=9000,
        failed=30,
        pending=0,
        hung_up=0,
        refusal_ms_p50=0.4,
        refusal_ms_p99=2.5,
        failed_ms_p99=40.0,
        others_percent=100.0,
        others_ms_p99=31.0,
        others_ms_p99_before=25.0,
        heal_s=0.9,
        stored=4400,
        errors_first=("transient: cannot open a region",),
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def result(*arms: TableArm, fault: str = "refused") -> DrillResult[TableArm]:
    return DrillResult(
        drill="greptime",
        fault=fault,
        summary="a table cannot be made",
        seed=7,
        outage_s=8.0,
        loops=1000,
        started_at="2026-01-02T03:04:05+00:00",
        command="outlast drill greptime --seed 7",
        machine={"python": "3.11.0", "etcd": "3.4.23"},
        arms=arms or (arm(),),
        promises=check(arm(), fault),
    )


def test_the_json_has_the_shape_of_every_drill() -> None:
    found = json.loads(result().dumps())
    assert set(found["arms"][0]) == {item.name for item in fields(TableArm)}
    wanted = {"log_lines", "records", "store_bytes", "refusal_ms_p99", "others_percent", "heal_s", "lost"}
    assert wanted <= set(found["arms"][0])
    timeline = found["arms"][0]["timeline"]
    assert set(timeline) == {item.name for item in fields(TableTimeline)}
    assert found["exit_code"] == 0


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_a_good_arm_keeps_all_promises_of_every_fault(fault: str) -> None:
    promises = check(arm(), fault)
    assert [promise.name for promise in promises if not promise.held] == []
    assert all(promise.reason for promise in promises)


@pytest.mark.parametrize(
    ("change", "name", "fault"),
    [
        ({"log_lines": 7}, "log lines", "refused"),
        ({"records": 2}, "records of the bad table", "refused"),
        ({"records": None}, "records of the bad table", "hangs"),
        ({"store_bytes": (1 << 20) + 1}, "store growth", "refused"),
        ({"refusal_ms_p99": 20.1}, "refusal, p99", "refused"),
        ({"refusal_ms_p99": None}, "refusal, p99", "cleared"),
        ({"failed": 1001}, "waited for an attempt", "refused"),
        ({"failed": 9001}, "waited for an attempt", "hangs"),
        ({"hung_up": 1}, "writes hung up", "refused"),
        ({"others_percent": 94.9}, "others not served", "refused"),
        ({"heal_s": None}, "healed", "refused"),
        ({"heal_s": 17.1}, "healed", "refused"),
        ({"heal_s": 1.1}, "healed", "cleared"),
        ({"lost": 1}, "lost", "refused"),
        ({"exit_code": 1}, "exit code after SIGTERM", "refused"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], name: str, fault: str) -> None:
    assert [promise.name for promise in check(arm(**change), fault) if not promise.held] == [name]


def test_others_that_are_served_better_than_before_break_nothing() -> None:
    assert all(promise.held for promise in check(arm(others_percent=101.7), "refused"))


@pytest.mark.parametrize(("outage_s", "wait_s"), [(0.4, 1.0), (1.0, 2.0), (3.0, 4.0), (8.0, 16.0), (29.0, 32.0), (600.0, 60.0)])
def test_the_longest_wait_after_an_outage(outage_s: float, wait_s: float) -> None:
    assert backoff_s_max(outage_s) == wait_s


def test_a_storm_is_a_store_that_ran_full() -> None:
    assert stormed(arm("naive", alarm=True), "refused") is True
    assert stormed(arm("naive", log_lines=1_000_000), "hangs") is False


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fault": "stop"}, "choose one of refused"),
        ({"arms": ()}, "name each of naive, capped"),
        ({"loops": 0}, "outage and writes must be above 0"),
    ],
)
def test_what_cannot_be_run(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(DrillUsageError, match=words):
        GreptimeOptions(**wrong).validate()  # type: ignore[arg-type]


def test_the_command_repeats_the_drill() -> None:
    assert GreptimeOptions(fault="hangs", arms=("naive",)).command == (
        "outlast drill greptime --outage 8s --warmup 3s --cooldown 9s --fault hangs --writes 500 --arms naive --seed 1 --quota 16"
    )


def test_it_takes_at_most_three_minutes() -> None:
    assert GreptimeOptions().planned_s <= 180


def test_the_command_line_and_the_document_name_every_arm_fault_and_figure() -> None:
    assert tuple(TABLE_FAULTS) == TABLE_FAULT_NAMES
    text = (Path(__file__).parents[3] / "docs" / "drill.md").read_text(encoding="utf-8")
    own = {item.name for item in fields(TableArm)} - {"errors_first"}
    shared = {"cpu_s", "timeline", "log_first", "log_last", "notes", "summary", "arm", "loops", "work_s"}
    shared |= {"cpu_before_percent", "lines_total", "attempts_total", "fed_until_s", "log_bytes", "outage_s", "stop_s"}
    names = [name for name in (*TABLE_ARMS, *TABLE_FAULTS, *sorted(own - shared)) if f"`{name}`" not in text]
    assert names == []


def test_words() -> None:
    assert describe(arm()).endswith("others at 100 %; the table was written 0.90 s after the mending; nothing lost.")
    full = arm(alarm=True, heal_s=None, lost=14_000, records=None, store_bytes=16 << 20)
    assert describe(full).endswith(
        "– records, the store grew by 16.0 MiB; it refused every write in the end; others at 100 %;"
        " the table was never written; 14,000 lost."
    )
    cells = [column.cell(full) for column in COLUMNS]
    assert "NOSPACE" in cells
    assert "never" in cells
    assert "2.5 ms" in cells


def test_the_summary_has_every_arm_and_figure() -> None:
    text = printed(lambda console: print_summary(GREPTIME, result(arm("naive"), arm()), console))
    for words in (
        "naive",
        "outlast",
        "store, growth",
        "others, served",
        "refused for 8 s",
        "writes 1000 a second",
        "kept all 10",
    ):
        assert words in text, words


def test_the_report_draws_every_series_of_every_arm_and_marks_the_fault() -> None:
    html = render_report(GREPTIME, result(arm("naive"), arm()))
    assert html.count("<svg") == 2
    for words in (*(series.label for series in SERIES), "refused, 8 s", "a kind of service"):
        assert html.count(f">{words}<") == 2, words
    assert "the data node that it works on" in html


def test_what_is_shown_meanwhile_has_the_clients() -> None:
    sample = Sample(1234.0, 3.0, 55.0, 20.0, 0.0, refused_per_s=987.0)
    assert all(words in live_text(sample, SERIES) for words in ("1,234", "987", "20", "55 %", "jobs/s"))
    assert plain_text(sample, SERIES) == "1,234 lines/s, 3 attempts/s, 987 refused/s, 20 jobs/s, CPU 55 %"
