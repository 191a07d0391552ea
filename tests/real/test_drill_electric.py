"""The electric drill, short: its faults do what they say, and its figures are those of the incident."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from outlast.cli.app import app
from outlast.cli.drill import SLOT_FAULT_NAMES
from outlast.drill.electric import ElectricOptions, run_electric_drill
from outlast.drill.electric_result import ElectricArm, check
from outlast.drill.errors import DrillUsageError
from outlast.drill.slot_faults import SLOT_FAULTS


def drill(fault: str, *arms: str, outage_s: float = 3.0) -> dict[str, ElectricArm]:
    options = ElectricOptions(fault=fault, arms=arms, outage_s=outage_s, warmup_s=1.5, cooldown_s=2.5, loops=5)
    result = run_electric_drill(options)
    json.loads(result.dumps())
    return {arm.arm: arm for arm in result.arms}


def test_the_command_names_the_faults() -> None:
    assert tuple(SLOT_FAULTS) == SLOT_FAULT_NAMES
    result = CliRunner().invoke(app, ["drill", "electric", "--arms", "nobody"])
    assert result.exit_code == 64
    assert "naive, backoff, outlast" in result.stderr


@pytest.mark.parametrize("wrong", [{"fault": "rain"}, {"arms": ()}, {"arms": ("naive", "naive")}, {"outage_s": 0.0}])
def test_what_cannot_be_run(wrong: dict[str, object]) -> None:
    with pytest.raises(DrillUsageError):
        ElectricOptions(**wrong).validate()  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["slot-taken", "lock-bypassed"])
def test_the_naive_arm_storms_and_the_backoff_never_grows(fault: str) -> None:
    arms = drill(fault, "naive", "backoff", outage_s=5.0)
    naive, backoff = arms["naive"], arms["backoff"]
    assert naive.log_lines > 20 * 5
    assert naive.attempts > 50
    assert naive.throughput_percent < 50
    assert 1 <= backoff.attempts <= 5
    assert backoff.throughput_percent > 50
    for arm in arms.values():
        assert (arm.lost, arm.exit_codes) == (0, (0,)), "the foreign program confirms nothing"
        assert arm.recovery_s is not None
    assert not all(promise.held for promise in check(naive, fault))


@pytest.mark.parametrize("fault", ["owner-killed", "owner-cut-off"])
def test_another_process_takes_over(fault: str) -> None:
    (arm,) = drill(fault, "backoff", outage_s=3.0 if fault == "owner-killed" else 1.0).values()
    assert arm.lost == 0 or fault == "owner-cut-off"
    assert arm.changes > 0


def test_a_lost_slot_is_lost() -> None:
    (arm,) = drill("slot-lost", "backoff").values()
    assert (arm.recovery_s, arm.lost) == (None, None)
    assert any("cannot" in line or "can no longer" in line for line in arm.log_first)
