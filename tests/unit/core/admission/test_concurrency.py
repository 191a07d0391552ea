"""The adaptive limit before a simulated store: goodput, a baseline that does not drift, probes that nobody notices."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.admission.concurrency import SAMPLES_MAX, Concurrency, Limit

AT_ONCE, SERVICE_S = 8, 0.02
CAPACITY_PER_S = AT_ONCE / SERVICE_S
WAITING_MAX = 50
SATURATED = float("inf")

FAILURE_S = 0.001

Took = Callable[[float, random.Random], float]
Work = tuple[float, int]
"""When it was let in, and how many with it were in flight then."""


def steady(now: float, rng: random.Random) -> float:
    return SERVICE_S


def scattered(now: float, rng: random.Random) -> float:
    return rng.expovariate(1 / SERVICE_S)


class Shop:
    """A store that serves eight at once from a queue of its own, behind a `Limit`, with time of its own.

    `load(now)` pieces of work come a second; the limit lets them in, up to fifty wait outside, the rest is refused. SATURATED:
    there is always one more. A store that works in `batches` begins the next eight only when the last eight are done.
    """

    def __init__(
        self,
        load: Callable[[float], float],
        took: Took = steady,
        *,
        at_once: int = AT_ONCE,
        batches: bool = False,
        lag_s: Callable[[float], float] = lambda now: 0.0,
        fails: Callable[[float, random.Random], bool] = lambda now, rng: False,
        policy: Concurrency | None = None,
        seed: int = 1,
    ) -> None:
        self.load, self.took, self.at_once, self.batches, self.lag_s, self.fails = load, took, at_once, batches, lag_s, fails
        self.rng, self.limit, self.now = random.Random(seed), Limit(policy or Concurrency()), 0.0
        self.events: list[tuple[float, int, bool, Work | None]] = []
        self.order = itertools.count()
        self.inside: deque[Work] = deque()
        self.in_flight = self.serving = self.waiting = 0
        self.done = self.failed = self.refused = self.refused_by_probe = 0
        self.limits: list[int] = []
        self.push(0.0, None)

    def push(self, at: float, work: Work | None, *, failed: bool = False) -> None:
        """Let work end, or (None) come, at a time."""
        heapq.heappush(self.events, (at, next(self.order), failed, work))

    def run(self, until: float) -> int:
        """Run to a time; return how much was done on the way."""
        before = self.done
        while self.events[0][0] < until:
            self.now, _, failed, work = heapq.heappop(self.events)
            if work is None:
                self.arrive()
            else:
                self.end(work, failed)
            if self.now >= self.limit.window_ends_at:
                self.limit.adapt(self.now, self.in_flight, self.lag_s(self.now))
                if not self.limit.probing:
                    self.limits.append(self.limit.limit)
            self.let_in()
        self.now = until
        return self.done - before

    def arrive(self) -> None:
        load = self.load(self.now)
        if load == SATURATED:
            self.waiting = WAITING_MAX
            self.push(self.now + 0.05, None)
            return
        self.push(self.now + self.rng.expovariate(load), None)
        if self.waiting >= WAITING_MAX:
            self.refused += 1
            self.refused_by_probe += self.limit.probing
        else:
            self.waiting += 1

    def let_in(self) -> None:
        while self.waiting and self.in_flight < self.limit.limit:
            self.waiting -= self.load(self.now) != SATURATED
            self.in_flight += 1
            self.inside.append((self.now, self.in_flight))
        if self.batches and self.serving:
            return
        while self.inside and self.serving < self.at_once:
            self.serving += 1
            failed = self.fails(self.now, self.rng)
            took_s = FAILURE_S if failed else self.took(self.now, self.rng)
            self.push(self.now + took_s, self.inside.popleft(), failed=failed)

    def end(self, work: Work, failed: bool) -> None:  # noqa: FBT001 - one outcome
        self.in_flight -= 1
        self.serving -= 1
        self.done += not failed
        self.failed += failed
        self.limit.sample(self.now, work[0], work[1], not failed)


@pytest.mark.parametrize(("took", "near"), [(steady, 0.1), (scattered, 0.5)])
def test_constant_overload_is_served_at_full_speed_and_the_baseline_does_not_drift(took: Took, near: float) -> None:
    """At the first second the limit comes down from 20."""
    shop = Shop(lambda now: SATURATED, took)
    assert shop.run(5.0) >= 0.9 * 5 * CAPACITY_PER_S
    assert len(shop.limits) >= 20
    for second in range(10, 65, 5):
        assert shop.run(second) >= 0.9 * 5 * CAPACITY_PER_S
        assert shop.limit.baseline_s == pytest.approx(SERVICE_S, rel=near)
    assert shop.limit.probes >= 5, "it was measured under load"
    settled = shop.limits[50:]
    if took is steady:
        assert min(settled) >= AT_ONCE, "no oscillation reaches into what is served at once"
    assert max(settled) <= 3 * AT_ONCE, "and what waits inside is bounded"


def test_a_store_that_works_in_batches_is_kept_busy() -> None:
    shop = Shop(lambda now: SATURATED, batches=True)
    for second in range(5, 35, 5):
        assert shop.run(second) >= 0.9 * 5 * CAPACITY_PER_S
    assert shop.limit.limit <= 4 * AT_ONCE


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("took", [steady, scattered])
def test_at_half_load_no_probe_refuses_anything_before_or_after_an_overload(took: Took, seed: int) -> None:
    shop = Shop(lambda now: CAPACITY_PER_S * (3 if 20 <= now < 30 else 0.5), took, seed=seed)
    shop.run(20.0)
    assert shop.refused == 0
    shop.run(31.0)
    refused = shop.refused
    assert refused > 0
    assert shop.limit.probes > 0
    for second in range(32, 62):
        shop.run(second)
        assert shop.limit.limit >= shop.in_flight
    assert shop.refused == refused
    assert shop.refused_by_probe <= refused


def test_load_at_twice_the_latency_for_twenty_windows_leaves_the_baseline_alone() -> None:
    """Sixteen at a time before a store that serves eight: each piece of work takes twice as long as it would alone."""
    shop = Shop(lambda now: SATURATED, policy=Concurrency(limit_min=2, limit_start=16, limit_max=16))
    shop.run(10.0)
    assert len(shop.limits) >= 20
    assert shop.limit.baseline_s == pytest.approx(SERVICE_S, rel=0.1)


@pytest.mark.parametrize("began_at", [20.0, 22.5, 25.0])
def test_a_change_of_the_store_is_learnt_and_unlearnt_within_a_bounded_number_of_windows(began_at: float) -> None:
    """60 ms instead of 20: after 4 s, which are at most forty windows, the baseline is the new one; the same on the way back."""
    over_at = began_at + 15

    def slow_for_a_while(now: float, rng: random.Random) -> float:
        return 3 * SERVICE_S if began_at <= now < over_at else SERVICE_S

    shop = Shop(lambda now: SATURATED, slow_for_a_while)
    shop.run(began_at + 4)
    assert shop.limit.baseline_s == pytest.approx(3 * SERVICE_S, rel=0.1)
    assert shop.run(over_at) >= 0.9 * 11 * CAPACITY_PER_S / 3
    assert shop.run(over_at + 4) >= 0.9 * 4 * CAPACITY_PER_S
    assert shop.limit.baseline_s == pytest.approx(SERVICE_S, rel=0.1)
    assert shop.limit.limit <= 3 * AT_ONCE


def test_one_slow_call_in_a_hundred_does_not_close_the_door() -> None:
    """4 s instead of 20 ms: they take two thirds of the store's time. After 60 s of overload all of half the load is served."""

    def now_and_then(now: float, rng: random.Random) -> float:
        return SERVICE_S if rng.random() > 0.01 else 200 * SERVICE_S

    capacity_per_s = AT_ONCE / (SERVICE_S * (0.99 + 0.01 * 200))
    shop = Shop(lambda now: SATURATED if now < 60 else capacity_per_s / 2, now_and_then)
    assert shop.run(60.0) >= 0.8 * 60 * capacity_per_s
    assert min(shop.limits) >= shop.limit.policy.limit_min
    shop.run(65.0)
    refused, waiting = shop.refused, shop.waiting
    shop.run(75.0)
    assert shop.refused == refused
    assert waiting <= AT_ONCE
    assert shop.limit.limit >= max(AT_ONCE, shop.in_flight)


