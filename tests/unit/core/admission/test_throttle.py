"""The throttle of a client against the formula, and its way back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.admission.throttle import Throttle, Throttling


class Always(random.Random):
    """Draws the same number each time."""

    def __init__(self, drawn: float) -> None:
        super().__init__(0)
        self.drawn = drawn

    def random(self) -> float:
        return self.drawn


EVENTS = st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["below", "above", "accept", "refuse"])), max_size=60)
"""The wait before each, and what it is: a request with luck just below or just above the probability, or an answer."""


@given(EVENTS, st.floats(1, 4), st.sampled_from([1.0, 10.0, 120.0]))
def test_it_refuses_with_the_probability_of_the_formula(events: list[tuple[float, str]], k: float, window_s: float) -> None:
    """The model keeps every event, and forgets by whole seconds what is older than the window, or what a clean second follows."""
    throttle, now = Throttling(Throttle(k, window_s, refused_max=0.999)), 0.0
    history: list[tuple[int, str]] = []
    for wait_s, event in events:
        now += wait_s
        second = int(now)
        if history and history[-1][0] < second:
            last = history[-1][0]
            kinds = {kind for at, kind in history if at == last}
            history = [(at, kind) for at, kind in history if at == last or not ("accept" in kinds and "refuse" not in kinds)]
        history = [(at, kind) for at, kind in history if at > second - int(window_s)]
        if event in {"below", "above"}:
            requests = sum(kind == "request" for _, kind in history)
            accepts = sum(kind == "accept" for _, kind in history)
            share = min(0.999, max(0.0, (requests - k * accepts) / (requests + 1)))
            drawn = share - 1e-9 if event == "below" else share + 1e-9
            assert throttle.refuses(now, Always(drawn)) == (share > 0 and event == "below")
            history.append((second, "request"))
        else:
            throttle.record(now, accepted=event == "accept")
            history.append((second, event))
        assert throttle.requests == sum(kind == "request" for _, kind in history)
        assert throttle.accepts == sum(kind == "accept" for _, kind in history)
        assert len(throttle._slices) <= window_s + 1


def sent(throttle: Throttling, rng: random.Random, second: int, per_s: int, accepts_per_s: int) -> int:
    """Make `per_s` requests in one second, of which the peer accepts so many; return how many were sent."""
    count = 0
    for number in range(per_s):
        now = second + number / per_s
        if not throttle.refuses(now, rng):
            count += 1
            throttle.record(now, accepted=count <= accepts_per_s)
    return count


def test_a_peer_that_accepts_half_or_more_is_sent_everything() -> None:
    throttle, rng = Throttling(Throttle()), random.Random(1)
    assert [sent(throttle, rng, second, 100, 60) for second in range(30)] == [100] * 30


def test_a_peer_at_its_limit_is_sent_twice_what_it_accepts() -> None:
    """Ten times of what it can serve: it must refuse as much as it serves, not nine times that."""
    throttle, rng = Throttling(Throttle()), random.Random(1)
    for second in range(60):
        sent(throttle, rng, second, 1_000, 100)
    assert 150 <= sum(sent(throttle, rng, second, 1_000, 100) for second in range(60, 70)) / 10 <= 250


def test_a_peer_that_accepts_nothing_is_sent_a_tenth_so_that_its_recovery_is_seen() -> None:
    throttle, rng = Throttling(Throttle()), random.Random(1)
    for second in range(60):
        sent(throttle, rng, second, 1_000, 0)
    assert 70 <= sent(throttle, rng, 60, 1_000, 0) <= 130


@pytest.mark.parametrize("outage_s", [5, 120])
def test_a_peer_that_recovers_is_sent_everything_again_within_five_seconds(outage_s: int) -> None:
    throttle, rng = Throttling(Throttle()), random.Random(1)
    for second in range(outage_s):
        sent(throttle, rng, second, 1_000, 0)
    counts = [sent(throttle, rng, outage_s + second, 1_000, 1_000) for second in range(8)]
    assert counts[5:] == [1_000] * 3
    assert counts[0] <= 200
    assert counts[1] <= 4 * counts[0], "it grows, but is no storm"


def test_what_is_older_than_the_window_is_forgotten() -> None:
    throttle, rng = Throttling(Throttle(window_s=10.0)), random.Random(1)
    for second in range(10):
        sent(throttle, rng, second, 100, 0)
    assert throttle.requests == 1_000
    throttle.refuses(14.5, rng)
    assert throttle.requests == 501
    throttle.refuses(1e9, rng)
    assert throttle.requests == 1


def test_a_clock_that_goes_back_is_counted_where_it_was() -> None:
    throttle, rng = Throttling(Throttle()), random.Random(1)
    throttle.refuses(100.0, rng)
    throttle.refuses(50.0, rng)
    assert throttle.requests == 2
    assert len(throttle._slices) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0.9}, "k of at least 1"),
        ({"k": float("nan")}, "k of at least 1"),
        ({"window_s": 0.5}, "window_s from 1 to 3600"),
        ({"window_s": 1e9}, "window_s from 1 to 3600"),
        ({"refused_max": 1.0}, "never sees its peer recover"),
        ({"refused_max": -0.1}, "refused_max from 0"),
    ],
)
def test_senseless_policies_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Throttle(**arguments)
