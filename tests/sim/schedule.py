"""Runs one schedule on a virtual-time loop and says what was broken."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.sim.actor import Actor
from tests.sim.invariants import Safety, check_liveness
from tests.sim.shape import HEAL_AT_S, draw
from tests.sim.trace import Lines, Trace
from tests.sim.world import Injected, World

import outlast
from outlast.testing import VirtualTimeLoop

if TYPE_CHECKING:
    from tests.sim.shape import HandlerPlan

TIME_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed."""

    seed: int
    violations: tuple[str, ...]
    tail: tuple[str, ...]
    digest: str
    events: int
    services: int
    exit_code: int | None


class WatchedLoop(VirtualTimeLoop):
    """Looks at the invariants before each turn, when nothing that is ready has begun."""

    safety: Safety | None = None

    def put_in_order(self) -> None:
        if self.safety is not None:
            self.safety.turn()
        super().put_in_order()


def run_schedule(seed: int) -> Outcome:
    """Run the schedule of a seed."""
    was_enabled = gc.isenabled()
    # When garbage is collected would otherwise depend on what ran before, and so would the order of some events.
    gc.disable()
    try:
        return _run(seed)
    finally:
        if was_enabled:
            gc.enable()


def _run(seed: int) -> Outcome:
    schedule, trace = draw(seed), Trace()
    loop = WatchedLoop(time_limit_s=TIME_LIMIT_S, seed=seed)
    trace.loop = loop
    world = World(schedule, trace)
    loop.safety = Safety(world)
    with Lines(trace):
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                loop.set_exception_handler(lambda _, told: _told(trace, told))
                try:
                    runner.run(_main(world, loop.safety))
                finally:
                    loop.safety = None
                    loop.cancel_tasks()
        except Exception as exc:  # noqa: BLE001 - a deadlock, or whatever: the schedule did not end as it must
            trace.violation("f", f"{type(exc).__name__}: {exc}")
        report = world.root.service.report
        services = len(world.services)
        exit_code = None if report is None else report.exit_code
        del world, loop.safety
        # What nobody fetched from a task is told when the task is collected.
        gc.collect(0)
    trace.loop = None
    tail = tuple(trace.tail()) if trace.violations else ()
    return Outcome(seed, tuple(trace.violations), tail, trace.digest(), len(trace.events), services, exit_code)


def _told(trace: Trace, told: dict[str, Any]) -> None:
    """asyncio's loop complains: of an exception that nobody fetched, of a callback that failed."""
    trace.violation(
        "d", f"asyncio was told: {told.get('message')} {told.get('exception')!r} {told.get('task') and told['task'].get_name()}"
    )


async def _main(world: World, safety: Safety) -> None:
    loop, schedule = asyncio.get_running_loop(), world.schedule
    world.over = loop.create_future()
    stop, service = outlast.Stop(), world.root.service
    running = asyncio.create_task(service.run(stop, clock=world), name="run")
    for at_s in schedule.hurry_at:
        loop.call_at(at_s, _hurry, world, running)
    for at_s, index in schedule.alone:
        loop.call_at(at_s, world.services[index].service.stop, "alone")
    stop_now = partial(_stop, world, stop, running)
    for number, index in schedule.alone_events:
        world.trace.at[number] = partial(world.services[index].service.stop, "alone")
    if schedule.stop_event is not None:
        world.trace.at[schedule.stop_event] = stop_now
    handlers: list[asyncio.Task[None]] = []
    for number, plan in enumerate(schedule.handlers):
        loop.call_at(plan.at_s, lambda number=number, plan=plan: handlers.append(_handler(world, number, plan)))
    if schedule.liveness:
        loop.create_task(_heal_and_look(world), name="liveness")
    loop.call_at(schedule.stop_at, stop_now)
    try:
        await asyncio.wait({running})
        failure = _failure(running)
        safety.end(service.report, failure, loop.time())
    finally:
        world.over.set_result(None)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task.get_name() != "liveness"]
    if left:
        # What was left behind ends by itself, now that nothing hangs any more.
        await asyncio.wait(sorted(left, key=lambda task: task.get_name()), timeout=60.0)


def _failure(running: asyncio.Task[int]) -> BaseException | None:
    return asyncio.CancelledError() if running.cancelled() else running.exception()


def _stop(world: World, stop: outlast.Stop, running: asyncio.Task[int]) -> None:
    how = world.schedule.how
    if world.stop_asked:
        return
    world.stop_asked = True
    for number in world.schedule.hurry_events:
        world.trace.at[len(world.trace.events) + number + 1] = partial(_hurry, world, running)
    world.trace(f"the stop: {how}")
    if how == "cancel":
        running.cancel()
    elif how == "alone" and world.root.life is not None:
        world.root.service.stop("alone")
    else:
        stop.fire("SIGTERM")


def _hurry(world: World, running: asyncio.Task[int]) -> None:
    if running.done() or not world.root.requested:
        return
    world.trace("the hurry")
    world.hurried_at = world.trace.now if world.hurried_at is None else world.hurried_at
    if world.schedule.how == "cancel":
        running.cancel()
    else:
        world.root.service.hurry()


def _handler(world: World, number: int, plan: HandlerPlan) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(_handle(world, number, plan), name=f"handler{number}")


async def _handle(world: World, number: int, plan: HandlerPlan) -> None:
    """A request: it comes from outside, and is let in or refused."""
    record = world.services[plan.service]
    name = f"handler{number}"
    if record.life is None:
        return
    requested = record.requested
    try:
        async with record.service.gate.enter(name):
            world.trace(f"{name} is inside {record.plan.name}")
            if requested:
                world.trace.violation("b", f"{name} entered the gate of {record.plan.name} after its stop")
            await Actor(world, record, name, []).act(plan.act, record.life.stop)
    except (outlast.Stopping, TimeoutError, asyncio.CancelledError, Injected) as exc:
        world.trace(f"{name} ended: {type(exc).__name__}")
    except BaseExceptionGroup:
        world.trace(f"{name} ended: group")


async def _heal_and_look(world: World) -> None:
    """Switch the faults off, give everything its time, and look."""
    await asyncio.sleep(HEAL_AT_S)
    world.trace("healed")
    world.healed = True
    for script in world.schedule.scripts:
        script.heal()
    # Half of the time to recover, half to make progress.
    half_s = (world.schedule.stop_at - HEAL_AT_S) / 2
    await asyncio.sleep(half_s)
    before = _progress(world)
    await asyncio.sleep(half_s - 0.5)
    if not world.root.requested:
        check_liveness(world, before, _progress(world))


def _progress(world: World) -> dict[str, int]:
    return {name: body.progress for name, body in world.bodies.items()}
