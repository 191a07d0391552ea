"""The fluvio drill, short: its disks do what they say, and its figures are those of the incident."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from outlast._drill.fluvio.arms.log_server import DISK_VARIABLE
from outlast._drill.fluvio.drill import FLUVIO, FluvioOptions
from outlast._drill.fluvio.faults import DISK_FAULTS
from outlast._drill.fluvio.promises import check
from outlast._drill.lab.errors import DrillCancelled
from outlast._drill.lab.observer import ArmState, Silent
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from outlast._drill.fluvio.figures import LogArm
    from outlast._drill.lab.result import DrillResult


def options(fault: str, *arms: str, outage_s: float = 0.4) -> FluvioOptions:
    # Appends are promised to be back within 2 s; a busy machine has a little more.
    cooldown_s = 4.0 if arms[0].startswith("outlast") and DISK_FAULTS[fault].heals else 0.3
    found = FluvioOptions(fault=fault, arms=arms, outage_s=outage_s, warmup_s=0.2, cooldown_s=cooldown_s, size_mib=16)
    if (reason := SmallDisk.available(found.disk_kind)) is not None:
        pytest.skip(reason)
    return found


def drill(fault: str, *arms: str) -> DrillResult[LogArm]:
    result = FLUVIO.run(options(fault, *arms), Silent())
    for arm in result.arms:
        # What was counted in bins is what was counted in all.
        assert sum(arm.timeline.attempts) == arm.attempts_total
        assert sum(arm.timeline.lines) == arm.lines_total
        assert arm.exit_code == 0
        assert arm.reads_failed == 0
        known = arm.acknowledged - arm.lost + arm.phantom
        assert known <= arm.readable <= known + arm.unknown
    return result


def test_the_naive_arm_storms_and_the_flag_is_never_cleared() -> None:
    result = drill("full", "naive", "fluvio-fixed")
    naive, flagged = result.arms
    # A line and a write for each refusal; what was refused last stood in a buffer, and came to the disk later.
    assert naive.log_lines == naive.refused > 50
    assert naive.attempts > 50
    assert (naive.errors, naive.lost, naive.twice) == (1, 0, 0)
    assert 1 <= naive.phantom <= 8
    assert naive.recovery_s is not None
    assert not all(promise.held for promise in check(naive, "full"))
    assert (flagged.log_lines, flagged.attempts, flagged.errors) == (1, 0, 2)
    assert flagged.refused > 50
    assert flagged.recovery_s is None, "there is space, and it takes a restart"
    assert (flagged.lost, flagged.phantom, flagged.twice) == (0, 0, 0)


def test_a_disk_that_is_lost_takes_nothing_more_and_can_be_read() -> None:
    (naive,) = drill("read-only", "naive").arms
    assert not naive.heals
    assert naive.errors == 1
    assert any("Read-only file system" in line for line in naive.log_first)
    assert naive.reads > 0
    assert naive.lost == 0


def test_rakaia_tells_its_clients_nothing_and_its_log_everything() -> None:
    pytest.importorskip("rakaia")
    (arm,) = drill("full-at-once", "rakaia").arms
    assert arm.refused > 0
    # A traceback for each refusal.
    assert arm.log_lines > 20 * arm.refused
    assert arm.errors_first == ("500 Internal Server Error",)
    assert arm.attempts > 0
    assert (arm.lost, arm.twice, arm.hung_up) == (0, 0, 0)


@pytest.mark.long
def test_a_neighbour_fills_a_disk_at_once() -> None:
    (flagged,) = drill("full-at-once", "fluvio-fixed").arms
    assert flagged.refused > 50
    assert (flagged.log_lines, flagged.recovery_s) == (1, None)
    assert (flagged.lost, flagged.phantom, flagged.twice) == (0, 0, 0)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("oscillating", "outlast"),
        ("eio", "outlast"),
        ("full-at-once", "outlast-http"),
        *(pytest.param(fault, "outlast", marks=LONG) for fault in ("full", "full-at-once", "read-only")),
        *(pytest.param(fault, "outlast-http", marks=LONG) for fault in ("full", "oscillating", "eio", "read-only")),
    ],
)
def test_outlast_keeps_its_counts_under_every_fault(fault: str, name: str) -> None:
    (arm,) = drill(fault, name).arms
    assert (arm.lost, arm.phantom, arm.twice, arm.hung_up) == (0, 0, 0, 0)
    assert arm.log_lines <= 6
    assert arm.errors == 1
    # Over HTTP a refusal takes longer, on a busy machine many times as long.
    assert arm.refused > (8 if name == "outlast-http" else 50)
    assert arm.attempts <= 20 + arm.acknowledged_outage
    assert arm.transitions <= 2
    assert arm.critical_lines == (0 if arm.heals else 1)
    assert arm.heals is (arm.recovery_s is not None), "without a restart"


def test_a_cancelled_drill_leaves_no_process_and_no_disk_behind() -> None:
    cancel, disks = threading.Event(), list[Path]()

    class Canceller(Silent):
        def arm_state(self, arm: str, phase: ArmState, lasts_s: float | None = None) -> None:
            if phase is ArmState.OUTAGE:
                started = [child.environ() for child in psutil.Process().children()]
                disks.extend(Path(each[DISK_VARIABLE]) for each in started if DISK_VARIABLE in each)
                assert all(disk.is_dir() for disk in disks)
                cancel.set()

    chosen = options("full-at-once", "naive", outage_s=60.0)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(DrillCancelled):
        FLUVIO.run(chosen, Canceller(), cancel)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert [disk.exists() for disk in disks] == [False]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("drill-")]