@pytest.mark.parametrize("seed", range(8))
def test_a_slow_store_of_scattered_times_is_kept_busy_whatever_the_first_windows_show(seed: int) -> None:
    """32 at once, 200 ms on the average: a window shows the quickest first, and so little work that its mean is a guess."""
    shop = Shop(lambda now: SATURATED, lambda now, rng: rng.expovariate(5), at_once=32, seed=seed)
    shop.run(10.0)
    assert shop.run(60.0) >= 0.8 * 50 * 32 * 5


def test_quick_and_slow_work_half_and_half_does_not_get_stuck_at_the_floor() -> None:
    def two_kinds(now: float, rng: random.Random) -> float:
        return 0.01 if rng.random() > 0.5 else 2.0

    capacity_per_s = AT_ONCE / 1.005
    shop = Shop(lambda now: SATURATED if now < 60 else capacity_per_s / 2, two_kinds)
    # Ten pieces of work take 2.5 s: fifteen seconds are six windows.
    shop.run(75.0)
    refused = shop.refused
    shop.run(95.0)
    assert shop.refused == refused
    assert shop.limit.limit >= shop.in_flight


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_store_that_fails_fast_does_not_look_like_a_fast_one(share: float) -> None:
    """For ten seconds work fails within a millisecond: neither baseline nor limit follow it, and then all is as it was."""
    shop = Shop(lambda now: 3 * CAPACITY_PER_S, fails=lambda now, rng: 10 <= now < 20 and rng.random() < share)
    shop.run(10.0)
    before = shop.limit.limit
    shop.run(20.0)
    assert shop.failed > 1_000
    assert shop.limit.baseline_s == pytest.approx(SERVICE_S, rel=0.1)
    assert shop.limit.limit <= 2 * before + AT_ONCE, "at most for the places that failures leave to others"
    shop.run(22.0)
    assert shop.run(27.0) >= 0.9 * 5 * CAPACITY_PER_S
    assert shop.limit.limit <= 3 * AT_ONCE


