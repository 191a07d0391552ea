"""A retry budget: retries may add a fifth to the load and no more, so that they never are the storm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RetryBudget:
    """Tokens for retries: `ratio` of a token for each call, and `per_s` tokens a second, up to a bound.

    The defaults (20 % of the calls and three a second) are those of Finagle's RetryBudget, made a
    little smaller in the burst. The caller passes the time. Not safe for several threads at once.
    """

    ratio: float = 0.2
    per_s: float = 3.0
    burst_max: float = 30.0
    """Tokens that can be saved up: ten seconds' worth of `per_s`."""
    tokens: float = 30.0
    refilled_at: float | None = None

    def call(self) -> None:
        """Count one first attempt: it earns `ratio` of a retry."""
        tokens = self.tokens + self.ratio
        self.tokens = min(tokens, self.burst_max)

    def take(self, now: float) -> bool:
        """Take the token for one retry; return False if the retry must not happen."""
        if self.refilled_at is not None and now > self.refilled_at:
            self.tokens = min(self.burst_max, self.tokens + (now - self.refilled_at) * self.per_s)
        self.refilled_at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
