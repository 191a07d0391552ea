"""The electric drill, short: its faults do what they say, and its figures are those of the incident."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from outlast._drill.electric.drill import ELECTRIC, ElectricOptions
from outlast._drill.electric.promises import check
from outlast._drill.lab.errors import DrillCancelled
from outlast._drill.lab.observer import ArmState, Silent

if TYPE_CHECKING:
    from outlast._drill.electric.figures import StreamArm


def drill(fault: str, *arms: str, outage_s: float = 3.0) -> dict[str, StreamArm]:
    options = ElectricOptions(fault=fault, arms=arms, outage_s=outage_s, warmup_s=1.5, cooldown_s=2.5, loops=5)
    found = {arm.arm: arm for arm in ELECTRIC.run(options, Silent()).arms}
    for arm in found.values():
        # What was counted in bins is what was counted in all.
        assert sum(arm.timeline.attempts) == arm.attempts_total
        assert sum(arm.timeline.lines) == arm.lines_total
        assert sum(arm.timeline.cpu_s) == pytest.approx(arm.cpu_s, abs=0.05)
        assert arm.lost is None or sum(arm.timeline.changes) == arm.changes - arm.lost + arm.twice
    return found


@pytest.mark.parametrize("fault", ["slot-taken", "lock-bypassed"])
def test_the_naive_arm_storms_and_the_backoff_never_grows(fault: str) -> None:
    arms = drill(fault, "naive", "backoff", outage_s=5.0)
    naive, backoff = arms["naive"], arms["backoff"]
    # On a quiet machine 300 lines and 150 attempts beside 3 and 2.
    assert 1 <= backoff.attempts <= 5
    assert naive.attempts > 5 * backoff.attempts
    assert naive.log_lines > 5 * backoff.log_lines
    assert naive.throughput_percent < backoff.throughput_percent
    for arm in arms.values():
        assert (arm.lost, arm.exit_code) == (0, 0), "the foreign program confirms nothing"
        assert arm.recovery_s is not None
    assert not all(promise.held for promise in check(naive, fault))


@pytest.mark.parametrize("arm", ["naive", "backoff", "outlast"])
def test_another_process_takes_over_from_a_killed_owner(arm: str) -> None:
    (found,) = drill("owner-killed", arm).values()
    assert (found.lost, found.exit_code) == (0, 0)
    assert found.recovery_s is not None
    assert found.throughput_percent > 0
    # The standby of the naive arm storms while the owner is well: 20 lines a second. The others write 1 to 9 in all.
    assert (found.lines_total > 15) is (arm == "naive")


def test_an_owner_that_was_cut_off_goes_on_or_is_followed() -> None:
    (arm,) = drill("owner-cut-off", "backoff", outage_s=1.0).values()
    assert (arm.lost, arm.exit_code) == (0, 0)
    assert arm.recovery_s is not None


def test_a_lost_slot_is_lost() -> None:
    (arm,) = drill("slot-lost", "backoff").values()
    assert (arm.recovery_s, arm.lost) == (None, None)
    assert any("cannot" in line or "can no longer" in line for line in arm.log_first)


def test_outlast_is_quiet_while_its_slot_is_taken() -> None:
    (arm,) = drill("slot-taken", "outlast", outage_s=5.0).values()
    assert (arm.lost, arm.exit_code) == (0, 0)
    assert arm.lines_outage <= 5
    assert arm.attempts <= 8
    assert arm.recovery_s is not None


def test_a_cancelled_drill_leaves_no_process_behind_not_even_the_foreign_one() -> None:
    cancel = threading.Event()

    class Canceller(Silent):
        def arm_state(self, arm: str, phase: ArmState, lasts_s: float | None = None) -> None:
            if phase is ArmState.OUTAGE:
                # By then pg_recvlogical has the slot, or is about to take it.
                threading.Timer(1.0, cancel.set).start()

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(DrillCancelled):
        ELECTRIC.run(ElectricOptions(arms=("backoff",), outage_s=60.0, warmup_s=0.5, loops=5), Canceller(), cancel)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("drill-")]
