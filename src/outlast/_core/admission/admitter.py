"""The machine of an admission: five checks, then work is in, or waits, or is refused.

In this order: deadline, memory, rate (of the key, then of all), share, concurrency. What is refused by one has cost nothing at
the others: tokens that were taken are put back.

**A slot** belongs to a ticket that is held, and to nothing else, so none can be lost: `in_flight` is the number of held tickets.
Whoever waits goes in within the same call that frees a slot, so no slot is free while somebody waits.

**Critical** work is let in beyond the limit, the rates and the thresholds of memory. It is counted in all of them, so that other
work makes room for it, and it has one bound, `critical_max`. **Sheddable** work never waits: it takes a slot that is free while
nobody waits, or is refused.

Nothing here is safe for threads, and nothing reads a clock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from outlast._core.admission.queue import KeyShare, Place, TenantShare, Waiters
from outlast._core.admission.refusals import Refusals
from outlast._core.admission.standins import Bucket, KeyedBuckets, Limit, MemoryState, Rate
from outlast._core.admission.ticket import Ticket, TicketState
from outlast._core.admission.values import Criticality, Refusal

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from outlast._core.admission.policy import AdmissionPolicy
    from outlast._core.admission.values import Reason

Settled: TypeAlias = "tuple[Place, Ticket | Refusal]"
"""A place, and what came of it."""

_CRITICAL: Final = Criticality.CRITICAL
_NORMAL: Final = Criticality.NORMAL
_HELD: Final = TicketState.HELD
_PARKED: Final = TicketState.PARKED
_GONE: Final = TicketState.GONE
_NOBODY: Final = TenantShare("")
"""The tenant that holds nothing and waits for nothing. Never changed."""


class Admitter:
    """Decides who comes in. Every call costs constant or logarithmic time in the number of waiters, keys and tenants.

    What a call decides about those who wait is returned by `release`, `take_back`, `leave`, `expire` and `drain`, each outcome
    once, in the order in which it was decided. After `admit`, `park` and `sample_memory` look at `settled`: `drain` returns it.
    """

    def __init__(self, policy: AdmissionPolicy, rng: random.Random) -> None:
        self.policy = policy
        self.in_flight = 0
        """The tickets that are held."""
        self.critical = 0
        """Those of them whose work is critical."""
        self.parked = 0
        self.admitted = 0
        """The tickets that there have been."""
        self.left = 0
        """Those who left while they waited, or before they used their ticket."""
        self.lag_s = 0.0
        """How late the event loop is, as somebody has measured it."""
        self.settled: list[Settled] = []
        self._refusals = Refusals(rng)
        self._returns = self._refusals.returns
        self._bucket = None if policy.rate is None else Bucket(policy.rate)
        self._buckets = None if policy.key_rate is None else KeyedBuckets(policy.key_rate, policy.keys_max)
        self._limit = Limit(policy.concurrency) if policy.concurrency is not None else _Unlimited()
        self._memory = None if policy.memory is None else MemoryState(policy.memory)
        self._waiters = None if policy.queue is None else Waiters(policy.queue)
        self._tenants: dict[str, TenantShare] = {}

    @property
    def waiting(self) -> int:
        """The number of those who wait."""
        return 0 if self._waiters is None else self._waiters.count

    @property
    def next_expiry(self) -> float | None:
        """The time at which to call `expire`; None while nobody waits."""
        return None if self._waiters is None else self._waiters.next_expiry

    @property
    def limit(self) -> float:
        """The number of tickets that may be held at present; infinite without a limit of concurrency."""
        return self._limit.limit

    @property
    def latency_s(self) -> float:
        """The time that a piece of work takes now; 0.0 while that is unknown."""
        return self._limit.latency_s

    @property
    def memory_level(self) -> int:
        """0: all may come in; 1: nothing sheddable; 2: critical work only."""
        return 0 if self._memory is None else self._memory.level

    @property
    def refused(self) -> dict[Reason, int]:
        """The number of refusals of each reason, at once and after a wait."""
        return self._refusals.counts

    @property
    def keys(self) -> int:
        """The number of keys that hold or wait for a slot. Costs a pass over the tenants."""
        return sum(len(tenant.keys) for tenant in self._tenants.values())

    @property
    def tenants(self) -> int:
        """The number of tenants that hold or wait for a slot."""
        return len(self._tenants)

    # Coming in.

    def admit(  # noqa: C901, PLR0911, PLR0912  # one function, since a call costs a tenth of the whole
        self,
        now: float,
        *,
        key: str = "",
        tenant: str = "",
        cost: float = 1.0,
        size_bytes: int = 0,
        deadline_at: float | None = None,
        criticality: Criticality = _NORMAL,
        may_wait: bool = True,
    ) -> Ticket | Place | Refusal:
        """Return a ticket: it is in; a place: it waits, and its outcome comes later; or a refusal, which has cost nothing.

        `size_bytes` is what the work will need of memory, as far as known. `may_wait` False: nobody will wait for the outcome.
        """
        limit = self._limit
        if deadline_at is not None and now + limit.latency_s > deadline_at and self._is_late(now, deadline_at, criticality):
            return self._refuse_late(now, deadline_at)
        if criticality is not _NORMAL:
            if criticality is _CRITICAL:
                return self._admit_critical(now, key, tenant, cost, size_bytes)
            may_wait = False
        memory = self._memory
        if memory is not None and (memory.level or size_bytes):
            short = self._short_of_memory(memory, now, size_bytes, criticality)
            if short is not None:
                return short
        buckets = self._buckets
        if buckets is not None:
            wait_s = buckets.take(now, key, cost)
            if wait_s != 0.0:
                return self._refuse_rate(self.policy.key_rate, cost, wait_s)
        bucket = self._bucket
        if bucket is not None:
            wait_s = bucket.take(now, cost)
            if wait_s != 0.0:
                if buckets is not None:
                    buckets.put_back(now, key, cost)
                return self._refuse_rate(self.policy.rate, cost, wait_s)
        waiters = self._waiters
        if self.in_flight >= limit.limit or (waiters is not None and waiters.count):
            return self._no_slot(now, key, tenant, cost, size_bytes, deadline_at, may_wait)
        of_tenant = self._tenants.get(tenant)
        share = None if of_tenant is None else of_tenant.keys.get(key)
        if of_tenant is None or share is None:
            share = self._share(tenant, key)
            of_tenant = share.tenant
        share.held += 1
        of_tenant.held += 1
        in_flight = self.in_flight = self.in_flight + 1
        self.admitted += 1
        ticket = Ticket(share, now, in_flight, cost, size_bytes, False)
        if size_bytes and memory is not None:
            ticket.memory_mark = memory.reserve(size_bytes)
        return ticket

    def _is_late(self, now: float, deadline_at: float, criticality: Criticality) -> bool:
        # With nothing under way the estimate is not believed: only work that is let in can correct it.
        return now >= deadline_at or (self.in_flight > 0 and criticality is not _CRITICAL)

    def _admit_critical(self, now: float, key: str, tenant: str, cost: float, size_bytes: int) -> Ticket | Refusal:
        if self.critical >= self.policy.critical_max:
            return self._refusals.full(now, self.critical, self.policy.critical_max)
        # It uses up tokens where there are some, and is not refused where there are none.
        if self._buckets is not None:
            self._buckets.take(now, key, cost)
        if self._bucket is not None:
            self._bucket.take(now, cost)
        self.critical += 1
        return self._let_in(self._share(tenant, key), now, 0.0, size_bytes, critical=True)

    def _no_slot(
        self,
        now: float,
        key: str,
        tenant: str,
        cost: float,
        size_bytes: int,
        deadline_at: float | None,
        may_wait: bool,  # noqa: FBT001 - positional, as `admit` passes everything on
    ) -> Place | Refusal:
        """Let the work wait, if it may and that makes sense; otherwise refuse it and put its tokens back."""
        waiters, limit = self._waiters, self._limit
        of_tenant = self._tenants.get(tenant, _NOBODY)
        share = of_tenant.keys.get(key)
        if waiters is None or not may_wait:
            return self._refuse_crowded(now, cost, of_tenant, key, share)
        latest = inf if deadline_at is None else deadline_at - limit.latency_s
        expires_at = now + waiters.wait_s(share, now)
        queued = 0 if share is None else len(share.places)
        in_at = now + waiters.ahead_of(of_tenant, queued) * limit.latency_s / limit.limit
        if in_at > latest and deadline_at is not None:
            self._put_back(now, key, cost)
            return self._refuse_late(now, deadline_at)
        if in_at > expires_at:
            return self._refuse_crowded(now, cost, of_tenant, key, share)
        if waiters.count >= waiters.policy.waiters_max:
            longest = waiters.crowded_out_by(of_tenant, queued)
            if longest is None:
                return self._refuse_crowded(now, cost, of_tenant, key, share)
            self._drop(longest, now, self._crowded(now, longest.share.tenant, longest.share))
        place = Place(self._share(tenant, key), now, min(expires_at, latest), deadline_at, cost, size_bytes)
        waiters.put(place)
        return place

    # Going out.

    def release(self, ticket: Ticket, now: float, *, ok: bool = True) -> Sequence[Settled]:
        """Take a ticket back: its work is done, `ok` or not. Return who goes in, or is dropped, by this.

        The second time changes nothing. A parked ticket is no longer parked.
        """
        if ticket.state is not _HELD:
            if ticket.state is _PARKED:
                ticket.state = _GONE
                self.parked -= 1
                self._forget_size(ticket)
            return self.drain()
        limit = self._limit
        self._returns.served += 1
        limit.sample(now, ticket.began_at, ticket.in_flight_at_start, ok)
        ticket.state = _GONE
        self._give_up_slot(ticket)
        self._forget_size(ticket)
        if now >= limit.window_ends_at:
            limit.adapt(now, self.in_flight, self.lag_s)
        return self._fill(now)

    def take_back(self, ticket: Ticket, now: float) -> Sequence[Settled]:
        """Take back a ticket whose work never began: it says nothing about how long work takes, and its tokens are put back."""
        if ticket.state is _HELD:
            ticket.state = _GONE
            self.left += 1
            self._give_up_slot(ticket)
            self._forget_size(ticket)
            self._put_back(now, ticket.share.key, ticket.cost)
        return self._fill(now)

    def leave(self, place: Place, now: float) -> Sequence[Settled]:
        """Let nobody wait there any more: whoever did has gone. It costs no token and no slot, whatever its outcome is by now.

        Not to be called any more when the work of its ticket has begun: that one is released.
        """
        if place.waits and self._waiters is not None:
            self._waiters.remove(place)
            self.left += 1
            self._put_back(now, place.share.key, place.cost)
            self._forget(place.share)
        elif isinstance(place.outcome, Ticket):
            return self.take_back(place.outcome, now)
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
            return self._refusals.full(now, self.parked, self.policy.parked_max)
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
        share = ticket.share = self._share(ticket.share.tenant.name, ticket.share.key)
        self._hold(share)
        self.critical += ticket.critical
        ticket.began_at = now
        ticket.in_flight_at_start = self.in_flight

    def sample_memory(self, now: float, used_bytes: float | None, limit_bytes: float | None) -> None:
        """Record the memory in use; None: unknown."""
        if self._memory is not None:
            self._memory.sample(now, used_bytes, limit_bytes)
            self._settle_waiters(now)

    # The parts.

    def _fill(self, now: float) -> Sequence[Settled]:
        waiters = self._waiters
        if waiters is not None and waiters.count:
            self._settle_waiters(now)
        return self.drain()

    def _settle_waiters(self, now: float) -> None:
        """Drop those whose time is over, then let others in as long as there are slots."""
        waiters, limit, memory = self._waiters, self._limit, self._memory
        if waiters is None:
            return
        while (place := waiters.expired(now)) is not None:
            if place.deadline_at is not None and place.deadline_at - limit.latency_s <= now:
                self._drop(place, now, self._refuse_late(now, place.deadline_at))
            else:
                self._drop(place, now, self._crowded(now, place.share.tenant, place.share))
        while self.in_flight < limit.limit and (place := waiters.next_in(now)) is not None:
            short = None if memory is None else self._short_of_memory(memory, now, place.size_bytes, _NORMAL)
            if short is not None:
                self._drop(place, now, short)
                continue
            waiters.remove(place)
            place.outcome = self._let_in(place.share, now, place.cost, place.size_bytes, critical=False)
            self.settled.append((place, place.outcome))

    def _let_in(self, share: KeyShare, now: float, cost: float, size_bytes: int, *, critical: bool) -> Ticket:
        self._hold(share)
        self.admitted += 1
        ticket = Ticket(share, now, self.in_flight, cost, size_bytes, critical)
        if size_bytes and self._memory is not None:
            ticket.memory_mark = self._memory.reserve(size_bytes)
        return ticket

    def _drop(self, place: Place, now: float, refusal: Refusal) -> None:
        """Refuse one that waits."""
        if self._waiters is not None:
            self._waiters.remove(place)
            self._put_back(now, place.share.key, place.cost)
            place.outcome = refusal
            self.settled.append((place, refusal))
            self._forget(place.share)

    def _hold(self, share: KeyShare) -> None:
        share.held += 1
        share.tenant.held += 1
        self.in_flight += 1
        if share.tenant.waiting and self._waiters is not None:
            self._waiters.held_changed(share)

    def _give_up_slot(self, ticket: Ticket) -> None:
        share = ticket.share
        tenant = share.tenant
        share.held -= 1
        tenant.held -= 1
        self.in_flight -= 1
        if ticket.critical:
            self.critical -= 1
        if tenant.waiting and self._waiters is not None:
            self._waiters.held_changed(share)
        if not share.held:
            self._forget(share)

    def _share(self, tenant: str, key: str) -> KeyShare:
        of_tenant = self._tenants.get(tenant)
        if of_tenant is None:
            of_tenant = self._tenants[tenant] = TenantShare(tenant)
        share = of_tenant.keys.get(key)
        if share is None:
            share = of_tenant.keys[key] = KeyShare(key, of_tenant)
        return share

    def _forget(self, share: KeyShare) -> None:
        """Forget a key that neither holds nor waits for a slot, and its tenant with its last key."""
        if share.held or share.places:
            return
        tenant = share.tenant
        del tenant.keys[share.key]
        if not tenant.keys:
            del self._tenants[tenant.name]

    def _forget_size(self, ticket: Ticket) -> None:
        if ticket.size_bytes and self._memory is not None:
            self._memory.unreserve(ticket.size_bytes, ticket.memory_mark)

    def _put_back(self, now: float, key: str, cost: float) -> None:
        if self._buckets is not None:
            self._buckets.put_back(now, key, cost)
        if self._bucket is not None:
            self._bucket.put_back(now, cost)

    def _refuse_late(self, now: float, deadline_at: float) -> Refusal:
        return self._refusals.late(now, self._limit.latency_s, deadline_at - now)

    def _short_of_memory(self, memory: MemoryState, now: float, size_bytes: int, criticality: Criticality) -> Refusal | None:
        level = memory.level_with(size_bytes) if size_bytes else memory.level
        if level < 3 - criticality:
            return None
        ever = memory.can_ever_hold(size_bytes)
        return self._refusals.memory(now, memory.used_bytes + size_bytes, memory.limit_bytes, ever=ever)

    def _refuse_rate(self, rate: Rate | None, cost: float, wait_s: float | None) -> Refusal:
        return self._refusals.rate(rate or Rate(0), cost, wait_s)

    def _refuse_crowded(self, now: float, cost: float, tenant: TenantShare, key: str, share: KeyShare | None) -> Refusal:
        self._put_back(now, key, cost)
        return self._crowded(now, tenant, share)

    def _crowded(self, now: float, tenant: TenantShare, share: KeyShare | None) -> Refusal:
        seen = self.in_flight + self.waiting
        return self._refusals.crowded(now, tenant, share, len(self._tenants), seen, self._limit.limit)


class _Unlimited:
    """A limit that is none."""

    __slots__ = ()
    limit = inf
    latency_s = 0.0
    window_ends_at = inf

    def sample(self, now: float, began_at: float, in_flight_at_start: int, ok: bool) -> None:  # noqa: FBT001 - as Limit has it
        """Learn nothing."""

    def adapt(self, now: float, in_flight: int, lag_s: float) -> None:
        """Change nothing."""
