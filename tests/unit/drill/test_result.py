"""The result of a drill: its JSON, its promises, its words, its pictures, what is shown while it runs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from drill_arms import SHARED
from rich.console import Console

from outlast._drill.coder.drill import ARMS, CODER, CoderOptions
from outlast._drill.coder.faults import FAULTS
from outlast._drill.coder.figures import COLUMNS, JobsArm
from outlast._drill.coder.promises import LIMITS, STORM_FAULTS, check, recovery_limit_s, stormed
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.observer import ArmState, Sample, Silent
from outlast._drill.lab.result import EMPTY_TIMELINE, DrillResult, Promise, Timeline
from outlast._drill.shown.figures import promise_line, verdict
from outlast._drill.shown.live import LiveView, PlainView, condense, sparkline
from outlast._drill.shown.report import render_report, write_report
from outlast._drill.shown.summary import print_summary

TIMELINE = Timeline(
    bin_s=5.0,
    t_s=tuple(index * 5.0 - 5.0 for index in range(15)),
    lines=tuple(300 if 1 <= index < 13 else 0 for index in range(15)),
    attempts=tuple(200 if 1 <= index < 13 else 1 for index in range(15)),
    cpu_s=tuple(4.5 if 1 <= index < 13 else 0.5 for index in range(15)),
    jobs=tuple(0 if 1 <= index < 13 else 250 for index in range(15)),
    changes=(0,) * 15,
)


def arm(name: str = "outlast", **changes: object) -> JobsArm:
    """An arm that keeps every promise of a minute's outage."""
    good = JobsArm(
        **SHARED,
        arm=name,
        log_lines=5,
        attempts=55,
        cpu_before_percent=20.0,
        cpu_outage_percent=0.4,
        recovery_s_p50=0.9,
        recovery_s_max=1.4,
        twice=0,
        loops=50,
        loops_recovered=50,
        loops_dead=0,
        jobs_before=4000,
        jobs_during=50,
        jobs_after=9000,
        jobs_enqueued=13050,
        throughput_percent=95.0,
        cancels=0,
        sessions_max=12,
        payments=175,
        payments_lost=0,
        payments_twice=0,
        payments_in_vain=3,
        lines_outage=4,
        lines_total=7,
        attempts_total=80,
        outage_s=60.0,
        fed_until_s=70.0,
        timeline=TIMELINE,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def result(*arms: JobsArm, **changes: object) -> DrillResult[JobsArm]:
    found = DrillResult(
        drill="coder",
        fault="stop",
        summary="somebody pulls the plug",
        seed=7,
        outage_s=60.0,
        loops=50,
        started_at="2026-01-02T03:04:05+00:00",
        command="outlast drill coder --seed 7",
        machine={"python": "3.11.0"},
        arms=arms or (arm(),),
        promises=check(arm(), "stop"),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


# The shape.


def test_the_json_has_the_keys_that_every_drill_has() -> None:
    found = json.loads(result().dumps())
    assert {"drill", "fault", "seed", "outage_s", "loops", "started_at", "machine", "arms", "promises"} <= set(found)
    one = found["arms"][0]
    named = {"arm", "log_lines", "log_bytes", "attempts", "cpu_s", "cpu_outage_percent", "rss_peak_mib", "lost", "twice"}
    assert named | {"recovery_s_p50", "recovery_s_max", "connects_100ms_max", "loops_recovered", "exit_code"} <= set(one)
    assert {"t_s", "lines", "attempts", "jobs"} <= set(one["timeline"])
    assert set(one) == {item.name for item in fields(JobsArm)}
    assert {"name", "limit", "value", "held"} <= set(found["promises"][0])
    assert found["exit_code"] == 0


def test_what_was_not_measured_is_null() -> None:
    found = json.loads(result(arm(recovery_s_max=None, exit_code=None)).dumps())
    assert found["arms"][0]["recovery_s_max"] is None
    assert found["arms"][0]["exit_code"] is None


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        result(machine={"python": {1}}).dumps()


def test_an_arm_is_found_by_its_name() -> None:
    found = result(arm("naive"), arm("outlast"))
    assert found.arm("naive") is found.arms[0]
    assert found.arm("tenacity") is None


# Exit codes.

BROKEN = Promise(name="jobs lost", limit=0, value=3, held=False)


@pytest.mark.parametrize(
    ("promises", "storm", "code"),
    [((), None, 0), ((), True, 0), ((), False, 2), ((BROKEN,), True, 1), ((BROKEN,), False, 1)],
)
def test_exit_codes(promises: tuple[Promise, ...], storm: bool | None, code: int) -> None:  # noqa: FBT001
    assert result(promises=promises, stormed=storm).exit_code == code


# Promises.


def test_a_good_arm_keeps_them_all() -> None:
    assert [promise.name for promise in check(arm(), "stop") if not promise.held] == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"log_lines": 13}, "log lines"),
        ({"log_lines": 9, "payments": 0}, "log lines"),
        ({"payments_in_vain": 51}, "payments begun in vain"),
        ({"payments_lost": 1}, "payments lost"),
        ({"payments_twice": 1}, "payments made twice"),
        ({"attempts": 101}, "connection attempts"),
        ({"cpu_outage_percent": 1.01}, "CPU during the outage"),
        ({"recovery_s_max": 2.01}, "every loop has done a job"),
        ({"recovery_s_max": None}, "every loop has done a job"),
        ({"connects_100ms_max": 11}, "connects in any 100 ms"),
        ({"lost": 1}, "jobs lost"),
        ({"twice": 1}, "jobs run twice"),
        ({"exit_code": 1}, "exit code after SIGTERM"),
        ({"exit_code": -9}, "exit code after SIGTERM"),
        ({"exit_code": None}, "exit code after SIGTERM"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], name: str) -> None:
    assert [promise.name for promise in check(arm(**change), "stop") if not promise.held] == [name]


