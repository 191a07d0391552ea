"""Token buckets against exact arithmetic: no drift, waits that help at the first try, costs that can never come in."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outlast._core.admission.bucket import Bucket, KeyedBuckets, Rate

AWKWARD = (49.0, 98.0, 103.0, 107.0, 10 / 13)
"""Rates for which (1 / rate) × rate is below 1 in floats."""


class ExactBucket:
    """The model: tokens as fractions, filled at `per_s` a second up to `burst`."""

    def __init__(self, rate: Rate) -> None:
        self.per_s, self.burst = Fraction(rate.per_s), Fraction(rate.burst)
        self.tokens, self.at = self.burst, Fraction(0)

    def level(self, now: float) -> Fraction:
        return min(self.burst, self.tokens + max(Fraction(0), Fraction(now) - self.at) * self.per_s)

    def change(self, now: float, tokens: float) -> None:
        self.tokens = min(self.burst, self.level(now) + Fraction(tokens))
        self.at = max(self.at, Fraction(now))


RATES = st.one_of(st.sampled_from(AWKWARD), st.floats(1e-3, 1e4))


class BucketAgainstExact(RuleBasedStateMachine):
    """Decides as the model does; they may differ only where the model is within a millionth of a token of the edge."""

    @initialize(per_s=RATES, burst=st.one_of(st.just(0.0), st.floats(1, 1000)), began_at=st.floats(0, 1e7))
    def begin(self, per_s: float, burst: float, began_at: float) -> None:
        rate = Rate(per_s, burst)
        self.bucket, self.model, self.now = Bucket(rate), ExactBucket(rate), began_at
        self.burst = rate.burst

    @rule(seconds=st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 1e5)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(share=st.floats(0, 1))
    def take(self, share: float) -> None:
        cost = share * self.burst
        exact = self.model.level(self.now)
        wait_s = self.bucket.take(self.now, cost)
        if abs(exact - Fraction(cost)) > Fraction(1, 10**6):
            assert (wait_s == 0.0) == (exact >= cost)
        if wait_s == 0.0:
            self.model.change(self.now, -cost)

    @rule(share=st.floats(0, 1))
    def wait_exactly_and_take(self, share: float) -> None:
        cost = share * self.burst
        wait_s = self.bucket.take(self.now, cost)
        assert wait_s is not None
        if wait_s:
            self.now += wait_s
            assert self.bucket.take(self.now, cost) == 0.0, "the first try after the time we named"
        self.model.change(self.now, -cost)

    @rule(share=st.floats(0, 1))
    def put_back(self, share: float) -> None:
        self.bucket.put_back(self.now, share * self.burst)
        self.model.change(self.now, share * self.burst)

    @rule(cost=st.floats(1e-6, 1e6))
    def take_what_can_never_come_in(self, cost: float) -> None:
        assert self.bucket.take(self.now, self.burst + cost) is None

    @invariant()
    def the_debt_is_that_of_the_model(self) -> None:
        if hasattr(self, "bucket"):
            exact = self.model.burst - self.model.level(self.now)
            assert self.bucket.debt(self.now) == pytest.approx(float(exact), abs=1e-6)


TestBucketAgainstExact = BucketAgainstExact.TestCase


def takes_that_wait(per_s: float, count: int, began_at: float) -> float:
    """Take `count` times from a burst of 1, each exactly when it was told to come; return by how much the total is off."""
    bucket, now = Bucket(Rate(per_s, burst=1)), began_at
    assert bucket.take(now) == 0.0
    for _ in range(count):
        wait_s = bucket.take(now)
        assert wait_s is not None
        assert wait_s > 0.0
        now += wait_s
        assert bucket.take(now) == 0.0
    return abs(count - (now - began_at) * per_s)


@pytest.mark.parametrize("began_at", [0.0, 1e6, 1e8])
@pytest.mark.parametrize("per_s", AWKWARD)
def test_whoever_comes_when_told_is_admitted_at_the_first_try_and_the_total_is_the_rate(per_s: float, began_at: float) -> None:
    assert takes_that_wait(per_s, 1_000, began_at) < 0.01


@pytest.mark.long
@pytest.mark.parametrize("per_s", [*AWKWARD, 1e7 / (30 * 86_400)])
def test_ten_million_takes_over_a_month_do_not_drift(per_s: float) -> None:
    """At the last of the rates they take exactly thirty days."""
    assert takes_that_wait(per_s, 10**7, 1e6) < 1.0


@pytest.mark.parametrize("per_s", [0.5, 49.0, 1000.0])
def test_a_month_of_many_costs_and_waits_does_not_drift(per_s: float) -> None:
    """The total within one token of rate × time + burst, however odd the costs, when the bucket is never full."""
    rate, rng = Rate(per_s, burst=1000.0), random.Random(1)
    bucket, now, taken = Bucket(rate), 1e6, 0.0
    for _ in range(10_000):
        cost = rng.random() * 900.0 + 0.1
        wait_s = bucket.take(now, cost)
        assert wait_s is not None
        now += wait_s
        assert wait_s == 0.0 or bucket.take(now, cost) == 0.0
        taken += cost
    assert taken == pytest.approx((now - 1e6) * per_s + 1000.0, abs=1.0)


@pytest.mark.parametrize("per_s", [1e-9, 1e-3, 1.0, 1e6, 1e9])
@pytest.mark.parametrize("began_at", [0.0, 1e-9, 1e3, 1e9])
def test_a_wait_helps_at_the_first_try_at_the_ends_of_what_is_allowed(per_s: float, began_at: float) -> None:
    bucket = Bucket(Rate(per_s, burst=1))
    assert bucket.take(began_at) == 0.0
    wait_s = bucket.take(began_at)
    assert wait_s is not None
    assert 0.0 < wait_s < math.inf
    assert bucket.take(began_at + wait_s) == 0.0


def test_a_wait_that_a_float_cannot_hold_is_the_next_longer_one() -> None:
    """2**52 + 1 - 0.5 lies between two floats; the lower one, added to 0.5, would end one second too early."""
    assert 0.5 + (2.0**52 + 1 - 0.5) < 2.0**52 + 1
    assert 0.5 + Bucket._exactly(0.5, 2.0**52 + 1) >= 2.0**52 + 1


def test_a_cost_above_the_burst_can_never_come_in() -> None:
    bucket = Bucket(Rate(1.0, burst=10))
    assert bucket.take(0.0, 11) is None
    assert bucket.take(1e9, 11) is None
    assert bucket.take(1e9, 10) == 0.0


def test_a_rate_of_zero_refuses_always() -> None:
    bucket = Bucket(Rate(0))
    assert [bucket.take(now, cost) for now in (0.0, 1e9) for cost in (0.0, 1.0)] == [None] * 4


@pytest.mark.parametrize("per_s", [math.nan, math.inf, -math.inf, -1.0, 1e308, 1e-300, 2.0**63])
def test_a_rate_that_is_none_is_refused(per_s: float) -> None:
    with pytest.raises(ValueError, match=r"per_s from 1e-09 to 1e\+09, or 0 to refuse all, not"):
        Rate(per_s)


@pytest.mark.parametrize("burst", [math.nan, math.inf, -1.0, 0.5, 2.0**63])
def test_a_burst_that_is_none_is_refused(burst: float) -> None:
    with pytest.raises(ValueError, match=r"burst from 1 to 1e\+09, not"):
        Rate(1.0, burst=burst)


@pytest.mark.parametrize(("per_s", "burst"), [(0.1, 1.0), (1.0, 1.0), (250.0, 250.0)])
def test_by_default_a_burst_is_the_work_of_a_second_and_at_least_one(per_s: float, burst: float) -> None:
    assert Rate(per_s).burst == burst


@pytest.mark.parametrize("cost", [-1.0, -math.inf, math.nan])
def test_a_cost_that_would_make_tokens_is_refused(cost: float) -> None:
    bucket = Bucket(Rate(1.0))
    with pytest.raises(ValueError, match="costs at least 0 tokens, not"):
        bucket.take(0.0, cost)
    assert bucket.debt(0.0) == 0.0


def test_what_was_refused_costs_nothing() -> None:
    bucket = Bucket(Rate(1.0, burst=5))
    bucket.take(0.0, 4)
    waits = {bucket.take(0.5, 3) for _ in range(1000)}
    assert len(waits) == 1
    assert bucket.debt(0.5) == 3.5


def test_a_clock_that_goes_back_makes_no_tokens() -> None:
    bucket = Bucket(Rate(1.0, burst=1))
    assert bucket.take(100.0) == 0.0
    assert bucket.take(50.0) == 51.0
    assert bucket.take(100.5) == 0.5
    assert bucket.take(101.0) == 0.0
    two = Bucket(Rate(1.0, burst=2))
    assert [two.take(100.0), two.take(50.0)] == [0.0, 0.0]
    assert two.take(100.0) == 1.0, "the second one came at 100 too"


def test_keys_do_not_use_up_each_others_tokens() -> None:
    buckets = KeyedBuckets(Rate(1.0, burst=2))
    assert [buckets.take(0.0, "a") for _ in range(3)] == [0.0, 0.0, 1.0]
    assert buckets.take(0.0, "b") == 0.0


def test_the_number_of_keys_is_bounded_and_those_beyond_share_one_bucket() -> None:
    buckets = KeyedBuckets(Rate(1.0, burst=2), keys_max=3)
    for key in "abc":
        assert buckets.take(0.0, key) == 0.0
    answers = [buckets.take(0.0, f"new {number}") for number in range(1000)]
    assert answers[:2] == [0.0, 0.0]
    assert set(answers[2:]) == {1.0}
    assert (len(buckets), buckets.shared) == (3, 1000)
    assert buckets.take(0.0, "a") == 0.0, "those that have a bucket do not notice"


def test_a_key_that_is_full_again_makes_room_and_loses_nothing() -> None:
    buckets = KeyedBuckets(Rate(1.0, burst=2), keys_max=2)
    buckets.take(0.0, "a")
    buckets.take(0.0, "b", 2)
    assert buckets.take(1.0, "c", 2) == 0.0
    assert buckets.shared == 0
    assert buckets.take(1.0, "b", 2) == 1.0, "the one that was not full was kept"


def test_tokens_put_back_go_to_the_bucket_they_came_from() -> None:
    buckets = KeyedBuckets(Rate(1.0, burst=1), keys_max=1)
    buckets.take(0.0, "a")
    buckets.take(0.0, "beyond")
    buckets.put_back(0.0, "beyond")
    assert buckets.take(0.0, "a") == 1.0
    assert buckets.take(0.0, "another beyond") == 0.0
    buckets.put_back(0.0, "a")
    assert buckets.take(0.0, "a") == 0.0


def test_a_flood_of_random_keys_is_seen_in_turn_so_that_whatever_is_full_again_is_forgotten() -> None:
    """A hundred times the keys, each once: one bucket lasts 1 s, so at 50 a second there is always room for the next."""
    buckets, now = KeyedBuckets(Rate(1.0, burst=1), keys_max=100), 0.0
    for number in range(10_000):
        now += 0.02
        assert buckets.take(now, number) == 0.0
    assert buckets.shared == 0
    assert len(buckets) <= 100


def test_keys_that_are_empty_for_long_do_not_hide_those_that_are_full_again() -> None:
    buckets = KeyedBuckets(Rate(1.0, burst=1000), keys_max=12)
    for number in range(12):
        buckets.take(0.0, f"old {number}", 1000 if number < 5 else 1)
    for number in range(7):
        assert buckets.take(2.0, f"new {number}", 1000) == 0.0
    assert (len(buckets), buckets.shared) == (12, 0)
    assert buckets.take(2.0, "old 0", 1000) == 998.0, "it was not forgotten"


def test_no_bucket_for_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="keys_max must be at least 1, not 0"):
        KeyedBuckets(Rate(1.0), keys_max=0)


@given(st.floats(1e-3, 1e6), st.floats(0, 1e8), st.floats(1, 100))
def test_a_wait_is_not_longer_than_needed(per_s: float, now: float, burst: float) -> None:
    bucket = Bucket(Rate(per_s, burst=burst))
    bucket.take(now, burst)
    wait_s = bucket.take(now, 1.0)
    assert wait_s is not None
    assert wait_s <= 1.0 / per_s + 4 * math.ulp(now + 1 / per_s) + 4 * math.ulp(burst) / per_s
