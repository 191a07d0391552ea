"""The rate of a supervised loop: one that spins without useful work is named and throttled.

A *turn* is one call of a loop's body, or one step inside a body that never returns and does nothing
but yield, or fail. Turns that did useful work (a guarded call succeeded, or the body said so) are
*progress*. Spinning is: far more turns than the ceiling allows, and no progress among them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Spin(enum.Enum):
    """A change that the governor has seen."""

    STARTED = "started"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The limits of spinning, and the waits that slow a spinning loop down.

    `turns_per_s_max` idle turns a second, averaged over a window of `window_s`, are spinning; `None` switches the
    watch off. A spinning loop waits `throttle_s` before each turn, doubling up to `throttle_s_max`. It leaves
    that state at the first progress, or when a turn takes `leave_factor` times as long as the ceiling
    asks for: a pair of thresholds, so that it does not flap.
    """

    turns_per_s_max: float | None = 500.0
    window_s: float = 1.0
    throttle_s: float = 0.1
    throttle_s_max: float = 2.0
    leave_factor: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a ceiling of nothing."""
        if self.turns_per_s_max is not None and self.turns_per_s_max <= 0:
            msg = f"turns_per_s_max must be above 0, not {self.turns_per_s_max}; None switches the watch off"
            raise ValueError(msg)


@dataclass(slots=True)
class Governor:
    """Watches one loop. Tell it of each turn; it answers how long to wait before the next one."""

    ceiling: Ceiling
    turns: int = 0
    """Idle turns in this window."""
    window_at: float = 0.0
    throttle_s: float = 0.0
    """The wait before each turn: above 0 exactly while the loop is spinning."""
    rate_per_s: float = 0.0
    """The rate at which it was caught spinning."""
    throttled: int = 0
    """Turns that were slowed down, in all."""

    def progress(self, now: float) -> Spin | None:
        """Record a turn that did useful work; return the change that it makes."""
        self.turns = 0
        self.window_at = now
        return self._leave()

    def idle(self, now: float, took_s: float) -> Spin | None:
        """Record a turn that did no useful work and lasted `took_s` seconds, the throttle not counted."""
        rate_max = self.ceiling.turns_per_s_max
        if rate_max is None:
            return None
        if self.throttle_s:
            if took_s >= self.ceiling.leave_factor / rate_max:
                return self._leave()
            self.throttled += 1
            self.throttle_s = min(self.ceiling.throttle_s_max, self.throttle_s * 2)
            return None
        if self.turns == 0:
            self.window_at = now - took_s
        self.turns += 1
        if self.turns < rate_max * self.ceiling.window_s:
            return None
        elapsed_s = now - self.window_at
        turns, self.turns = self.turns, 0
        if elapsed_s > self.ceiling.window_s:
            return None
        self.rate_per_s = turns / max(elapsed_s, 1e-6)
        self.throttle_s = self.ceiling.throttle_s
        return Spin.STARTED

    def _leave(self) -> Spin | None:
        if not self.throttle_s:
            return None
        self.throttle_s = 0.0
        self.turns = 0
        return Spin.ENDED