@pytest.mark.parametrize("fault", ["row-lock", "tablespace-full"])
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"sessions_max": 14}, "sessions on the server"),
        ({"sessions_max": None}, "sessions on the server"),
        ({"throughput_percent": 49.0}, "jobs slowed down"),
        ({"attempts": 161}, "connection attempts"),
    ],
)
def test_what_one_statement_meets_has_promises_of_its_own(fault: str, change: dict[str, object], name: str) -> None:
    assert [promise.name for promise in check(arm(cpu_outage_percent=30.0), fault) if not promise.held] == []
    assert [promise.name for promise in check(arm(**change), fault) if not promise.held] == [name]


def test_the_limits_of_a_minute_are_those_of_the_issue() -> None:
    limits = {promise.name: promise.limit for promise in check(arm(payments=0), "stop")}
    assert limits["log lines"] == 8
    assert limits["connection attempts"] == 100
    assert limits["CPU during the outage"] == 1.0
    assert limits["every loop has done a job"] == 2.0
    assert limits["connects in any 100 ms"] == 10


def test_only_the_ramp_and_the_job_give_more_loops_more_time() -> None:
    assert recovery_limit_s(50, 0.05) == pytest.approx(2.0)
    assert recovery_limit_s(1000, 0.05) == pytest.approx(3.5)
    assert recovery_limit_s(1000, 0.5) == pytest.approx(3.95)
    limits = [{promise.name: promise.limit for promise in check(arm(loops=loops), "stop")} for loops in (50, 1000)]
    assert [name for name in limits[0] if limits[0][name] != limits[1][name]] == [
        "every loop has done a job",
        "payments begun in vain",
    ]


def test_a_short_outage_may_cost_its_beginning() -> None:
    (cpu,) = (promise for promise in check(arm(outage_s=4.0), "stop") if "CPU" in promise.name)
    assert cpu.limit == pytest.approx(5.0)


