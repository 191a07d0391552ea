"""The machine of an admission: five checks, then work is in, or waits, or is refused.

In this order: deadline, memory, rate (of the key, then of all), share, concurrency. A refusal has cost nothing: no token is taken
before all have agreed, and those of a waiter that does not come in are put back.

**A slot** belongs to a ticket that is held, and to nothing else, so none can be lost: `in_flight` is the number of held tickets.
Whoever waits goes in within the same call that frees a slot, so no slot is free while somebody waits.

**Critical** work is let in beyond the limit, the rates and the thresholds of memory. It is counted in all of them, so that other
work makes room for it, and it has one bound, `critical_max`. **Sheddable** work never waits: it takes a slot that is free while
nobody waits, or is refused.

Nothing here is safe for threads, and nothing reads a clock.
"""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from outlast._core.admission.bucket import Bucket, KeyedBuckets, Rate
from outlast._core.admission.concurrency import Concurrency, Limit
from outlast._core.admission.memory import Memory, MemoryState
from outlast._core.admission.queue import Place, Queue, Waiters
from outlast._core.admission.refusals import Refusals
from outlast._core.admission.ticket import Ticket, TicketState
from outlast._core.admission.values import Criticality, Reason, Refusal

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from outlast._core.admission.policy import AdmissionPolicy

T = TypeVar("T", bound=Ticket)

Settled: TypeAlias = "tuple[Place, Ticket | Refusal]"
"""A place, and what came of it."""

STALE_S: Final = 1.0
"""An estimate of how long work takes is forgotten when no work has ended for so long, and twice what it says."""

_CRITICAL: Final = Criticality.CRITICAL
_NORMAL: Final = Criticality.NORMAL
_HELD: Final = TicketState.HELD
_PARKED: Final = TicketState.PARKED
_GONE: Final = TicketState.GONE


