"""One life of one service: its workers and children at work, then its stop, phase by phase."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from outlast._core.phases import EXIT_BUG, EXIT_FATAL, EXIT_FORCED, Phase, Plan, fair_limit_s, worst
from outlast._core.reaction import Reaction
from outlast._core.stop_report import KEPT_MAX, PhaseTime, StopReport, Unfinished, listed
from outlast._runtime.process.stacks import task_stack
from outlast._runtime.service.stop import Stopping, finish
from outlast._runtime.service.worker import Leave, Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast._core.faults import Fault
    from outlast._runtime.service.clock import Clock
    from outlast._runtime.service.holdings import Holdings
    from outlast._runtime.service.service import Service
    from outlast._runtime.service.stop import Stop

    Hook = tuple[str, Callable[[], Awaitable[None]]]

REMIND_S: Final = 5.0
"""A drain that lasts says so after 5 s, 10 s, 20 s, ..."""
NAMED_MAX: Final = 5
logger = logging.getLogger("outlast")


class Lifecycle:
    """Runs a service whose dependencies are open and whose starters have run. A new one is made for each run."""

    def __init__(self, service: Service, stop: Stop, holdings: Holdings, clock: Clock, parent: Lifecycle | None = None) -> None:
        self.service = service
        self.stop = stop
        self.path: str = service.name if parent is None else f"{parent.path}/{service.name}"
        self.phase: Phase | None = None
        self.started = False
        """Whether all starters have run: only then is there anything to flush."""
        self.working = False
        """Whether the workers were set to work."""
        holdings.need(service.dependencies)
        self.children = [Lifecycle(child, stop.child(), holdings, clock, self) for child in service.children]
        self._clock = clock
        self._parent = parent
        self._holdings = holdings
        self._workers: dict[asyncio.Task[Any], Worker] = {}
        self._pending: dict[asyncio.Task[Any], None] = {}
        self._refused = False
        self._plan: Plan | None = None
        self._hurried_at: float | None = None
        self._bell: asyncio.Future[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._emptied: asyncio.Task[None] | None = None
        self._codes: list[int] = []
        self._left = ""
        self._times: list[PhaseTime] = []
        self._unfinished: list[Unfinished] = []
        self._unfinished_count = 0
        self._not_flushed: list[str] = []
        self._not_flushed_count = 0
        self._failed: list[str] = []
        service.gate.open()
        stop.on_fire(self._refuse)

    def all(self) -> list[Lifecycle]:
        """Return this life and those of all children, in the order of starting."""
        return [self, *(life for child in self.children for life in child.all())]

    # At work.

    def start(self) -> None:
        """Set workers and children to work."""
        self.working = True
        for body in self.service.bodies:
            classifiers = self.service.classifiers
            for need in body.needs:
                classifiers = classifiers.also(need.classifiers)
            for index in range(body.workers):
                worker = Worker(body, index, classifiers, self.service.rng)
                task = asyncio.create_task(worker.run(self.stop), name=f"{self.path}.{worker.name}")
                self._workers[task] = worker
                self._attend(task)
        for child in self.children:
            child.start()
            self._attend(asyncio.create_task(child.run(), name=child.path))

    async def give_up(self, starting: asyncio.Task[None]) -> StopReport:
        """Cancel the start, which the stop came before, and end what it has started; what it raises is logged."""
        starting.add_done_callback(partial(self._late, "the start"))
        self.stop.cancel(starting)
        return await self.abandon(starting)

    async def abandon(self, starting: asyncio.Task[None] | None = None) -> StopReport:
        """End what was never set to work: flush and close what was started and opened.

        Whoever is not started yet waits, in the drain, for the end of `starting`: it may be at work there.
        """
        if starting is not None and not starting.done() and (self._parent is None or not self.started):
            self._starting = starting
            self._pending[starting] = None
            starting.add_done_callback(self._done)
        for child in self.children:
            self._attend(asyncio.create_task(child.abandon(starting), name=child.path))
        return await self.end()

    def _attend(self, task: asyncio.Task[Any]) -> None:
        self._pending[task] = None
        task.add_done_callback(self._ended)

    async def run(self) -> StopReport:
        """Wait for the stop, or for the end of all work; then go through the phases."""
        await self._until_stop()
        self.stop.fire("every task is done")
        return await self.end()

    async def _until_stop(self) -> None:
        if not self._pending:
            # Nothing of its own to do: it is there for those who enter its gate.
            await self.stop.wait()
            return
        while self._pending and not self.stop.requested:
            forget = self.stop.on_fire(self._ring)
            await self._wait_for_bell()
            forget()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Note the end of a worker or a child, before and during the stop."""
        self._done(task)
        exc = None if task.cancelled() else task.exception()
        if self.phase is Phase.REPORT:
            # It was left behind, and has been named.
            return
        if isinstance(exc, Leave):
            self._leave(exc.reason, exc.exit_code)
        elif exc is not None and not isinstance(exc, Stopping):
            self._leave(f"{task.get_name()} broke: {exc!r}", EXIT_BUG, exc)
        elif task.cancelled():
            if task in self._workers and not self.stop.requested:
                logger.error("%s was cancelled, and not by the stop: it works no more", task.get_name())
        elif isinstance(task.result(), StopReport):
            self._take_over(task.result())

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._pending.pop(task, None)
        if not self._pending:
            self._ring()

    def _leave(self, reason: str, exit_code: int, exc: BaseException | None = None) -> None:
        self._codes.append(exit_code)
        self._left = self._left or reason
        if exit_code != EXIT_FATAL:
            # A FATAL fault has said so itself, as CRITICAL, when it was met.
            logger.critical("%s leaves service: %s", self.path, reason, exc_info=exc)
        self.stop.fire(reason)

    def _take_over(self, report: StopReport) -> None:
        """Make a child's report part of ours."""
        self._unfinished += report.unfinished[: KEPT_MAX - len(self._unfinished)]
        self._unfinished_count += report.unfinished_count
        self._not_flushed += report.not_flushed[: KEPT_MAX - len(self._not_flushed)]
        self._not_flushed_count += report.not_flushed_count
        self._failed += report.failed[: KEPT_MAX - len(self._failed)]
        if report.exit_code:
            self._codes.append(report.exit_code)
        if report.left:
            self._left = self._left or report.left
            # A child that left by itself takes its parent along: what it did is not being done.
            self.stop.fire(report.left)

    # The stop.

    def _refuse(self, stop: Stop) -> None:
        """Close the door, in the step that fires the stop."""
        self.service.gate.close(stop.reason or "")
        self._holdings.stopping(self.service.dependencies, stop)

    def hurry(self) -> float:
        """Skip what is left of the drain, here and in the children: what still runs is cancelled now.

        Returns when all this has to be over, on the clock of the stop.
        """
        children_by = max((child.hurry() for child in self.children if child.phase is not Phase.REPORT), default=0.0)
        now = self._clock.now()
        self._hurried_at = now
        self._plan = self.plan(now).hurried(now, children_by)
        self._ring()
        return self._plan.close_by

    def plan(self, now: float) -> Plan:
        """Return the deadlines of the stop, which count from the first time anybody asks."""
        if self._plan is None:
            deadline_s = self.service.deadline_s
            if self._parent is not None and self._parent.stop.requested:
                # All phases of a child are part of its parent's drain.
                deadline_s = max(0.0, min(deadline_s, self._parent.plan(now).children_by - now))
            self._plan = Plan.begin(now, deadline_s)
        return self._plan

    async def end(self) -> StopReport:
        """Go through the phases; the stop has been fired."""
        plan = self.plan(self._clock.now())
        for child in self.children:
            child.end_by(plan.children_by)
        await self._timed(Phase.REFUSE, self._hooks(Phase.REFUSE))
        await self._timed(Phase.DRAIN, self._drain())
        await self._timed(Phase.FLUSH, self._hooks(Phase.FLUSH))
        await self._timed(Phase.CLOSE, self._close())
        self.phase = Phase.REPORT
        self.stop.detach()
        if self._unfinished_count or self._not_flushed_count or self._failed:
            self._codes.append(EXIT_FORCED)
        return StopReport(
            self.path,
            self.stop.reason or "",
            worst(tuple(self._codes)),
            self._clock.now() - plan.started_at,
            plan.deadline_s,
            hurried=self._hurried_at is not None,
            phases=tuple(self._times),
            unfinished=tuple(self._unfinished),
            unfinished_count=self._unfinished_count,
            not_flushed=tuple(self._not_flushed),
            not_flushed_count=self._not_flushed_count,
            failed=tuple(self._failed),
            refused=sum(life.service.gate.refused for life in self.all()),
            children=len(self.all()) - 1,
            left=self._left,
        )

    def end_by(self, close_by: float) -> None:
        """Shorten a stop that is under way already, so that it is over in time to be part of the parent's drain."""
        if self._plan is not None and self._plan.close_by > close_by:
            self._plan = self._plan.within(self._clock.now(), close_by)
            self._ring()
            for child in self.children:
                child.end_by(self._plan.children_by)

    async def _timed(self, phase: Phase, steps: Awaitable[None]) -> None:
        self.phase = phase
        began_at = self._clock.now()
        limit_s = max(0.0, self.plan(began_at).by[phase] - began_at)
        logger.debug("%s: %s, for at most %.2f s", self.path, phase.value, limit_s)
        await self._clock.before(self.path, phase.value)
        await steps
        self._times.append(PhaseTime(phase.value, self._clock.now() - began_at, limit_s))

    async def _drain(self) -> None:
        """Let what is under way finish, then cancel it; name what does not end even so."""
        gate = self.service.gate
        self._emptied = asyncio.ensure_future(gate.empty())
        self._attend(self._emptied)
        await self._until_empty(lambda: self.plan(self._clock.now()).cancel_at)
        running = [task for task in self._workers if not task.done()]
        inside = gate.holders
        if running or inside:
            await self._clock.before(self.path, "cancel")
            names = _few([task.get_name() for task in running] + self._inside())
            level = logging.WARNING if self._parent is None else logging.DEBUG
            logger.log(level, "%s: cancelled what still ran: %s", self.path, names)
        for task in (*running, *(holder.task for holder in inside if holder.task is not None)):
            self.stop.cancel(task, f"{self.path} is stopping and its drain time is over")
        await self._until_empty(lambda: self.plan(self._clock.now()).by[Phase.DRAIN])
        now = self._clock.now()
        for task, worker in self._workers.items():
            if not task.done():
                self._name(worker.name, Phase.DRAIN, now - worker.turned_at, task_stack(task))
        for holder in gate.holders:
            self._name(holder.name, Phase.DRAIN, now - holder.since, holder.stack())
        if self._starting is not None and not self._starting.done():
            self._name("the start", Phase.DRAIN, now - self.plan(now).started_at, task_stack(self._starting))
        for child in self.children:
            if child.phase is not Phase.REPORT:
                phase = child.phase or Phase.REFUSE
                self._name(f"child service {child.service.name}", phase, now - self.plan(now).started_at, ())
                # Its report will come too late; what it met counts all the same.
                self._codes += child.codes()
        self._emptied.cancel()

    def _remind(self, seconds: float) -> None:
        names = _few([task.get_name() for task in self._pending if task is not self._emptied] + self._inside())
        level = logging.INFO if self._parent is None else logging.DEBUG
        logger.log(level, "%s: draining for %.0f s, waits for %s", self.path, seconds, names)

    def codes(self) -> list[int]:
        """Return the exit codes of what was met so far, here and below."""
        return self._codes + [code for child in self.children for code in child.codes()]

    def _inside(self) -> list[str]:
        return [holder.name for holder in self.service.gate.holders]

    def _name(self, what: str, phase: Phase, held_s: float, stack: tuple[str, ...]) -> None:
        self._unfinished_count += 1
        if len(self._unfinished) < KEPT_MAX:
            self._unfinished.append(Unfinished(what, self.path, phase.value, held_s, stack))

    async def _until_empty(self, when: Callable[[], float]) -> None:
        """Wait until nothing is pending, but not beyond `when()`, which a hurry brings nearer."""
        began_at, remind_s = self._clock.now(), REMIND_S
        while self._pending and (left_s := when() - self._clock.now()) > 0:
            await self._wait_for_bell(min(left_s, began_at + remind_s - self._clock.now()))
            if self._pending and self._clock.now() >= began_at + remind_s:
                self._remind(remind_s)
                remind_s *= 2

    async def _until_done(self, task: asyncio.Task[None], when: Callable[[], float]) -> None:
        """Wait for a task, but not beyond `when()`, which a hurry brings nearer. However late it is, the task gets to begin."""
        task.add_done_callback(self._ring)
        # Its first step is in this turn of the loop or the next.
        for _ in range(2):
            await asyncio.sleep(0)
        while not task.done() and (left_s := when() - self._clock.now()) > 0:
            await self._wait_for_bell(left_s)

    async def _wait_for_bell(self, limit_s: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._bell = loop.create_future()
        handle = None if limit_s is None else loop.call_later(limit_s, self._ring)
        try:
            await self._bell
        finally:
            self._bell = None
            if handle is not None:
                handle.cancel()

    def _ring(self, _: object = None) -> None:
        if self._bell is not None:
            finish(self._bell)

    async def _hooks(self, phase: Phase) -> None:
        phases = [phase]
        if phase is Phase.REFUSE:
            self._refused = self.started
        elif phase is Phase.FLUSH and not self._refused:
            # Its start ended after all, in the drain: there may be a listener to close.
            phases = [Phase.FLUSH, Phase.REFUSE]
        chosen = [(of, hook) for each in phases for of, hook in self.service.hooks if of is each] if self.started else []
        hooks = [hook for _, hook in chosen]
        names = [f"{self.path} {of.value} {_name_of(hook)}" for of, hook in chosen]
        # The dependencies close after the last hook, and are given a share too.
        closings = len(self.service.dependencies) if phase is Phase.CLOSE else 0
        await self._carry_out(phase, list(zip(names, hooks, strict=True))[::-1], closings)

    async def _close(self) -> None:
        await self._hooks(Phase.CLOSE)
        freed = self._holdings.let_go(self.service.dependencies)
        await self._carry_out(Phase.CLOSE, [(f"closing {dependency.name}", dependency.close) for dependency in freed])

    async def _carry_out(self, phase: Phase, hooks: list[Hook], later: int = 0) -> None:
        """Run the steps one after the other, each within its fair share of what the phase has left."""
        for index, (name, hook) in enumerate(hooks):
            await self._clock.before(self.path, name)
            began_at = self._clock.now()
            task: asyncio.Task[None] = asyncio.ensure_future(hook())
            await self._until_done(task, partial(self._share_ends_at, phase, began_at, len(hooks) - index + later))
            if not task.done():
                took_s = self._clock.now() - began_at
                self._name(name, phase, took_s, task_stack(task))
                self.stop.cancel(task, f"{name} did not finish within {took_s:.2f} s")
                self._lost(phase, name)
                task.add_done_callback(partial(self._late, name))
                # It gets to see its cancellation before the next step begins.
                await asyncio.sleep(0)
            elif not task.cancelled() and (exc := task.exception()) is not None:
                fault = self._broke(name, exc)
                if fault.reaction is not Reaction.END:
                    self._lost(phase, f"{name} ({fault.code})")
            elif task.cancelled():
                self._lost(phase, f"{name} (cancelled)")

    def _share_ends_at(self, phase: Phase, began_at: float, steps_left: int) -> float:
        """Return when the fair share of a step is over; a hurry divides again what it leaves of the phase."""
        since = began_at if self._hurried_at is None else max(began_at, self._hurried_at)
        return since + fair_limit_s(since, self.plan(since).by[phase], steps_left)

    def _late(self, name: str, task: asyncio.Task[None]) -> None:
        """Log what comes out of a step that was given up and has been named: a corruption is never silent."""
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._broke(name, exc)

    def _broke(self, name: str, exc: BaseException) -> Fault:
        fault = self.service.classifiers.classify(exc, source=self.service.name)
        if fault.reaction is Reaction.END:
            logger.debug("%s: %s ended: %s", self.path, name, exc)
            return fault
        fatal = fault.reaction is Reaction.LEAVE
        logger.log(logging.CRITICAL if fatal else logging.ERROR, "%s: %s failed", self.path, name, exc_info=exc)
        if fatal:
            self._codes.append(EXIT_FATAL)
        return fault

    def _lost(self, phase: Phase, name: str) -> None:
        if phase is not Phase.FLUSH:
            if len(self._failed) < KEPT_MAX:
                self._failed.append(name)
            return
        self._not_flushed_count += 1
        if len(self._not_flushed) < KEPT_MAX:
            self._not_flushed.append(name)


def _few(names: list[str]) -> str:
    return listed(names, len(names), NAMED_MAX)


def _name_of(hook: object) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__name__)).rpartition("<locals>.")[2]
