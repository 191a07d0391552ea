"""Who comes in while there is not enough for all, in virtual time: shares, the bound of the waits, and who is dropped."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from admitting import Arrival, Run, admitter, let_in, poisson, queued, refused, run

from outlast._core.admission.queue import Place, Queue
from outlast._core.admission.ranked import STALE_MIN
from outlast._core.admission.ticket import Ticket
from outlast._core.admission.values import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from outlast._core.admission.admitter import Admitter

SECONDS = 8.0
SLOTS = 8
WORK_S = 0.02
CAPACITY_PER_S = SLOTS / WORK_S


def others(by: str) -> Iterator[Arrival]:
    """Ten tenants, or keys of one tenant, that ask for half of the capacity together."""
    for number in range(10):
        name = f"other {number}"
        for at in poisson(random.Random(number), CAPACITY_PER_S / 2 / 10, SECONDS):
            yield Arrival(at, name if by == "tenant" else "", name)


def greedy(by: str, times: float, keys: int = 1) -> Iterator[Arrival]:
    """One that asks for `times` its share, which is the other half."""
    rng = random.Random(99)
    for at in poisson(rng, CAPACITY_PER_S / 2 * times, SECONDS):
        yield Arrival(at, "greedy" if by == "tenant" else "", f"greedy {rng.randrange(keys)}")


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    return values[int(len(values) * share)]


def of_others(result: Run) -> list[float]:
    return [took for (_, key), all_took in result.took_s.items() if key.startswith("other") for took in all_took]


@pytest.mark.parametrize(("by", "keys"), [("tenant", 1), ("tenant", 500), ("key", 1)])
def test_a_tenant_at_20_times_its_share_takes_nothing_from_the_others(by: str, keys: int) -> None:
    alone = run(others(by))
    beside = run([*others(by), *greedy(by, 20, keys)])
    assert not any(key.startswith("other") for _, key in alone.refused)
    assert not any(key.startswith("other") for _, key in beside.refused), "all are served"
    assert len(of_others(beside)) == len(of_others(alone)) > 1_000
    assert percentile(of_others(beside), 0.99) <= 2 * percentile(of_others(alone), 0.99)
    # And nothing is left idle for that: what the others leave over is used.
    assert beside.machine.done >= 0.98 * CAPACITY_PER_S * SECONDS
    assert beside.machine.in_flight == beside.machine.waiting == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_tenant_that_asks_for_less_than_its_share_is_never_taken_for_a_flood(seed: int) -> None:
    """Each of the four asks for five eighths of its share, at random: somebody of it nearly always waits, and it has bursts."""
    small = [
        Arrival(at, f"other {number}", f"other {number}")
        for number in range(4)
        for at in poisson(random.Random(10 * seed + number), CAPACITY_PER_S / 8, SECONDS)
    ]
    result = run([*small, *greedy("tenant", 20)])
    assert not [key for _, key in result.refused if key.startswith("other")]
    assert result.machine.done >= 0.98 * CAPACITY_PER_S * SECONDS


def test_who_is_refused_for_its_share_is_told_so() -> None:
    result = run([*others("tenant"), *greedy("tenant", 20)])
    reasons = Counter(refusal.reason for refusal in result.refusals)
    assert reasons[Reason.SHARE] > reasons[Reason.CONCURRENCY] > 0
    share = next(refusal for refusal in result.refusals if refusal.reason is Reason.SHARE)
    assert share.seen >= share.limit
    assert share.limit < SLOTS


@pytest.mark.parametrize("by", ["tenant", "key"])
def test_a_refusal_names_the_share_of_who_has_it_and_the_limit_to_who_has_not(by: str) -> None:
    machine = admitter(4)

    def ask(name: str) -> dict[str, Any]:
        return {"tenant": name if by == "tenant" else "", "key": name if by == "key" else "", "may_wait": False}

    for name in ("much", "much", "much", "little"):
        let_in(machine, 0.0, **ask(name))
    share = refused(machine, 0.0, **ask("much"))
    assert (share.reason, share.seen, share.limit) == (Reason.SHARE, 3, 2.0)
    for name in ("little", "none"):
        full = refused(machine, 0.0, **ask(name))
        assert (full.reason, full.seen, full.limit) == (Reason.CONCURRENCY, 4, 4)


def test_whoever_would_be_next_may_wait_however_long_work_takes() -> None:
    machine = admitter(2)
    let_in(machine, 0.0, tenant="much"), let_in(machine, 0.0, tenant="much")
    machine._limit.latency_s = 5.0
    queued(machine, 0.0, tenant="much")
    assert refused(machine, 0.0, tenant="much").reason is Reason.CONCURRENCY
    queued(machine, 0.0, tenant="none")
    # Nobody is before it, but this one: 2.5 s until another slot is free.
    refused(machine, 0.0, tenant="none too")


def test_a_lone_tenant_may_use_everything() -> None:
    result = run(greedy("tenant", 3))
    assert result.machine.done >= 0.98 * CAPACITY_PER_S * SECONDS
    assert {refusal.reason for refusal in result.refusals} == {Reason.CONCURRENCY}


def test_tenants_whose_work_takes_ten_times_as_long_get_the_same_slots_and_not_the_same_number() -> None:
    def work_s(arrival: Arrival) -> float:
        return 0.2 if arrival.tenant == "slow" else WORK_S

    queue = Queue(interval_s=1.0)
    asks = [Arrival(number / 1_000, tenant) for number in range(8_000) for tenant in ("slow", "quick")]
    result = run(asks, work_s=work_s, queue=queue)
    # By time: slots × seconds of each.
    slow_s, quick_s = len(result.served("slow")) * 0.2, len(result.served("quick")) * WORK_S
    assert 0.4 <= slow_s / (slow_s + quick_s) <= 0.6


def test_most_of_what_is_too_much_is_refused_before_it_waits() -> None:
    result = run(greedy("tenant", 20))
    dropped = sum(result.waited.values()) + SLOTS - result.machine.done
    assert sum(result.refused.values()) > 8 * CAPACITY_PER_S * SECONDS
    assert dropped <= 0.1 * sum(result.refused.values())


def test_nobody_waits_longer_than_the_bound() -> None:
    for result in (run(greedy("key", 20, 50)), run(greedy("key", 3)), run([*others("tenant"), *greedy("tenant", 3)])):
        assert max(result.waits_s) <= Queue().interval_s


def test_work_with_a_deadline_is_done_by_then_or_refused() -> None:
    asks = [Arrival(at, deadline_s=0.05) for at in poisson(random.Random(3), 3 * CAPACITY_PER_S, SECONDS)]
    result = run(asks)
    took = sorted(result.served(""))
    assert len(took) >= 0.9 * CAPACITY_PER_S * SECONDS
    # The estimate of how long work takes is that of one window; the first comes after 0.1 s.
    assert percentile(took, 0.99) <= 0.05


# Controlled delay.


def expiries(queue: Queue, times: list[float], key: str = "k") -> list[float]:
    """When the waiters that come at these times would be dropped, one after the other, if no slot is ever freed."""
    dropped: list[float] = []
    machine = admitter(queue=queue)
    let_in(machine, 0.0, key=key), let_in(machine, 0.0, key=key)
    for at in times:
        while machine.next_expiry is not None and machine.next_expiry <= at:
            machine.expire(machine.next_expiry)
        place = queued(machine, at, key=key)
        dropped.append(round(place.expires_at - at, 6))
    return dropped


def test_the_wait_is_the_interval_then_the_target_and_the_interval_again_after_a_break() -> None:
    queue = Queue(target_s=0.01, interval_s=0.1)
    times = [1.0, 1.05, 1.09, 1.1, 1.12, 1.13, 1.18, 1.195, 1.5, 1.55]
    # 1.12: since 1.0 there has always been somebody. 1.195: nobody any more.
    assert expiries(queue, times) == [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("by", ["tenant", "key"])
def test_who_has_less_than_its_part_waits_for_the_interval_and_in_order_however_long_somebody_of_it_has_waited(by: str) -> None:
    machine = admitter(8, queue=Queue(target_s=0.01, interval_s=0.1))

    def ask(name: str) -> dict[str, Any]:
        return {"tenant": name if by == "tenant" else "", "key": name}

    held = [let_in(machine, 0.0, **ask("much")) for _ in range(8)]
    places = [queued(machine, 1.0, **ask("little"))]
    for at in (1.09, 1.15):
        machine.expire(at)
        places.append(queued(machine, at, **ask("little")))
        queued(machine, at, **ask("much"))
    assert [round(place.expires_at - place.since, 3) for place in places] == [0.1, 0.1, 0.1]
    [(went_in, _)] = machine.release(held[0], 1.16)
    assert went_in is places[1], "the first was dropped at 1.1"


def test_the_oldest_goes_in_first_and_the_newest_under_pressure() -> None:
    machine = admitter(queue=Queue(target_s=0.09, interval_s=0.1))
    held = [let_in(machine, 0.0), let_in(machine, 0.0)]
    first, second = queued(machine, 1.0), queued(machine, 1.01)
    queued(machine, 1.02)
    [(went_in, _)] = machine.release(held[0], 1.03)
    assert went_in is first
    third, newest = queued(machine, 1.06), queued(machine, 1.07)
    [(went_in, _)] = machine.release(held[1], 1.105)
    assert went_in is newest, "somebody has been waiting for more than the interval"
    assert second.waits
    assert third.waits


@pytest.mark.parametrize("by", ["tenant", "key"])
def test_a_short_queue_is_ahead_of_a_long_one_by_three_slots_at_most(by: str) -> None:
    machine = admitter(8, queue=Queue(interval_s=1.0, target_s=1.0))

    def ask(name: str) -> dict[str, Any]:
        return {"tenant": name if by == "tenant" else "", "key": name}

    held = [let_in(machine, 0.0, **ask("flood")) for _ in range(8)]
    for _ in range(20):
        queued(machine, 0.0, **ask("flood"))
    went_in: list[str] = []
    for _ in range(8):
        queued(machine, 0.1, **ask("burst"))
    for ticket in held:
        [(place, _)] = machine.release(ticket, 0.2)
        went_in.append(place.key)
    # With 5 slots and 3 waiters (log2: 1.6) the burst counts for more than the flood with 2 slots and 20 waiters, which are 3.
    assert went_in == ["burst"] * 5 + ["flood"] * 3


def test_two_who_ask_for_half_of_all_each_leave_a_flood_its_third() -> None:
    asks = [
        Arrival(at, name, name)
        for number, (name, share) in enumerate([("a", 0.5), ("b", 0.5), ("flood", 20.0)])
        for at in poisson(random.Random(number), CAPACITY_PER_S * share, SECONDS)
    ]
    result = run(asks)
    for name in ("a", "b", "flood"):
        assert len(result.served(name)) >= 0.3 * CAPACITY_PER_S * SECONDS


# The bound in number.


def test_when_all_places_are_taken_the_longest_queue_loses_its_oldest_to_a_newcomer_of_a_short_one() -> None:
    machine = admitter(queue=Queue(waiters_max=6))
    let_in(machine, 0.0, tenant="c", key="c"), let_in(machine, 0.0, tenant="long", key="a")
    long = [queued(machine, 0.0, tenant="long", key="ab"[number % 4 == 3]) for number in range(5)]
    short = queued(machine, 0.0, tenant="short", key="s")
    assert not machine.settled
    # long: four of a, one of b. A newcomer of a would only change places with its like.
    assert refused(machine, 0.0, tenant="long", key="a").reason is Reason.SHARE
    assert not machine.settled
    another = queued(machine, 0.0, tenant="third", key="t")
    assert [place for place, _ in machine.drain()] == [long[0]]
    queued(machine, 0.0, tenant="long", key="b")
    assert [place for place, _ in machine.drain()] == [long[1]], "within the tenant its longest key"
    assert machine.waiting == 6
    assert short.waits
    assert another.waits


def test_a_flood_of_tenants_with_one_waiter_each_costs_nobody_a_place() -> None:
    machine = admitter(queue=Queue(waiters_max=100))
    let_in(machine, 0.0), let_in(machine, 0.0)
    for number in range(100):
        queued(machine, 0.0, tenant=str(number))
    for number in range(100, 1_000):
        refused(machine, 0.0, tenant=str(number))
    assert not machine.settled
    assert machine.waiting == 100


@pytest.mark.parametrize("by", ["tenant", "key"])
def test_a_queue_that_was_the_longest_keeps_its_places_once_it_is_short(by: str) -> None:
    machine = admitter(queue=Queue(waiters_max=6))
    let_in(machine, 0.0), let_in(machine, 0.0)

    def comes(name: str) -> Place:
        return queued(machine, 0.0, tenant=name if by == "tenant" else "", key=name)

    once_long = [comes("a") for _ in range(5)]
    long = [comes("b")]
    for place in once_long[1:]:
        machine.leave(place, 0.0)
    long += [comes("b") for _ in range(4)]
    comes("c")
    assert [place for place, _ in machine.drain()] == [long[0]]
    assert once_long[0].waits


# The cost of a decision.


def lines_executed(act: Callable[[], object]) -> int:
    """The lines of Python that run: a measure of work that does not depend on the machine or on what else it does."""
    number = 0

    def count(frame: FrameType, event: str, _: object) -> object:
        nonlocal number
        number += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        act()
    finally:
        sys.settrace(before)
    return number


def crowd(size: int) -> tuple[Admitter, list[Ticket], list[Place]]:
    """As many tenants as waiters, with two keys each."""
    machine = admitter(64, queue=Queue(waiters_max=size))
    held = [let_in(machine, 0.0, tenant=str(number), key=str(number)) for number in range(64)]
    places = [
        queued(machine, 0.0, tenant=str(number // 2), key=str(number), deadline_at=1 + number % 997) for number in range(size)
    ]
    return machine, held, places


def test_a_decision_costs_no_more_with_ten_thousand_waiters_of_as_many_keys_than_with_a_hundred() -> None:
    def some_of_each(size: int) -> int:
        machine, held, places = crowd(size)

        def act() -> None:
            for number in range(30):
                # One goes in, one leaves, two come: one waits, one finds all places taken and takes one, or is refused.
                [(_, ticket)] = machine.release(held.pop(), 0.001)
                assert isinstance(ticket, Ticket)
                held.append(ticket)
                machine.leave(places[size // 4 + 2 * number], 0.001)
                machine.admit(0.001, tenant="new", key=str(number))
                machine.admit(0.001, tenant=f"n{number}")
                machine.admit(0.001, tenant="0", may_wait=False)
            machine.drain()

        return lines_executed(act)

    few, many = some_of_each(100), some_of_each(10_000)
    # A hundred times as much if anything went through all of them.
    assert many <= 2 * few


def test_ten_thousand_waiters_that_have_gone_leave_nothing_behind() -> None:
    machine, held, places = crowd(10_000)
    waiters = machine._waiters
    random.Random(1).shuffle(places)
    for place in places[:5_000]:
        machine.leave(place, 0.01)
    for ranked in (waiters._by_held, waiters._by_length, waiters._expiry):
        assert len(ranked._heap) <= 2 * len(ranked) + STALE_MIN
    assert len(machine.expire(0.1)) == 5_000
    assert (waiters.count, waiters._tenants, waiters.next_expiry) == (0, {}, None)
    for ranked in (waiters._by_held, waiters._by_length, waiters._expiry):
        assert (ranked._heap, ranked._entries) == ([], {})
    for ticket in held:
        machine.release(ticket, 0.2)
    assert machine.keys == machine.tenants == 0