def test_time_outs_are_slow_work() -> None:
    """The store hangs, and everything fails after a second: the limit comes down as if it had been answered after a second."""
    limit = Limit(Concurrency())
    now = 0.0
    for took_s, ok in [(0.02, True)] * 40 + [(1.0, False)] * 200:
        for _ in range(limit.limit):
            limit.sample(now + took_s, now + 1e-6, limit.limit, ok)
        now += took_s
        limit.adapt(now, limit.limit, 0.0)
    assert limit.limit <= 2 * limit.policy.limit_min


def test_a_late_event_loop_lowers_the_limit_under_load_and_lets_it_come_back() -> None:
    shop = Shop(lambda now: SATURATED, lag_s=lambda now: 0.2 if 10 <= now < 20 else 0.0)
    shop.run(10.0)
    before = shop.limit.limit
    shop.run(20.0)
    assert shop.limits[-1] == shop.limit.policy.limit_min
    shop.run(25.0)
    assert shop.limits[-1] >= before - 4


def test_a_late_event_loop_lowers_nothing_while_less_than_half_is_in_use() -> None:
    shop = Shop(lambda now: CAPACITY_PER_S / 4, lag_s=lambda now: 0.2)
    shop.run(10.0)
    assert min(shop.limits) == shop.limit.policy.limit_start
    assert shop.refused == 0


def test_a_store_that_takes_more_is_given_more_within_five_seconds() -> None:
    shop = Shop(lambda now: SATURATED, at_once=200)
    shop.run(5.0)
    assert shop.run(6.0) >= 0.9 * 200 / SERVICE_S


def test_from_the_floor_it_is_back_within_five_seconds() -> None:
    shop = Shop(lambda now: SATURATED, at_once=32, policy=Concurrency(limit_start=4))
    shop.run(5.0)
    assert shop.run(6.0) >= 0.9 * 32 / SERVICE_S


