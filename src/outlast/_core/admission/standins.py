"""Deciders that let everything in, until those of rates, concurrency and memory are there."""

# ruff: noqa: ARG002 - as those that come

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class Rate:
    """Work a second, and how much of it at once."""

    per_s: float
    burst: float = 1.0


class Bucket:
    """Tokens without end, but never for a rate of 0 or more than the burst."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate

    def take(self, now: float, cost: float = 1.0) -> float | None:
        """Return 0.0: taken; None: never."""
        return None if not self._rate.per_s or cost > self._rate.burst else 0.0

    def put_back(self, now: float, cost: float = 1.0) -> None:
        """Do nothing."""


class KeyedBuckets:
    """A bucket for every key."""

    def __init__(self, rate: Rate, keys_max: int) -> None:
        self._bucket = Bucket(rate)

    def take(self, now: float, key: str, cost: float = 1.0) -> float | None:
        """Return 0.0: taken; None: never."""
        return self._bucket.take(now, cost)

    def put_back(self, now: float, key: str, cost: float = 1.0) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """A limit that does not move."""

    limit_start: int = 20


class Limit:
    """A limit that does not move."""

    __slots__ = ("latency_s", "limit", "window_ends_at")

    def __init__(self, policy: Concurrency) -> None:
        self.limit = policy.limit_start
        self.latency_s = 0.0
        self.window_ends_at = float("inf")

    def sample(self, now: float, began_at: float, in_flight_at_start: int, ok: bool) -> None:  # noqa: FBT001 - hot
        """Do nothing."""

    def adapt(self, now: float, in_flight: int, lag_s: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Thresholds that are never reached."""


class MemoryState:
    """Level 0."""

    __slots__ = ("level", "limit_bytes", "used_bytes")

    def __init__(self, policy: Memory) -> None:
        self.level = 0
        self.used_bytes = 0.0
        self.limit_bytes = 0.0

    def sample(self, now: float, used_bytes: float | None, limit_bytes: float | None) -> None:
        """Do nothing."""

    def reserve(self, size_bytes: float) -> int:
        """Return a mark."""
        return 0

    def unreserve(self, size_bytes: float, mark: int) -> None:
        """Do nothing."""

    def level_with(self, size_bytes: float) -> int:
        """Return 0."""
        return 0

    def can_ever_hold(self, size_bytes: float) -> bool:
        """Return True."""
        return True


def rate_wait_s(wait_s: float, rng: random.Random) -> float:
    """Return the wait, and up to a fifth of it more."""
    return wait_s * (1 + 0.2 * rng.random())


class Returns:
    """Waits of those who were refused for want of room."""

    def __init__(self) -> None:
        self.refused = 0
        self.served = 0

    def wait_s(self, now: float, rng: random.Random) -> float:
        """Return 1 to 2 s."""
        return 1 + rng.random()
