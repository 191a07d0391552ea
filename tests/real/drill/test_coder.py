"""Short drills on real servers, held to what can be counted."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from outlast._drill.coder.drill import ARMS, CODER, CoderOptions
from outlast._drill.coder.run import JobsRun
from outlast._drill.lab.arm.process import ServiceProcess
from outlast._drill.lab.errors import DrillCancelled, DrillError
from outlast._drill.lab.observer import ArmState, Sample, Silent

if TYPE_CHECKING:
    from outlast._drill.coder.figures import JobsArm
    from outlast._drill.lab.result import DrillResult


class Notes(Silent):
    """Remembers the phases, and cancels when one of them begins."""

    def __init__(self, cancel_at: ArmState | None = None) -> None:
        self.phases: list[tuple[str, ArmState]] = []
        self.samples: list[Sample] = []
        self.cancel = threading.Event()
        self._cancel_at = cancel_at

    def arm_state(self, arm: str, phase: ArmState, lasts_s: float | None = None) -> None:
        self.phases.append((arm, phase))
        if phase is self._cancel_at:
            self.cancel.set()

    def arm_sample(self, arm: str, sample: Sample) -> None:
        self.samples.append(sample)


def drill(**chosen: object) -> DrillResult[JobsArm]:
    options = CoderOptions(loops=20, warmup_s=0.3, cooldown_s=2.5, seed=3, **chosen)  # type: ignore[arg-type]
    return CODER.run(options, Silent())


def assert_counts(arm: JobsArm) -> None:
    """What the outlast arm promises and a busy machine cannot excuse."""
    assert (arm.lost, arm.twice, arm.exit_code) == (0, 0, 0)
    assert arm.loops_recovered == arm.loops
    assert (arm.payments_lost, arm.payments_twice) == (0, 0)
    assert arm.payments_in_vain <= arm.loops
    assert arm.log_lines <= 12


def test_while_the_server_is_stopped_naive_storms_and_outlast_is_quiet() -> None:
    notes = Notes()
    options = CoderOptions(outage_s=3.0, loops=20, arms=("naive", "outlast"), warmup_s=0.5, cooldown_s=2.5, seed=3)
    result = CODER.run(options, notes)
    naive, outlast = result.arms
    assert result.stormed is not None
    assert naive.lines_outage > 20 * outlast.lines_outage
    assert naive.attempts > 10 * outlast.attempts
    assert_counts(outlast)
    assert outlast.attempts <= 40 + outlast.outage_s
    assert {promise.name for promise in result.promises} >= {"log lines", "jobs lost", "every loop has done a job"}
    # What was counted in bins is what was counted in all.
    for arm in result.arms:
        assert arm.jobs_before + arm.jobs_during + arm.jobs_after == sum(arm.timeline.jobs) >= arm.jobs_enqueued - arm.lost
        assert sum(arm.timeline.attempts) == arm.attempts_total
        assert sum(arm.timeline.lines) == arm.lines_total
    order = [*ArmState][1:]
    assert notes.phases[2:] == [(name, phase) for name in ("naive", "outlast") for phase in order]
    assert notes.samples


@pytest.mark.parametrize("fault", ["refuse", "freeze", "readonly", "kill-backends", "flap"])
def test_outlast_keeps_its_counts_under_every_other_fault(fault: str) -> None:
    result = drill(fault=fault, outage_s=2.5, arms=("outlast",))
    assert result.stormed is None
    assert_counts(result.arms[0])


@pytest.mark.parametrize("fault", ["row-lock", pytest.param("tablespace-full", marks=pytest.mark.root)])
def test_what_one_statement_meets_concerns_that_statement(fault: str) -> None:
    """The lock is held for longer than the ledger's deadline, so that statements are given up meanwhile."""
    (arm,) = drill(fault=fault, outage_s=5.0, arms=("outlast",)).arms
    assert (arm.lost, arm.twice, arm.exit_code, arm.payments_lost, arm.payments_twice) == (0, 0, 0, 0, 0)
    assert arm.loops_recovered == arm.loops
    assert arm.log_lines <= 18
    assert arm.sessions_max is not None
    assert 1 <= arm.sessions_max <= 13
    assert arm.jobs_during > 0
    if fault == "row-lock":
        assert arm.cancels > 0


def test_a_given_server_is_used_through_a_database_of_the_drills_own(database: str) -> None:
    with psycopg.connect(database) as conn:
        names = "SELECT count(*) FROM pg_database WHERE datname LIKE 'outlast_drill_%'"
        result = drill(fault="refuse", outage_s=1.0, arms=("outlast",), dsn=database)
        assert_counts(result.arms[0])
        assert conn.execute(names).fetchone() == (0,)


def test_the_arms_may_run_at_once() -> None:
    result = drill(outage_s=1.0, arms=("coder-fixed", "outlast"), parallel=True)
    assert [arm.arm for arm in result.arms] == ["coder-fixed", "outlast"]
    assert_counts(result.arms[1])


@pytest.mark.parametrize("phase", [ArmState.HEALTHY, ArmState.OUTAGE, ArmState.RECOVERY])
def test_a_cancelled_drill_leaves_nothing_behind(phase: ArmState) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    notes = Notes(cancel_at=phase)
    long_s = {ArmState.HEALTHY: (30.0, 1.0), ArmState.OUTAGE: (0.2, 30.0), ArmState.RECOVERY: (0.2, 0.5)}[phase]
    options = CoderOptions(warmup_s=long_s[0], outage_s=long_s[1], loops=5, arms=("naive",), cooldown_s=30.0)
    with pytest.raises(DrillCancelled):
        CODER.run(options, notes, notes.cancel)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("drill-")]


def test_an_arm_that_cannot_start_is_named_with_its_last_words() -> None:
    broken = replace(ARMS["naive"], module="outlast.nowhere")
    with pytest.raises(DrillError, match=r"arm naive: 0 of 1 loops .* exit code 1.*No module named outlast.nowhere"):
        JobsRun(CoderOptions(loops=1), broken, Silent(), threading.Event()).run()


def test_an_address_without_a_server_is_one_error() -> None:
    with pytest.raises(DrillError, match="could not create a database"):
        drill(fault="refuse", outage_s=1.0, arms=("outlast",), dsn="host=127.0.0.1 port=1 user=nobody")


# The process under test.


def run(program: str) -> ServiceProcess:
    return ServiceProcess([sys.executable, "-c", program], {})


def test_a_process_is_stopped_by_sigterm_and_all_its_output_counted() -> None:
    program = "import sys, time\nfor n in range(500): print(n)\nprint('err', file=sys.stderr, flush=True)\ntime.sleep(60)"
    with run(program) as process:
        while process.output.lines_total < 501:
            time.sleep(0.01)
        process.sample()
        code, _ = process.stop(10.0)
    assert code == -15
    assert process.rss_peak_bytes > 1_000_000
    assert process.output.lines_total == 501


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    program = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
    with run(program) as process:
        while not process.output.lines_total:
            time.sleep(0.01)
        code, took_s = process.stop(0.2)
    assert code == -9
    assert took_s >= 0.2


def test_what_a_dead_process_used_is_still_known() -> None:
    with run("n = 0\nfor i in range(3_000_000): n += i\nprint(n, flush=True)\nimport time; time.sleep(0.5)") as process:
        while process.exit_code is None:
            process.sample()
            time.sleep(0.02)
        assert process.sample() > 0.0
        assert process.exit_code == 0