def test_every_fault_has_limits_and_every_limit_a_fault() -> None:
    assert set(LIMITS) == set(FAULTS)
    assert set(FAULTS) >= STORM_FAULTS
    for fault in FAULTS:
        assert all(promise.reason for promise in check(arm(), fault))


def test_a_storm_is_a_hundred_lines_a_second() -> None:
    assert stormed(arm("naive", lines_outage=6000), "stop") is True
    assert stormed(arm("naive", lines_outage=5999), "refuse") is False
    assert stormed(arm("naive", lines_outage=0), "freeze") is None


# Words.


def test_an_arm_that_died_says_so_in_its_columns() -> None:
    dead = arm("procrastinate", recovery_s_p50=None, recovery_s_max=None, loops_recovered=0, exit_code=1, stop_s=None)
    assert {"never", "0/50 loops", "1, died"} <= {column.cell(dead) for column in COLUMNS}


def test_a_promise_in_words() -> None:
    assert promise_line(Promise("jobs lost", 0, 3, held=False)) == "outlast, jobs lost: 3 (must be 0)"
    assert promise_line(Promise("wait", 2.0, 1.234, held=True, unit="s")) == "outlast, wait: 1.234 s (at most 2 s)"
    assert promise_line(Promise("wait", 2.0, None, held=False, unit="s")) == "outlast, wait: none measured (at most 2 s)"


def test_verdicts() -> None:
    assert verdict(result()) == "The outlast arm kept all 11 promises."
    assert "broke 1 of 1 promises: jobs lost" in verdict(result(promises=(BROKEN,)))
    assert "proves nothing" in verdict(result(stormed=False))
    assert "did not run" in verdict(result(promises=()))


# Options.


def test_the_command_repeats_the_drill_without_the_address() -> None:
    options = CoderOptions(
        outage_s=1.5, arms=("naive", "outlast"), seed=9, parallel=True, fault="refuse", dsn="host=h password=x"
    )
    assert options.command == (
        "outlast drill coder --outage 1.5s --warmup 5s --cooldown 10s --fault refuse --loops 50 --arms naive,outlast"
        " --seed 9 --parallel --dsn DSN"
    )


def test_jobs_grow_longer_so_that_a_machine_can_keep_up() -> None:
    assert CoderOptions(loops=50).work_s == pytest.approx(0.05)
    assert CoderOptions(loops=1000).work_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fault": "flood"}, "unknown fault 'flood'"),
        ({"arms": ("naive", "nobody")}, "name each of naive"),
        ({"arms": ("naive", "naive")}, "at most once"),
        ({"arms": ()}, "name each of naive"),
        ({"outage_s": 0.0}, "above 0"),
        ({"loops": 0}, "above 0"),
        ({"dsn": "host=h", "fault": "stop"}, "refuse, kill-backends, flap"),
    ],
)
def test_options_that_cannot_be_run(change: dict[str, object], words: str) -> None:
    with pytest.raises(DrillUsageError, match=re.escape(words)):
        replace(CoderOptions(), **change).validate()  # type: ignore[arg-type]


def test_the_document_names_every_arm_every_fault_and_every_figure() -> None:
    text = (Path(__file__).parents[3] / "docs" / "drill.md").read_text(encoding="utf-8")
    figures = ("log_lines", "attempts", "cpu_outage_percent", "recovery_s_max", "connects_100ms_max", "lost", "twice")
    assert [name for name in (*ARMS, *FAULTS, *figures) if f"`{name}`" not in text] == []


# What is shown.


def text_of(draw: object) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=100)
    draw(console)  # type: ignore[operator]
    return buffer.getvalue()


def test_the_summary_has_every_arm_every_figure_and_the_verdict() -> None:
    found = result(arm("naive", notes=("44 results were lost",)), arm())
    shown = text_of(lambda console: print_summary(CODER, found, console))
    for word in ("naive", "outlast", "log lines", "recovery, last loop", "44 results were lost", "kept", "stop for 60 s"):
        assert word in shown
    assert shown.rstrip().endswith("The outlast arm kept all 11 promises.")


