"""Memory levels: two pairs of thresholds, and unknown figures that close nothing."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.admission.memory import Memory, MemoryState

LIMIT = 1000.0


def levels(used: list[float], policy: Memory | None = None) -> list[int]:
    state = MemoryState(policy or Memory())
    seen = []
    for now, used_bytes in enumerate(used):
        state.sample(float(now), used_bytes, LIMIT)
        seen.append(state.level)
    return seen


def test_each_level_is_entered_at_one_share_and_left_below_another() -> None:
    assert levels([0, 799, 800, 760, 750, 749, 799, 800]) == [0, 0, 1, 1, 1, 0, 0, 1]
    assert levels([899, 900, 860, 850, 849, 899, 900]) == [1, 2, 2, 2, 1, 1, 2]
    assert levels([950, 749]) == [2, 0], "down by two at once"
    assert levels([2000, 800]) == [2, 1]


@given(st.lists(st.floats(0, 1200), max_size=50))
def test_no_figure_within_a_band_changes_the_level(used: list[float]) -> None:
    seen = [0, *levels(used)]
    for before, after, value in zip(seen[:-1], seen[1:], used, strict=True):
        if 750 <= value < 800:
            assert after == min(before, 1)
        elif 850 <= value < 900:
            assert after == max(before, 1)
        else:
            assert after == (0 if value < 750 else 1 if value < 850 else 2)


@pytest.mark.parametrize(
    ("used_bytes", "limit_bytes"),
    [(None, LIMIT), (math.nan, LIMIT), (-1.0, LIMIT), (999.0, None), (999.0, 0.0), (999.0, math.nan), (999.0, math.inf)],
)
def test_what_is_not_known_closes_nothing(used_bytes: float | None, limit_bytes: float | None) -> None:
    state = MemoryState(Memory())
    state.sample(0.0, 999.0, LIMIT)
    assert (state.level, state.known) == (2, True)
    state.sample(1.0, used_bytes, limit_bytes)
    assert (state.level, state.known) == (0, False)
    state.reserve(1e12)
    assert state.level_with(1e12) == 0
    assert state.can_ever_hold(1e12)


def test_one_large_piece_of_work_is_seen_before_it_comes_in() -> None:
    state = MemoryState(Memory())
    state.sample(0.0, 500.0, LIMIT)
    assert [state.level_with(size_bytes) for size_bytes in (0.0, 299.0, 300.0, 399.0, 400.0)] == [0, 0, 1, 1, 2]
    assert state.level == 0


def test_work_that_is_larger_than_the_limit_can_never_come_in() -> None:
    state = MemoryState(Memory())
    state.sample(0.0, 999.0, LIMIT)
    assert state.can_ever_hold(600.0), "though there is no room for it now"
    assert not state.can_ever_hold(900.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sheddable_until": 0.81}, "0 < sheddable_until <= sheddable_at"),
        ({"sheddable_at": 0.95}, "not 0.75, 0.95, 0.9"),
        ({"normal_at": 1.1}, "not 0.75, 0.8, 1.1"),
        ({"normal_at": math.nan}, "normal_at <= 1"),
        ({"normal_until": 0.95}, "normal_until=0.95"),
        ({"normal_until": 0.5}, "normal_until=0.5"),
        ({"bytes_max": 0.0}, "bytes_max must be a number of bytes above 0, not 0.0"),
        ({"bytes_max": math.inf}, "None means no limit"),
    ],
)
def test_senseless_thresholds_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Memory(**arguments)


def test_what_is_spare_lets_in_just_what_a_look_at_the_levels_does() -> None:
    """The quick way of a decision: whatever is announced and taken back, it never lets in what the levels refuse."""
    rng = random.Random(7)
    state = MemoryState(Memory())
    held: list[float] = []
    quick = 0
    for _ in range(20_000):
        size = rng.choice([0, 100, 70_000, 5_000_000, 40_000_000]) * rng.random()
        match rng.randrange(4):
            case 0:
                state.sample(0.0, rng.choice([None, 20e6, 60e6, 150e6, 190e6, 215e6]), rng.choice([None, 256e6, 256e6, 256e6]))
            case 1 | 2:
                if size < state.spare_bytes:
                    quick += 1
                    assert state.level_with(size) == 0
                state.reserve(size)
                held.append(size)
            case _ if held:
                state.unreserve(held.pop(rng.randrange(len(held))))
        assert state.level == state.level_with(0.0) or not state.known
        if len(held) > 12:
            while held:
                state.unreserve(held.pop())
    assert quick > 1_000
