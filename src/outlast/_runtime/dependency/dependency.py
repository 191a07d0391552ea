"""Something that a service needs, with one shared health state: one prober, many waiters, a ramp."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from outlast._core.classify import Classifiers
from outlast._core.faults import Unavailable
from outlast._core.health import Health, HealthPolicy, State
from outlast._runtime.dependency import door
from outlast._runtime.dependency.cell import Cell
from outlast._runtime.dependency.prober import Prober
from outlast._runtime.dependency.use import Use, guarded
from outlast._runtime.service.stop import Stop, Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast._core.faults import Fault
    from outlast._runtime.dependency.blocking import BlockingDependency
    from outlast._runtime.dependency.incident import Incident

P = ParamSpec("P")
R = TypeVar("R")


class Dependency:
    """Something that loops and request handlers need: a database, a disk, a remote service.

    While it is down one prober asks, everyone else waits (`ready`) or is refused at once with the first
    cause (`use`, `guard`). With `probe` given, the prober calls it; without, the first caller or waiter
    after each wait is the trial, one at a time. When it is back the waiters are released over
    min(2 s, 10 ms × waiters). A task or thread that comes back within 10 ms of a refusal waits before the next one: 1 ms,
    doubling up to the prober's present wait.

    It is used from one event loop, and from any number of threads through `use`, `guard`, `report` and
    `blocking`. A service opens and closes the dependencies that its loops need.

    `probe` must raise when the dependency is not usable; it is given `probe_timeout_s` seconds.
    `waiters_max` bounds who may wait: those beyond get `Unavailable` at once.

    **For an adapter**, which derives from this: override `probe`, and where it holds something of its own `open`,
    `stopping` and `close` (call the one of `super()` first); `counts` where exceptions leave its blocks that say nothing
    about it, `circumstances` where an operator should know more than the cause. `passable`, `epoch`, `last`, `is_lost`,
    `is_stopping`, `unavailable` tell it whether to go on, `subscribe` when to let go.
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
        self.waiters_max = waiters_max
        self.rng = rng or random.Random()
        self._probe = probe
        says_more = type(self).circumstances is not Dependency.circumstances
        probes = probe is not None or type(self).probe is not Dependency.probe
        self._cell = Cell(
            name,
            classifiers=self.classifiers,
            policy=policy or HealthPolicy(),
            rng=self.rng,
            waiters_max=waiters_max,
            probe=self.probe if probes else None,
            probe_timeout_s=probe_timeout_s,
            counts=self.counts,
            circumstances=self.circumstances if says_more else None,
        )
        self._cell.owner = self
        self._prober = self._cell.prober = Prober(self._cell)
        self._blocking: BlockingDependency | None = None

    def __repr__(self) -> str:
        """Show name and state; never how to connect."""
        return f"<{type(self).__name__} {self.name} {self.state.value}>"

    # What users ask.

    @property
    def state(self) -> State:
        """`UP`, `DOWN` or `RECOVERING`."""
        return self._cell.health.state

    @property
    def fault(self) -> Fault | None:
        """The first cause of the open incident, or None."""
        return self._cell.health.first

    @property
    def health(self) -> Health:
        """All of its state at this moment, as a value: since when, the causes, when the next probe is due."""
        return self._cell.health

    @property
    def incident(self) -> Incident:
        """The book of its outages: what folded logs name as the open incident."""
        return self._cell.incident

    @property
    def waiting(self) -> int:
        """The number of those who wait now, in `ready` or for their turn to be refused."""
        return len(self._cell.waiters)

    async def ready(self, timeout_s: float | None = None, stop: Stop | None = None) -> None:
        """Return when the dependency is usable: at once, or when the ramp lets this waiter go.

        Raises `Unavailable` after `timeout_s` seconds, or at once when `waiters_max` wait already, and
        `Stopping` when `stop` is fired. A waiter that is cancelled is no evidence of anything.
        """
        await door.ready(self._cell, timeout_s, stop)

    async def look(self) -> None:
        """Ask once, at once, for whoever has failed and wonders whether this is why; those who wonder meanwhile share it.

        A probe that fails is evidence, one that passes changes nothing. Without a probe, or when it is down already, nothing
        is asked. Returns within `probe_timeout_s` seconds, and raises nothing of what the probe raised.
        """
        await self._prober.look()

    def use(self, phase: str = "") -> Use:
        """Guard a block, with `async with` or `with`: the dependency is used in it.

        Raises `Unavailable` at once while it is down; only one who comes back within 10 ms of the last refusal waits before
        it (in a `with` block on an event loop's thread nobody does: it would freeze the loop). An exception that leaves the
        block is classified (`phase` is passed to the rules), the fault attached to it, and taken as evidence if it is some.
        """
        return Use(self._cell, phase)

    def guard(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a sync or async function with what `use` does. It costs a fraction of a microsecond."""
        return guarded(self._cell, function)

    def report(self, exc: BaseException, *, phase: str = "", epoch: int | None = None) -> Fault:
        """Classify an exception, attach the fault to it, and take it as evidence if it is some.

        Give `epoch` (the value of `.epoch` when the failed work began) so that work begun before the last
        recovery is no evidence against it. May be called from any thread.
        """
        return self._cell.report(exc, phase, epoch)

    def observe(self, fault: Fault, exc: BaseException | None = None, epoch: int | None = None) -> None:
        """Record a fault that is classified already, as `report` does. From any thread."""
        self._cell.observe(fault, exc, epoch)

    def subscribe(self, listener: Callable[[State, Fault | None], None]) -> Callable[[], None]:
        """Call `listener(state, first cause)` at each change of state, in order, on the thread of the event loop it belongs to.

        Returns a function that ends the subscription. A listener must be quick and not raise: what it raises is logged as a
        bug and goes no further. While it belongs to no event loop nobody is called.
        """
        return self._cell.listeners.add(listener)

    @property
    def is_lost(self) -> bool:
        """Whether it has ended and does not come back by itself (`Scope.CHILD`): nobody asks until `try_again`."""
        return self._cell.health.lost

    def try_again(self) -> None:
        """Ask again what has ended, since somebody has mended it: the next probe comes at once. From any thread.

        Does nothing while it is not lost. If the probe finds the same, it is lost again, without another line.
        """
        self._cell.try_again()

    @property
    def blocking(self) -> BlockingDependency:
        """The same dependency for threads: `ready`, `use`, `guard`, `report` without a coroutine."""
        if self._blocking is None:
            from outlast._runtime.dependency.blocking import BlockingDependency  # noqa: PLC0415 - only threads pay for it

            self._blocking = BlockingDependency(self._cell, self.close)
        return self._blocking

    # What an adapter asks.

    @property
    def passable(self) -> bool:
        """Whether calls may pass now: everything but `DOWN`."""
        return self._cell.passable

    @property
    def epoch(self) -> int:
        """The number of its recoveries. What was opened in an older epoch is to be given up."""
        return self._cell.epoch

    @property
    def last(self) -> Fault | None:
        """The newest evidence of the open incident, from work or from a probe, or None."""
        return self._cell.health.last

    @property
    def is_stopping(self) -> bool:
        """Whether the service that uses it is stopping: nothing is probed any more, and nothing is to be dialled."""
        return self._cell.stop is not None

    async def answers(self, limit_s: float) -> bool:
        """Return whether the peer answers a probe within `limit_s` seconds: is it the peer, or the caller's request alone?

        It is no evidence either way. Whoever wonders meanwhile, or within `limit_s` seconds after a good answer, shares it.
        False while it is down, without a probe, and during a stop: then nobody is asked.
        """
        return await self._prober.answers(limit_s)

    def unavailable(self) -> Unavailable:
        """Build the refusal: the first cause, since when, and when it is worth coming back."""
        return self._cell.unavailable()

    def refusal(self, exc: BaseException, *, retry_after_s: float = 1.0) -> Unavailable:
        """Return the refusal to raise in place of an error that left a block of `use`: the first are refused as those after them.

        It is that of everyone who comes after, if the error has brought the dependency down; otherwise it carries the fault of
        the error, and the fault's `retry_after_s` or else the one that is given.
        """
        if isinstance(exc, Unavailable):
            return exc
        if not self.passable:
            return self.unavailable()
        fault = self.classifiers.classify(exc, source=self.name)
        return Unavailable(self.name, fault, 0.0, retry_after_s if fault.retry_after_s is None else fault.retry_after_s)

    # What a service calls, and an adapter may extend.

    async def open(self) -> None:
        """Make ready for use on the running event loop. Never fails because the dependency is down."""
        self._cell.bind()
        self.reopen()

    def stopping(self, stop: Stop) -> None:
        """Note that the service ends: nothing is probed from now on, whoever waits is let out."""
        self._cell.stop = stop
        self._prober.cancel()
        self._cell.waiters.fail(lambda: Stopping(stop.reason or ""))

    async def close(self) -> None:
        """Let go of everything held. Bounded in time, also while the dependency is down or frozen."""
        self._prober.cancel()
        self._cell.forget_timers()
        self.reopen()

    def reopen(self) -> None:
        """Forget the stop: what is closed may be used again, by a script or the next service."""
        self._cell.stop = None

    async def probe(self) -> None:
        """Ask once whether the dependency is usable; raise if not. An adapter overrides this."""
        if self._probe is not None:
            await self._probe()

    def counts(self, exc: BaseException) -> bool:
        """Return whether an exception that leaves a guarded block says anything about this dependency. An adapter overrides this.

        It is asked before the exception is classified, and never about a cancellation. What does not count trips nothing.
        """
        del exc
        return True

    async def circumstances(self, fault: Fault) -> str:
        """Return what an operator should know besides `fault`, for the line that opens an incident. An adapter overrides this.

        "" is nothing. It is asked once an incident, in a task of its own, and the line waits half a second at most. Callers are
        refused meanwhile.
        """
        del fault
        return ""
