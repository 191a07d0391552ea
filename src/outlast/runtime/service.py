"""A service: loops, tasks, dependencies and child services, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast.core.classify import Classifiers
from outlast.runtime.stop import Stop
from outlast.runtime.worker import BACKOFF, Body, Leave, Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from outlast.core.backoff import Backoff
    from outlast.core.governor import Ceiling
    from outlast.core.intensity import Restart
    from outlast.runtime.dependency import Dependency

    Function = Callable[[Stop], Awaitable[Any]]
    Needs = Dependency | tuple[Dependency, ...]

F = TypeVar("F", bound="Callable[[Stop], Awaitable[Any]]")

EXIT_CLEAN: Final = 0
EXIT_BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
EXIT_FORCED: Final = 75
"""EX_TEMPFAIL of sysexits.h: something did not finish within the deadline."""
DRAIN_SHARE: Final = 0.8
"""The share of the deadline in which running bodies may finish before they are cancelled."""
logger = logging.getLogger("outlast")


class Service:
    """Loops and tasks that belong together, the dependencies they need, and how they end.

    `deadline_s` bounds a stop: running bodies get 80 % of it to finish, then they are cancelled, and what has
    not ended by the deadline is named and left behind (exit code 75). `classifiers` are rules of your own for
    exceptions that no dependency has classified.
    """

    def __init__(
        self,
        name: str,
        *,
        deadline_s: float = 10.0,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Start out empty."""
        if deadline_s <= 0:
            msg = f"service {name}: deadline_s must be above 0, not {deadline_s}"
            raise ValueError(msg)
        self.name = name
        self.deadline_s = deadline_s
        self.classifiers = classifiers or Classifiers()
        self.children: list[Service] = []
        self.bodies: list[Body] = []
        self._rng = rng or random.Random()
        self._dependencies: dict[int, Dependency] = {}
        self._workers: list[tuple[Worker, asyncio.Task[None]]] = []
        self._finishers: list[Callable[[], Awaitable[None]]] = []
        self._starters: list[Callable[[], Awaitable[None]]] = []

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

    def on_start(self, function: Callable[[], Awaitable[None]]) -> None:
        """Await `function()` once, after the dependencies are open and before the loops start."""
        self._starters.append(function)

    def on_stop(self, function: Callable[[], Awaitable[None]]) -> None:
        """Await `function()` once, after the loops have ended and before the dependencies close."""
        self._finishers.append(function)

    # Running it.

    async def run(self, stop: Stop | None = None) -> int:
        """Run until `stop` is fired, a worker asks to leave, or every task is done. Gives the exit code.

        0: clean. 70: too many bugs. 74: a FATAL fault. 75: something did not finish within `deadline_s`.
        Cancelling this is the same as firing the stop, and then raises `CancelledError`.
        """
        stop = stop or Stop()
        loop = asyncio.get_running_loop()
        dependencies = list(self._all_dependencies())
        services = list(self._all())
        try:
            await self._open(services, dependencies, stop)
        except BaseException:
            # A start that fails leaves nothing open behind it.
            await self._finish([], dependencies, loop.time() + self.deadline_s)
            raise
        workers = [pair for service in services for pair in service._workers]
        logger.info("%s started: %s", self.name, _census(services))
        cancelled, exit_code = False, EXIT_CLEAN
        try:
            exit_code = await self._until_stop(stop, [task for _, task in workers])
        except asyncio.CancelledError:
            cancelled = True
        stop.fire("cancelled" if cancelled else "every task is done")
        stopped_at = loop.time()
        left = await self._drain(workers, stopped_at)
        unfinished = await self._finish(services, dependencies, stopped_at + self.deadline_s)
        left += unfinished
        self._report(stop, left, loop.time() - stopped_at, dependencies)
        if cancelled:
            raise asyncio.CancelledError
        return EXIT_FORCED if left and exit_code == EXIT_CLEAN else exit_code

    def _all(self) -> Iterator[Service]:
        yield self
        for child in self.children:
            yield from child._all()

    def _all_dependencies(self) -> Iterator[Dependency]:
        seen: set[int] = set()
        for service in self._all():
            for key, dependency in service._dependencies.items():
                if key not in seen:
                    seen.add(key)
                    yield dependency

    async def _open(self, services: list[Service], dependencies: list[Dependency], stop: Stop) -> None:
        """Start everything, in order."""
        for dependency in dependencies:
            await dependency.open()
            # In the step that fires the stop: from then on nothing is probed.
            stop.on_fire(dependency.stopping)
        for service in services:
            for starter in service._starters:
                await starter()
        for service in services:
            service._start(stop)

    def hurry(self) -> None:
        """Cancel at once what still runs, after a stop was requested: the drain time is over."""
        for service in self._all():
            for _, task in service._workers:
                task.cancel(f"{self.name} is in a hurry")

    def _start(self, stop: Stop) -> None:
        self._workers = []
        for body in self.bodies:
            classifiers = self.classifiers
            for need in body.needs:
                classifiers = classifiers.also(need.classifiers)
            for index in range(body.workers):
                worker = Worker(body, index, classifiers, self._rng)
                task = asyncio.create_task(worker.run(stop), name=f"{self.name}.{worker.name}")
                self._workers.append((worker, task))

    async def _until_stop(self, stop: Stop, tasks: list[asyncio.Task[None]]) -> int:
        """Wait for the stop, for a worker that wants to leave, or for the end of them all."""
        stopped = asyncio.create_task(stop.wait(), name=f"{self.name} waits for its stop")
        pending: set[asyncio.Task[None]] = {*tasks, stopped}
        try:
            while len(pending) > 1 and not stop.requested:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    exc = None if task.cancelled() else task.exception()
                    if isinstance(exc, Leave):
                        logger.critical("%s leaves service: %s", self.name, exc.reason)
                        stop.fire(exc.reason)
                        return exc.exit_code
                    if exc is not None:
                        logger.critical("%s leaves service: %s broke", self.name, task.get_name(), exc_info=exc)
                        stop.fire(f"{task.get_name()} broke")
                        return EXIT_BUG
        finally:
            stopped.cancel()
        return EXIT_CLEAN

    async def _drain(self, workers: list[tuple[Worker, asyncio.Task[None]]], stopped_at: float) -> list[str]:
        """Let running bodies finish, then cancel them; names those that do not end even so."""
        loop = asyncio.get_running_loop()
        tasks = {task for _, task in workers}
        for share, cancel in ((DRAIN_SHARE, True), ((1 + DRAIN_SHARE) / 2, False)):
            tasks = {task for task in tasks if not task.done()}
            if not tasks:
                break
            limit_s = stopped_at + share * self.deadline_s - loop.time()
            _, tasks = await asyncio.wait(tasks, timeout=max(0.0, limit_s))
            for task in tasks if cancel else ():
                task.cancel(f"{self.name} is stopping and its drain time is over")
        for _, task in workers:
            if task.done() and not task.cancelled():
                # Seen here so that asyncio does not complain; what mattered has been logged by its incident.
                task.exception()
        return sorted(task.get_name() for task in tasks if not task.done())

    async def _finish(self, services: list[Service], dependencies: list[Dependency], deadline_at: float) -> list[str]:
        """Run the finishers and close the dependencies, all within what is left of the deadline."""
        left: list[str] = []
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            (f"{service.name} on_stop", finisher) for service in reversed(services) for finisher in reversed(service._finishers)
        ]
        steps += [(f"closing {dependency.name}", dependency.close) for dependency in reversed(dependencies)]
        for name, step in steps:
            task = asyncio.ensure_future(step())
            limit_s = max(0.1, deadline_at - asyncio.get_running_loop().time())
            await asyncio.wait({task}, timeout=limit_s)
            if not task.done():
                task.cancel()
                left.append(name)
            elif not task.cancelled() and (exc := task.exception()) is not None:
                logger.error("%s: %s failed", self.name, name, exc_info=exc)
                left.append(name)
        return left

    def _report(self, stop: Stop, left: list[str], took_s: float, dependencies: list[Dependency]) -> None:
        books = [dependency.incident for dependency in dependencies]
        books += [body.incident for service in self._all() for body in service.bodies]
        still = [text for text in (book.summary() for book in books) if text is not None]
        for book in books:
            book.forget_timer()
        text = f"{self.name} stopped in {took_s:.2f} s ({stop.reason})"
        if still:
            text += "; " + ", ".join(still[:5]) + (f" and {len(still) - 5} more" if len(still) > 5 else "")
        if left:
            names = ", ".join(left[:10]) + (f" and {len(left) - 10} more" if len(left) > 10 else "")
            logger.error("%s; not finished within %.1f s: %s", text, self.deadline_s, names)
        else:
            logger.info("%s", text)


def _census(services: list[Service]) -> str:
    loops = sum(body.workers for service in services for body in service.bodies if not body.once)
    tasks = sum(1 for service in services for body in service.bodies if body.once)
    parts = [f"{loops} loop worker{'s' * (loops != 1)}", f"{tasks} task{'s' * (tasks != 1)}"]
    if len(services) > 1:
        parts.append(f"{len(services) - 1} child service{'s' * (len(services) != 2)}")
    return ", ".join(parts)
