"""The health of one dependency: a state machine that is given the time and answers with what to do.

Transitions (everything that is not listed leaves the state as it is):

    state        input                      next state   action
    UP           fault                      DOWN         OPEN
    DOWN         probe passed               RECOVERING   RELEASE
    DOWN         probe failed               DOWN         (a longer wait)
    RECOVERING   fault                      DOWN         HOLD
    RECOVERING   sustained health           UP           RESOLVE
    UP           end                        DOWN, lost   OPEN
    RECOVERING   end                        DOWN, lost   HOLD
    DOWN         end                        DOWN, lost
    DOWN, lost   told to try again          DOWN         (a probe at once)

`UP` and `DOWN` are entered by evidence, `RECOVERING` by a probe that passed. A probe that passed proves
only that a probe passes: the incident stays open, and a fault in `RECOVERING` waits longer each time
(the *relapse* backoff) however well the probe does. An *end* is a fault that says that its source does not come back by itself
(`Fault.is_end`): then nothing is probed, until somebody has mended it. None of it outlives the process.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from outlast._core.backoff import INITIAL, Backoff, BackoffState, Jitter
from outlast._core.faults import Kind

if TYPE_CHECKING:
    import random

    from outlast._core.faults import Fault


class State(enum.Enum):
    """The three states of a dependency. See the table at the top of this file."""

    UP = "up"
    DOWN = "down"
    RECOVERING = "recovering"


class Action(enum.Enum):
    """The duty of the runtime after a transition."""

    OPEN = "open"
    """An incident has begun: everyone waits from now on."""
    HOLD = "hold"
    """A relapse within the incident: everyone waits again."""
    RELEASE = "release"
    """The probe passed: let the waiters go over a ramp."""
    RESOLVE = "resolve"
    """Health has lasted: the incident is over."""


@dataclass(frozen=True, slots=True)
class Health:
    """A snapshot of the state machine. Times are on the clock of the caller, in seconds."""

    state: State = State.UP
    since: float = 0.0
    """The time at which `state` was entered."""
    opened_at: float | None = None
    """The time at which the open incident began."""
    first: Fault | None = None
    """The first cause of the open incident."""
    last: Fault | None = None
    """The newest evidence: from work, or from a probe."""
    probe: BackoffState = INITIAL
    """Probes that failed in a row."""
    relapse: BackoffState = INITIAL
    """Relapses within the incident; no probe that passes resets it."""
    probe_at: float | None = None
    """The time of the next probe, while `DOWN` and not lost."""
    lost: bool = False
    """Whether it has ended: it is not probed."""
    worked: bool = False
    """Whether real work has succeeded since the last recovery."""
    epoch: int = 0
    """The number of recoveries. Work begun in an older epoch is no evidence about this one."""


PROBE: Final = Backoff(base_s=0.1, cap_s=1.5, jitter=Jitter.DECORRELATED)
"""One prober a process makes so low a cap affordable: about sixty probes a minute (56 to 67 in nine minutes of ten)."""
PERMANENT: Final = Backoff(base_s=5.0, cap_s=60.0, jitter=Jitter.EQUAL)
"""A person has to act: nothing is gained by asking every second."""
RELAPSE: Final = Backoff(base_s=0.5, cap_s=5.0, jitter=Jitter.EQUAL)
"""Lowest sums of the waits: 0.25, 0.75, 1.75, 3.75, 6.25, 8.75, 11.25 s. So a dependency whose sessions die at
once sees at most seven of them in the first ten seconds, and one in 2.5 to 5 s after that."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The waits of a dependency, and how long health must last to count."""

    probe: Backoff = PROBE
    permanent: Backoff = PERMANENT
    relapse: Backoff = RELAPSE

    def fault(self, health: Health, fault: Fault, now: float, rng: random.Random) -> tuple[Health, Action | None]:
        """Return the health after evidence from real work that the dependency is down."""
        match health.state:
            case State.DOWN:
                return (_lost(health, fault) if fault.is_end else replace(health, last=fault)), None
            case State.UP:
                opened = Health(State.DOWN, now, now, first=fault, last=fault, epoch=health.epoch)
                return (_lost(opened, fault) if fault.is_end else self._wait(opened, fault, now, rng)), Action.OPEN
            case State.RECOVERING:
                relapse, hold_s = self.relapse.next_always(health.relapse, now, rng, fault.retry_after_s)
                held = replace(
                    health,
                    state=State.DOWN,
                    since=now,
                    last=fault,
                    relapse=relapse,
                    probe=INITIAL,
                    worked=False,
                )
                if fault.is_end:
                    return _lost(held, fault), Action.HOLD
                held = self._wait(held, fault, now, rng)
                return replace(held, probe_at=max(now + hold_s, held.probe_at or 0.0)), Action.HOLD

    def probe_failed(self, health: Health, fault: Fault, now: float, rng: random.Random) -> Health:
        """Return the health after the failure of a probe: the next one comes later."""
        if health.state is not State.DOWN or health.lost:
            return health
        if fault.is_end:
            return _lost(health, fault)
        changed = health.last is not None and ((health.last.kind is Kind.PERMANENT) is not (fault.kind is Kind.PERMANENT))
        # The two rhythms do not share a wait: a minute of PERMANENT must not become 1.5 s, nor the reverse.
        probe = INITIAL if changed else health.probe
        return self._wait(replace(health, last=fault, probe=probe), fault, now, rng)

    def try_again(self, health: Health, now: float) -> Health:
        """Return the health once somebody says that what has ended is mended: it is probed at once."""
        return replace(health, lost=False, probe=INITIAL, probe_at=now) if health.lost else health

    def probe_passed(self, health: Health, now: float) -> tuple[Health, Action | None]:
        """Return the health after the success of a probe. It lets the waiters go and resets nothing."""
        if health.state is not State.DOWN or health.lost:
            return health, None
        back = replace(
            health,
            state=State.RECOVERING,
            since=now,
            probe=INITIAL,
            probe_at=None,
            worked=False,
            epoch=health.epoch + 1,
        )
        return back, Action.RELEASE

    def worked(self, health: Health, now: float) -> tuple[Health, Action | None]:
        """Return the health after the success of real work."""
        if health.state is not State.RECOVERING:
            return health, None
        return self.tick(replace(health, worked=True), now)

    def tick(self, health: Health, now: float) -> tuple[Health, Action | None]:
        """Return `UP` if health has lasted: without a fault, with real work done, long enough."""
        if health.state is not State.RECOVERING or not health.worked or now < self.sustained_at(health):
            return health, None
        return Health(State.UP, now, epoch=health.epoch), Action.RESOLVE

    def sustained_at(self, health: Health) -> float:
        """Return the time from which the present recovery counts as sustained health."""
        return health.since + self.relapse.reset_after_s(health.relapse)

    def _wait(self, health: Health, fault: Fault, now: float, rng: random.Random) -> Health:
        rule = self.permanent if fault.kind is Kind.PERMANENT else self.probe
        probe, wait_s = rule.next_always(health.probe, now, rng, fault.retry_after_s)
        return replace(health, probe=probe, probe_at=now + wait_s)

    def present_wait_s(self, health: Health) -> float:
        """Return the prober's present wait: the one it drew last, never less than `base_s`."""
        return max(self.probe.base_s, health.probe.wait_s)

    def retry_after_s(self, health: Health, now: float) -> float:
        """Return the seconds until the next probe, for someone who is refused; never less than `base_s`."""
        if health.lost:
            return self.permanent.cap_s
        if health.probe_at is None:
            return self.probe.base_s
        return max(self.probe.base_s, health.probe_at - now)


def _lost(health: Health, fault: Fault) -> Health:
    """Return the health once its source has ended: everyone is told of that from now on, whatever came first."""
    first = health.first if health.first is not None and health.first.is_end else fault
    return replace(health, first=first, last=fault, lost=True, probe=INITIAL, probe_at=None)
