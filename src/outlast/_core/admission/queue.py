"""The queue of an admission: bounded in time, by tenant and by key in it.

A waiter may wait for `interval_s`, or for `target_s` when its key has had somebody waiting for longer than `interval_s` without
a break (Controlled Delay as in Maurer, "Fail at Scale", ACM Queue 13(8), 2015). In such a time the newest of a key goes in first:
the oldest have waited so long that their callers are about to give up. Otherwise it is the oldest.

Every key has a time of its own that it has been waiting since, as the flows of FQ-CoDel (RFC 8290) have: a key that asks for too
much shortens its own waits, and not those of others. Which tenant is next, and which of its keys: the one that holds the fewest
slots, among equals the one that has waited the longest since it was last served. So nobody holds more than its share while
others wait, however long the work of each takes, and a lone tenant may hold everything.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from outlast._core.admission.ranked import Ranked

if TYPE_CHECKING:
    from outlast._core.admission.ticket import Ticket
    from outlast._core.admission.values import Refusal


@dataclass(frozen=True, slots=True)
class Queue:
    """Bounds of the time that work waits to come in, and of how much does."""

    target_s: float = 0.005
    """The longest wait of a key that has had somebody waiting for longer than `interval_s`."""
    interval_s: float = 0.1
    """The longest wait of the others. About as long as the work takes, or more: who waits less may never see a free slot."""
    waiters_max: int = 1_000
    """The waiters in all. The longest queue of the longest tenant loses its oldest when a shorter one has a newcomer."""

    def __post_init__(self) -> None:
        if not 0 < self.target_s <= self.interval_s < inf:
            raise ValueError(f"target_s is above 0 s and at most interval_s, which is finite, not {self}")
        if self.waiters_max < 1:
            raise ValueError(f"waiters_max is at least 1, not {self.waiters_max}: queue=None is for no queue")


class TenantShare:
    """The slots and waiters of one tenant. It is there while it has any."""

    __slots__ = ("by_held", "by_length", "held", "keys", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.waiting = 0
        self.keys: dict[str, KeyShare] = {}
        self.by_held: Ranked[KeyShare] = Ranked()
        """The keys that wait, the one with the fewest slots first."""
        self.by_length: Ranked[KeyShare] = Ranked()
        """The keys that wait, the longest queue first."""


class KeyShare:
    """The slots and waiters of one key. It is there while it has any."""

    __slots__ = ("held", "key", "places", "tenant", "waits_since")

    def __init__(self, key: str, tenant: TenantShare) -> None:
        self.key = key
        self.tenant = tenant
        self.held = 0
        self.places: OrderedDict[Place, None] = OrderedDict()
        """Those who wait, the oldest first. Ordered: the first and the last, and any that leaves, at constant cost."""
        self.waits_since = 0.0
        """The time since when it has not been without a waiter."""


class Place:
    """The place of a piece of work that waits. `outcome` is what came of it: None while it waits, or when it left."""

    __slots__ = ("cost", "deadline_at", "expires_at", "holder", "outcome", "share", "since", "size_bytes", "waits")

    def __init__(
        self, share: KeyShare, now: float, expires_at: float, deadline_at: float | None, cost: float, size_bytes: int
    ) -> None:
        self.share = share
        self.since = now
        self.expires_at = expires_at
        self.deadline_at = deadline_at
        self.cost = cost
        self.size_bytes = size_bytes
        self.waits = True
        self.outcome: Ticket | Refusal | None = None
        self.holder: Any = None
        """The caller's own: whatever it needs to wake who waits here."""


class Waiters:
    """All who wait. Every act costs constant or logarithmic time in their number; when all are gone, nothing is left behind."""

    __slots__ = ("_by_held", "_by_length", "_expiry", "count", "policy")

    def __init__(self, policy: Queue) -> None:
        self.policy = policy
        self.count = 0
        self._by_held: Ranked[TenantShare] = Ranked()
        self._by_length: Ranked[TenantShare] = Ranked()
        self._expiry: Ranked[Place] = Ranked()

    @property
    def next_expiry(self) -> float | None:
        """The time at which somebody has waited long enough; None while nobody waits."""
        return self._expiry.first_rank()

    def wait_s(self, share: KeyShare | None, now: float) -> float:
        """Return how long a newcomer of this key may wait."""
        return self.policy.target_s if share is not None and self._presses(share, now) else self.policy.interval_s

    def ahead_of(self, tenant: TenantShare, queued: int) -> int:
        """Return about how many go in before a newcomer to a key of which `queued` wait.

        0 when its tenant holds fewer slots than all that wait.
        """
        fewest = self._by_held.first_rank()
        if fewest is None or (not tenant.waiting and tenant.held < fewest):
            return 0
        others = len(self._by_held)
        in_tenant = min(tenant.waiting, (queued + 1) * len(tenant.by_held))
        return min(self.count, (in_tenant + 1) * others)

    def put(self, place: Place) -> None:
        """Let somebody wait."""
        share, tenant = place.share, place.share.tenant
        if not share.places:
            share.waits_since = place.since
            tenant.by_held.put(share, share.held)
        share.places[place] = None
        tenant.by_length.put(share, -len(share.places))
        if not tenant.waiting:
            self._by_held.put(tenant, tenant.held)
        tenant.waiting += 1
        self._by_length.put(tenant, -tenant.waiting)
        self.count += 1
        self._expiry.put(place, place.expires_at)

    def remove(self, place: Place) -> None:
        """Let nobody wait there any more."""
        share, tenant = place.share, place.share.tenant
        place.waits = False
        del share.places[place]
        tenant.waiting -= 1
        self.count -= 1
        self._expiry.discard(place)
        if share.places:
            tenant.by_length.put(share, -len(share.places))
        else:
            tenant.by_held.discard(share)
            tenant.by_length.discard(share)
        if tenant.waiting:
            self._by_length.put(tenant, -tenant.waiting)
        else:
            self._by_held.discard(tenant)
            self._by_length.discard(tenant)

    def expired(self, now: float) -> Place | None:
        """Return the first whose wait is over, or None. It still waits."""
        place = self._expiry.first()
        return place if place is not None and place.expires_at <= now else None

    def next_in(self, now: float) -> Place | None:
        """Return who goes in next, or None. It still waits."""
        tenant = self._by_held.first()
        share = None if tenant is None else tenant.by_held.first()
        if share is None:
            return None
        return next(reversed(share.places)) if self._presses(share, now) else next(iter(share.places))

    def crowded_out_by(self, tenant: TenantShare, queued: int) -> Place | None:
        """Return who goes when all places are taken and a key of which `queued` wait has a newcomer.

        Nobody, unless another queue is longer by two.

        By two: with the newcomer in it, this one is still the shorter. A newcomer that would only change places with its like is
        refused instead, since that costs less.
        """
        longest = self._by_length.first()
        if longest is None:
            return None
        if longest is not tenant and longest.waiting < tenant.waiting + 2:
            return None
        key = longest.by_length.first()
        if key is None or (longest is tenant and len(key.places) < queued + 2):
            return None
        return next(iter(key.places))

    def held_changed(self, share: KeyShare) -> None:
        """Note that this key holds one slot more or less. Needs not be told of those that do not wait."""
        tenant = share.tenant
        if share.places:
            tenant.by_held.put(share, share.held)
        if tenant.waiting:
            self._by_held.put(tenant, tenant.held)

    def _presses(self, share: KeyShare, now: float) -> bool:
        return bool(share.places) and now - share.waits_since >= self.policy.interval_s
