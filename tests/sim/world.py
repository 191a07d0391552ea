"""A drawn schedule made real: services, bodies, hooks and peers that write down what they see and what they raise."""

from __future__ import annotations

import asyncio
import errno
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.sim.actor import Actor

import outlast
from outlast._core.backoff import Backoff
from outlast._core.faults import attach
from outlast._core.phases import Phase
from outlast._runtime.service.clock import Clock
from outlast.testing import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sim.shape import BodyPlan, HookPlan, Schedule, ServicePlan
    from tests.sim.trace import Trace

    from outlast._runtime.service.lifecycle import Lifecycle

PHASES = {phase.value: phase for phase in Phase}


class Injected(Exception):  # noqa: N818 - a mark, whatever the error
    """Mixed into everything that the simulator raises on purpose."""


class InjectedBugError(Injected, ValueError):
    """Nobody classifies it."""


class InjectedRejection(Injected):
    """The request is wrong."""


class InjectedCorruptionError(Injected, OSError):
    """EIO."""


def injected(kind: str, where: str) -> Exception:
    """Make an error of a kind."""
    match kind:
        case "FATAL":
            return InjectedCorruptionError(errno.EIO, f"corrupted in {where}")
        case "REJECTED":
            exc = InjectedRejection(f"rejected in {where}")
            attach(exc, outlast.Fault(outlast.Kind.REJECTED, "rejected", str(exc)))
            return exc
        case _:
            return InjectedBugError(f"a bug in {where}")


@dataclass(slots=True)
class Left:
    """An exception that left a body."""

    at: float
    what: str
    """FATAL, BUG, other, or stop: nothing but our own stop."""
    draining: bool
    """Whether its service, and all those above, had not ended their drain."""


@dataclass
class BodyRecord:
    plan: BodyPlan
    service: ServiceRecord
    inside: dict[str, None] = field(default_factory=dict)
    """The workers whose body runs now, by name of their task."""
    turns: int = 0
    progress: int = 0
    left: list[Left] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    @property
    def subject(self) -> str:
        return f"{'task' if self.plan.once else 'loop'} {self.plan.name}"


@dataclass
class HookRecord:
    plan: HookPlan
    service: ServiceRecord
    began: int = 0
    began_at: float = 0.0
    ended: bool = False
    raised: str | None = None


@dataclass
class ServiceRecord:
    plan: ServicePlan
    service: outlast.Service
    parent: ServiceRecord | None
    children: list[ServiceRecord] = field(default_factory=list)
    bodies: list[BodyRecord] = field(default_factory=list)
    hooks: list[HookRecord] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    entered: dict[str, float] = field(default_factory=dict)
    """When each phase began."""
    delays_s: float = 0.0
    """Delays between steps, so far."""
    rng: random.Random = field(default_factory=random.Random)
    """Of the delays between its steps."""
    stop_at: float | None = None
    drained: bool = False

    @property
    def life(self) -> Lifecycle | None:
        return self.service._life

    @property
    def requested(self) -> bool:
        return self.life is not None and self.life.stop.requested

    def above(self) -> list[ServiceRecord]:
        return [] if self.parent is None else [self.parent, *self.parent.above()]


