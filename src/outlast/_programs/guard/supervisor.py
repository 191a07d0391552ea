"""Decides what the guard does about its program: start, ask to end, clear away, start again. Pure, given its time.

| phase | set by | is left by |
|---|---|---|
| `STARTING` | the guard's beginning; the end of a wait | `started`, `not_started` |
| `RUNNING` | `started` | `asked`, `ended` |
| `STOPPING` | `asked` with a signal that means the end | `ended` |
| `CLEARING` | `ended`, while something the program started still runs | `cleared`, `given_up` |
| `WAITING` | an end after which it is started again | the time; `asked` |
| `ENDED` | everything else | nothing |

The state is outside of what is restarted; nothing but sustained health resets the backoff.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast._core.backoff import INITIAL, Backoff, BackoffState
from outlast._core.intensity import Restart
from outlast._core.quantities import amount

if TYPE_CHECKING:
    import random

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
SIGNAL_BASE: Final = 128
"""The exit codes of shells: 127 and 126 for what cannot be run, 128 + n for the end by signal n."""

GIVE_UP_S: Final = 5.0
"""After SIGKILL: a process that is still there then waits in the kernel, for a disk or a network, and cannot be ended."""


WAYS_MAX: Final = 32
"""Different ways to end that are told apart in a row; what comes beyond is told at 1, 2, 4, 8, … like the others."""


class GuardPhase(enum.Enum):
    """The phases of one guard; the table is at the head of this file."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    CLEARING = "clearing"
    WAITING = "waiting"
    ENDED = "ended"


class When(enum.Enum):
    """After which ends the program is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Start:
    """Start the program."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Send a signal to the program, or to its whole process group."""

    number: int
    group: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """Send a signal to everything that the program started and that still runs, itself included."""

    number: int


@dataclass(frozen=True, slots=True)
class Say:
    """Write one line."""

    text: str


Action = Start | Forward | Sweep | Say

