"""The queue of an admission: bounded in time, by tenant and by key in it.

A waiter may wait for `interval_s`, or for `target_s` when its key has had somebody waiting for longer than `interval_s` without
a break (Controlled Delay as in Maurer, "Fail at Scale", ACM Queue 13(8), 2015). In such a time the newest of a key goes in first:
the oldest have waited so long that their callers are about to give up. Otherwise it is the oldest.

Every key has its own time since which somebody waits, as the flows of FQ-CoDel (RFC 8290) have: a key that asks for too much
shortens its own waits, and not those of others. One that has less than its part of what is under way or waits keeps the longer
wait, for another `interval_s`: there, it is others that make it wait.

The next to go in is of the tenant that holds the fewest slots, and of the key of it that does; among equals, of the one for which
that has been so for the longest. So nobody gets more than its share of slots while others wait, however long the work of each
takes, and a lone tenant may hold everything. A long queue counts as slots as well, eight waiters or more as `AHEAD_SLOTS`: where
there are few slots, a burst of somebody who asks for little would wait for more than one turn behind a flood otherwise.

When all places are taken a newcomer is refused, unless another queue is longer by two: that one loses its oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf, log2
from typing import TYPE_CHECKING, Any, Final

from outlast._core.admission.ranked import Ranked

if TYPE_CHECKING:
    from outlast._core.admission.bucket import Bucket
    from outlast._core.admission.ticket import Ticket
    from outlast._core.admission.values import Refusal

AHEAD_SLOTS: Final = 3.0
"""By so many slots at most a short queue is ahead of a long one. In bench/overload.py, 4 tenants of an eighth of 8 slots each
beside a flood: their p99 is 1.9 times what it is alone with 0, 1.7 with 2, 1.6 with 3, 1.55 without a bound. Without one, two
tenants of half of the slots each leave a flood less than its third."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Bounds of the time that work waits to come in, and of how much does."""

    target_s: float = 0.005
    """The longest wait of a key that has its part, and has had somebody waiting for longer than `interval_s`."""
    interval_s: float = 0.1
    """The longest wait of the others. About as long as the work takes, or more: who waits less may never see a free slot."""
    waiters_max: int = 1_000
    """The waiters in all."""

    def __post_init__(self) -> None:
        if not 0 < self.target_s <= self.interval_s < inf:
            raise ValueError(f"target_s is above 0 s and at most interval_s, which is finite, not {self}")
        if self.waiters_max < 1:
            raise ValueError(f"waiters_max is at least 1, not {self.waiters_max}: queue=None is for no queue")


class Place:
    """The place of a piece of work that waits. `outcome` is what came of it: None while it waits, or when it left."""

    __slots__ = (
        "bucket",
        "cost",
        "deadline_at",
        "expires_at",
        "holder",
        "key",
        "outcome",
        "since",
        "size_bytes",
        "tenant",
        "waits",
    )

    def __init__(self, tenant: str, key: str, since: float, cost: float, size_bytes: int, deadline_at: float | None) -> None:
        self.tenant = tenant
        self.key = key
        self.since = since
        self.cost = cost
        self.size_bytes = size_bytes
        self.deadline_at = deadline_at
        self.expires_at = inf
        self.waits = False
        self.bucket: Bucket | None = None
        """The one of its key that its tokens were taken of."""
        self.outcome: Ticket | Refusal | None = None
        self.holder: Any = None
        """The caller's own: whatever it needs to wake who waits here."""


class _Key:
    """The waiters of one key. It is there while it has any."""

    __slots__ = ("name", "places", "waits_since")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.places: OrderedDict[Place, None] = OrderedDict()
        """The oldest first. Ordered: the first and the last, and any that leaves, at constant cost."""
        self.waits_since = now


