"""The refusals of an admission: made of numbers, counted. Text is made of them only where somebody reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._core.admission.retry_after import Returns, rate_wait_s
from outlast._core.admission.values import Reason, Refusal

if TYPE_CHECKING:
    import random

    from outlast._core.admission.bucket import Rate


class Refusals:
    """Makes and counts them."""

    __slots__ = ("_counts", "_rng", "returns")

    def __init__(self, rng: random.Random) -> None:
        self.returns = Returns()
        """The waits before it is worth coming back. What is served is counted there by whoever serves it."""
        self._rng = rng
        # By value: the hash of a member of an Enum is a function of Python's.
        self._counts = {reason.value: 0 for reason in Reason}

    @property
    def counts(self) -> dict[Reason, int]:
        """The number of refusals of each reason."""
        return {reason: self._counts[reason.value] for reason in Reason}

    def late(self, now: float, needed_s: float, left_s: float) -> Refusal:
        """Refuse what needs `needed_s` and has `left_s`."""
        self._counts["deadline"] += 1
        return Refusal(Reason.DEADLINE, needed_s, left_s, self._return_s(now))

    def memory(self, now: float, used_bytes: float, limit_bytes: float, *, ever: bool = True) -> Refusal:
        """Refuse for want of memory; `ever` False: it will never be enough."""
        self._counts["memory"] += 1
        return Refusal(Reason.MEMORY, used_bytes, limit_bytes, self._return_s(now) if ever else None)

    def rate(self, rate: Rate, cost: float, wait_s: float | None) -> Refusal:
        """Refuse what asks for `cost` of a bucket that has as much in `wait_s`; None: never."""
        self._counts["rate"] += 1
        if wait_s is None:
            return Refusal(Reason.RATE, cost, rate.burst if rate.per_s else 0.0, None)
        return Refusal(Reason.RATE, cost, max(0.0, cost - wait_s * rate.per_s), rate_wait_s(wait_s, self._rng))

    def full(self, now: float, seen: int, limit: float) -> Refusal:
        """Refuse what finds `seen` pieces of work where `limit` may be."""
        self._counts["concurrency"] += 1
        return Refusal(Reason.CONCURRENCY, seen, limit, self._return_s(now))

    def share(self, now: float, held: int, part: float) -> Refusal:
        """Refuse what holds `held` slots where its share is `part`, while others find none."""
        self._counts["share"] += 1
        return Refusal(Reason.SHARE, held, part, self._return_s(now))

    def _return_s(self, now: float) -> float:
        return self.returns.wait_s(now, self._rng)
