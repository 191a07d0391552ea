"""The machine of an admission: who comes in, waits or is refused, and that no slot and no token is lost."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest
from admitting import FixedLimit, admitter, let_in, queued, refused

from outlast._core.admission.admitter import Admitter
from outlast._core.admission.bucket import Rate
from outlast._core.admission.memory import Memory
from outlast._core.admission.policy import AdmissionPolicy
from outlast._core.admission.queue import Queue
from outlast._core.admission.ticket import Ticket, TicketState
from outlast._core.admission.values import Criticality, Reason, Refusal

NEVER_AGAIN = 1e-9
"""The rate of a bucket that nothing flows into while a test lasts."""


# Slots.


def test_a_slot_goes_on_to_whoever_waits() -> None:
    machine = admitter()
    first, _ = let_in(machine, 0.0), let_in(machine, 0.0)
    place = queued(machine, 0.01)
    [(settled, ticket)] = machine.release(first, 0.02)
    assert settled is place
    assert isinstance(ticket, Ticket)
    assert place.outcome is ticket
    assert (machine.in_flight, machine.waiting) == (2, 0)
    assert machine.release(first, 0.03) == (), "the second time changes nothing"
    assert (machine.in_flight, machine.done, machine.admitted) == (2, 1, 3)


def test_a_slot_whose_waiter_goes_in_the_instant_of_getting_it_goes_on_and_is_never_lost() -> None:
    machine = admitter()
    held = [let_in(machine, 0.0), let_in(machine, 0.0)]
    now = 0.0
    for _ in range(10_000):
        now += 0.001
        gone, follower = queued(machine, now), queued(machine, now)
        [(settled, _)] = machine.release(held.pop(0), now)
        assert settled is gone
        # Its task was cancelled before it could run with what it was handed.
        [(settled, ticket)] = machine.leave(gone, now)
        assert settled is follower, "the next runs at once"
        assert isinstance(ticket, Ticket)
        assert machine.leave(gone, now) == ()
        held.append(ticket)
        assert (machine.in_flight, machine.waiting) == (2, 0)
    for ticket in held:
        machine.release(ticket, now)
    assert machine.in_flight == machine.keys == machine.tenants == 0
    assert machine.left == 10_000
    let_in(machine, now), let_in(machine, now)


def test_work_that_never_began_says_nothing_about_how_long_work_takes() -> None:
    machine = admitter()
    held = [let_in(machine, 0.0), let_in(machine, 0.0)]
    place = queued(machine, 0.01)
    machine.release(held[0], 0.02)
    assert isinstance(machine._limit, FixedLimit)
    machine.leave(place, 0.03)
    assert machine._limit.samples == [0.02]
    machine.release(held[1], 0.03)
    assert machine._limit.samples == [0.02, 0.03]


def test_the_limit_is_told_what_it_needs_when_its_window_ends_and_who_waits_goes_in_by_what_it_says() -> None:
    class Growing(FixedLimit):
        adapted: ClassVar[list[tuple[float, int, float]]] = []

        def adapt(self, now: float, in_flight: int, lag_s: float) -> None:
            self.adapted.append((now, in_flight, lag_s))
            self.limit = 3
            self.window_ends_at = now + 9

    machine = admitter()
    machine._limit = Growing(2)
    machine._limit.window_ends_at = 1.0
    machine.lag_s = 0.03
    held = [let_in(machine, 0.0), let_in(machine, 0.0)]
    places = [queued(machine, 0.95, deadline_at=9.0), queued(machine, 0.95), queued(machine, 0.95)]
    assert [place for place, _ in machine.release(held[0], 0.96)] == places[:1]
    assert [place for place, _ in machine.release(held[1], 1.0)] == places[1:]
    assert Growing.adapted == [(1.0, 1, 0.03)]
    assert machine.in_flight == machine.limit == 3


def test_the_more_is_served_the_sooner_it_is_worth_coming_back() -> None:
    def again_s(served: int) -> float:
        machine = admitter(1)
        first = let_in(machine, 0.0)
        refused(machine, 0.0, may_wait=False)
        machine.release(first, 0.1)
        for _ in range(served):
            machine.release(let_in(machine, 0.1), 0.2)
        let_in(machine, 0.5)
        waits = [refused(machine, 0.5, may_wait=False).retry_after_s for _ in range(50)]
        return max(wait for wait in waits if wait is not None)

    assert again_s(1_000) < again_s(5)


def test_neither_critical_work_nor_work_that_says_nothing_is_a_sample_of_how_long_work_takes() -> None:
    machine = admitter()
    assert isinstance(machine._limit, FixedLimit)
    machine.release(let_in(machine, 0.0, criticality=Criticality.CRITICAL), 0.001)
    machine.release(let_in(machine, 0.0), 0.002, ok=None)
    assert machine._limit.samples == []
    machine.release(let_in(machine, 0.0, criticality=Criticality.SHEDDABLE), 0.02, ok=False)
    assert machine._limit.samples == [0.02]
    assert machine.done == 3


def test_a_waiter_is_dropped_when_its_time_is_over() -> None:
    machine = admitter()
    let_in(machine, 0.0), let_in(machine, 0.0)
    place = queued(machine, 1.0)
    assert machine.next_expiry == 1.1
    assert machine.expire(1.05) == ()
    [(settled, refusal)] = machine.expire(1.1)
    assert settled is place
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.CONCURRENCY
    assert refusal.retry_after_s is not None
    assert refusal.retry_after_s >= 1
    assert machine.next_expiry is None
    assert machine.leave(place, 1.2) == ()
    assert machine.left == 0, "who was refused has not left"


def test_without_a_queue_nobody_waits() -> None:
    machine = admitter(queue=None)
    let_in(machine, 0.0), let_in(machine, 0.0)
    assert refused(machine, 0.0).reason is Reason.CONCURRENCY
    assert refused(admitter_full(), 0.0, may_wait=False).reason is Reason.CONCURRENCY


def admitter_full(**policy: Any) -> Admitter:
    machine = admitter(**policy)
    let_in(machine, 0.0), let_in(machine, 0.0)
    return machine


def test_without_any_check_all_work_comes_in() -> None:
    machine = Admitter(AdmissionPolicy(concurrency=None, memory=None, queue=None), random.Random(7), Ticket)
    machine.sample_memory(0.0, 100.0, 100.0)
    tickets = [let_in(machine, 0.0, deadline_at=1.0, size_bytes=10**12, cost=1e12) for _ in range(5_000)]
    assert machine.limit == float("inf")
    for ticket in tickets:
        machine.release(ticket, 1.0)
    assert machine.done == 5_000


# Deadlines.


def test_work_that_cannot_be_done_in_time_is_refused_before_it_costs_anything() -> None:
    machine = admitter(rate=Rate(NEVER_AGAIN, burst=3))
    assert refused(machine, 10.0, deadline_at=10.0).reason is Reason.DEADLINE
    let_in(machine, 10.0)
    machine._limit.latency_s, machine._ended_at = 0.5, 9.9
    late = refused(machine, 10.0, deadline_at=10.4)
    assert (late.reason, late.seen, late.limit) == (Reason.DEADLINE, 0.5, pytest.approx(0.4))
    let_in(machine, 10.0, deadline_at=10.6)
    let_in(machine, 10.0, deadline_at=10.4, criticality=Criticality.CRITICAL)
    assert refused(machine, 10.0, deadline_at=9.9, criticality=Criticality.CRITICAL).reason is Reason.DEADLINE
    assert refused(machine, 10.0).reason is Reason.RATE, "three tokens were there, for three that came in"


def test_an_estimate_that_is_wrong_is_corrected_by_the_work_that_is_let_in_one_after_the_other() -> None:
    machine = admitter()
    machine._limit.latency_s = 3.0
    for step in range(30):
        now = step * 0.1
        machine.release(let_in(machine, now, deadline_at=now + 1.0), now + 0.02)
    assert machine.latency_s == pytest.approx(0.02)


def test_an_estimate_that_nothing_has_confirmed_for_long_is_forgotten_also_beside_work_that_never_ends() -> None:
    machine = admitter(limit=20)
    let_in(machine, 0.0)
    machine.release(let_in(machine, 5.0), 8.0)
    machine._limit.latency_s = 3.0
    for now in (8.1, 12.0, 15.0):
        assert refused(machine, now, deadline_at=now + 1.0).reason is Reason.DEADLINE
    # 1 s and twice 3 s after the last that ended.
    let_in(machine, 15.1, deadline_at=16.1)
    let_in(machine, 15.1, deadline_at=16.1)


def test_who_would_not_come_in_before_its_deadline_does_not_begin_to_wait() -> None:
    machine = admitter_full()
    machine._limit.latency_s = 0.02
    queued(machine, 0.0, key="a")
    queued(machine, 0.0, key="a")
    # Two are before it, each takes 20 ms, two slots: 20 ms until it comes in, 20 ms of work.
    assert refused(machine, 0.0, key="a", deadline_at=0.035).reason is Reason.DEADLINE
    queued(machine, 0.0, key="a", deadline_at=0.045)


def test_a_waiter_is_dropped_when_its_deadline_cannot_be_kept_any_more() -> None:
    machine = admitter_full()
    machine._limit.latency_s = 0.02
    queued(machine, 0.0, deadline_at=0.05)
    assert machine.next_expiry == pytest.approx(0.03)
    [(_, refusal)] = machine.expire(machine.next_expiry)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.DEADLINE


# Tokens.


@pytest.mark.parametrize("how", ["left", "late"])
def test_the_dead_cost_no_token_and_no_place(how: str) -> None:
    machine = admitter(rate=Rate(NEVER_AGAIN, burst=3), key_rate=Rate(NEVER_AGAIN, burst=1), limit=2)
    held = [let_in(machine, 0.0, key="a"), let_in(machine, 0.0, key="b")]
    now = 0.0
    for _ in range(1_000):
        place = queued(machine, now, key="c", deadline_at=now + 0.05)
        now += 0.06
        if how == "left":
            machine.leave(place, now)
        else:
            [(_, refusal)] = machine.expire(now)
            assert isinstance(refusal, Refusal)
    machine.release(held[0], now)
    let_in(machine, now, key="c")
    assert refused(machine, now, key="d").reason is Reason.RATE


def test_a_thousand_dead_at_once_are_gone_before_the_live_one_asks() -> None:
    machine = admitter(rate=Rate(NEVER_AGAIN, burst=1_002), queue=Queue(waiters_max=1_000))
    held = [let_in(machine, 0.0), let_in(machine, 0.0)]
    places = [queued(machine, 0.0, key=str(number % 7), deadline_at=0.05) for number in range(1_000)]
    assert refused(machine, 0.0).reason is Reason.RATE
    for place in places[::2]:
        machine.leave(place, 0.01)
    # Nobody has called `expire`: the first slot that is freed finds only dead.
    settled = machine.release(held[0], 0.06)
    assert len(settled) == 500
    assert all(isinstance(outcome, Refusal) for _, outcome in settled)
    assert (machine.in_flight, machine.waiting) == (1, 0)
    assert isinstance(machine.admit(0.06), Ticket)
    assert machine._bucket.taken == pytest.approx(3)


def test_work_that_costs_more_than_there_ever_is_is_refused_for_good() -> None:
    machine = admitter(rate=Rate(5, burst=10))
    assert refused(machine, 0.0, cost=11) == Refusal(Reason.RATE, 11, 10, None)
    assert refused(admitter(key_rate=Rate(5, burst=10)), 0.0, cost=11) == Refusal(Reason.RATE, 11, 10, None)
    closed = admitter(rate=Rate(0))
    for now in (0.0, 1e3, 1e9):
        assert refused(closed, now) == Refusal(Reason.RATE, 1, 0.0, None)
    assert isinstance(machine.admit(0.0, cost=10), Ticket)


@pytest.mark.parametrize("cost", [float("nan"), -1.0])
@pytest.mark.parametrize("name", ["rate", "key_rate"])
def test_nonsense_is_no_cost(cost: float, name: str) -> None:
    machine = admitter(**{name: Rate(5)})
    with pytest.raises(ValueError, match="costs at least 0 tokens"):
        machine.admit(0.0, cost=cost)
    assert isinstance(machine.admit(0.0), Ticket)


@pytest.mark.parametrize("name", ["rate", "key_rate"])
@pytest.mark.parametrize("per_s", [49, 98, 103, 107, 10 / 13, 1e-3])
def test_who_comes_back_after_the_wait_that_was_named_comes_in_at_the_first_try(name: str, per_s: float) -> None:
    machine = admitter(limit=2, **{name: Rate(per_s, burst=1)})
    now = 1_000_000.0
    for _ in range(300):
        machine.release(let_in(machine, now, key="a"), now)
        again = refused(machine, now, key="a")
        assert again.retry_after_s is not None
        # The jitter lengthens the wait, and never shortens it.
        exact_s = machine._buckets.take(now, "a") if machine._buckets is not None else machine._bucket.take(now)
        assert exact_s is not None
        assert exact_s <= again.retry_after_s <= 1.2 * exact_s
        now += exact_s


def test_what_the_rate_of_all_refuses_costs_its_key_nothing() -> None:
    machine = admitter(rate=Rate(NEVER_AGAIN, burst=1), key_rate=Rate(NEVER_AGAIN, burst=1))
    let_in(machine, 0.0, key="a")
    for _ in range(3):
        assert refused(machine, 0.0, key="b").limit == pytest.approx(0)
    machine._bucket.put_back(0.0, 1)
    let_in(machine, 0.0, key="b")


def test_tokens_go_back_where_they_were_taken_also_when_the_bucket_of_the_key_is_forgotten() -> None:
    machine = admitter(key_rate=Rate(100, burst=1), keys_max=1)
    let_in(machine, 0.0, key="a"), let_in(machine, 0.02, key="b")
    place = queued(machine, 0.04, key="c")
    # c's bucket is full again, so its place goes to d, and e shares the bucket of the others.
    queued(machine, 0.06, key="d"), queued(machine, 0.06, key="e")
    buckets = machine._buckets
    assert buckets is not None
    assert [buckets.get(key) is not None for key in "cd"] == [False, True]
    machine.leave(place, 0.06)
    assert refused(machine, 0.06, key="f").reason is Reason.RATE, "e has taken the one token of the others"


def test_nonsense_is_no_size() -> None:
    for size_bytes in (-1, float("nan")):
        with pytest.raises(ValueError, match="at least 0 bytes"):
            admitter().admit(0.0, size_bytes=size_bytes)  # type: ignore[arg-type]


# Criticality.


def test_critical_work_comes_in_beyond_every_limit_but_its_own() -> None:
    machine = admitter(limit=2, critical_max=3, rate=Rate(NEVER_AGAIN, burst=2))
    let_in(machine, 0.0), let_in(machine, 0.0)
    machine.sample_memory(0.0, 99.0, 100.0)
    held = [let_in(machine, 0.0, criticality=Criticality.CRITICAL, cost=2) for _ in range(3)]
    assert (machine.in_flight, machine.critical) == (5, 3)
    full = refused(machine, 0.0, criticality=Criticality.CRITICAL)
    assert (full.reason, full.seen, full.limit) == (Reason.CONCURRENCY, 3, 3)
    machine.release(held[0], 0.0)
    let_in(machine, 0.0, criticality=Criticality.CRITICAL)


def test_critical_work_counts_so_that_other_work_makes_room_for_it() -> None:
    machine = admitter(limit=2)
    let_in(machine, 0.0, criticality=Criticality.CRITICAL)
    normal = let_in(machine, 0.0)
    let_in(machine, 0.0, criticality=Criticality.CRITICAL)
    place = queued(machine, 0.0)
    assert machine.release(normal, 0.0) == (), "two critical ones have both slots"
    assert place.waits


def test_sheddable_work_never_waits() -> None:
    machine = admitter_full()
    assert refused(machine, 0.0, criticality=Criticality.SHEDDABLE).reason is Reason.CONCURRENCY
    machine = admitter()
    let_in(machine, 0.0, criticality=Criticality.SHEDDABLE)


# Memory.


def test_memory_refuses_sheddable_work_first_then_all_that_is_not_critical() -> None:
    machine = admitter(limit=9, memory=Memory())
    machine.sample_memory(0.0, 85.0, 100.0)
    short = refused(machine, 0.0, criticality=Criticality.SHEDDABLE)
    assert (short.reason, short.seen, short.limit) == (Reason.MEMORY, 85.0, 100.0)
    let_in(machine, 0.0)
    machine.sample_memory(1.0, 91.0, 100.0)
    assert refused(machine, 1.0).reason is Reason.MEMORY
    let_in(machine, 1.0, criticality=Criticality.CRITICAL)
    machine.sample_memory(2.0, None, None)
    let_in(machine, 2.0, criticality=Criticality.SHEDDABLE)


def test_what_work_announces_counts_until_it_is_done() -> None:
    machine = admitter(limit=9)
    machine.sample_memory(0.0, 50.0, 100.0)
    large = let_in(machine, 0.0, size_bytes=30)
    assert refused(machine, 0.0, size_bytes=30).reason is Reason.MEMORY
    assert refused(machine, 0.0, size_bytes=95).retry_after_s is None, "not even alone"
    machine.release(large, 0.0)
    let_in(machine, 0.0, size_bytes=30)


def test_those_who_wait_are_let_go_when_memory_is_short() -> None:
    machine = admitter(limit=2)
    held = [let_in(machine, 0.0), let_in(machine, 0.0)]
    queued(machine, 0.0), queued(machine, 0.0, key="b")
    machine.sample_memory(0.0, 95.0, 100.0)
    assert not machine.settled, "there is no slot for them anyway"
    settled = machine.release(held[0], 0.01)
    assert [outcome.reason for _, outcome in settled if isinstance(outcome, Refusal)] == [Reason.MEMORY] * 2
    assert (machine.in_flight, machine.waiting) == (1, 0)


# Parking.


def test_a_parked_ticket_gives_its_slot_to_who_waits_and_takes_one_when_it_has_work() -> None:
    machine = admitter(limit=2, parked_max=1)
    poll, other = let_in(machine, 0.0, criticality=Criticality.CRITICAL), let_in(machine, 0.0)
    place = queued(machine, 0.0)
    assert machine.park(poll, 0.01) is None
    assert machine.park(poll, 0.01) is None, "the second time changes nothing"
    assert [settled for settled, _ in machine.drain()] == [place]
    assert (machine.in_flight, machine.parked, machine.critical) == (2, 1, 0)
    full = machine.park(other, 0.02)
    assert isinstance(full, Refusal)
    assert (full.seen, full.limit, other.state) == (1, 1, TicketState.HELD)
    machine.unpark(poll, 5.0)
    machine.unpark(poll, 5.0)
    assert (machine.in_flight, machine.parked, machine.critical) == (3, 0, 1)
    assert poll.began_at == 5.0, "the time for which it was parked is no time of work"
    machine.release(poll, 5.01)
    assert (machine.in_flight, machine.critical) == (2, 0)
    assert machine.park(poll, 5.02) is None
    assert machine.parked == 0


def test_critical_work_that_was_parked_comes_back_above_the_bound_and_newcomers_are_refused_until_it_is_below() -> None:
    machine = admitter(critical_max=1)
    polls = []
    for _ in range(2):
        polls.append(let_in(machine, 0.0, criticality=Criticality.CRITICAL))
        machine.park(polls[-1], 0.0)
    for poll in polls:
        machine.unpark(poll, 1.0)
    assert machine.critical == 2
    for poll in polls:
        assert isinstance(machine.admit(1.0, criticality=Criticality.CRITICAL), Refusal)
        machine.release(poll, 1.1)
    let_in(machine, 1.2, criticality=Criticality.CRITICAL)


def test_a_ticket_is_released_while_it_is_parked() -> None:
    machine = admitter(limit=2)
    poll = let_in(machine, 0.0, size_bytes=10)
    machine.park(poll, 0.0)
    machine.release(poll, 9.0), machine.release(poll, 9.0)
    assert (machine.parked, machine.in_flight, machine.done) == (0, 0, 1)
    assert machine._memory.reserved_bytes == 0


# Policies.


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Queue(target_s=0),
        lambda: Queue(target_s=0.2),
        lambda: Queue(interval_s=float("inf")),
        lambda: Queue(interval_s=float("nan")),
        lambda: Queue(waiters_max=0),
        lambda: AdmissionPolicy(keys_max=0),
        lambda: AdmissionPolicy(critical_max=0),
        lambda: AdmissionPolicy(parked_max=0),
        lambda: Rate(1e308),
        lambda: Rate(1, burst=2**63),
    ],
)
def test_nonsense_is_refused_at_construction(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"not |needs "):
        wrong()


def test_every_refusal_is_counted_once() -> None:
    machine = admitter_full(rate=Rate(NEVER_AGAIN, burst=2))
    refused(machine, 1.0, deadline_at=0.0)
    refused(machine, 1.0)
    machine._bucket.put_back(1.0, 1)
    refused(machine, 1.0, may_wait=False)
    queued(machine, 1.0)
    machine.expire(2.0)
    assert machine.refused == {
        Reason.DEADLINE: 1, Reason.RATE: 1, Reason.CONCURRENCY: 2, Reason.MEMORY: 0, Reason.SHARE: 0,
    }  # fmt: skip