def test_the_latency_follows_the_work_and_is_forgotten_when_there_is_none() -> None:
    """Deadlines are refused by it: one that is remembered after the work has gone would refuse all work that comes."""
    shop = Shop(lambda now: CAPACITY_PER_S / 2)
    assert shop.limit.latency_s == 0.0
    shop.run(2.0)
    assert shop.limit.latency_s == pytest.approx(SERVICE_S, rel=0.1)
    limit = shop.limit
    limit.adapt(2.9, 0, 0.0)
    assert limit.latency_s == pytest.approx(SERVICE_S, rel=0.1)
    limit.adapt(4.0, 1, 0.0)
    assert limit.latency_s == pytest.approx(SERVICE_S, rel=0.1), "something is under way: it may take so long, or longer"
    limit.adapt(5.0, 0, 0.0)
    assert limit.latency_s == 0.0


ENDED = st.tuples(st.floats(0, 3), st.floats(0, 3), st.integers(0, 2000), st.booleans())


@given(st.lists(st.tuples(st.lists(ENDED, max_size=30), st.integers(0, 2000), st.floats(0, 1)), max_size=30))
def test_whatever_it_is_told_it_stays_within_its_bounds(
    windows: list[tuple[list[tuple[float, float, int, bool]], int, float]],
) -> None:
    policy = Concurrency(limit_min=3, limit_start=5, limit_max=9)
    limit, now = Limit(policy), 0.0
    for ended, in_flight, lag_s in windows:
        for took_s, after_s, in_flight_at_start, ok in ended * 20:
            limit.sample(now + after_s, now + after_s - took_s, in_flight_at_start, ok)
        now += 3.0
        limit.adapt(now, in_flight, lag_s)
        assert policy.limit_min <= limit.limit <= policy.limit_max
        assert len(limit._took) <= SAMPLES_MAX
        assert limit.latency_s >= 0.0
        assert limit.baseline_s >= 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit_min": 1}, "2 <= limit_min <= limit_start <= limit_max, not 1, 20, 1000"),
        ({"limit_start": 3}, "not 4, 3, 1000"),
        ({"limit_max": 19}, "not 4, 20, 19"),
        ({"tolerance": 1.0}, "tolerance above 1"),
        ({"tolerance": float("nan")}, "tolerance above 1"),
        ({"lag_s": 0.0}, "lag_s above 0"),
        ({"window_s": -1.0}, "window_s above 0"),
        ({"probe_every_s": float("inf")}, "probe_every_s above 0"),
    ],
)
def test_senseless_policies_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Concurrency(**arguments)  # type: ignore[arg-type]


def settled() -> Limit:
    """A limit of 20 that knows its baseline, 20 ms, from light load, and has never probed."""
    limit = Limit(Concurrency(limit_max=20))
    for number in range(10):
        limit.sample(0.02, 0.0, 1 + number % 4, True)
    limit.adapt(0.1, 4, 0.0)
    assert (limit.limit, limit.baseline_s, limit.probes) == (20, 0.02, 0)
    return limit


def window(limit: Limit, now: float, took_s: list[float], in_flight: list[int], *, ok: bool = True) -> float:
    """Let work begin and end in the present window, and end that; return the time."""
    end = max(now + max(took_s) + 0.001, limit.window_ends_at)
    for seconds, count in zip(took_s, in_flight, strict=True):
        limit.sample(end, end - seconds, count, ok)
    limit.adapt(end, in_flight[-1], 0.0)
    return end


def test_only_the_second_window_in_which_the_limit_holds_work_back_sets_off_a_probe() -> None:
    limit = settled()
    now = window(limit, 0.1, [0.02] * 20, [20] * 20)
    assert not limit.probing
    now = window(limit, now, [0.02] * 20, [4] * 20)
    now = window(limit, now, [0.02] * 20, [20] * 20)
    assert not limit.probing
    window(limit, now, [0.02] * 20, [20] * 20)
    assert (limit.probing, limit.limit) == (True, 15)


def test_a_probe_that_has_seen_enough_ends_with_its_window_and_one_that_has_not_goes_on() -> None:
    limit = settled()
    now = 0.1
    for _ in range(2):
        now = window(limit, now, [0.02] * 20, [20] * 20)
    now = window(limit, now, [0.02] * 49, [5] * 49)
    assert limit.probing
    window(limit, now, [0.02], [5])
    assert not limit.probing
    assert limit.limit == 20


