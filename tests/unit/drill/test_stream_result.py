"""The result of the electric drill: its promises, its options, its words, its pictures, what is shown while it runs."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from drill_arms import SHARED, live_text, plain_text, printed

from outlast._cli.drill import FAULT_NAMES, SLOT_FAULT_NAMES
from outlast._drill.coder.faults import FAULTS
from outlast._drill.electric.drill import ELECTRIC, ELECTRIC_ARMS, ElectricOptions
from outlast._drill.electric.faults import SLOT_FAULTS
from outlast._drill.electric.figures import COLUMNS, SERIES, StreamArm, describe
from outlast._drill.electric.promises import STORM_FAULTS, check, stormed
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.observer import Sample
from outlast._drill.lab.result import DrillResult, Timeline
from outlast._drill.shown.report import render_report
from outlast._drill.shown.summary import print_summary

TIMELINE = Timeline(
    bin_s=5.0,
    t_s=(-5.0, 0.0, 5.0, 10.0),
    lines=(0, 2000, 10, 0),
    attempts=(0, 1000, 10, 0),
    cpu_s=(0.1, 4.0, 0.1, 0.1),
    jobs=(2000, 0, 2000, 2000),
    changes=(100, 0, 1000, 100),
)


def arm(name: str = "outlast", **changes: object) -> StreamArm:
    """An arm that keeps every promise of a fault of 90 s."""
    good = StreamArm(
        **SHARED,
        arm=name,
        log_lines=6,
        attempts=15,
        cpu_before_percent=2.0,
        cpu_outage_percent=2.5,
        twice=2,
        loops=20,
        lines_outage=5,
        lines_total=9,
        attempts_total=20,
        outage_s=90.0,
        fed_until_s=14.0,
        timeline=TIMELINE,
        heals=True,
        recovery_s=0.02,
        changes=2000,
        throughput_percent=99.0,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def result(*arms: StreamArm, fault: str = "slot-taken") -> DrillResult[StreamArm]:
    return DrillResult(
        drill="electric",
        fault=fault,
        summary="somebody pulls the plug",
        seed=7,
        outage_s=90.0,
        loops=20,
        started_at="2026-01-02T03:04:05+00:00",
        command="outlast drill electric --seed 7",
        machine={"python": "3.11.0"},
        arms=arms or (arm(),),
        promises=check(arm(), fault),
    )


def test_the_json_has_the_shape_of_every_drill() -> None:
    found = json.loads(result().dumps())
    assert set(found["arms"][0]) == {item.name for item in fields(StreamArm)}
    assert {"t_s", "lines", "attempts", "cpu_s", "jobs", "changes"} <= set(found["arms"][0]["timeline"])
    assert found["exit_code"] == 0


@pytest.mark.parametrize("fault", SLOT_FAULTS)
def test_a_good_arm_keeps_all_promises_of_every_fault(fault: str) -> None:
    promises = check(arm(), fault)
    assert [promise.name for promise in promises if not promise.held] == []
    assert all(promise.reason for promise in promises)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"lines_outage": 6}, "log lines"),
        ({"attempts": 16}, "connection attempts"),
        ({"cpu_outage_percent": 3.01}, "CPU beyond that of before"),
        ({"throughput_percent": 94.9}, "other loops slower by"),
        ({"recovery_s": 1.01}, "streams again"),
        ({"recovery_s": None}, "streams again"),
        ({"lost": 1}, "changes lost"),
        ({"lost": None}, "changes lost"),
        ({"exit_code": 1}, "exit code after SIGTERM"),
        ({"exit_code": -9}, "exit code after SIGTERM"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], name: str) -> None:
    assert [promise.name for promise in check(arm(**change), "slot-taken") if not promise.held] == [name]


def test_a_killed_owner_is_followed_within_a_quarter_of_a_second() -> None:
    limits = {promise.name: promise.limit for promise in check(arm(), "owner-killed")}
    assert limits["streams again"] == 0.25


def test_a_storm_is_twenty_lines_a_second() -> None:
    assert stormed(arm("naive", lines_outage=1800), "slot-taken") is True
    assert stormed(arm("naive", lines_outage=1799), "slot-lost") is False
    assert stormed(arm("naive", lines_outage=0), "owner-killed") is None
    assert set(SLOT_FAULTS) >= STORM_FAULTS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fault": "stop"}, "choose one of slot-taken"),
        ({"arms": ()}, "name each of naive, backoff, outlast"),
        ({"arms": ("naive", "naive")}, "at most once"),
        ({"outage_s": 0.0}, "above 0"),
        ({"warmup_s": 0.0}, "warm-up must be above 0"),
    ],
)
def test_what_cannot_be_run(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(DrillUsageError, match=words):
        ElectricOptions(**wrong).validate()  # type: ignore[arg-type]


def test_the_command_repeats_the_drill() -> None:
    assert ElectricOptions(fault="slot-lost", parallel=True).command == (
        "outlast drill electric --outage 20s --warmup 5s --cooldown 10s --fault slot-lost --loops 20 --arms naive,backoff,outlast"
        " --seed 1 --parallel"
    )


def test_the_command_line_and_the_document_name_every_arm_fault_and_figure() -> None:
    assert (tuple(SLOT_FAULTS), set(FAULTS)) == (SLOT_FAULT_NAMES, set(FAULT_NAMES))
    text = (Path(__file__).parents[3] / "docs" / "drill.md").read_text(encoding="utf-8")
    figures = ("cpu_before_percent", "throughput_percent", "recovery_s", "changes", "lines_outage")
    assert [name for name in (*ELECTRIC_ARMS, *SLOT_FAULTS, *figures) if f"`{name}`" not in text] == []


def test_words() -> None:
    assert describe(arm()).endswith("99 % of their work during the fault; the stream was back after 0.02 s; no change lost.")
    lost = arm(heals=False, recovery_s=None, lost=None)
    assert describe(lost).endswith("the stream cannot go on.")
    assert [column.cell(lost) for column in COLUMNS if "changes" not in column.title].count("–") == 2
    assert describe(arm(recovery_s=None, lost=3)).endswith("the stream never came back; 3 changes lost.")


def test_the_summary_has_every_arm_and_figure() -> None:
    text = printed(lambda console: print_summary(ELECTRIC, result(arm("naive"), arm()), console))
    for words in (
        "naive",
        "outlast",
        "other loops",
        "streams, again",
        "log lines, outage",
        "slot-taken for 90 s",
        "kept all 7 promises",
    ):
        assert words in text


def test_the_report_draws_every_series_of_every_arm_and_marks_the_fault() -> None:
    html = render_report(ELECTRIC, result(arm("naive"), arm()))
    assert html.count("<svg") == 2
    for words in (*(series.label for series in SERIES), "slot-taken, 90 s", "a kind of service"):
        assert html.count(f">{words}<") == 2, words
    assert "logarithmic scale: log lines / s, connects / s, changes / s." in html


def test_what_is_shown_meanwhile_has_the_changes_and_the_other_loops() -> None:
    sample = Sample(lines_per_s=1234.0, attempts_per_s=987.0, cpu_percent=55.0, jobs_per_s=401.0, changes_per_s=21.0)
    assert all(words in live_text(sample, SERIES) for words in ("1,234", "987", "401", "21", "55 %", "changes/s"))
    assert plain_text(sample, SERIES) == "1,234 lines/s, 987 attempts/s, 401 jobs/s, 21 changes/s, CPU 55 %"