class World(Clock):
    """The tree of services of one schedule, with everything that is known about it, and the clock of its stop."""

    def __init__(self, schedule: Schedule, trace: Trace) -> None:
        self.schedule = schedule
        self.trace = trace
        self.over: asyncio.Future[None] | None = None
        self.healed = False
        self.stop_asked = False
        self.hurried_at: float | None = None
        self.timeouts_inside = 0
        self.rng = random.Random(schedule.seed)
        self.peers = [
            ScriptedPeer(f"p{index}", script, latency_s=schedule.latency_s) for index, script in enumerate(schedule.scripts)
        ]
        self.dependencies = [SimDependency(self, index) for index in range(len(self.peers))]
        self.services: list[ServiceRecord] = []
        self.bodies: dict[str, BodyRecord] = {}
        self.hooks: dict[str, HookRecord] = {}
        self.root = self._build(schedule.root, None)

    def _build(self, plan: ServicePlan, parent: ServiceRecord | None) -> ServiceRecord:
        service = outlast.Service(plan.name, deadline_s=plan.deadline_s, rng=random.Random(plan.seed))
        record = ServiceRecord(plan, service, parent, rng=random.Random(plan.seed + 1))
        self.services.append(record)
        for hook in plan.hooks:
            hooked = HookRecord(hook, record)
            record.hooks.append(hooked)
            self.hooks[hook.name] = hooked
            function = self._hook(hooked)
            function.__qualname__ = hook.name
            if hook.phase == "start":
                service.on_start(function)
            else:
                service.on_stop(function, phase=PHASES[hook.phase])
        for body in plan.bodies:
            bodied = BodyRecord(body, record, kinds=body.act.kinds())
            record.bodies.append(bodied)
            self.bodies[body.name] = bodied
            needs = tuple(self.dependencies[index] for index in body.needs)
            options: dict[str, Any] = {"needs": needs, "name": body.name, "backoff": Backoff(base_s=0.1, cap_s=5.0)}
            if body.once:
                service.task(**options)(self._body(bodied))
            else:
                service.loop(**options, workers=body.workers, every_s=body.every_s)(self._body(bodied))
        for child in plan.children:
            record.children.append(self._build(child, record))
            service.add(record.children[-1].service)
        return record

    async def before(self, path: str, step: str) -> None:
        """Record a step of a stop, and take some time before it."""
        record = next(record for record in self.services if record.plan.name == path.rpartition("/")[2])
        self.trace(f"step {record.plan.name} {step}")
        record.steps.append(step)
        if step in PHASES:
            self.entering(record, step)
        longest_s, rng = record.plan.delay_s_max, record.rng
        if longest_s and rng.random() < 0.5:
            delay_s = rng.choice((0.0, longest_s, rng.random() * longest_s))
            record.delays_s += delay_s
            await asyncio.sleep(delay_s)

    def entering(self, record: ServiceRecord, phase: str) -> None:
        """A phase begins; the invariants look at it by replacing this."""

    def _hook(self, record: HookRecord) -> Callable[[], Awaitable[None]]:
        plan, trace = record.plan, self.trace

        async def hook() -> None:
            trace(f"hook {plan.name} begins")
            record.began += 1
            record.began_at = trace.now
            if plan.phase == "start" and self.root.requested:
                trace.violation("b", f"the starter {plan.name} begins after the stop was fired")
            try:
                await self.pass_time(plan.seconds)
                if plan.fault is not None:
                    record.raised = plan.fault
                    raise self.raising(plan.fault, plan.name)
            except asyncio.CancelledError:
                if plan.fault_when_cancelled is not None:
                    record.raised = plan.fault_when_cancelled
                    raise self.raising(plan.fault_when_cancelled, plan.name) from None
                if not plan.deaf:
                    raise
                await self.ignore(plan.seconds)
            record.ended = True

        return hook

    def raising(self, kind: str, where: str) -> Exception:
        self.trace(f"inject {kind} in {where}")
        return injected(kind, where)

    def _body(self, record: BodyRecord) -> Callable[[outlast.Stop], Awaitable[None]]:
        trace = self.trace

        async def body(stop: outlast.Stop) -> None:
            task = asyncio.current_task()
            assert task is not None
            name = task.get_name()
            trace(f"turn {name}")
            if stop.requested:
                trace.violation("b", f"a turn of {name} begins after the stop was fired")
            record.turns += 1
            record.inside[name] = None
            try:
                await Actor(self, record.service, name, record.plan.faults).act(record.plan.act, stop)
            except BaseException as exc:
                self._leaves(record, name, exc, stop)
                raise
            finally:
                del record.inside[name]
            record.progress += 1

        return body

    def _leaves(self, record: BodyRecord, name: str, exc: BaseException, stop: outlast.Stop) -> None:
        what = provenance(exc, stop.requested)
        self.trace(f"left {name} {type(exc).__name__} = {what}")
        if isinstance(exc, outlast.Stopping) and not stop.requested:
            self.trace.violation("a", f"{name} was told to stop before the stop was requested")
        draining = not any(each.drained for each in (record.service, *record.service.above()))
        record.left.append(Left(self.trace.now, what, draining))

    # Waiting, with and without heed.

    async def pass_time(self, seconds: float | None) -> None:
        """Take so long; None: until the world is over."""
        if seconds is not None:
            await asyncio.sleep(seconds)
            return
        assert self.over is not None
        await asyncio.shield(self.over)

    async def ignore(self, seconds: float | None) -> None:
        """Take so long, and heed no cancellation."""
        assert self.over is not None
        until = None if seconds is None else self.trace.now + seconds
        while not self.over.done() and (until is None or self.trace.now < until):
            try:
                await asyncio.wait({self.over}, timeout=None if until is None else until - self.trace.now)
            except asyncio.CancelledError:
                continue


class SimDependency(outlast.Dependency):
    """A dependency on a scripted peer, whose probes and closing are looked at."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.peer = world.peers[index]
        self.closings = 0
        super().__init__(self.peer.name, rng=random.Random(index), probe_timeout_s=1.0)

    @property
    def users(self) -> list[ServiceRecord]:
        return [record for record in self.world.services if self in record.service.dependencies]

    async def probe(self) -> None:
        self.world.trace(f"probe {self.name}")
        if all(record.requested for record in self.users):
            self.world.trace.violation("b", f"{self.name} is probed after the stop of all who need it")
        await self.peer.probe()

    async def close(self) -> None:
        self.world.trace(f"close {self.name}")
        self.closings += 1
        for record in self.users:
            if record.life is not None and record.life.phase not in {Phase.CLOSE, Phase.REPORT}:
                self.world.trace.violation("c", f"{self.name} is closed before {record.plan.name} has flushed")
        await super().close()


def provenance(exc: BaseException, requested: bool) -> str:  # noqa: FBT001
    """What an exception that leaves a body is, by what was injected: FATAL, BUG, other, stop.

    Cancelled without a stop: a task group that failed makes a time-out of Python 3.11 and 3.12 let its cancellation out.
    """
    if isinstance(exc, asyncio.CancelledError | outlast.Stopping):
        return "FATAL" if _hides_fatal(exc, set()) else "stop" if requested else "cancelled"
    if isinstance(exc, BaseExceptionGroup):
        found = {provenance(member, requested) for member in exc.exceptions}
        return next(what for what in ("FATAL", "BUG", "other", "cancelled", "stop") if what in found)
    if isinstance(exc, InjectedCorruptionError):
        return "FATAL"
    return "BUG" if isinstance(exc, InjectedBugError) else "other"


def _hides_fatal(exc: BaseException | None, seen: set[int]) -> bool:
    if exc is None or id(exc) in seen:
        return False
    seen.add(id(exc))
    members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return isinstance(exc, InjectedCorruptionError) or any(
        _hides_fatal(hidden, seen) for hidden in (exc.__cause__, exc.__context__, *members)
    )