def test_a_burst_into_an_idle_store_is_no_baseline_and_lowers_nothing() -> None:
    """Eighteen come at once and wait for each other: less than half of the limit is in use on the average, but they waited."""
    limit = settled()
    now = 0.1
    for _ in range(20):
        now = window(limit, now, [0.01 * count for count in range(1, 19)], list(range(1, 19)))
    assert limit.baseline_s == 0.02
    assert limit.limit == 20


def test_time_outs_at_light_load_are_no_baseline() -> None:
    limit = settled()
    now = 0.1
    for _ in range(20):
        now = window(limit, now, [1.0] * 20, [3] * 20, ok=False)
    assert limit.baseline_s == 0.02
    assert limit.latency_s == pytest.approx(1.0)
    assert limit.limit == 20


@pytest.mark.parametrize(("took_s", "limits"), [(0.0001, [10, 13, 16]), (0.02, [10, 13, 16]), (10.0, [10, 5, 4])])
def test_a_window_adds_at_most_the_root_of_the_limit_and_takes_at_most_half(took_s: float, limits: list[int]) -> None:
    """10 + √10 = 13.2, 13.2 + √13.2 = 16.8; 10 / 2 + 0.5 = 5.5, and then the floor."""
    limit = Limit(Concurrency(limit_start=10))
    for _ in range(10):
        limit.sample(0.02, 0.0, 1, True)
    limit.adapt(0.1, 1, 0.0)
    now, seen = 0.1, [limit.limit]
    for _ in limits[1:]:
        # Not quite as many as hold it at its bound.
        now = window(limit, now, [took_s] * 20, [int(0.7 * limit.limit)] * 19 + [limit.limit])
        seen.append(limit.limit)
    assert seen == limits


def test_what_is_kept_of_a_window_is_bounded() -> None:
    limit = Limit(Concurrency())
    for number in range(10 * SAMPLES_MAX):
        limit.sample(0.001 * number, 0.001 * number, 4, True)
    assert len(limit._took) == SAMPLES_MAX


@pytest.mark.parametrize(("took_s", "probes"), [(0.02, 1), (0.06, 2)])
def test_a_probe_that_is_a_surprise_is_soon_followed_by_another(took_s: float, probes: int) -> None:
    limit = settled()
    now = 0.1
    for _ in range(2):
        now = window(limit, now, [0.02] * 20, [20] * 20)
    now = window(limit, now, [took_s] * 50, [5] * 50)
    assert (limit.probing, limit.probes) == (False, 1)
    for _ in range(25):
        now = window(limit, now, [0.021] * 20, [20] * 20)
    assert limit.probes == probes


def test_a_probe_of_little_work_goes_on_and_gives_up_in_the_end() -> None:
    limit = settled()
    now = 0.1
    for _ in range(2):
        now = window(limit, now, [0.02] * 20, [20] * 20)
    limit.sample(now + 0.02, now, 5, True)
    limit.adapt(now + 0.3, 5, 0.0)
    assert limit.probing, "not even after what is enough for a slow store: it has seen one piece of work"
    limit.adapt(now + 0.5, 5, 0.0)
    assert (limit.probing, limit.limit, limit.baseline_s) == (False, 20, 0.02)


def test_a_window_at_the_floor_is_a_baseline() -> None:
    """The store takes ten times as long as was known: four at once do not wait for each other, and no probe is needed."""
    limit = Limit(Concurrency(limit_start=4))
    now = window(limit, 0.0, [0.02] * 20, [1] * 20)
    assert limit.baseline_s == 0.02
    now = window(limit, now, [0.2] * 20, [4] * 20)
    assert limit.baseline_s == pytest.approx(0.2)
    window(limit, now, [0.2] * 20, [4] * 20)
    assert (limit.limit, limit.probes) == (6, 0)


def test_one_piece_of_work_of_another_kind_changes_nothing() -> None:
    limit = settled()
    window(limit, 0.1, [*[0.02] * 40, 4.0], [*[12] * 40, 12])
    assert limit.latency_s == pytest.approx(0.02)
    assert limit.limit == 20
