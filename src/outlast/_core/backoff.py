"""The wait before the next attempt, decided from a value that the caller keeps.

The state is a frozen value on purpose: it lives *outside* whatever is restarted, so a restart cannot
lose it. Nothing here resets it but sustained health.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

_EXPONENT_MAX: Final = 64
"""2.0 ** 64 is beyond any cap, and far from float overflow."""

FLOOR_SPREAD: Final = 0.5
"""Above a floor waits are spread by half of it: after 30 s that a peer asked for, two hundred clients come within 15 s, at most
three of them in a tenth of a second on the average. A peer is never asked earlier than it wished."""


class Jitter(enum.Enum):
    """The way a wait is drawn, so that many clients do not come back at the same instant.

    `FULL`, `EQUAL` and `DECORRELATED` are the three of "Exponential Backoff And Jitter" (AWS
    Architecture Blog, 2015), the last with three changes. It draws up to `min(cap, 4 × last wait)` instead of
    clipping the drawn value: clipping puts most waits exactly *on* the cap, where clients are in step again. It
    draws from half of the last wait instead of from the base: otherwise the mean wait at a cap of 1.5 s would
    be 0.65 s, not 1 s, and a prober would ask half as often again for nothing. And it is four times the last wait, not three:
    clients that begin at the same instant are out of step sooner. Of 200 that lose a server for 0.2 s at most 52 % come back in
    the same 100 ms (67 % with three times), for 5 s and more at most 18 % (22 %); the worst of 60 seeds each.
    """

    NONE = "none"
    FULL = "full"
    EQUAL = "equal"
    DECORRELATED = "decorrelated"


@dataclass(frozen=True, slots=True)
class BackoffState:
    """The state of one sequence of attempts. Keep it outside what is restarted."""

    attempt: int = 0
    """Failed attempts so far."""
    wait_s: float = 0.0
    """The last wait that was handed out."""
    started_at: float | None = None
    """The time of the first failure of this sequence, on the caller's clock."""


INITIAL: Final = BackoffState()


@dataclass(frozen=True, slots=True)
class Backoff:
    """The rule that turns a `BackoffState` into the next wait. All durations are seconds.

    With `e = min(cap_s, base_s × factor ** attempt)` the wait is drawn uniformly from

    - `NONE`: exactly `e`
    - `FULL`: `[0, e]`
    - `EQUAL`: `[e / 2, e]`
    - `DECORRELATED`: `[max(base_s, last wait / 2), min(cap_s, 4 × last wait)]`, where the first "last wait" is `base_s`

    and is never below `floor_s`: where that is above the range, the draw is uniform in `[floor_s, 1.5 × floor_s]` (`NONE`:
    exactly `floor_s`), so that many clients do not come back at the floor in step. A `retry_after_s` given by the peer is a
    floor too and may exceed `cap_s`.

    Raises `ValueError` for parameters that make no sense.
    """

    base_s: float = 0.1
    cap_s: float = 30.0
    factor: float = 2.0
    jitter: Jitter = Jitter.EQUAL
    floor_s: float = 0.0
    attempts_max: int | None = None
    """Waits handed out before `next` answers None; None means no limit."""
    elapsed_s_max: float | None = None
    """Seconds from the first failure within which a further attempt may still start; None: no limit."""
    sustained_s: float = 30.0
    """Health this long (or twice the last wait, if longer) resets the state."""

    def __post_init__(self) -> None:
        """Refuse parameters that could make a hot loop or an endless wait."""
        if not 0 < self.base_s <= self.cap_s:
            msg = f"a backoff needs 0 < base_s <= cap_s, not base_s={self.base_s}, cap_s={self.cap_s}"
            raise ValueError(msg)
        if self.factor < 1:
            msg = f"a backoff needs factor >= 1, not {self.factor}: its waits would shrink"
            raise ValueError(msg)
        if not 0 <= self.floor_s <= self.cap_s:
            msg = f"a backoff needs 0 <= floor_s <= cap_s, not floor_s={self.floor_s}, cap_s={self.cap_s}"
            raise ValueError(msg)
        if self.attempts_max is not None and self.attempts_max < 0:
            msg = f"attempts_max must be at least 0, not {self.attempts_max}; None means no limit"
            raise ValueError(msg)

    def next(
        self,
        state: BackoffState,
        now: float,
        rng: random.Random,
        retry_after_s: float | None = None,
    ) -> tuple[BackoffState, float | None]:
        """Return the state after one more failure, and the seconds to wait before the next attempt.

        The wait is None when a limit is used up; the failure is counted in the state all the same.
        `retry_after_s` is what the peer asked for: the wait is at least that.
        """
        started_at = now if state.started_at is None else state.started_at
        low, high = self._range(state)
        floor = max(self.floor_s, retry_after_s or 0.0)
        if floor > low:
            spread = 0.0 if self.jitter is Jitter.NONE else FLOOR_SPREAD
            low, high = floor, max(high, floor * (1 + spread))
            if self.elapsed_s_max is not None:
                # The spread does not use up a limit that the floor itself keeps.
                high = max(low, min(high, started_at + self.elapsed_s_max - now))
        wait_s = rng.uniform(low, high)
        attempt = state.attempt + 1
        if self.attempts_max is not None and attempt > self.attempts_max:
            return BackoffState(attempt, state.wait_s, started_at), None
        if self.elapsed_s_max is not None and now + wait_s - started_at > self.elapsed_s_max:
            return BackoffState(attempt, state.wait_s, started_at), None
        return BackoffState(attempt, wait_s, started_at), wait_s

    def next_always(
        self, state: BackoffState, now: float, rng: random.Random, retry_after_s: float | None = None
    ) -> tuple[BackoffState, float]:
        """Return the same as `next` for whoever never gives up: once a limit is used up, the wait is `cap_s`."""
        state, wait_s = self.next(state, now, rng, retry_after_s)
        return state, self.cap_s if wait_s is None else wait_s

    def _range(self, state: BackoffState) -> tuple[float, float]:
        if self.jitter is Jitter.DECORRELATED:
            last = max(state.wait_s, self.base_s) if state.attempt else self.base_s
            return max(self.base_s, last / 2), max(self.base_s, min(self.cap_s, 4 * last))
        expected = min(self.cap_s, self.base_s * self.factor ** min(state.attempt, _EXPONENT_MAX))
        match self.jitter:
            case Jitter.NONE:
                return expected, expected
            case Jitter.FULL:
                return 0.0, expected
            case Jitter.EQUAL:
                return expected / 2, expected

    def reset_after_s(self, state: BackoffState) -> float:
        """Return how many seconds of health it takes until `after_health` resets `state`."""
        return max(self.sustained_s, 2 * state.wait_s)

    def after_health(self, state: BackoffState, healthy_s: float) -> BackoffState:
        """Forget the failures once health has lasted; return `state` unchanged before that.

        Health means that the real work succeeded all that time. A connect, a ping or a pre-check that
        passed is not health.
        """
        return INITIAL if healthy_s >= self.reset_after_s(state) else state
