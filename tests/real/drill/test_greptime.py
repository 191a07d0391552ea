"""The greptime drill, short: its faults do what they say. Its arms naive and outlast run in `tests/real/cli/test_drill.py`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from outlast._drill.greptime.drill import GREPTIME, GreptimeOptions
from outlast._drill.greptime.http.drill import METRICS, MetricsOptions
from outlast._drill.greptime.http.promises import stormed
from outlast._drill.greptime.promises import check
from outlast._drill.lab.errors import DrillCancelled
from outlast._drill.lab.observer import ArmState, Silent

if TYPE_CHECKING:
    from outlast._drill.greptime.figures import TableArm


def options(name: str, *, fault: str = "refused", outage_s: float = 1.5, cooldown_s: float = 3.0) -> GreptimeOptions:
    return GreptimeOptions(arms=(name,), fault=fault, outage_s=outage_s, warmup_s=1.0, cooldown_s=cooldown_s, loops=300)


def drill(name: str, *, fault: str = "refused", cooldown_s: float = 3.0) -> TableArm:
    (arm,) = GREPTIME.run(options(name, fault=fault, cooldown_s=cooldown_s), Silent()).arms
    # What was counted in bins is what was counted in all.
    assert sum(arm.timeline.attempts) == arm.attempts_total
    assert sum(arm.timeline.lines) == arm.lines_total
    assert sum(arm.timeline.refused) == arm.refused + arm.failed + arm.pending
    assert sum(arm.timeline.jobs) + sum(arm.timeline.stored) == arm.stored
    assert (arm.exit_code, arm.hung_up) == (0, 0)
    assert arm.attempts > 0
    return arm


def test_the_cap_refuses_everybody_and_heals_after_a_while() -> None:
    arm = drill("capped")
    assert not arm.alarm
    assert arm.records is not None
    # Tasks of the others have some of the 128 places.
    assert 64 <= arm.records <= 128
    assert arm.refused > 128
    assert any("too many running procedures" in words for words in arm.errors_first)
    assert arm.others_percent < 100
    assert arm.heal_s is not None
    assert arm.lost == 0
    assert not all(promise.held for promise in check(arm, "refused"))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("outlast-postgres", "cleared"),
        *(
            pytest.param(name, fault, marks=pytest.mark.long)
            for name in ("outlast", "outlast-postgres")
            for fault in ("refused", "cleared", "hangs")
            if (name, fault) != ("outlast-postgres", "cleared")
        ),
    ],
)
def test_outlast_has_one_record_and_refuses_from_memory(name: str, fault: str) -> None:
    # The waits are 1, 2, 4 s at most; a busy machine has a little more.
    arm = drill(name, fault=fault, cooldown_s=2.0 if fault == "cleared" else 6.0)
    assert arm.records == 1
    assert arm.log_lines <= 6
    assert arm.refused > 10 * arm.attempts
    assert arm.attempts <= 3
    assert not arm.alarm
    assert arm.heal_s is not None
    # A step whose reply came late on a busy machine is begun again: a table may be published twice, and none is lost.
    assert arm.lost == 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["procrastinate", "dbos"])
def test_the_peers_deduplicate_at_the_price_of_their_store(name: str) -> None:
    pytest.importorskip(name)
    arm = drill(name, cooldown_s=5.0)
    assert arm.records is not None
    assert 1 <= arm.records <= 20
    assert arm.pending > 0


OVER_HTTP = [
    ("outlast", "taken"),
    *(pytest.param("outlast-postgres", fault, marks=pytest.mark.long) for fault in ("taken", "denied")),
]


def over_http(name: str, fault: str, cooldown_s: float) -> TableArm:
    (arm,) = METRICS.run(
        MetricsOptions(arms=(name,), fault=fault, outage_s=1.0, warmup_s=0.5, cooldown_s=cooldown_s, loops=60), Silent()
    ).arms
    assert sum(arm.timeline.refused) == arm.refused + arm.failed
    assert (arm.hung_up, arm.lost, arm.twice) == (0, 0, 0)
    assert arm.attempts > 0
    assert arm.heal_s is not None
    return arm


@pytest.mark.parametrize(("name", "fault"), OVER_HTTP)
def test_over_http_a_table_that_cannot_be_made_is_one_record_and_typed_refusals(name: str, fault: str) -> None:
    # The first wait of a table that only a person can mend is 5 to 10 s.
    arm = over_http(name, fault, cooldown_s=11.0)
    assert arm.exit_code == 0
    assert (arm.records, arm.attempts, arm.failed) == (1, 1, 0)
    assert arm.log_lines <= 6
    assert arm.refused > 10
    assert any("cannot be made" in words for words in arm.errors_first)


@pytest.mark.long
@pytest.mark.parametrize("name", ["naive", "naive-postgres"])
def test_over_http_the_naive_arm_tries_and_logs_every_write(name: str) -> None:
    arm = over_http(name, "taken", cooldown_s=0.5)
    assert stormed(arm, "taken")
    assert (arm.records, arm.refused) == (0, 0)
    assert arm.attempts == arm.failed


def test_a_cancelled_drill_leaves_no_process_behind_not_even_etcd() -> None:
    cancel = threading.Event()

    class Canceller(Silent):
        def arm_state(self, arm: str, phase: ArmState, lasts_s: float | None = None) -> None:
            if phase is ArmState.OUTAGE:
                assert any("etcd" in child.name() for child in psutil.Process().children(recursive=True))
                cancel.set()

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(DrillCancelled):
        GREPTIME.run(options("capped", outage_s=60.0), Canceller(), cancel)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("drill-")]
