"""Memory: which work may come in, from the share of the process's limit that is in use. Two thresholds, each a pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

LARGE_BYTES: Final = 64 * 1024
"""Work that announces less is judged as work that announces nothing: less than what one connection may buffer."""
RESERVED_SHARE: Final = 0.75
"""The part of the room above the base that announced bytes may come to; the rest is for work without a size."""


@dataclass(frozen=True, slots=True)
class Memory:
    """At what shares of the memory limit work is refused: first what is sheddable, then all that is not critical.

    Each threshold is a pair: refusing begins at the first share and ends below the second, so that nothing flaps.
    `bytes_max` is a limit of one's own for what this process holds, beside that of its control group; None: the machine's memory.

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

    Work that announces its size counts before a sample can show it, and for as long as it is under way: a body may trickle in, a
    job may wait for a session before it begins. Once its bytes are in use they stand in the samples too, and must not count
    twice. So what counts is the larger of the last sample and `base + reserved`: what was in use without the work that
    announced its size, and all that it has announced. Of the base only `used - reserved` is known for certain, if everything
    announced is in use; the highest of these is taken, from the last sample at which nothing was reserved on.

    A client may announce much and send nothing. So announced bytes may come to three quarters of the room above the base, and
    keep out only each other: work that announces less than 64 KiB, or nothing, is let in by what is left of it.

    Not safe for several threads at once.
    """

    __slots__ = ("_base", "_spare_max", "known", "level", "limit_bytes", "policy", "reserved_bytes", "spare_bytes", "used_bytes")

    def __init__(self, policy: Memory) -> None:
        self.policy = policy
        self.level = 0
        """0: all may come in. 1: nothing sheddable. 2: critical work alone."""
        self.known = False
        """Whether the last sample knew both what is used and the limit."""
        self.used_bytes = 0.0
        """The last sample."""
        self.limit_bytes = 0.0
        self.reserved_bytes = 0.0
        """The bytes announced by the work that is under way."""
        self.spare_bytes = math.inf
        """Work that announces less comes in without a further look, whatever its criticality; negative where none does."""
        self._base = 0.0
        self._spare_max = math.inf
        """As much as that can be while nothing is announced, by the last sample."""

    @property
    def counted_bytes(self) -> float:
        """The bytes that count as used: those of the last sample, and those that announced work is still to use."""
        return max(self.used_bytes, self._base + self.reserved_bytes)

    def sample(self, now: float, used_bytes: float | None, limit_bytes: float | None) -> None:  # noqa: ARG002 - see below
        """Record what is used and the limit, in bytes; None, 0 or nan for what is not known.

        While either is unknown all may come in: a meter that fails must not close a service that works. The meter applies
        `bytes_max`, since it knows whose bytes it has read. `now` is taken as by the other deciders, and not needed.
        """
        self.known = False
        self.used_bytes = self.limit_bytes = 0.0
        if used_bytes is not None and limit_bytes is not None and 0 <= used_bytes < math.inf and 0 < limit_bytes < math.inf:
            self.known = True
            self.used_bytes, self.limit_bytes = used_bytes, limit_bytes
            self._base = max(self._base if self.reserved_bytes >= 1 else 0.0, used_bytes - self.reserved_bytes)
        self._look()

    def reserve(self, size_bytes: float) -> None:
        """Count the announced bytes of work that comes in as used from now on."""
        self.reserved_bytes += size_bytes
        self.spare_bytes -= size_bytes
        if self.spare_bytes <= 0:
            self._look()

    def unreserve(self, size_bytes: float) -> None:
        """Take back what was reserved for work that has ended, or did not come in. What is still in use stands in the samples."""
        self.reserved_bytes -= size_bytes
        self.spare_bytes += size_bytes
        if self.level or self.spare_bytes > self._spare_max or self.reserved_bytes < 0:
            self.reserved_bytes = max(0.0, self.reserved_bytes)
            self._look()

    def _look(self) -> None:
        """Set the level, and what is spare before the next look is needed."""
        self.level = self.level_with(0.0)
        if not self.known:
            self.spare_bytes = self._spare_max = math.inf
            return
        at = self.policy.sheddable_at * self.limit_bytes
        self._spare_max = min(at - self.used_bytes, self._reserved_max(self._base))
        spare = min(at - self.counted_bytes, self._reserved_max(self._base) - self.reserved_bytes)
        self.spare_bytes = -1.0 if self.level else spare

    def level_with(self, size_bytes: float) -> int:
        """Return the level that would hold if work of this size came in too: refuse it by that, so that one large one is seen."""
        if not self.known:
            return 0
        policy, level = self.policy, self.level
        share = (self.counted_bytes + size_bytes) / self.limit_bytes
        if share >= (policy.normal_until if level == 2 else policy.normal_at):
            return 2
        if size_bytes >= LARGE_BYTES and self.reserved_bytes + size_bytes > self._reserved_max(self._base):
            return 2
        return int(share >= (policy.sheddable_until if level else policy.sheddable_at))

    def can_ever_hold(self, size_bytes: float) -> bool:
        """Return whether work of this size could come in if nothing else were in memory. True while the limit is unknown."""
        return not self.known or size_bytes <= self._reserved_max(0.0)

    def _reserved_max(self, base_bytes: float) -> float:
        return RESERVED_SHARE * (self.policy.normal_at * self.limit_bytes - base_bytes)
