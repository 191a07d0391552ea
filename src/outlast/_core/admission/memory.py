"""Memory: which work may come in, from the share of the process's limit that is in use. Two thresholds, each a pair."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """At what shares of the memory limit work is refused: first what is sheddable, then all that is not critical.

    Each threshold is a pair: refusing begins at the first share and ends below the second, so that nothing flaps.
    `bytes_max` is a limit of one's own, for a process without one or below it; None: that of the machine's container alone.

    Raises `ValueError` unless 0 < sheddable_until <= sheddable_at <= normal_at <= 1, and the same of `normal_until`.
    """

    sheddable_at: float = 0.80
    sheddable_until: float = 0.75
    normal_at: float = 0.90
    normal_until: float = 0.85
    bytes_max: float | None = None

    def __post_init__(self) -> None:
        """Refuse thresholds that contradict each other."""
        if not (0 < self.sheddable_until <= self.sheddable_at <= self.normal_at <= 1):
            msg = (
                "memory needs 0 < sheddable_until <= sheddable_at <= normal_at <= 1, "
                f"not {self.sheddable_until}, {self.sheddable_at}, {self.normal_at}"
            )
            raise ValueError(msg)
        if not self.sheddable_until <= self.normal_until <= self.normal_at:
            msg = f"memory needs sheddable_until <= normal_until <= normal_at, not normal_until={self.normal_until}"
            raise ValueError(msg)
        if self.bytes_max is not None and not 0 < self.bytes_max < math.inf:
            msg = f"bytes_max must be a number of bytes above 0, not {self.bytes_max}; None means no limit of one's own"
            raise ValueError(msg)


class MemoryState:
    """The level that a `Memory` policy has reached.

    Work that announces its size counts at once, before any sample can show it: its bytes count until the second sample
    after it, since what is admitted just before a sample has not arrived by then. So a burst between two samples is bounded by
    the thresholds. Not safe for several threads at once.
    """

    __slots__ = ("_announced", "_announced_before", "_samples", "known", "level", "limit_bytes", "policy", "used_bytes")

    def __init__(self, policy: Memory) -> None:
        self.policy = policy
        self.level = 0
        """0: all may come in. 1: nothing sheddable. 2: critical work alone."""
        self.known = False
        """Whether the last sample knew both what is used and the limit."""
        self.used_bytes = 0.0
        """The last sample, without what has been announced since."""
        self.limit_bytes = 0.0
        self._announced = 0.0
        self._announced_before = 0.0
        self._samples = 0

    @property
    def announced_bytes(self) -> float:
        """The bytes announced that the last sample does not show."""
        return self._announced + self._announced_before

    def sample(self, now: float, used_bytes: float | None, limit_bytes: float | None) -> None:  # noqa: ARG002 - see below
        """Record what is used and the limit, in bytes; None, 0 or nan for what is not known.

        While either is unknown all may come in: a meter that fails must not close a service that works. `now` is taken as by the
        other deciders, and not needed.
        """
        self._announced_before, self._announced = self._announced, 0.0
        self._samples += 1
        limits = [limit for limit in (limit_bytes, self.policy.bytes_max) if limit is not None and 0 < limit < math.inf]
        self.known = bool(limits) and used_bytes is not None and 0 <= used_bytes < math.inf
        if self.known and used_bytes is not None:
            self.used_bytes, self.limit_bytes = used_bytes, min(limits)
        else:
            self.used_bytes = self.limit_bytes = 0.0
        self.level = self.level_with(0.0)

    def reserve(self, size_bytes: float) -> int:
        """Count the announced bytes of work that comes in as used from now on; return the mark that `unreserve` asks for."""
        self._announced += size_bytes
        self.level = self.level_with(0.0)
        return self._samples

    def unreserve(self, size_bytes: float, mark: int) -> None:
        """Take back what was reserved for work that has ended, or did not come in. Bytes that samples show by now are theirs."""
        if mark == self._samples:
            self._announced = max(0.0, self._announced - size_bytes)
        elif mark == self._samples - 1:
            self._announced_before = max(0.0, self._announced_before - size_bytes)
        self.level = self.level_with(0.0)

    def level_with(self, size_bytes: float) -> int:
        """Return the level that would hold if work of this size came in too: refuse it by that, so that one large one is seen."""
        if not self.known:
            return 0
        policy, level = self.policy, self.level
        share = (self.used_bytes + self._announced + self._announced_before + size_bytes) / self.limit_bytes
        if share >= (policy.normal_until if level == 2 else policy.normal_at):
            return 2
        return int(share >= (policy.sheddable_until if level else policy.sheddable_at))

    def can_ever_hold(self, size_bytes: float) -> bool:
        """Return whether work of this size could come in if nothing else were in memory. True while the limit is unknown."""
        return not self.known or size_bytes < self.policy.normal_at * self.limit_bytes
