"""The inside of one dependency, shared by the guard, the prober and the thread face: its health, and the changes of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from outlast._core.faults import Fault, Kind, Unavailable, attach
from outlast._core.health import Action, Health, HealthPolicy, State
from outlast._core.reaction import Reaction
from outlast._runtime.dependency.callers import Callers
from outlast._runtime.dependency.incident import Incident, clock
from outlast._runtime.dependency.listeners import Listeners
from outlast._runtime.dependency.trial import Trial
from outlast._runtime.dependency.waiters import Waiters

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from outlast._core.classify import Classifiers
    from outlast._runtime.service.stop import Stop

OURS: Final = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Exceptions that leave a block because it was told to end: no evidence of anything."""
CIRCUMSTANCES_S_MAX: Final = 0.5
"""The longest that the first line of an incident waits for what else is to be said: nobody reads it sooner."""


class Asks(Protocol):
    """The part of the prober that the cell needs. On the event loop's thread."""

    def ensure(self) -> None:
        """Ask from now on, until the dependency is usable and nobody waits."""
        ...

    def wake(self) -> None:
        """Look again now."""
        ...

    def explain(self) -> None:
        """Find out what else is to be said of the fault that has opened the incident, and complete its line."""
        ...


class Cell:
    """The state of one dependency, and the only place that changes it.

    **The lock** makes one step of each change: `health` with its copies `passable`, `attentive` and `epoch`, the place of
    the trial, the counts of the incident, and the order in which changes and lines are noted. It is never held while
    anything else is called: no log handler, no listener, no rule, no probe. What a step has to say is noted under the lock
    and written or delivered by `_after`, when the lock is free. It is re-entrant, because the garbage collector may run a
    finalizer of the user's inside that reports a fault.

    **Threads.** `enter`, `succeeded`, `failed`, `report`, `observe`, `unavailable` may be called from any thread; the hot
    path reads `passable`, `attentive` and `epoch` without the lock, since each is one attribute and a step late is no
    error. `admit`, `ready`, `bind`, the waiters, the prober and the listeners belong to the event loop's thread.
    """

    def __init__(
        self,
        name: str,
        *,
        classifiers: Classifiers,
        policy: HealthPolicy,
        rng: random.Random,
        waiters_max: int,
        probe: Callable[[], Awaitable[None]] | None,
        probe_timeout_s: float,
        counts: Callable[[BaseException], bool],
        circumstances: Callable[[Fault], Awaitable[str]] | None = None,
    ) -> None:
        self.name = name
        self.classifiers = classifiers
        self.policy = policy
        self.rng = rng
        self.waiters_max = waiters_max
        self.probe = probe
        """The question whether the dependency is usable: raises if not. None: callers are the trial, one at a time."""
        self.probe_timeout_s = probe_timeout_s
        self.counts = counts
        self.circumstances = circumstances
        """The question what else is to be said of the fault that opens an incident. None: nothing ever is."""
        self.lock = threading.RLock()
        self.health = Health(since=clock())
        self.passable = True
        """Whether calls may pass: everything but DOWN. Kept apart from `health` for the hot path."""
        self.attentive = False
        """Whether the success of a call matters: only while RECOVERING, or on trial."""
        self.epoch = 0
        self.trial = Trial()
        self.incident = Incident(name)
        self.callers = Callers()
        self.listeners = Listeners(name)
        self.waiters = self._no_waiters()
        self.prober: Asks | None = None
        self.owner: object | None = None
        """The dependency that a refusal carries. Both are set by whoever puts the parts together."""
        self.stop: Stop | None = None
        """The stop of the service that uses it, once it is fired."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread_id: int | None = None
        self._tick: asyncio.TimerHandle | None = None

    # Belonging to an event loop.

    def bind(self) -> asyncio.AbstractEventLoop:
        """Belong to the running event loop, and return it."""
        loop = asyncio.get_running_loop()
        with self.lock:
            if self.loop is not loop:
                if self.loop is not None and self.loop.is_running():
                    msg = (
                        f"dependency {self.name} already belongs to another running event loop; use "
                        f"`{self.name}.blocking` from threads, or one Dependency for each loop"
                    )
                    raise RuntimeError(msg)
                self.loop = loop
                self.thread_id = threading.get_ident()
                self.waiters = self._no_waiters()
                self.listeners.forget()
                self._tick = None
        return loop

    def _bind_if_running(self) -> None:
        """Belong to the loop this is called on, if it is called on one and belongs to none yet."""
        if not self.is_attended:
            with contextlib.suppress(RuntimeError):
                self.bind()

    def _no_waiters(self) -> Waiters:
        return Waiters(joined=self._ask, lost=self.trial.withdraw)

    def _ask(self) -> None:
        if self.prober is not None:
            self.prober.ensure()

    @property
    def is_attended(self) -> bool:
        """Whether an event loop runs that can ask, and let waiters go."""
        return self.loop is not None and self.loop.is_running()

    def call_on_loop(self, function: Callable[[], Any]) -> None:
        """Run `function` on the event loop this belongs to: at once if this is its thread. Without one it is not run."""
        loop = self.loop
        if loop is None or loop.is_closed():
            return
        if threading.get_ident() == self.thread_id and loop.is_running():
            function()
            return
        with contextlib.suppress(RuntimeError):
            # Raised when it was closed between the two lines.
            loop.call_soon_threadsafe(function)

    # Entering: the guard asks, and waits its turn when it is refused again and again.

    def let_in(self) -> bool | None:
        """Let a call pass, as the trial (True) or while usable (False); None: it is to be refused."""
        self._bind_if_running()
        with self.lock:
            if self.passable:
                return False
            by_callers = self.probe is None or not self.is_attended
            if by_callers and self.stop is None and self.trial.take(clock(), self.health.probe_at):
                return True
            return None

    def refusal(self) -> Unavailable:
        """Count one who is turned away, see that somebody asks, and build what it is told."""
        self.incident.refused()
        if self.is_attended:
            self.call_on_loop(self._ask)
        return self.unavailable()

    def unavailable(self) -> Unavailable:
        """Build the refusal: the first cause, since when, and when it is worth coming back."""
        now = clock()
        health = self.health
        first = health.first or Fault(Kind.TRANSIENT, "down", "no cause recorded", self.name)
        opened_at = now if health.opened_at is None else health.opened_at
        refusal = Unavailable(self.name, first, now - opened_at, self.policy.retry_after_s(health, now))
        refusal.owner = self.owner
        return refusal

    # Evidence: what the guard, the prober and the trial have seen.

    def report(self, exc: BaseException, phase: str, epoch: int | None) -> Fault:
        """Classify an exception, attach the fault to it, and take it as evidence if it is some."""
        fault = self.classifiers.classify(exc, source=self.name, phase=phase)
        attach(exc, fault)
        if not isinstance(exc, Unavailable) and fault.kind is not Kind.STOPPING:
            self.observe(fault, exc, epoch)
        return fault

    def observe(self, fault: Fault, exc: BaseException | None, epoch: int | None) -> None:
        """Record a classified fault of work that began in `epoch`, if it is evidence."""
        if not fault.is_evidence or fault.source != self.name:
            return
        self._bind_if_running()
        with self.lock:
            if epoch is not None and epoch != self.epoch and self.health.state is not State.DOWN:
                return
            says_more = self.circumstances is not None and self.is_attended and self.stop is None
            self.incident.note_fault(fault, exc, hold_s=CIRCUMSTANCES_S_MAX if says_more else 0.0)
            health, action = self.policy.fault(self.health, fault, clock(), self.rng)
            changed = self._enter(health, action)
        self._after(changed)

    def failed(self, exc: BaseException, epoch: int, phase: str, place: bool) -> None:  # noqa: FBT001
        """Record the exception of a guarded block that began in `epoch`; `place`: it was the trial."""
        if isinstance(exc, OURS) or not self.counts(exc):
            # It says nothing; the place goes to the next in line.
            if place:
                self._pass_on()
            return
        fault = self.report(exc, phase, epoch)
        if not place:
            return
        if fault.is_evidence and fault.source == self.name:
            self.probe_failed(fault, exc, counted=True)
        elif fault.reaction is Reaction.ANSWER:
            # It judged our request: so it is there.
            self.probe_passed()
        else:
            self._pass_on()

    def succeeded(self, epoch: int, place: bool) -> None:  # noqa: FBT001
        """Record the success of a guarded block."""
        if place:
            self.probe_passed()
        with self.lock:
            changed = False
            if epoch == self.epoch or place:
                changed = self._enter(*self.policy.worked(self.health, clock()))
        self._after(changed)

    def probe_passed(self) -> None:
        """Record the success of a probe, or of a trial."""
        with self.lock:
            self.trial.withdraw()
            changed = self._enter(*self.policy.probe_passed(self.health, clock()))
        self._after(changed)

    def probe_failed(self, fault: Fault, exc: BaseException | None = None, *, counted: bool = False) -> None:
        """Record the failure of a probe, or of a trial."""
        with self.lock:
            self.trial.withdraw()
            if not counted:
                self.incident.note_fault(fault, exc)
            self.health = self.policy.probe_failed(self.health, fault, clock(), self.rng)
        self.incident.write()

    def try_again(self) -> None:
        """Note that somebody has mended what had ended, so that it is asked again."""
        with self.lock:
            self.health = self.policy.try_again(self.health, clock())
        self.call_on_loop(self._ask)

    def _pass_on(self) -> None:
        self.trial.withdraw()
        if self.prober is not None:
            self.call_on_loop(self.prober.wake)

    # The change itself.

    def _enter(self, health: Health, action: Action | None) -> bool:
        """Change to this state, under the lock; return whether there is something to do on the event loop."""
        before, self.health = self.health, health
        self.passable = health.state is not State.DOWN
        self.attentive = health.state is State.RECOVERING
        self.epoch = health.epoch
        match action:
            case Action.OPEN:
                self.trial.withdraw()
                self.callers.begin()
            case Action.HOLD:
                self.trial.withdraw()
            case Action.RELEASE:
                self.incident.note_better()
            case Action.RESOLVE:
                self.incident.note_resolved()
            case None:
                pass
        if health.state is not before.state:
            self.listeners.note(health.state, health.first)
            return True
        return health.worked and not before.worked

    def _after(self, changed: bool) -> None:  # noqa: FBT001
        """Let the event loop act on the change, and write the lines; without the lock.

        Another thread tells the loop first, since the log handler it then calls may block.
        """
        ours = threading.get_ident() == self.thread_id
        if changed and not ours:
            self.call_on_loop(self._changed)
        self.incident.write()
        if changed and ours:
            self.call_on_loop(self._changed)

    def _changed(self) -> None:
        if self.prober is not None and self.incident.is_held:
            self.prober.explain()
        if self.prober is not None and (self.waiters or self.health.state is State.DOWN):
            self.prober.ensure()
            self.prober.wake()
        if self.attentive and self.health.worked:
            self._watch()
        self.listeners.deliver()

    def _watch(self) -> None:
        """Set the timer by which sustained health is noticed when nothing else happens."""
        if self._tick is None and self.loop is not None:
            self._tick = self.loop.call_at(self.policy.sustained_at(self.health), self._sustained)

    def _sustained(self) -> None:
        self._tick = None
        with self.lock:
            changed = self._enter(*self.policy.tick(self.health, clock()))
        self._after(changed)
        if self.attentive and self.health.worked:
            self._watch()

    def forget_timers(self) -> None:
        """Remind no more, and watch no more: it is closed."""
        self.incident.forget_timer()
        self.incident.complete("")
        self.incident.write()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
