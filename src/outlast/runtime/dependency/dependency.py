"""Something that a service needs, with one shared health state: one prober, many waiters, a ramp."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from outlast.core.classify import Classifiers
from outlast.core.faults import Fault, Kind, Unavailable, attach
from outlast.core.health import Action, Health, HealthPolicy, State
from outlast.runtime.dependency.incident import Incident, clock
from outlast.runtime.dependency.prober import Prober
from outlast.runtime.dependency.trial import Trial
from outlast.runtime.dependency.use import Use, guarded
from outlast.runtime.stop import Stop, Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.runtime.dependency.blocking import BlockingDependency

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger("outlast")


class Dependency:
    """Something that loops and request handlers need: a database, a disk, a remote service.

    While it is down one prober asks, everyone else waits (`ready`) or is refused at once with the first
    cause (`use`, `guard`). With `probe` given, the prober calls it; without, the first caller or waiter
    after each wait is the trial, one at a time. When it is back the waiters are released over
    min(2 s, 10 ms × waiters).

    It is used from one event loop, and from any number of threads through `use`, `guard`, `report` and
    `blocking`. A service opens and closes the dependencies that its loops need.

    `probe` must raise when the dependency is not usable; it is given `probe_timeout_s` seconds.
    `waiters_max` bounds who may wait: those beyond get `Unavailable` at once.
    """

    def __init__(
        self,
        name: str,
        *,
        probe: Callable[[], Awaitable[None]] | None = None,
        classifiers: Classifiers | None = None,
        policy: HealthPolicy | None = None,
        rng: random.Random | None = None,
        waiters_max: int = 10_000,
        probe_timeout_s: float = 5.0,
    ) -> None:
        """Start `UP`: nothing is asked before the first fault."""
        if not name:
            msg = "a dependency needs a name: it stands in every line about it"
            raise ValueError(msg)
        self.name = name
        self.classifiers = classifiers or Classifiers()
        self.policy = policy or HealthPolicy()
        self.waiters_max = waiters_max
        self.probe_timeout_s = probe_timeout_s
        self.incident = Incident(name)
        self.rng = rng or random.Random()
        self.health = Health(since=clock())
        self.passable = True
        """Whether calls may pass: everything but DOWN. Kept apart from `health` for the hot path."""
        self.attentive = False
        """Whether the success of a call matters: only while RECOVERING, or on trial."""
        self.epoch = 0
        self.trial = Trial()
        self._probe = probe
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._listeners: list[Callable[[State, Fault | None], None]] = []
        self._prober = Prober(self)
        self._lock = threading.RLock()
        self._stopping: Stop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id: int | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._blocking: BlockingDependency | None = None

    # What users ask.

    @property
    def state(self) -> State:
        """`UP`, `DOWN` or `RECOVERING`."""
        return self.health.state

    @property
    def fault(self) -> Fault | None:
        """The first cause of the open incident, or None."""
        return self.health.first

    @property
    def is_stopping(self) -> bool:
        """Whether the service that uses it is stopping: nothing is probed any more."""
        return self._stopping is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop this belongs to, once it has been used on one."""
        return self._loop

    @property
    def thread_id(self) -> int | None:
        """The thread of that loop."""
        return self._thread_id

    @property
    def waiting(self) -> int:
        """How many wait in `ready` now."""
        return len(self._waiters)

    def __repr__(self) -> str:
        """Show name and state; never how to connect."""
        return f"<{type(self).__name__} {self.name} {self.state.value}>"

    async def ready(self, timeout_s: float | None = None, stop: Stop | None = None) -> None:
        """Return when the dependency is usable: at once, or when the ramp lets this waiter go.

        Raises `Unavailable` after `timeout_s` seconds, or at once when `waiters_max` wait already, and
        `Stopping` when `stop` is fired. A waiter that is cancelled is no evidence of anything.
        """
        if stop is not None and stop.requested:
            raise Stopping(stop.reason or "")
        if self.passable:
            return
        loop = self.bind()
        if self._stopping is not None:
            raise Stopping(self._stopping.reason or "")
        self.incident.refused()
        if len(self._waiters) >= self.waiters_max:
            raise self.unavailable()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters[future] = None
        self._prober.ensure()
        expiry = None if timeout_s is None else loop.call_later(timeout_s, self._expire, future)
        try:
            await (future if stop is None else stop.until(future))
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.trial.withdraw()
            raise
        finally:
            self._waiters.pop(future, None)
            if expiry is not None:
                expiry.cancel()

    def use(self, phase: str = "") -> Use:
        """Guard a block, with `async with` or `with`: the dependency is used in it.

        Raises `Unavailable` at once while it is down. An exception that leaves the block is classified
        (`phase` is passed to the rules), the fault attached to it, and taken as evidence if it is some.
        """
        return Use(self, phase)

    def guard(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a sync or async function with what `use` does. It costs a fraction of a microsecond."""
        return guarded(self, function)

    def report(self, exc: BaseException, *, phase: str = "", epoch: int | None = None) -> Fault:
        """Classify an exception, attach the fault to it, and take it as evidence if it is some.

        Give `epoch` (the value of `.epoch` when the failed work began) so that work begun before the last
        recovery is no evidence against it. May be called from any thread.
        """
        fault = self.classifiers.classify(exc, source=self.name, phase=phase)
        attach(exc, fault)
        if not isinstance(exc, Unavailable | Stopping):
            self.observe(fault, exc, epoch)
        return fault

    def subscribe(self, listener: Callable[[State, Fault | None], None]) -> Callable[[], None]:
        """Call `listener(state, first cause)` at each change of state, on the event loop if there is one.

        Gives back a function that ends the subscription. A listener must be quick and not raise: what it
        raises is logged as a bug and goes no further.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    @property
    def blocking(self) -> BlockingDependency:
        """The same dependency for threads: `ready`, `use`, `guard`, `report` without a coroutine."""
        if self._blocking is None:
            from outlast.runtime.dependency.blocking import BlockingDependency  # noqa: PLC0415 - only threads pay for it

            self._blocking = BlockingDependency(self)
        return self._blocking

    # What a service calls, and an adapter may extend.

    async def open(self) -> None:
        """Make ready for use on the running event loop. Never fails because the dependency is down."""
        self.bind()
        self._stopping = None

    def stopping(self, stop: Stop) -> None:
        """Take note that the service ends: nothing is probed from now on, whoever waits is let out."""
        self._stopping = stop
        self._prober.cancel()
        for future in list(self._waiters):
            if not future.done():
                future.set_exception(Stopping(stop.reason or ""))

    async def close(self) -> None:
        """Let go of everything held. Bounded in time, also while the dependency is down or frozen."""
        self._prober.cancel()
        self.incident.forget_timer()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self.reopen()

    def reopen(self) -> None:
        """Forget the stop: what is closed may be used again, by a script or the next service."""
        self._stopping = None

    async def probe(self) -> None:
        """Ask once whether the dependency is usable; raise if not. An adapter overrides this."""
        if self._probe is not None:
            await self._probe()

    @property
    def has_probe(self) -> bool:
        """Whether `probe` asks anything. Without one, callers are the trial, one at a time."""
        return self._probe is not None or type(self).probe is not Dependency.probe

    # What the guard, the prober and the trial feed in.

    def bind(self) -> asyncio.AbstractEventLoop:
        """Belong to the running event loop, and give it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                msg = (
                    f"dependency {self.name} already belongs to another running event loop; use "
                    f"`{self.name}.blocking` from threads, or one Dependency for each loop"
                )
                raise RuntimeError(msg)
            self._loop = loop
            self._thread_id = threading.get_ident()
            self._waiters = {}
            self._tick = None
            self._prober = Prober(self)
        return loop

    def _bind_if_running(self) -> None:
        """Belong to the loop this is called on, if it is called on one and belongs to none yet."""
        if self._loop is None or not self._loop.is_running():
            try:
                self.bind()
            except RuntimeError:
                return

    def observe(self, fault: Fault, exc: BaseException | None = None, epoch: int | None = None) -> None:
        """Take a classified fault of work that began in `epoch`. From any thread."""
        if not fault.is_evidence or fault.source != self.name:
            return
        self._bind_if_running()
        with self._lock:
            stale = epoch is not None and epoch != self.epoch
            if stale and self.state is not State.DOWN:
                return
            self.incident.fault(fault, exc)
            health, action = self.policy.fault(self.health, fault, clock(), self.rng)
            self._enter(health, action)

    def failed(self, exc: BaseException, epoch: int, phase: str, place: bool) -> None:  # noqa: FBT001
        """Take the exception of a guarded block that began in `epoch`; `place`: it was the trial."""
        if isinstance(exc, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit):
            # Our own cancellation is no evidence; the place goes to the next in line.
            if place:
                self._pass_on()
            return
        fault = self.report(exc, phase=phase, epoch=epoch)
        if not place:
            return
        if fault.is_evidence and fault.source == self.name:
            self.probe_failed(fault, exc, counted=True)
        elif fault.kind is Kind.REJECTED:
            # It judged our request: so it is there.
            self.probe_passed()
        else:
            self._pass_on()

    def succeeded(self, epoch: int, place: bool) -> None:  # noqa: FBT001
        """Take the success of a guarded block."""
        if place:
            self.probe_passed()
        with self._lock:
            if epoch == self.epoch or place:
                health, action = self.policy.worked(self.health, clock())
                self._enter(health, action)

    def probe_passed(self) -> None:
        """Take the success of a probe, or of a trial."""
        with self._lock:
            self.trial.withdraw()
            health, action = self.policy.probe_passed(self.health, clock())
            self._enter(health, action)

    def probe_failed(self, fault: Fault, exc: BaseException | None = None, *, counted: bool = False) -> None:
        """Take the failure of a probe, or of a trial."""
        with self._lock:
            self.trial.withdraw()
            if not counted:
                self.incident.fault(fault, exc)
            self.health = self.policy.probe_failed(self.health, fault, clock(), self.rng)

    def enter(self, phase: str) -> bool:
        """Let a call pass, as the trial (True) or while usable (False), or raise `Unavailable`."""
        del phase
        with self._lock:
            if self.passable:
                return False
            self._bind_if_running()
            by_callers = not self.has_probe or self._loop is None or not self._loop.is_running()
            if by_callers and self._stopping is None and self.trial.take(clock(), self.health.probe_at):
                return True
            self.incident.refused()
            if self._loop is not None:
                self.call_on_loop(self._prober.ensure)
            raise self.unavailable()

    def unavailable(self) -> Unavailable:
        """Build the refusal: the first cause, since when, and when it is worth coming back."""
        now = clock()
        health = self.health
        first = health.first or Fault(Kind.TRANSIENT, "down", "no cause recorded", self.name)
        opened_at = now if health.opened_at is None else health.opened_at
        refusal = Unavailable(self.name, first, now - opened_at, self.policy.retry_after_s(health, now))
        refusal.owner = self
        return refusal

    def release(self, count: int) -> int:
        """Let up to `count` waiters go, first come first served; gives how many there were."""
        released = 0
        while released < count and self._waiters:
            future = next(iter(self._waiters))
            del self._waiters[future]
            if not future.done():
                future.set_result(None)
                released += 1
        return released

    def call_on_loop(self, function: Callable[[], Any]) -> None:
        """Run `function` on the event loop this belongs to: at once if this is its thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if threading.get_ident() == self._thread_id:
            function()
        else:
            loop.call_soon_threadsafe(function)

    # Inside.

    def _enter(self, health: Health, action: Action | None) -> None:
        before, self.health = self.health, health
        self.passable = health.state is not State.DOWN
        self.attentive = health.state is State.RECOVERING
        self.epoch = health.epoch
        match action:
            case Action.OPEN | Action.HOLD:
                self.trial.withdraw()
            case Action.RELEASE:
                self.incident.better()
            case Action.RESOLVE:
                self.incident.resolve()
            case None:
                pass
        if health.state is not before.state:
            self.call_on_loop(self._changed)
        if health.worked and not before.worked:
            self.call_on_loop(self._watch)

    def _changed(self) -> None:
        if self._waiters or self.state is State.DOWN:
            self._prober.ensure()
            self._prober.wake()
        for listener in tuple(self._listeners):
            try:
                listener(self.state, self.fault)
            except Exception:
                logger.exception("a listener of %s failed; the others go on", self.name)

    def _watch(self) -> None:
        """See to it that sustained health is noticed when nothing else happens."""
        if self._tick is None and self._loop is not None:
            self._tick = self._loop.call_at(self.policy.sustained_at(self.health), self._sustained)

    def _sustained(self) -> None:
        self._tick = None
        with self._lock:
            health, action = self.policy.tick(self.health, clock())
            self._enter(health, action)
        if self.attentive and self.health.worked:
            self._watch()

    def _pass_on(self) -> None:
        self.trial.withdraw()
        self.call_on_loop(self._prober.wake)

    def _expire(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_exception(self.unavailable())
