"""A service: loops, tasks, dependencies, a gate and child services, started in order and stopped in phases."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast._core.classify import Classifiers
from outlast._core.faults import ConfigurationError
from outlast._core.phases import Phase
from outlast._core.shown import NAME
from outlast._core.stop_report import KEPT_MAX
from outlast._runtime.service.clock import Clock
from outlast._runtime.service.gate import Gate
from outlast._runtime.service.holdings import Holdings
from outlast._runtime.service.lifecycle import Lifecycle
from outlast._runtime.service.stop import Stop
from outlast._runtime.service.worker import BACKOFF, Body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from outlast._core.backoff import Backoff
    from outlast._core.governor import Ceiling
    from outlast._core.intensity import Restart
    from outlast._core.shown import Shown
    from outlast._core.stop_report import StopReport
    from outlast._runtime.dependency.dependency import Dependency

    Needs = Dependency | tuple[Dependency, ...]

F = TypeVar("F", bound="Callable[[Stop], Awaitable[Any]]")
Hook = TypeVar("Hook", bound="Callable[[], Awaitable[None]]")

HOOKED: Final = (Phase.REFUSE, Phase.FLUSH, Phase.CLOSE)
"""The phases that take hooks."""
logger = logging.getLogger("outlast")


class Service:
    """Loops and tasks that belong together, the dependencies they need, and how they end.

    `deadline_s` bounds a stop: what is under way has 80 % of it to finish and is then cancelled; what has not ended when
    its phase has to is named and left behind (exit code 75). All phases of a child are part of its parent's drain.
    `classifiers` are rules of your own for exceptions that no dependency has classified.
    """

    def __init__(
        self,
        name: str,
        *,
        deadline_s: float = 10.0,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if deadline_s <= 0:
            msg = f"service {name}: deadline_s must be above 0, not {deadline_s}"
            raise ValueError(msg)
        self.name = name
        self.deadline_s = deadline_s
        self.classifiers = classifiers or Classifiers()
        self.rng = rng or random.Random()
        self.gate = Gate(name)
        """The gate that must be empty before the drain ends: enter it with whatever the loops do not do."""
        self.children: list[Service] = []
        self.bodies: list[Body] = []
        self.hooks: list[tuple[Phase, Callable[[], Awaitable[None]]]] = []
        self.report: StopReport | None = None
        """The report of the last stop."""
        self._shown: list[Shown] = []
        self._dependencies: dict[int, Dependency] = {}
        self._starters: list[Callable[[], Awaitable[None]]] = []
        self._life: Lifecycle | None = None
        self._working = asyncio.Event()

    # Building it.

    def loop(
        self,
        *,
        needs: Needs = (),
        workers: int = 1,
        every_s: float | None = None,
        name: str | None = None,
        restart: Restart | None = None,
        backoff: Backoff | None = None,
        ceiling: Ceiling | None = None,
    ) -> Callable[[F], F]:
        """Decorate `async def body(stop)`: it is called again and again, by `workers` workers at once.

        It is called only while everything in `needs` is usable; at once after it returned, or every `every_s`
        seconds. Raise freely: the fault is classified and the worker waits as its kind demands.
        """
        return self._adder(False, needs, workers, every_s, name, restart, backoff, ceiling)

    def task(
        self,
        *,
        needs: Needs = (),
        name: str | None = None,
        restart: Restart | None = None,
        backoff: Backoff | None = None,
        ceiling: Ceiling | None = None,
    ) -> Callable[[F], F]:
        """Decorate `async def body(stop)`: it runs for the life of the service.

        It is started when everything in `needs` is usable, restarted with backoff when it raises, and done when
        it returns. End it when `stop` is fired.
        """
        return self._adder(True, needs, 1, None, name, restart, backoff, ceiling)

    def _adder(
        self,
        once: bool,  # noqa: FBT001
        needs: Needs,
        workers: int,
        every_s: float | None,
        name: str | None,
        restart: Restart | None,
        backoff: Backoff | None,
        ceiling: Ceiling | None,
    ) -> Callable[[F], F]:
        def add(function: F) -> F:
            wanted = needs if isinstance(needs, tuple) else (needs,)
            body = Body(
                name=name or str(getattr(function, "__name__", type(function).__name__)),
                function=function,
                needs=wanted,
                workers=workers,
                every_s=every_s,
                backoff=backoff or BACKOFF,
                once=once,
            )
            if restart is not None:
                body.restart = restart
            if ceiling is not None:
                body.ceiling = ceiling
            self.needs(*wanted)
            self.bodies.append(body)
            return function

        return add

    def needs(self, *dependencies: Dependency) -> None:
        """Open these dependencies before the loops start, and close them after the last one has ended."""
        for dependency in dependencies:
            self._dependencies.setdefault(id(dependency), dependency)

    def add(self, child: Service) -> None:
        """Run another service inside this one: started after it, stopped before it."""
        self.children.append(child)

    def show(self, shown: Shown) -> None:
        """Let `/metrics` show this system. A system calls it for itself, when it is attached; see `outlast.extend.Shown`.

        Raises `ConfigurationError` for a kind of system that is no name. Of two that are called alike one is shown.
        """
        if not NAME.fullmatch(shown.system):
            msg = f"service {self.name}: a system calls itself {shown.system!r}; write lower case words: order_book"
            raise ConfigurationError(msg)
        self._shown.append(shown)

    def on_start(self, function: Hook) -> Hook:
        """Await `function()` once, after the dependencies are open and before the loops start."""
        self._starters.append(function)
        return function

    def on_stop(self, function: Hook, *, phase: Phase = Phase.FLUSH) -> Hook:
        """Await `function()` once in a phase of the stop; in each phase the one that was added last comes first.

        `REFUSE`: stop taking in work (close a listener). `FLUSH`: make durable what is not. `CLOSE`: let go, before the
        dependencies close. Each has a fair share of the phase's time; one that does not finish is cancelled and named.
        """
        if phase not in HOOKED:
            msg = f"service {self.name}: on_stop takes phase {', '.join(each.name for each in HOOKED)}, not {phase.name}"
            raise ValueError(msg)
        self.hooks.append((phase, function))
        return function

    # What others see of it.

    @property
    def dependencies(self) -> list[Dependency]:
        """The dependencies of this service itself, in the order of opening."""
        return list(self._dependencies.values())

    def all_dependencies(self) -> list[Dependency]:
        """Return the dependencies of this service and its children, each once."""
        found = {id(dependency): dependency for service in self.tree() for dependency in service.dependencies}
        return list(found.values())

    def all_shown(self) -> list[Shown]:
        """Return the systems that show themselves, of the children too. From any thread."""
        return [shown for service in self.tree() for shown in list(service._shown)]

    def tree(self) -> Iterator[Service]:
        """Yield this service and those below it, in the order of starting."""
        yield self
        for child in self.children:
            yield from child.tree()

    @property
    def ready(self) -> bool:
        """Whether it takes in work: started, and not stopping. False from the very step that fires the stop."""
        return self._life is not None and self._life.working and not self._life.stop.requested

    async def until_ready(self) -> None:
        """Return when it takes in work: at once if it does."""
        await self._working.wait()

    @property
    def phase(self) -> Phase | None:
        """The phase of the stop it is in; None while it works."""
        return None if self._life is None else self._life.phase

    def holders(self) -> int:
        """Return how many are inside the gates, of the children too."""
        return len(self.gate) + sum(child.holders() for child in self.children)

    # Running it.

    async def run(self, stop: Stop | None = None, *, clock: Clock | None = None) -> int:
        """Run until `stop` is fired, a worker asks to leave, or every task is done. Return the exit code.

        0: clean. 70: too many bugs. 74: a FATAL fault. 75: something did not finish within `deadline_s`. `report` then
        tells how the stop went. Cancelling this is the same as firing the stop, and then raises `CancelledError`; a second
        time it hurries. `clock` is what the deadlines of the stop go by.
        """
        stop = stop or Stop()
        life = asyncio.create_task(self._live(stop, clock or Clock()), name=f"the life of {self.name}")
        cancelled = False
        while not life.done():
            try:
                await asyncio.wait({life})
            except asyncio.CancelledError:
                if cancelled:
                    self.hurry()
                stop.fire("cancelled")
                cancelled = True
        if cancelled:
            life.exception()
            raise asyncio.CancelledError
        return life.result().exit_code

    def hurry(self) -> None:
        """Cancel at once what still runs, after a stop was requested: the drain time is over."""
        if self._life is not None:
            self._life.hurry()

    def stop(self, reason: str) -> None:
        """Stop this service alone, with its children: for a child service, whose parent goes on."""
        if self._life is not None:
            self._life.stop.fire(reason)

    async def _live(self, stop: Stop, clock: Clock) -> StopReport:
        holdings = Holdings()
        life = Lifecycle(self, stop, holdings, clock)
        lives = life.all()
        for each in lives:
            each.service._life = each
        incidents = [dependency.incident for dependency in holdings]
        incidents += [body.incident for each in lives for body in each.service.bodies]
        try:
            starting = None if stop.requested else await self._start(life, holdings)
        except BaseException:
            # A start that fails leaves nothing open behind it.
            stop.fire("the start failed")
            await life.abandon()
            raise
        if starting is None:
            report = await life.abandon()
        elif stop.requested:
            report = await life.give_up(starting)
        else:
            life.start()
            self._working.set()
            logger.info("%s started: %s", self.name, _census(self))
            report = await life.run()
            self._working = asyncio.Event()
        still = [text for text in (incident.summary() for incident in incidents) if text is not None]
        for incident in incidents:
            incident.forget_timer()
        self.report = replace(report, open_incidents=tuple(still[:KEPT_MAX]))
        logger.log(logging.ERROR if report.exit_code else logging.INFO, "%s", self.report.line())
        return self.report

    async def _start(self, life: Lifecycle, holdings: Holdings) -> asyncio.Task[None]:
        """Open and start everything in order, unless the stop comes first: then the task may still be at it."""
        stop = life.stop
        starting = asyncio.create_task(self._open(life.all(), holdings), name=f"{self.name} starts")
        stopped = asyncio.create_task(stop.wait(), name=f"{self.name} waits for its stop")
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if not stop.requested:
            starting.result()
        return starting

    async def _open(self, lives: list[Lifecycle], holdings: Holdings) -> None:
        for dependency in holdings:
            await dependency.open()
        for life in lives:
            for starter in life.service._starters:
                # The one before may have taken its time, also in heeding its cancellation.
                if life.stop.requested:
                    break
                await starter()
            else:
                life.started = True


def _census(service: Service) -> str:
    services = list(service.tree())
    loops = sum(body.workers for each in services for body in each.bodies if not body.once)
    tasks = sum(1 for each in services for body in each.bodies if body.once)
    parts = [f"{loops} loop worker{'s' * (loops != 1)}", f"{tasks} task{'s' * (tasks != 1)}"]
    if len(services) > 1:
        parts.append(f"{len(services) - 1} child service{'s' * (len(services) != 2)}")
    return ", ".join(parts)