GROUP: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
"""A terminal sends these to the whole group in the foreground; all others concern the program, which knows its workers."""

ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""After these nothing is started any more."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules by which the program is restarted and stopped. Durations are seconds.

    `intensity` counts restarts of any reason: a program that ends with 0 at once, always restarted, is a hot loop too.
    """

    when: When = When.NEVER
    backoff: Backoff = field(default_factory=Backoff)
    intensity: Restart = field(default_factory=Restart)
    stop_after_s: float = 10.0
    """Between SIGTERM and SIGKILL."""


@dataclass(slots=True)
class Supervisor:
    """The decisions about one program. Every method takes the time, in seconds of one monotonic clock, and returns actions."""

    name: str
    rules: Rules
    rng: random.Random
    phase: GuardPhase = GuardPhase.STARTING
    exit_code: int = 0
    """The exit code of the guard, as a shell would put it. Final in phase ENDED."""
    started_at: float | None = None
    starts: int = 0
    restarts: int = 0
    failures: int = 0
    """Ends of the program that were failures, in all."""
    _backoff: BackoffState = INITIAL
    _times: tuple[float, ...] = ()
    _streak: dict[str, int] = field(default_factory=dict[str, int])
    """Ends of the program since it was last healthy, by the way it ended. The 1st, 2nd, 4th, 8th … end in a row is logged, and
    each in a new way."""
    _ending: bool = False
    """Whether somebody wants it all to end."""
    _hung_up: bool = False
    _kill_at: float | None = None
    _killed_at: float | None = None
    _start_at: float | None = None

    def next_due_at(self) -> float | None:
        """Return when `due` is to be called; None when it waits for something other than time."""
        times = [self._kill_at, self._start_at, None if self._killed_at is None else self._killed_at + GIVE_UP_S]
        if self.phase is GuardPhase.RUNNING and self.started_at is not None and self._streak:
            times.append(self.started_at + self.rules.backoff.reset_after_s(self._backoff))
        return min((at for at in times if at is not None), default=None)

    def started(self, now: float) -> list[Action]:
        """Note that the program runs. One that was asked to end meanwhile is told so."""
        self.phase, self.started_at, self.starts = GuardPhase.RUNNING, now, self.starts + 1
        return self.asked(signal.SIGTERM, now) if self._ending else []

    def not_started(self, code: int, reason: str, now: float) -> list[Action]:
        """Note that the program could not be started: the end at the first attempt, a failure like any other later.

        A program that vanishes while it is restarted is often one that is being replaced.
        """
        if not self.starts:
            self.exit_code, self.phase = code, GuardPhase.ENDED
            return [Say(reason)]
        self.exit_code = code
        return self._next(now, 0.0, f"could not be started: {reason}")

    def asked(self, number: int, now: float) -> list[Action]:
        """Note a signal that the guard got: forwarded, and the end of all restarts if it means the end."""
        self._hung_up = self._hung_up or number == signal.SIGHUP
        if number in ENDS:
            self._ending = True
        if self.phase is GuardPhase.WAITING and (number in ENDS or number == signal.SIGHUP):
            # There is nobody to hand it to. Without a program to reload, a hang-up means the end as well.
            self.phase, self._start_at = GuardPhase.ENDED, None
            return []
        if self.phase not in {GuardPhase.RUNNING, GuardPhase.STOPPING}:
            return []
        if number == signal.SIGTERM:
            self.phase = GuardPhase.STOPPING
            if self._kill_at is None and self._killed_at is None:
                self._kill_at = now + self.rules.stop_after_s
        return [Forward(number, group=number in GROUP)]

    def ended(self, status: int, now: float, *, left: int) -> list[Action]:
        """Note the program's end: `status` is its exit code, or minus the signal's number; `left` processes still run.

        What it left behind gets SIGTERM, and SIGKILL when the time for stopping is over.
        """
        self.exit_code = SIGNAL_BASE - status if status < 0 else status
        if status == -signal.SIGHUP and self._hung_up:
            self._ending = True
        self.failures += status != 0
        if not left:
            return self.cleared(now)
        self.phase = GuardPhase.CLEARING
        if self._killed_at is not None:
            return [Sweep(signal.SIGKILL)]
        if self._kill_at is None:
            self._kill_at = now + self.rules.stop_after_s
        return [Sweep(signal.SIGTERM)]

    def cleared(self, now: float) -> list[Action]:
        """Note that nothing of the program runs any more; decide what comes next."""
        self._kill_at = self._killed_at = None
        ran_s = 0.0 if self.started_at is None else now - self.started_at
        failed = self.exit_code != 0
        again = self.rules.when is When.ALWAYS or (self.rules.when is When.ON_FAILURE and failed)
        if self._ending or not again:
            self.phase = GuardPhase.ENDED
            return []
        return self._next(now, ran_s, f"ended with {_tell(self.exit_code)} after {ran_s:.1f} s")

    def _next(self, now: float, ran_s: float, what: str) -> list[Action]:
        if self._healthy(ran_s):
            self._streak, self._times = {}, ()
        way = what.partition(" after ")[0]
        new = way not in self._streak
        if not new or len(self._streak) < WAYS_MAX:
            self._streak[way] = self._streak.get(way, 0) + 1
        self._times, too_many = self.rules.intensity.after_bug(self._times, now)
        self._backoff, wait_s = self.rules.backoff.next(self._backoff, now, self.rng)
        if too_many or wait_s is None:
            self.phase = GuardPhase.ENDED
            limit = self.rules.intensity
            within = f"{amount(limit.bugs_max or 0, 'restart')} within {limit.period_s:g} s did not help"
            return [Say(f"{self.name} {what}; {within}: the guard gives up with exit code {self.exit_code}")]
        self.phase, self._start_at = GuardPhase.WAITING, now + wait_s
        count = sum(self._streak.values())
        if not new and count & (count - 1):
            return []
        told = f"{self.name} {what}; it is started again in {wait_s:.1f} s"
        return [Say(f"{told} ({amount(count, 'end')} in a row)" if count > 1 else told)]

    def _healthy(self, ran_s: float) -> bool:
        before = self._backoff
        self._backoff = self.rules.backoff.after_health(before, ran_s)
        return self._backoff is not before

    def given_up(self, pids: list[int], now: float) -> list[Action]:
        """Note that some processes cannot be ended: they are named, and left."""
        told = ", ".join(map(str, sorted(pids)[:8]))
        if self.phase is GuardPhase.STOPPING:
            self.exit_code = SIGNAL_BASE + signal.SIGKILL
        return [
            Say(f"{len(pids)} of the processes of {self.name} cannot be killed and are left behind: {told}"),
            *self.cleared(now),
        ]

    def due(self, now: float) -> list[Action]:
        """Do what the time asks for."""
        actions: list[Action] = []
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at, self._killed_at = None, now
            what = self.name if self.phase is GuardPhase.STOPPING else f"what {self.name} left behind"
            actions += [
                Say(f"{what} did not end within {self.rules.stop_after_s:g} s of SIGTERM and is killed"),
                Sweep(signal.SIGKILL),
            ]
        if self._start_at is not None and now >= self._start_at:
            self._start_at, self.phase, self.restarts = None, GuardPhase.STARTING, self.restarts + 1
            actions.append(Start())
        if self.phase is GuardPhase.RUNNING and self._streak and self.started_at is not None:
            ran_s = now - self.started_at
            if self._healthy(ran_s):
                count = sum(self._streak.values())
                self._streak, self._times = {}, ()
                actions.append(Say(f"{self.name} has run for {ran_s:.0f} s after {amount(count, 'end')} in a row: it is well"))
        return actions

    @property
    def is_killing(self) -> bool:
        """Whether SIGKILL was sent: whatever appears from now on gets it too."""
        return self._killed_at is not None

    def is_overdue(self, now: float) -> bool:
        """Return whether SIGKILL was sent so long ago that what is left cannot be ended."""
        return self._killed_at is not None and now >= self._killed_at + GIVE_UP_S


def _tell(exit_code: int) -> str:
    number = exit_code - SIGNAL_BASE
    if exit_code > SIGNAL_BASE and number in set(signal.Signals):
        return f"{exit_code} ({signal.Signals(number).name})"
    return str(exit_code)
