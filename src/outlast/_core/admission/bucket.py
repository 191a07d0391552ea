"""Token buckets: one, and one for each of many keys. A refused take says exactly how long to wait, and never drifts.

A bucket keeps the tokens that were taken and have not flowed back (its *debt*), not a sum of intervals. One that is full has
a debt of exactly 0, so that rounding does not add up over months: a take changes the debt by at most one part in 2**52 of the
burst, so a bucket of 1,000 tokens is off by one token after 10**12 takes without ever being full.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

RATE_PER_S_MIN: Final = 1e-9
"""One in 32 years. A lower rate is 0, or a mistake."""
RATE_PER_S_MAX: Final = 1e9
"""One in a nanosecond: no clock that we read is finer."""
BURST_MAX: Final = 1e9
"""The debt of such a bucket is exact to a ten-millionth of a token: 1e9 / 2**53."""
KEYS_MAX: Final = 10_000
"""Keys with a bucket of their own: some 3 MB."""
_LOOKED_AT_MAX: Final = 8
"""Keys that a new one looks at to find one that may be forgotten. As it looks at more than the one that it adds, all are seen
in turn, and none of the work is put off to one unlucky call."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_s` pieces of work a second on the average, and at most `burst` at one instant.

    `burst` is what can be saved up: by default the work of one second, at least 1. A `per_s` of 0 refuses always. A piece of
    work that costs more than `burst` can never come in.

    Raises `ValueError` if `per_s` is neither 0 nor from 1e-9 to 1e9, or `burst` not from 1 to 1e9.
    """

    per_s: float
    burst: float = 0.0
    """0 stands for the default, and is replaced by it."""

    def __post_init__(self) -> None:
        """Refuse what is no rate: nan, infinity, a number that would make waits meaningless."""
        if self.per_s != 0 and not RATE_PER_S_MIN <= self.per_s <= RATE_PER_S_MAX:
            msg = f"a rate needs per_s from {RATE_PER_S_MIN:g} to {RATE_PER_S_MAX:g}, or 0 to refuse all, not {self.per_s}"
            raise ValueError(msg)
        if self.burst == 0:
            object.__setattr__(self, "burst", max(1.0, self.per_s))
        if not 1 <= self.burst <= BURST_MAX:
            msg = f"a rate needs a burst from 1 to {BURST_MAX:g}, not {self.burst}"
            raise ValueError(msg)


class Bucket:
    """The tokens of one `Rate`. It begins full. `now` is in seconds of a clock that does not go back; one that does adds nothing.

    A caller with no time for a call may do what `take` does: it compares what would then be `taken`, at a time that is not before
    `at`, with `burst`, and sets both. Not safe for several threads at once.
    """

    __slots__ = ("at", "burst", "per_s", "taken")

    def __init__(self, rate: Rate) -> None:
        self.per_s = float(rate.per_s)
        # A burst below any cost refuses always, without a branch in the hot path.
        self.burst = float(rate.burst) if rate.per_s else -1.0
        self.taken = 0.0
        """The tokens that were taken and had not flowed back at the time `at`."""
        self.at = 0.0
        """The time that `taken` is of."""

    def take(self, now: float, cost: float = 1.0) -> float | None:
        """Take `cost` tokens; return 0.0 if they were there.

        Otherwise nothing is taken, and the result is the seconds after which they will be, if nobody else takes any: a take at
        `now` plus exactly so many seconds succeeds, at any rate. None: never, since the cost is above the burst, or the rate 0.
        Raises `ValueError` if `cost` is negative or not a number.
        """
        debt = self.taken
        at = self.at
        if debt and now > at:
            debt -= (now - at) * self.per_s
            debt = max(debt, 0.0)
        debt += cost
        if debt <= self.burst and cost >= 0.0:
            self.taken = debt
            if now > at:
                self.at = now
            return 0.0
        return self._wait_s(now, cost)

    def put_back(self, now: float, cost: float = 1.0) -> None:
        """Return `cost` tokens that were taken for work that did not come in after all: to a full bucket at most.

        What has flowed in meanwhile stays: at that one instant up to `cost` more may come in than if nothing had been taken.
        """
        self.taken = max(0.0, self.debt(now) - cost)
        self.at = max(self.at, now)

    def debt(self, now: float) -> float:
        """Return the tokens that are missing from a full bucket."""
        return max(0.0, self.taken - max(0.0, now - self.at) * self.per_s)

    def _wait_s(self, now: float, cost: float) -> float | None:
        if not cost >= 0.0:
            msg = f"work costs at least 0 tokens, not {cost}"
            raise ValueError(msg)
        if cost > self.burst:
            return None
        at = max(self.at, now) + (self.debt(now) + cost - self.burst) / self.per_s
        # The first instant that the clock can show at which a take succeeds: computed as the take will compute it, so that the
        # rounding of (1 / rate) × rate leaves nobody short of a hair. It is one or two steps away.
        while max(0.0, self.taken - (at - self.at) * self.per_s) + cost > self.burst:
            at = math.nextafter(at, math.inf)
        return self._exactly(now, at)

    @staticmethod
    def _exactly(now: float, at: float) -> float:
        """Return the seconds that, added to `now` as floats are added, come to `at` or later."""
        wait_s = at - now
        while now + wait_s < at:
            wait_s = math.nextafter(wait_s, math.inf)
        return wait_s


class KeyedBuckets:
    """A bucket of the same `Rate` for each key, for at most `keys_max` keys.

    A key whose bucket is full again is as good as one never seen, and is forgotten when its place is needed. While none such is
    found, keys without a place share one bucket of the same rate: they may be refused for each other's work, but never
    cost memory, and never get more than they agreed to. `shared` counts their takes.
    Not safe for several threads at once.
    """

    __slots__ = ("_buckets", "_keys_max", "_others", "_rate", "get", "shared")

    def __init__(self, rate: Rate, keys_max: int = KEYS_MAX) -> None:
        """Raises `ValueError` if `keys_max` is below 1."""
        if keys_max < 1:
            msg = f"keys_max must be at least 1, not {keys_max}"
            raise ValueError(msg)
        self.shared = 0
        """Takes from the bucket that keys without a place share."""
        self._rate = rate
        self._keys_max = keys_max
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()
        self._others = Bucket(rate)
        self.get = self._buckets.get
        """Returns the bucket of a key, None if it has no own one yet: `placed` returns the one to use then."""

    def __len__(self) -> int:
        """Return how many keys have a bucket of their own."""
        return len(self._buckets)

    def take(self, now: float, key: Hashable, cost: float = 1.0) -> float | None:
        """Take `cost` tokens of `key`, as `Bucket.take` does."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self.placed(now, key)
        return bucket.take(now, cost)

    def put_back(self, now: float, key: Hashable, cost: float = 1.0) -> None:
        """Return `cost` tokens of `key`, as `Bucket.put_back` does: of the shared bucket, for a key without one of its own."""
        self._buckets.get(key, self._others).put_back(now, cost)

    def placed(self, now: float, key: Hashable) -> Bucket:
        """Return the bucket of a key that has none of its own: a new one, or the shared one. Counts as a take from that."""
        buckets = self._buckets
        if len(buckets) >= self._keys_max and not self._forget_one(now):
            self.shared += 1
            return self._others
        bucket = buckets[key] = Bucket(self._rate)
        return bucket

    def _forget_one(self, now: float) -> bool:
        """Forget the keys that are full again, of the next few in turn; return whether there was one."""
        buckets = self._buckets
        found = False
        for _ in range(min(_LOOKED_AT_MAX, len(buckets))):
            key = next(iter(buckets))
            if buckets[key].debt(now):
                buckets.move_to_end(key)
            else:
                del buckets[key]
                found = True
        return found