def test_plain_progress_is_one_line_a_phase() -> None:
    def play(console: Console) -> None:
        with PlainView(console, CODER.series) as view:
            view.arm_state("naive", ArmState.WAITING)
            view.arm_state("naive", ArmState.OUTAGE, 20.0)
            view.arm_sample("naive", Sample(1, 2, 3, 4, 5))
            view.arm_done("naive", CODER.describe(arm("naive", recovery_s_max=None, loops_recovered=0)))

    lines = text_of(play).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("naive: outage, 20 s")
    assert "50 of 50 loops never came back" in lines[1]


def test_the_live_view_shows_rates_only_of_the_arm_that_runs() -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, width=130, force_terminal=True)
    view = LiveView(console, ("naive", "outlast"), planned_s=60.0, title="drill", series=CODER.series)
    view.arm_state("naive", ArmState.OUTAGE, 20.0)
    view.arm_sample("naive", Sample(1234.0, 987.0, 99.0, 0.0, 0.0))
    view.arm_done("naive", "words")
    console.print(view._render())
    shown = buffer.getvalue()
    assert "1,234" in shown
    assert "987" in shown
    assert "0 of 2 arms done" in shown
    assert "waiting" in shown


def test_sparklines() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 5, 10]) == "▁▅█"


def test_a_sparkline_of_a_long_run_keeps_its_peaks() -> None:
    values = [0.0] * 1000
    values[500] = 9.0
    assert condense(values, 10) == [0, 0, 0, 0, 0, 9, 0, 0, 0, 0]
    assert condense([1, 2], 10) == [1, 2]
    assert len(condense(list(range(37)), 10)) == 10


def test_a_narrow_terminal_still_shows_every_number() -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, force_terminal=True)
    view = LiveView(console, tuple(ARMS), planned_s=60.0, title="drill", series=CODER.series)
    view.arm_state("procrastinate", ArmState.RECOVERY, 10.0)
    for _ in range(100):
        view.arm_sample("procrastinate", Sample(12_345.0, 98_765.0, 100.0, 4_321.0, 0.0))
    console.print(view._table())
    shown = buffer.getvalue()
    for text in ("procrastinate", "recovery 10 s", "12,345", "98,765", "4,321", "100 %"):
        assert text in shown


def test_the_silent_observer_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Silent()
    silent.arm_state("naive", ArmState.DONE)
    silent.arm_sample("naive", Sample(1, 2, 3, 4, 5))
    silent.arm_done("naive", "words")
    assert capsys.readouterr() == ("", "")


# The report.


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_report_needs_nothing_else_and_has_a_picture_an_arm(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    write_report(CODER, result(arm("naive", log_lines=12_345), arm()), path)
    html = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert sum(1 for tag, _ in tags.found if tag == "svg") == 2
    assert not [tag for tag, _ in tags.found if tag in {"script", "link", "img", "iframe"}]
    addresses = [value for _, attributes in tags.found for name, value in attributes.items() if name in {"src", "href"}]
    assert not [address for address in addresses if address and not address.startswith("#")]
    for words in ("outlast drill coder --seed 7", "12,345", "The outlast arm kept all 11 promises.", "log lines / s"):
        assert words in html


def test_what_arms_write_cannot_break_the_report() -> None:
    html = render_report(CODER, result(arm(log_first=("<script>alert(1)</script>",), notes=("<b>bold</b>",))))
    assert "<script>" not in html
    assert "<b>bold" not in html


def test_ids_in_one_picture_are_not_those_of_another() -> None:
    html = render_report(CODER, result(arm("naive"), arm("outlast")))
    ids = re.findall(r'<clipPath id="([^"]+)"', html)
    assert ids
    assert len(ids) == len(set(ids))


def test_an_arm_without_a_timeline_still_gets_its_panel() -> None:
    empty = EMPTY_TIMELINE
    assert "<svg" in render_report(CODER, result(arm(timeline=empty, log_first=())))