class _Tenant:
    """The waiters of one tenant. It is there while it has any."""

    __slots__ = ("by_held", "by_length", "keys", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting = 0
        self.keys: dict[str, _Key] = {}
        self.by_held: Ranked[_Key] = Ranked()
        """The one that is next first: see `_rank`."""
        self.by_length: Ranked[_Key] = Ranked()
        """The one with the longest queue first."""


class Waiters:
    """All who wait. Every act costs constant or logarithmic time in their number; when all are gone, nothing is left behind.

    The slots that tenants and keys hold are counted by the caller, who calls `held_changed` while anybody waits.
    """

    __slots__ = ("_by_held", "_by_length", "_expiry", "_keys_held", "_tenants", "_tenants_held", "count", "policy")

    def __init__(self, policy: Queue, tenants_held: dict[str, int], keys_held: dict[str, int]) -> None:
        self.policy = policy
        self.count = 0
        self._tenants_held = tenants_held
        self._keys_held = keys_held
        self._tenants: dict[str, _Tenant] = {}
        self._by_held: Ranked[_Tenant] = Ranked()
        self._by_length: Ranked[_Tenant] = Ranked()
        self._expiry: Ranked[Place] = Ranked()

    @property
    def next_expiry(self) -> float | None:
        """The time at which somebody has waited long enough; None while nobody waits."""
        return self._expiry.first_rank()

    def wait_s(self, tenant: str, key: str, now: float, in_flight: int) -> float:
        """Return how long a newcomer of this key may wait, while so many slots are held."""
        of_tenant = self._tenants.get(tenant)
        of_key = None if of_tenant is None else of_tenant.keys.get(key)
        if of_tenant is None or of_key is None or not self._presses(of_tenant, of_key, now, in_flight):
            return self.policy.interval_s
        return self.policy.target_s

    def ahead_of(self, tenant: str, key: str) -> int:
        """Return about how many go in before a newcomer of this key: 0 if its tenant is next."""
        first, others = self._by_held.first_rank(), len(self._by_held)
        of_tenant = self._tenants.get(tenant)
        if of_tenant is None:
            return 0 if first is None or _rank(self._tenants_held.get(tenant, 0), 1) < first else others
        of_key = of_tenant.keys.get(key)
        before_in_key = 0 if of_key is None else len(of_key.places)
        in_tenant = min(of_tenant.waiting, (before_in_key + 1) * len(of_tenant.keys))
        # As many of each other tenant as of this one, itself included; but of a short queue no more than wait there: that is what
        # waits in all, less this one and the longest.
        longest = self._by_length.first()
        longest_waiting = 0 if longest is None or longest is of_tenant else longest.waiting
        short = self.count - of_tenant.waiting - longest_waiting
        return in_tenant + min((others - 1) * (in_tenant + 1), short + min(longest_waiting, in_tenant + 1))

    def put(self, place: Place, in_flight: int) -> None:
        """Let somebody wait, until `place.expires_at`, while so many slots are held."""
        tenant = self._tenants.get(place.tenant)
        if tenant is None:
            tenant = self._tenants[place.tenant] = _Tenant(place.tenant)
        key = tenant.keys.get(place.key)
        if key is None:
            key = tenant.keys[place.key] = _Key(place.key, place.since)
        key.places[place] = None
        tenant.waiting += 1
        self._put_tenant(tenant)
        self._put_key(tenant, key)
        self._expiry.put(place, place.expires_at)
        self.count += 1
        place.waits = True
        if not self._has_part(tenant, key, in_flight):
            # One that asks for less than its share comes by this now and then: its bursts never are a flood.
            key.waits_since = place.since

    def remove(self, place: Place) -> None:
        """Let nobody wait there any more. One that does not wait is none of ours: KeyError."""
        tenant = self._tenants[place.tenant]
        key = tenant.keys[place.key]
        del key.places[place]
        place.waits = False
        self.count -= 1
        self._expiry.discard(place)
        tenant.waiting -= 1
        if not tenant.waiting:
            del self._tenants[place.tenant]
            self._by_held.discard(tenant)
            self._by_length.discard(tenant)
            return
        self._put_tenant(tenant)
        if key.places:
            self._put_key(tenant, key)
        else:
            del tenant.keys[place.key]
            tenant.by_held.discard(key)
            tenant.by_length.discard(key)

    def expired(self, now: float) -> Place | None:
        """Return the first whose wait is over, or None. It still waits."""
        place = self._expiry.first()
        return place if place is not None and place.expires_at <= now else None

    def next_in(self, now: float, in_flight: int) -> Place | None:
        """Return who goes in next, while so many slots are held, or None. It still waits."""
        tenant = self._by_held.first()
        key = None if tenant is None else tenant.by_held.first()
        if tenant is None or key is None:
            return None
        return next(reversed(key.places)) if self._presses(tenant, key, now, in_flight) else next(iter(key.places))

    def crowded_out_by(self, tenant: str, key: str) -> Place | None:
        """Return who goes when all places are taken and this key has a newcomer: nobody, unless another queue is longer by two.

        By two: with the newcomer in it, this one is still the shorter. A newcomer that would only change places with its like is
        refused instead, since that costs less.
        """
        longest = self._by_length.first()
        if longest is None:
            return None
        own = self._tenants.get(tenant)
        if longest is not own and longest.waiting < (own.waiting if own is not None else 0) + 2:
            return None
        longest_key = longest.by_length.first()
        if longest_key is None:
            return None
        if own is not None and longest is own:
            own_key = own.keys.get(key)
            if len(longest_key.places) < (len(own_key.places) if own_key is not None else 0) + 2:
                return None
        return next(iter(longest_key.places))

    def held_changed(self, tenant: str, key: str) -> None:
        """Note that this key of this tenant holds one slot more or less."""
        of_tenant = self._tenants.get(tenant)
        if of_tenant is not None:
            self._by_held.put(of_tenant, _rank(self._tenants_held.get(tenant, 0), of_tenant.waiting))
            of_key = of_tenant.keys.get(key)
            if of_key is not None:
                of_tenant.by_held.put(of_key, _rank(self._keys_held.get(key, 0), len(of_key.places)))

    def _put_tenant(self, tenant: _Tenant) -> None:
        self._by_held.put(tenant, _rank(self._tenants_held.get(tenant.name, 0), tenant.waiting))
        self._by_length.put(tenant, -tenant.waiting)

    def _put_key(self, tenant: _Tenant, key: _Key) -> None:
        tenant.by_held.put(key, _rank(self._keys_held.get(key.name, 0), len(key.places)))
        tenant.by_length.put(key, -len(key.places))

    def _presses(self, tenant: _Tenant, key: _Key, now: float, in_flight: int) -> bool:
        """Return whether somebody of this key always waits, although it has its part of all that is under way or waits."""
        return now - key.waits_since >= self.policy.interval_s and self._has_part(tenant, key, in_flight)

    def _has_part(self, tenant: _Tenant, key: _Key, in_flight: int) -> bool:
        """Return whether a tenant, and a key of it, has its part of all that is under way or waits.

        Within its part it may have a burst: its work waits as long as that of the others makes it wait.
        """
        of_tenant = self._tenants_held.get(tenant.name, 0) + tenant.waiting
        if of_tenant * max(len(self._tenants_held), len(self._tenants)) < in_flight + self.count:
            return False
        of_key = self._keys_held.get(key.name, 0) + len(key.places)
        return of_key * max(len(self._keys_held), len(tenant.keys)) >= of_tenant


def _rank(held: int, waiting: int) -> float:
    """Return the slots that count for somebody who holds and waits for so many: the lowest is next. `waiting` is 1 or more."""
    return held + min(log2(waiting), AHEAD_SLOTS)
