"""The small decisions: ramp, retry budget, restart intensity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core import ramp
from outlast._core.budget import RetryBudget
from outlast._core.intensity import Restart


@pytest.mark.parametrize(("waiters", "length_s"), [(1, 0.01), (50, 0.5), (100, 1.0), (200, 2.0), (1_000, 2.0)])
def test_the_ramp_is_ten_milliseconds_a_waiter_and_at_most_two_seconds(waiters: int, length_s: float) -> None:
    assert ramp.length_s(waiters) == pytest.approx(length_s)
    assert ramp.due(waiters, length_s) == waiters
    assert ramp.due(waiters, 0.0) == 0


@given(st.integers(50, 20_000), st.integers(0, 1_000))
def test_no_tenth_of_a_second_lets_more_than_a_fifth_go(waiters: int, start: int) -> None:
    length_s = ramp.length_s(waiters)
    from_s = start / 1_000 * length_s
    assert ramp.due(waiters, from_s + 0.1) - ramp.due(waiters, from_s) <= waiters / 5 + 1


@given(st.integers(1, 2_000))
def test_waking_for_each_waiter_releases_each_waiter(waiters: int) -> None:
    released = 0
    while released < waiters:
        at_s = ramp.next_at_s(waiters, released)
        due = ramp.due(waiters, at_s)
        assert due > released, "a prober that woke up must find somebody due"
        released = due
    assert released == waiters


def test_the_budget_allows_a_fifth_of_the_calls_and_three_a_second() -> None:
    budget = RetryBudget(tokens=0.0)
    assert not budget.take(0.0)
    for _ in range(11):
        budget.call()
    assert [budget.take(0.0) for _ in range(3)] == [True, True, False]
    assert [budget.take(1.0) for _ in range(4)] == [True, True, True, False]


def test_the_budget_saves_up_no_more_than_its_bound() -> None:
    budget = RetryBudget()
    assert budget.take(0.0)
    assert sum(budget.take(1e6) for _ in range(1_000)) == 30
    for _ in range(10_000):
        budget.call()
    assert budget.tokens == 30.0


def test_intensity_counts_bugs_within_the_period_only() -> None:
    restart = Restart(bugs_max=2, period_s=10.0)
    times, too_many = restart.after_bug((), 0.0)
    times, too_many = restart.after_bug(times, 1.0)
    assert not too_many
    assert restart.after_bug(times, 2.0)[1]
    assert not restart.after_bug(times, 10.5)[1]


def test_intensity_keeps_a_bounded_history() -> None:
    times: tuple[float, ...] = ()
    for at in range(1_000):
        times, _ = Restart(bugs_max=3, period_s=1e9).after_bug(times, float(at))
    assert len(times) == 4


def test_none_restarts_for_ever() -> None:
    assert Restart(bugs_max=None).after_bug((), 0.0) == ((), False)


@pytest.mark.parametrize("arguments", [{"bugs_max": -1}, {"period_s": 0}])
def test_senseless_intensity_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Restart(**arguments)
