"""The admitter against a model that keeps everything in plain lists, in any order of calls."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from admitting import admitter
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outlast._core.admission.bucket import Rate
from outlast._core.admission.queue import Place, Queue
from outlast._core.admission.ticket import Ticket
from outlast._core.admission.values import Criticality, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast._core.admission.admitter import Settled

SLOTS = 3
BURST = 12
NAMES = st.sampled_from("abc")
PICK = st.integers(0, 10**6)


class Admission(RuleBasedStateMachine):
    """Callers that come, wait, go at any moment, end, and park, in a process whose memory and limit change under them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.queue = Queue(target_s=0.02, interval_s=0.1, waiters_max=6)
        # Nothing flows into the buckets: the tokens that are gone are those of work that came in, or waits.
        rate = Rate(1e-9, burst=BURST)
        self.machine = admitter(SLOTS, queue=self.queue, rate=rate, key_rate=rate, critical_max=2, parked_max=2)
        self.held: list[Ticket] = []
        self.parked: list[Ticket] = []
        self.waiting: list[Place] = []
        self.since: dict[tuple[str, str], float] = {}
        self.handed: list[Place] = []
        """Those whose tickets have not been used yet: their callers may still be cancelled."""
        self.spent = 0.0
        self.came = 0
        self.left = 0
        self.refused = 0

    # What the machine says, and the model of it.

    def settle(self, settled: Sequence[Settled]) -> None:
        for place, outcome in settled:
            assert place.outcome is outcome
            if isinstance(outcome, Ticket):
                self.goes_in_rightly(place)
            self.no_longer_waits(place)
            if isinstance(outcome, Ticket):
                self.held.append(outcome)
                self.handed.append(place)
            else:
                self.refused += 1
                self.spent -= place.cost

    def goes_in_rightly(self, place: Place) -> None:
        """Of the tenants that wait the one that is next; the same of its keys; the oldest, or under pressure the newest."""
        tenants = self.counted(lambda one: one.tenant)
        keys = self.counted(lambda one: one.key)
        assert place.expires_at > self.now
        assert tenants[place.tenant] == min(tenants.values())
        assert keys[place.key] == min(keys[other.key] for other in self.waiting if other.tenant == place.tenant)
        queue = [other for other in self.waiting if (other.tenant, other.key) == (place.tenant, place.key)]
        presses = self.now - self.since[place.tenant, place.key] >= self.queue.interval_s and self.has_its_part(place)
        assert place is queue[-1 if presses else 0]

    def counted(self, name_of: Callable[[Ticket | Place], str]) -> dict[str, float]:
        """Return the slots that count for each that waits: those it holds, and up to three for a long queue."""
        held = Counter(name_of(ticket) for ticket in self.held)
        waiting = Counter(name_of(place) for place in self.waiting)
        return {name: held[name] + min(3.0, math.log2(count)) for name, count in waiting.items()}

    def has_its_part(self, place: Place) -> bool:
        """Whether its tenant has the average of the tenants or more, and its key that of the keys."""
        tenants = Counter(one.tenant for one in [*self.held, *self.waiting])
        keys = Counter(one.key for one in [*self.held, *self.waiting])
        active = max(len({one.tenant for one in some}) for some in (self.held, self.waiting))
        held_keys = len({one.key for one in self.held})
        waiting_keys = len({one.key for one in self.waiting if one.tenant == place.tenant})
        if tenants[place.tenant] * active < len(self.held) + len(self.waiting):
            return False
        return keys[place.key] * max(held_keys, waiting_keys) >= tenants[place.tenant]

    def no_longer_waits(self, place: Place) -> None:
        self.waiting.remove(place)
        if not any((other.tenant, other.key) == (place.tenant, place.key) for other in self.waiting):
            del self.since[place.tenant, place.key]

    # The callers.

    @rule(
        tenant=NAMES,
        key=NAMES,
        cost=st.integers(0, 3),
        size=st.sampled_from([0, 0, 10]),
        deadline_s=st.sampled_from([None, None, 0.0, 0.01, 0.05, 1.0]),
        criticality=st.sampled_from([Criticality.NORMAL] * 5 + list(Criticality)),
        may_wait=st.sampled_from([True, True, True, False]),
    )
    def somebody_comes(
        self, *, tenant: str, key: str, cost: int, size: int, deadline_s: float | None, criticality: Criticality, may_wait: bool
    ) -> None:
        machine, tokens, in_flight = self.machine, self.tokens(), machine_in_flight(self)
        self.came += 1
        got = machine.admit(
            self.now,
            key=tenant + key,
            tenant=tenant,
            cost=cost,
            size_bytes=size,
            deadline_at=None if deadline_s is None else self.now + deadline_s,
            criticality=criticality,
            may_wait=may_wait,
        )
        if isinstance(got, Place):
            assert may_wait
            assert criticality is Criticality.NORMAL
            # Somebody of the longest queue may have lost its place to it.
            lengths = Counter(place.tenant for place in self.waiting)
            for place, outcome in machine.settled:
                assert isinstance(outcome, Refusal)
                assert lengths[place.tenant] == max(lengths.values())
                assert len(self.waiting) == self.queue.waiters_max
            self.settle(machine.drain())
            self.waiting.append(got)
            self.since.setdefault((tenant, tenant + key), self.now)
            self.spent += cost
        assert not machine.settled
        if isinstance(got, Ticket):
            assert criticality is Criticality.CRITICAL or in_flight < machine.limit
            assert criticality is Criticality.CRITICAL or not self.waiting, "nobody overtakes those who wait"
            self.held.append(got)
            self.spent = self.tokens() if criticality is Criticality.CRITICAL else self.spent + cost
        if isinstance(got, Refusal):
            self.refused += 1
            assert self.tokens() == tokens, "a refusal costs nothing"
            if criticality is Criticality.CRITICAL:
                # Work that was parked comes back whatever there is, so there may be more than the bound lets in.
                assert deadline_s == 0 or machine.critical >= 2

    def tokens(self) -> float:
        return self.machine._bucket.taken

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.03, 0.1, 0.5]), timer=st.booleans())
    def time_passes(self, *, seconds: float, timer: bool) -> None:
        """With the timer of `next_expiry`, or without: it may be late."""
        until = self.now + seconds
        while timer and (at := self.machine.next_expiry) is not None and at <= until:
            self.now = max(self.now, at)
            self.settle(self.machine.expire(self.now))
        self.now = until
        self.handed.clear()

    @precondition(lambda self: self.held)
    @rule(pick=PICK, ok=st.booleans())
    def work_ends(self, *, pick: int, ok: bool) -> None:
        ticket = self.held.pop(pick % len(self.held))
        self.settle(self.machine.release(ticket, self.now, ok=ok))
        assert self.machine.release(ticket, self.now) == ()

    @precondition(lambda self: self.waiting)
    @rule(pick=PICK)
    def a_waiter_goes(self, pick: int) -> None:
        place = self.waiting[pick % len(self.waiting)]
        self.no_longer_waits(place)
        self.left += 1
        self.spent -= place.cost
        self.settle(self.machine.leave(place, self.now))
        assert self.machine.leave(place, self.now) == ()

    @precondition(lambda self: self.handed)
    @rule(pick=PICK)
    def a_waiter_goes_in_the_instant_of_being_let_in(self, pick: int) -> None:
        place = self.handed.pop(pick % len(self.handed))
        if place.outcome in self.held:
            assert isinstance(place.outcome, Ticket)
            self.held.remove(place.outcome)
            self.left += 1
            self.spent -= place.cost
        if place.outcome not in self.parked:
            self.settle(self.machine.leave(place, self.now))

    @precondition(lambda self: self.held)
    @rule(pick=PICK)
    def a_long_poll_parks(self, pick: int) -> None:
        index = pick % len(self.held)
        refusal = self.machine.park(self.held[index], self.now)
        if refusal is None:
            ticket = self.held.pop(index)
            self.settle(self.machine.drain())
            self.parked.append(ticket)
            self.handed = [place for place in self.handed if place.outcome is not ticket]
        else:
            assert len(self.parked) == 2
            self.refused += 1
            self.came += 1

    @precondition(lambda self: self.parked)
    @rule(pick=PICK, ends=st.booleans())
    def a_long_poll_has_something_to_say_or_ends(self, *, pick: int, ends: bool) -> None:
        ticket = self.parked.pop(pick % len(self.parked))
        if ends:
            self.settle(self.machine.release(ticket, self.now))
        else:
            self.machine.unpark(ticket, self.now)
            self.held.append(ticket)

    @rule(used=st.sampled_from([None, 10.0, 82.0, 95.0]))
    def memory_is_read(self, used: float | None) -> None:
        self.machine.sample_memory(self.now, used, 100.0)
        self.settle(self.machine.drain())

    @rule(limit=st.sampled_from([2, 3, 5]))
    def the_limit_moves(self, limit: int) -> None:
        self.machine._limit.limit = limit
        self.settle(self.machine.expire(self.now))

    # What holds at any time.

    @invariant()
    def everything_is_counted(self) -> None:
        machine = self.machine
        assert machine.in_flight == len(self.held)
        assert machine.critical == sum(ticket.critical for ticket in self.held)
        assert machine.parked == len(self.parked)
        assert machine.waiting == len(self.waiting) <= self.queue.waiters_max
        assert machine.left == self.left
        assert sum(machine.refused.values()) == self.refused
        assert machine.admitted + self.left + self.refused + machine.waiting == self.came
        assert machine._tenants == Counter(ticket.tenant for ticket in self.held)
        assert machine._keys == Counter(ticket.key for ticket in self.held)
        assert machine._memory.reserved_bytes == sum(ticket.size_bytes for ticket in [*self.held, *self.parked])

    @invariant()
    def no_slot_is_free_while_somebody_waits(self) -> None:
        assert not self.waiting or self.machine.in_flight >= self.machine.limit

    @invariant()
    def tokens_are_gone_for_work_that_came_in_or_waits_alone(self) -> None:
        assert abs(self.tokens() - self.spent) < 1e-6

    @invariant()
    def the_timer_is_set_for_the_first_whose_wait_ends(self) -> None:
        assert self.machine.next_expiry == min((place.expires_at for place in self.waiting), default=None)

    def teardown(self) -> None:
        """When all have gone nothing is left behind."""
        for place in list(self.waiting):
            self.machine.leave(place, self.now)
        for ticket in [*self.held, *self.parked]:
            self.machine.release(ticket, self.now)
        machine, waiters = self.machine, self.machine._waiters
        assert (machine.in_flight, machine.waiting, machine.parked, machine.critical) == (0, 0, 0, 0)
        assert not machine.settled
        assert (machine._tenants, machine._keys, waiters._tenants) == ({}, {}, {})
        for ranked in (waiters._by_held, waiters._by_length, waiters._expiry):
            assert (ranked._entries, ranked._heap) == ({}, [])


def machine_in_flight(admission: Admission) -> int:
    return admission.machine.in_flight


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=100, stateful_step_count=50)


def test_the_model_sees_every_reason_and_every_outcome() -> None:
    """The rules reach what they are about: otherwise the model would hold for want of anything to hold."""
    seen: set[object] = set()

    class Watched(Admission):
        def teardown(self) -> None:
            seen.update(reason for reason, number in self.machine.refused.items() if number)
            seen.update(name for name in ("left", "done", "parked") if getattr(self.machine, name))
            super().teardown()

    watched = Watched.TestCase
    watched.settings = settings(max_examples=60, stateful_step_count=40, derandomize=True, database=None)
    watched("runTest").runTest()  # type: ignore[no-untyped-call]
    assert seen == {*Reason, "left", "done", "parked"}