class Admitter(Generic[T]):
    """Decides who comes in. Every call costs constant or logarithmic time in the number of waiters, keys and tenants, and as much
    again for each waiter that it settles.

    What a call decides about those who wait is returned by `release`, `leave`, `expire` and `drain`, each outcome
    once, in the order in which it was decided. After `admit`, `park` and `sample_memory` look at `settled`: `drain` returns it.
    """

    def __init__(self, policy: AdmissionPolicy, rng: random.Random, ticket: type[T], holder: object = None) -> None:
        """`ticket` is the class of the tickets, which has no `__init__`; `holder` is what each of them has as its own."""
        self.policy = policy
        self.in_flight = 0
        """The tickets that are held."""
        self.critical = 0
        """Those of them whose work is critical."""
        self.parked = 0
        self.done = 0
        """The tickets that were released."""
        self.left = 0
        """Those who left while they waited, or before they used their ticket."""
        self.lag_s = 0.0
        """How late the event loop is, as somebody has measured it."""
        self.settled: list[Settled] = []
        self._ticket = ticket
        self._holder = holder
        self._ended_at = 0.0
        """The time at which work ended last."""
        self._refusals = Refusals(rng)
        self._returns = self._refusals.returns
        self._bucket = Bucket(policy.rate or Rate(1))
        if policy.rate is None:
            self._bucket.burst = inf
        self._rated = policy.rate is not None or policy.key_rate is not None
        self._buckets = None if policy.key_rate is None else KeyedBuckets(policy.key_rate, policy.keys_max)
        self._limit = Limit(policy.concurrency) if policy.concurrency is not None else _Unlimited()
        # Without a policy it is never sampled, and so has nothing against anybody.
        self._memory = MemoryState(policy.memory or Memory())
        self._tenants: dict[str, int] = {}
        """The slots that each tenant holds, if any."""
        self._keys: dict[str, int] = {}
        """The slots that each key holds, if any."""
        # Without a policy nobody is let wait.
        self._waiters = Waiters(policy.queue or Queue(), self._tenants, self._keys)

    @property
    def waiting(self) -> int:
        """The number of those who wait."""
        return self._waiters.count

    @property
    def admitted(self) -> int:
        """The number of tickets whose work began."""
        return self.done + self.in_flight + self.parked

    @property
    def next_expiry(self) -> float | None:
        """The time at which to call `expire`; None while nobody waits."""
        return self._waiters.next_expiry

    @property
    def limit(self) -> float:
        """The number of tickets that may be held at present; infinite without a limit of concurrency."""
        return inf if self.policy.concurrency is None else self._limit.limit

    @property
    def latency_s(self) -> float:
        """The time that a piece of work takes now; 0.0 while that is unknown."""
        return self._limit.latency_s

    @property
    def memory_level(self) -> int:
        """0: all may come in; 1: nothing sheddable; 2: critical work only."""
        return self._memory.level

    @property
    def refused(self) -> dict[Reason, int]:
        """The number of refusals of each reason, at once and after a wait."""
        return self._refusals.counts

    @property
    def sharing(self) -> int:
        """The work of keys beyond `keys_max`, which have no bucket of their own and share one."""
        return 0 if self._buckets is None else self._buckets.shared

    @property
    def keys(self) -> int:
        """The number of keys that hold slots."""
        return len(self._keys)

    @property
    def tenants(self) -> int:
        """The number of tenants that hold slots."""
        return len(self._tenants)

    # Coming in.

    def admit(  # noqa: PLR0911 - one function, since a call costs a tenth of the whole
        self,
        now: float,
        key: str = "",
        tenant: str = "",
        cost: float = 1.0,
        size_bytes: int = 0,
        deadline_at: float | None = None,
        criticality: Criticality = _NORMAL,
        may_wait: bool = True,  # noqa: FBT001, FBT002 - positional arguments cost half as much
    ) -> T | Place | Refusal:
        """Return a ticket: it is in; a place: it waits, and its outcome comes later; or a refusal, which has cost nothing.

        A key belongs to one tenant: where two use the same, they share its tokens, and its count of slots. `size_bytes` is what
        the work will need of memory, as far as known. `may_wait` False: nobody will wait for the outcome. Raises `ValueError`
        for a `cost` or `size_bytes` that is negative or not a number.
        """
        limit = self._limit
        if deadline_at is not None and now + limit.latency_s >= deadline_at and self._is_late(now, deadline_at, criticality):
            return self._refuse_late(now, deadline_at)
        if criticality is not _NORMAL or not 0 <= size_bytes < self._memory.spare_bytes:
            special = self._admit_special(now, key, tenant, cost, size_bytes, criticality)
            if special is not None:
                return special
        if not cost >= 0.0:
            raise ValueError(f"work costs at least 0 tokens, not {cost}")
        if self._rated:
            # As Bucket.take, without the calls. No token is taken before all is decided. Without key_rate one bucket is both.
            buckets, bucket = self._buckets, self._bucket
            of_key = bucket if buckets is None else buckets.get(key) or buckets.placed(now, key)
            key_at = now if now > of_key.at else of_key.at  # noqa: FURB136 - a call of max costs as much as all of this
            key_taken = of_key.taken - (key_at - of_key.at) * of_key.per_s
            key_taken = cost if key_taken < 0.0 else key_taken + cost
            if not key_taken <= of_key.burst:
                return self._refuse_rate(now, of_key, self.policy.key_rate or self.policy.rate, cost)
            at = now if now > bucket.at else bucket.at  # noqa: FURB136
            taken = bucket.taken - (at - bucket.at) * bucket.per_s
            taken = cost if taken < 0.0 else taken + cost
            if not taken <= bucket.burst:
                return self._refuse_rate(now, bucket, self.policy.rate, cost)
            # While anybody waits this is so: nobody overtakes them.
            if self.in_flight >= limit.limit:
                may_wait = may_wait and criticality is _NORMAL
                return self._no_slot(now, key, tenant, cost, size_bytes, deadline_at, may_wait, of_key)
            of_key.at, of_key.taken, bucket.at, bucket.taken = key_at, key_taken, at, taken
        elif self.in_flight >= limit.limit:
            may_wait = may_wait and criticality is _NORMAL
            return self._no_slot(now, key, tenant, cost, size_bytes, deadline_at, may_wait, self._bucket)
        ticket, tenants, keys = self._ticket(), self._tenants, self._keys
        tenants[tenant] = tenants.get(tenant, 0) + 1
        keys[key] = keys.get(key, 0) + 1
        in_flight = self.in_flight = self.in_flight + 1
        ticket.tenant, ticket.key, ticket.began_at, ticket.in_flight_at_start = tenant, key, now, in_flight
        ticket.size_bytes, ticket.state, ticket.critical, ticket.holder = size_bytes, _HELD, False, self._holder
        if size_bytes:
            self._memory.reserve(size_bytes)
        return ticket

    def _admit_special(
        self, now: float, key: str, tenant: str, cost: float, size_bytes: int, criticality: Criticality
    ) -> T | Refusal | None:
        """Decide about critical work, and what memory is short of; None: it is for the other checks to say."""
        if not size_bytes >= 0:
            raise ValueError(f"work needs at least 0 bytes, not {size_bytes}")
        if criticality is not _CRITICAL:
            return self._short_of_memory(now, size_bytes, criticality)
        if self.critical >= self.policy.critical_max:
            return self._refusals.refuse(now, Reason.CONCURRENCY, self.critical, self.policy.critical_max)
        # It uses up tokens where there are some, and is not refused where there are none.
        buckets = self._buckets
        self._take(now, self._bucket if buckets is None else buckets.get(key) or buckets.placed(now, key), cost)
        self.critical += 1
        return self._let_in(tenant, key, now, size_bytes, critical=True)

    def _is_late(self, now: float, deadline_at: float, criticality: Criticality) -> bool:
        """Return whether work that takes as long as work takes now has to be refused for its deadline."""
        if now >= deadline_at:
            return True
        # Only work that is let in can correct the estimate. So with nothing under way it is not believed, and when nothing has
        # ended for long, although something should have, it is forgotten: otherwise it could refuse everything from then on.
        limit = self._limit
        if self.in_flight and now - self._ended_at > STALE_S + 2 * limit.latency_s:
            limit.latency_s = 0.0
            return False
        return self.in_flight > 0 and criticality is not _CRITICAL

    def _no_slot(
        self,
        now: float,
        key: str,
        tenant: str,
        cost: float,
        size_bytes: int,
        deadline_at: float | None,
        may_wait: bool,  # noqa: FBT001 - positional, as `admit` passes everything on
        of_key: Bucket,
    ) -> Place | Refusal:
        """Let the work wait, if it may and that makes sense; otherwise refuse it."""
        waiters, limit = self._waiters, self._limit
        if not may_wait or self.policy.queue is None:
            return self._crowded(now, tenant, key)
        latest = inf if deadline_at is None else deadline_at - limit.latency_s
        expires_at = now + waiters.wait_s(tenant, key, now, self.in_flight)
        in_at = now + waiters.ahead_of(tenant, key) * limit.latency_s / limit.limit
        if in_at > latest and deadline_at is not None:
            return self._refuse_late(now, deadline_at)
        if in_at > expires_at:
            return self._crowded(now, tenant, key)
        if waiters.count >= waiters.policy.waiters_max:
            longest = waiters.crowded_out_by(tenant, key)
            if longest is None:
                return self._crowded(now, tenant, key)
            self._drop(longest, now, self._crowded(now, longest.tenant, longest.key))
        place = Place(tenant, key, now, cost, size_bytes, deadline_at)
        place.expires_at = min(expires_at, latest)
        place.bucket = of_key
        self._take(now, of_key, cost)
        waiters.put(place, self.in_flight)
        return place

    # Going out.

    def release(self, ticket: Ticket, now: float, *, ok: bool | None = True) -> Sequence[Settled]:
        """Take a ticket back: its work is done, `ok` or not. Return who goes in, or is dropped, by this.

        None: how it ended says nothing about how long work takes.

        The second time changes nothing. A parked ticket is no longer parked.
        """
        if ticket.state is not _HELD:
            if ticket.state is _PARKED:
                ticket.state = _GONE
                self.parked -= 1
                self.done += 1
                self._forget_size(ticket)
            return self.drain()
        limit = self._limit
        self._returns.served += 1
        self.done += 1
        self._ended_at = now
        # Critical work is of another kind: of health checks alone the limit would learn that work takes no time.
        if ok is not None and not ticket.critical:
            limit.sample(now, ticket.began_at, ticket.in_flight_at_start, ok)
        ticket.state = _GONE
        # As `_give_up_slot`, without the call.
        tenants, tenant, keys, key = self._tenants, ticket.tenant, self._keys, ticket.key
        if (held := tenants[tenant]) > 1:
            tenants[tenant] = held - 1
        else:
            del tenants[tenant]
        if (held := keys[key]) > 1:
            keys[key] = held - 1
        else:
            del keys[key]
        self.in_flight -= 1
        if ticket.critical:
            self.critical -= 1
        if self._waiters.count:
            self._waiters.held_changed(tenant, key)
        if ticket.size_bytes:
            self._memory.unreserve(ticket.size_bytes)
        if now >= limit.window_ends_at:
            limit.adapt(now, self.in_flight, self.lag_s)
        # Most of the time nobody waits.
        return self._fill(now) if self._waiters.count or self.settled else ()

    def leave(self, place: Place, now: float) -> Sequence[Settled]:
        """Let nobody wait there any more: whoever did has gone. It costs no token and no slot, whatever its outcome is by now.

        Not to be called any more when the work of its ticket has begun: that one is released.
        """
        if place.waits:
            self._waiters.remove(place)
            self.left += 1
            self._put_back(now, place)
        elif isinstance(place.outcome, Ticket) and place.outcome.state is _HELD:
            # It says nothing about how long work takes: none was done.
            place.outcome.state = _GONE
            self.left += 1
            self._give_up_slot(place.outcome)
            self._forget_size(place.outcome)
            self._put_back(now, place)
        return self._fill(now)

    def expire(self, now: float) -> Sequence[Settled]:
        """Drop those who have waited for long enough. To be called when `next_expiry` has come; later costs only time."""
        return self._fill(now)

    def drain(self) -> Sequence[Settled]:
        """Return the outcomes that nobody has been told of yet."""
        if not self.settled:
            return ()
        settled, self.settled = self.settled, []
        return settled

    # Long waits that are no work, and memory.

    def park(self, ticket: Ticket, now: float) -> Refusal | None:
        """Free the slot of a ticket while it waits for something to happen. None: it is parked. A refusal: as before."""
        if ticket.state is not _HELD:
            return None
        if self.parked >= self.policy.parked_max:
            return self._refusals.refuse(now, Reason.CONCURRENCY, self.parked, self.policy.parked_max)
        ticket.state = _PARKED
        self.parked += 1
        self._give_up_slot(ticket)
        self._settle_waiters(now)
        return None

    def unpark(self, ticket: Ticket, now: float) -> None:
        """Return the slot of a parked ticket: it has something to do. It waits for none, since it was let in before."""
        if ticket.state is not _PARKED:
            return
        ticket.state = _HELD
        self.parked -= 1
        self._hold(ticket.tenant, ticket.key)
        self.critical += ticket.critical
        ticket.began_at = now
        ticket.in_flight_at_start = self.in_flight

    def sample_memory(self, now: float, used_bytes: float | None, limit_bytes: float | None) -> None:
        """Record the memory in use; None: unknown."""
        if self.policy.memory is not None:
            self._memory.sample(now, used_bytes, limit_bytes)
            self._settle_waiters(now)

    # The parts.

    def _fill(self, now: float) -> Sequence[Settled]:
        if self._waiters.count:
            self._settle_waiters(now)
        return self.drain()

    def _settle_waiters(self, now: float) -> None:
        """Drop those whose time is over, then let others in as long as there are slots."""
        waiters, limit = self._waiters, self._limit
        while (place := waiters.expired(now)) is not None:
            if place.deadline_at is not None and place.deadline_at - limit.latency_s <= now:
                self._drop(place, now, self._refuse_late(now, place.deadline_at))
            else:
                self._drop(place, now, self._crowded(now, place.tenant, place.key))
        while self.in_flight < limit.limit and (place := waiters.next_in(now, self.in_flight)) is not None:
            short = self._short_of_memory(now, place.size_bytes, _NORMAL)
            if short is not None:
                self._drop(place, now, short)
                continue
            waiters.remove(place)
            place.outcome = self._let_in(place.tenant, place.key, now, place.size_bytes)
            self.settled.append((place, place.outcome))

    def _let_in(self, tenant: str, key: str, now: float, size_bytes: int, *, critical: bool = False) -> T:
        self._hold(tenant, key)
        ticket = self._ticket()
        ticket.tenant, ticket.key, ticket.began_at, ticket.in_flight_at_start = tenant, key, now, self.in_flight
        ticket.size_bytes, ticket.state, ticket.critical, ticket.holder = size_bytes, _HELD, critical, self._holder
        if size_bytes:
            self._memory.reserve(size_bytes)
        return ticket

    def _drop(self, place: Place, now: float, refusal: Refusal) -> None:
        """Refuse one that waits."""
        self._waiters.remove(place)
        self._put_back(now, place)
        place.outcome = refusal
        self.settled.append((place, refusal))

    def _hold(self, tenant: str, key: str) -> None:
        self._tenants[tenant] = self._tenants.get(tenant, 0) + 1
        self._keys[key] = self._keys.get(key, 0) + 1
        self.in_flight += 1
        if self._waiters.count:
            self._waiters.held_changed(tenant, key)

    def _give_up_slot(self, ticket: Ticket) -> None:
        tenants, tenant, keys, key = self._tenants, ticket.tenant, self._keys, ticket.key
        held = tenants[tenant]
        if held > 1:
            tenants[tenant] = held - 1
        else:
            del tenants[tenant]
        held = keys[key]
        if held > 1:
            keys[key] = held - 1
        else:
            del keys[key]
        self.in_flight -= 1
        if ticket.critical:
            self.critical -= 1
        if self._waiters.count:
            self._waiters.held_changed(tenant, key)

    def _forget_size(self, ticket: Ticket) -> None:
        if ticket.size_bytes:
            self._memory.unreserve(ticket.size_bytes)

    def _take(self, now: float, of_key: Bucket, cost: float) -> None:
        of_key.take(now, cost)
        if of_key is not self._bucket:
            self._bucket.take(now, cost)

    def _put_back(self, now: float, place: Place) -> None:
        """Put the tokens of one that waits back where they were taken: its key may have another bucket by now."""
        if place.bucket is not None:
            place.bucket.put_back(now, place.cost)
        if place.bucket is not self._bucket:
            self._bucket.put_back(now, place.cost)

    def _refuse_late(self, now: float, deadline_at: float) -> Refusal:
        return self._refusals.refuse(now, Reason.DEADLINE, self._limit.latency_s, deadline_at - now)

    def _short_of_memory(self, now: float, size_bytes: int, criticality: Criticality) -> Refusal | None:
        memory = self._memory
        level = memory.level_with(size_bytes) if size_bytes else memory.level
        if level < 3 - criticality:
            return None
        if not memory.can_ever_hold(size_bytes):
            return self._refusals.refuse_for_good(Reason.MEMORY, size_bytes, memory.limit_bytes)
        return self._refusals.refuse(now, Reason.MEMORY, memory.counted_bytes + size_bytes, memory.limit_bytes)

    def _refuse_rate(self, now: float, bucket: Bucket, rate: Rate | None, cost: float) -> Refusal:
        # The bucket has been found to refuse: it is asked how long to wait, and whether that is a cost at all.
        return self._refusals.refuse_rate(rate or Rate(0), cost, bucket.take(now, cost))

    def _crowded(self, now: float, tenant: str, key: str) -> Refusal:
        """Refuse what finds no slot: for its share, if it has that and is not alone; otherwise since all is full."""
        limit, tenants, keys = self._limit.limit, self._tenants, self._keys
        if len(tenants) > 1 and (held := tenants.get(tenant, 0)) * len(tenants) >= limit:
            return self._refusals.refuse(now, Reason.SHARE, held, limit / len(tenants))
        if len(keys) > 1 and (held := keys.get(key, 0)) * len(keys) >= limit:
            return self._refusals.refuse(now, Reason.SHARE, held, limit / len(keys))
        return self._refusals.refuse(now, Reason.CONCURRENCY, self.in_flight + self._waiters.count, limit)


class _Unlimited(Limit):
    """A limit that is none, and learns nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Concurrency())
        self.limit = sys.maxsize
        self.window_ends_at = inf

    def sample(self, now: float, began_at: float, in_flight_at_start: int, ok: bool) -> None:  # noqa: FBT001 - as Limit has it
        """Learn nothing."""
