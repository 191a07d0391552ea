"""The governor: what spins is caught, what works is left alone, and the two thresholds do not flap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.governor import Ceiling, Governor, Spin

CEILING = Ceiling(turns_per_s_max=100.0)


def turn(governor: Governor, now: float, count: int, took_s: float) -> tuple[list[Spin], float]:
    """Take `count` idle turns of `took_s` each; gives the changes seen and the time after them."""
    seen = []
    for _ in range(count):
        now += took_s
        change = governor.idle(now, took_s)
        if change is not None:
            seen.append(change)
    return seen, now


def test_a_loop_far_above_its_ceiling_is_caught_once_and_slowed_down() -> None:
    governor = Governor(CEILING)
    seen, now = turn(governor, 0.0, 100, 0.0001)
    assert seen == [Spin.STARTED]
    assert governor.rate_per_s == pytest.approx(10_000, rel=0.02)
    assert governor.throttle_s == 0.1
    seen, _ = turn(governor, now, 10, 0.0001)
    assert seen == []
    assert governor.throttle_s == 2.0
    assert governor.throttled == 10


def test_a_loop_below_its_ceiling_is_left_alone() -> None:
    seen, _ = turn(Governor(CEILING), 0.0, 10_000, 0.011)
    assert seen == []


@given(st.lists(st.floats(0.0, 0.0001), min_size=1, max_size=500), st.integers(1, 50))
def test_progress_keeps_any_rate_allowed(times: list[float], every: int) -> None:
    governor, now = Governor(CEILING), 0.0
    for number, took_s in enumerate(times):
        now += took_s
        change = governor.progress(now) if number % every == 0 else governor.idle(now, took_s)
        assert change is None
        assert governor.throttle_s == 0.0


def test_progress_ends_the_spin() -> None:
    governor = Governor(CEILING)
    _, now = turn(governor, 0.0, 100, 0.0001)
    assert governor.progress(now) is Spin.ENDED
    assert governor.throttle_s == 0.0


def test_a_turn_that_takes_its_time_ends_the_spin_and_one_just_under_it_does_not() -> None:
    governor = Governor(CEILING)
    _, now = turn(governor, 0.0, 100, 0.0001)
    assert governor.idle(now + 0.019, 0.019) is None
    assert governor.idle(now + 0.040, 0.021) is Spin.ENDED


def test_none_switches_the_watch_off() -> None:
    seen, _ = turn(Governor(Ceiling(turns_per_s_max=None)), 0.0, 10_000, 0.0)
    assert seen == []


def test_a_ceiling_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="None switches the watch off"):
        Ceiling(turns_per_s_max=0)
