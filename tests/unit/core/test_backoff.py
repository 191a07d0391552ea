"""The waits: their distribution, their limits, and that nothing but sustained health resets them."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.backoff import INITIAL, Backoff, BackoffState, Jitter


def waits(backoff: Backoff, count: int, seed: int = 1) -> list[float]:
    """Draw `count` waits of one sequence of failures, as a loop would meet them."""
    rng, state, now, drawn = random.Random(seed), INITIAL, 0.0, []
    for _ in range(count):
        state, wait_s = backoff.next(state, now, rng)
        assert wait_s is not None
        drawn.append(wait_s)
        now += wait_s
    return drawn


def test_without_jitter_the_waits_are_the_formula() -> None:
    assert waits(Backoff(0.1, 1.0, 2.0, Jitter.NONE), 6) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("jitter", [Jitter.FULL, Jitter.EQUAL, Jitter.DECORRELATED])
def test_jitter_still_spreads_at_the_cap(jitter: Jitter) -> None:
    """The mistake of others: jitter that is clipped at the cap, or rounded to zero, is no jitter."""
    backoff = Backoff(0.1, 1.5, 2.0, jitter)
    at_cap = waits(backoff, 20_000)[1_000:]
    assert max(at_cap) <= 1.5
    low = {Jitter.FULL: 0.0, Jitter.EQUAL: 0.75, Jitter.DECORRELATED: 0.1}[jitter]
    assert min(at_cap) >= low
    # No value piles up: not the cap, not the floor, not zero.
    assert len(set(at_cap)) > 0.999 * len(at_cap)
    assert sum(wait > 1.499 for wait in at_cap) < 0.01 * len(at_cap)
    spread = 1.5 - low
    assert statistics.pstdev(at_cap) > 0.2 * spread


@pytest.mark.parametrize(("jitter", "low"), [(Jitter.FULL, 0.0), (Jitter.EQUAL, 0.5)])
def test_jitter_is_uniform_over_its_range(jitter: Jitter, low: float) -> None:
    backoff = Backoff(1.0, 1.0, 2.0, jitter)
    drawn = sorted(waits(backoff, 20_000))
    for quarter in (0.25, 0.5, 0.75):
        # Standard error of a quantile of 20,000 uniform draws is below 0.004 of the range.
        assert drawn[int(quarter * len(drawn))] == pytest.approx(low + quarter * (1 - low), abs=0.02)


def test_decorrelated_is_uniform_from_half_to_four_times_the_last_wait() -> None:
    backoff, rng = Backoff(0.1, 100.0, jitter=Jitter.DECORRELATED), random.Random(3)
    state = BackoffState(5, 2.0, 0.0)
    drawn = sorted(backoff.next(state, 0.0, rng)[1] or 0.0 for _ in range(20_000))
    assert drawn[0] >= 1.0
    assert drawn[-1] <= 8.0
    assert drawn[10_000] == pytest.approx(4.5, abs=0.15)


@given(
    st.floats(0.001, 10),
    st.floats(1, 100),
    st.floats(1, 4),
    st.sampled_from(Jitter),
    st.floats(0, 5),
    st.integers(0, 10_000),
)
def test_every_wait_is_within_floor_and_cap(
    base_s: float, cap_times: float, factor: float, jitter: Jitter, floor_s: float, seed: int
) -> None:
    cap_s = base_s * cap_times
    backoff = Backoff(base_s, cap_s, factor, jitter, floor_s=min(floor_s, cap_s))
    for wait_s in waits(backoff, 30, seed):
        assert backoff.floor_s <= wait_s
        assert wait_s <= max(cap_s, backoff.floor_s + cap_s / 2)


BACKOFFS = {
    "worker": Backoff(base_s=0.1, cap_s=30.0),
    "prober": Backoff(base_s=0.1, cap_s=1.5, jitter=Jitter.DECORRELATED),
    "retry": Backoff(base_s=0.1, cap_s=5.0, jitter=Jitter.FULL),
    "floor of its own": Backoff(base_s=0.1, cap_s=10.0, jitter=Jitter.FULL, floor_s=5.0),
}


@pytest.mark.parametrize("floor_s", [None, 5.0, 30.0])
@pytest.mark.parametrize("attempt", [0, 3, 50])
@pytest.mark.parametrize("name", BACKOFFS)
def test_waits_are_spread_at_the_base_in_the_middle_at_the_cap_and_at_the_floor(
    name: str, attempt: int, floor_s: float | None
) -> None:
    """200 clients that fail at the same instant do not come back at another one together."""
    backoff, state = BACKOFFS[name], BackoffState(attempt, 0.0 if not attempt else 0.3 if attempt == 3 else 1.5)
    drawn = sorted(backoff.next(state, 0.0, random.Random(seed), floor_s)[1] or 0.0 for seed in range(2_000))
    floor_s = max(backoff.floor_s, floor_s or 0.0)
    assert drawn[0] >= floor_s, "never earlier than the peer asked for"
    assert len(set(drawn)) == len(drawn)
    middle_s = drawn[1_000]
    # From the fifth to the ninety-fifth percentile: a quarter of the wait itself at least.
    assert drawn[1_900] - drawn[100] >= 0.25 * middle_s
    for tenth in range(10):
        low, high = drawn[0] + (drawn[-1] - drawn[0]) * tenth / 10, drawn[0] + (drawn[-1] - drawn[0]) * (tenth + 1) / 10
        assert 120 <= sum(low <= wait_s <= high for wait_s in drawn) <= 280, "uniform: two hundred in each tenth"


def test_the_spread_above_a_floor_does_not_use_up_the_time() -> None:
    backoff = Backoff(0.1, 5.0, elapsed_s_max=30.0)
    waits_s = [backoff.next(INITIAL, 0.0, random.Random(seed), 25.0)[1] for seed in range(200)]
    assert all(wait_s is not None and 25.0 <= wait_s <= 30.0 for wait_s in waits_s)
    assert backoff.next(INITIAL, 0.0, random.Random(1), 31.0)[1] is None


def test_without_jitter_the_floor_is_the_wait() -> None:
    assert Backoff(0.1, 10.0, jitter=Jitter.NONE).next(INITIAL, 0.0, random.Random(1), 5.0)[1] == 5.0


@given(st.floats(0, 1_000), st.sampled_from(Jitter))
def test_what_the_peer_asks_for_is_obeyed_even_beyond_the_cap(retry_after_s: float, jitter: Jitter) -> None:
    backoff = Backoff(0.1, 1.5, jitter=jitter)
    _, wait_s = backoff.next(INITIAL, 0.0, random.Random(1), retry_after_s)
    assert wait_s is not None
    assert wait_s >= retry_after_s


def test_attempts_are_limited() -> None:
    backoff, state, rng = Backoff(attempts_max=3), INITIAL, random.Random(1)
    given_waits = []
    for _ in range(5):
        state, wait_s = backoff.next(state, 0.0, rng)
        given_waits.append(wait_s is not None)
    assert given_waits == [True, True, True, False, False]
    assert state.attempt == 5


def test_whoever_never_gives_up_waits_for_the_cap_once_a_limit_is_used_up() -> None:
    rule, rng = Backoff(base_s=1.0, cap_s=7.0, attempts_max=1), random.Random(1)
    state, wait_s = rule.next_always(INITIAL, 0.0, rng)
    assert (state, wait_s) == rule.next(INITIAL, 0.0, random.Random(1))
    state, wait_s = rule.next_always(state, 1.0, rng)
    assert (state.attempt, wait_s) == (2, 7.0)


def test_elapsed_time_is_limited() -> None:
    backoff = Backoff(1.0, 1.0, jitter=Jitter.NONE, elapsed_s_max=10.0)
    rng = random.Random(1)
    state, wait_s = backoff.next(INITIAL, 100.0, rng)
    assert wait_s == 1.0
    assert backoff.next(state, 109.0, rng)[1] == 1.0
    assert backoff.next(state, 109.1, rng)[1] is None


def test_only_sustained_health_resets() -> None:
    backoff = Backoff(sustained_s=30.0)
    state = BackoffState(attempt=4, wait_s=20.0, started_at=0.0)
    assert backoff.after_health(state, 0.5) is state
    assert backoff.after_health(state, 30.0) is state, "twice the last wait is longer than 30 s"
    assert backoff.after_health(state, 39.9) is state
    assert backoff.after_health(state, 40.0) is INITIAL
    assert backoff.after_health(BackoffState(1, 0.1, 0.0), 30.0) is INITIAL


def test_a_long_life_does_not_overflow() -> None:
    state = BackoffState(attempt=10**9, wait_s=30.0, started_at=0.0)
    _, wait_s = Backoff().next(state, 0.0, random.Random(1))
    assert wait_s is not None
    assert wait_s <= 30.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_s": 0.0}, "0 < base_s <= cap_s"),
        ({"base_s": 2.0, "cap_s": 1.0}, "base_s=2.0, cap_s=1.0"),
        ({"factor": 0.5}, "factor >= 1"),
        ({"floor_s": 31.0}, "floor_s=31.0"),
        ({"attempts_max": -1}, "None means no limit"),
    ],
)
def test_senseless_parameters_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backoff(**arguments)  # type: ignore[arg-type]
