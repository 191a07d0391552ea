"""The waits of one worker or session after its own failures, and what a dependency's outage takes back of them.

A dependency has a rhythm of its own: its prober, its relapses. What an outage explains must not make a session wait longer
after the dependency is back, or a hundred outages in a row would leave it at its cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast._core.backoff import INITIAL, Backoff, BackoffState, Jitter

if TYPE_CHECKING:
    import random

    from outlast._core.faults import Fault

PERMANENT_S: Final = 5.0
"""A fault that needs a person is retried no sooner than this."""
RHYTHM_S_MAX: Final = 5.0
"""While a dependency is recovering nobody waits longer: as its relapses."""
REFUSED_S_MAX: Final = 5.0
"""The longest wait of one who was refused, which comes back when the prober has asked again."""
REFUSED_SPREAD_S_MAX: Final = 1.0
"""Those who were refused at one time come within a second, as waiters over their ramp."""
TAKEN_BACK_MAX: Final = 3
"""Failures that an outage explains afterwards: a session broke, its dial failed, and then it was refused."""


@dataclass(slots=True)
class OwnWaits:
    """Keep it outside of what is restarted."""

    policy: Backoff
    state: BackoffState = INITIAL
    """After failures of one's own."""
    rhythm: BackoffState = INITIAL
    """After failures while a dependency's rhythm ruled, since it last returned."""
    _before: tuple[BackoffState, ...] = ()
    """The values of `state` before each of the newest failures, since work last began."""

    def failed(self, fault: Fault, now: float, rng: random.Random) -> float:
        """Record a failure of its own; return the seconds to wait."""
        self._before = (*self._before, self.state)[-TAKEN_BACK_MAX:]
        self.state, wait_s = self.policy.next_always(self.state, now, rng, fault.floor_s(PERMANENT_S))
        return wait_s

    def in_rhythm(self, now: float, rng: random.Random, retry_after_s: float | None = None) -> float:
        """Record a failure whose wait the rhythm of a dependency bounds; return the seconds to wait.

        They are at most 5, unless the peer itself asks for more.
        """
        self.rhythm, wait_s = self._rhythm().next_always(self.rhythm, now, rng, retry_after_s)
        return wait_s

    def take_back(self) -> None:
        """Take back the newest failures: an outage explains them."""
        if self._before:
            self.state, self._before = self._before[0], ()

    def returned(self) -> None:
        """Note that a dependency was down meanwhile: its rhythm begins again, and its own relapses bound what comes of it."""
        self.take_back()
        self.rhythm = INITIAL

    def first_s(self, rng: random.Random) -> float:
        """Return the seconds of a first wait, where nothing is held against anyone. It makes no later wait longer."""
        _, wait_s = self.policy.next(INITIAL, 0.0, rng)
        return self.policy.base_s if wait_s is None else min(wait_s, RHYTHM_S_MAX)

    def _rhythm(self) -> Backoff:
        """Return the same rule with another cap, which spreads there as well, whatever the jitter of the policy is."""
        cap_s = min(self.policy.cap_s, RHYTHM_S_MAX)
        return Backoff(min(self.policy.base_s, cap_s), cap_s, self.policy.factor, Jitter.EQUAL)

    def worked(self) -> None:
        """Work has begun, or succeeded: what fails from now on has nothing to do with what failed before."""
        self._before = ()

    def reset_after_s(self) -> float:
        """Return how many seconds of health it takes until `forget` is due."""
        return max(self.policy.reset_after_s(self.state), self.policy.reset_after_s(self.rhythm))

    def forget(self) -> None:
        """Health has lasted."""
        self.state = self.rhythm = INITIAL
        self._before = ()


def refused_s(retry_after_s: float, rng: random.Random) -> float:
    """Return the wait of one who was refused, in seconds: until the prober has asked again, and up to 1 s more; at most 5."""
    low_s = min(retry_after_s, REFUSED_S_MAX - REFUSED_SPREAD_S_MAX)
    return low_s + rng.uniform(0.0, min(low_s / 2, REFUSED_SPREAD_S_MAX))
