"""The refusals of an admission: made of numbers, counted. Text is made of them only where somebody reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from outlast._core.admission.retry_after import Returns, rate_wait_s
from outlast._core.admission.values import Reason, Refusal

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from outlast._core.admission.bucket import Rate


# Not Refusal(...), which costs twice as much. The stub of `tuple` does not say of what it is one.
_new_tuple: Final = cast("Callable[[type[Refusal], tuple[Reason, float, float, float]], Refusal]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


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

    def refuse(self, now: float, reason: Reason, seen: float, limit: float) -> Refusal:
        """Refuse for a reason that passes: `seen` is too much for `limit` now."""
        self._counts[reason.value] += 1
        return _new_tuple(Refusal, (reason, seen, limit, self.returns.wait_s(now, self._rng)))

    def refuse_for_good(self, reason: Reason, seen: float, limit: float) -> Refusal:
        """Refuse what will always be too much."""
        self._counts[reason.value] += 1
        return Refusal(reason, seen, limit, None)

    def refuse_rate(self, rate: Rate, cost: float, wait_s: float | None) -> Refusal:
        """Refuse what asks for `cost` of a bucket that has as much in `wait_s`; None: never."""
        if wait_s is None:
            return self.refuse_for_good(Reason.RATE, cost, rate.burst if rate.per_s else 0.0)
        self._counts["rate"] += 1
        return Refusal(Reason.RATE, cost, max(0.0, cost - wait_s * rate.per_s), rate_wait_s(wait_s, self._rng))
