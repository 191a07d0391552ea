"""The one task that asks whether a dependency is back, and then lets its waiters go over a ramp."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from outlast._core import ramp
from outlast._core.faults import attach
from outlast._core.health import State
from outlast._runtime.dependency.cell import CIRCUMSTANCES_S_MAX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast._core.faults import Fault
    from outlast._runtime.dependency.cell import Cell

logger = logging.getLogger("outlast")


class Prober:
    """Exists as a task only while the dependency is not up. It is its own task on purpose: a caller that is
    cancelled can neither lose the probe nor be evidence. On the event loop's thread only.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._task: asyncio.Task[None] | None = None
        self._awake: asyncio.Event | None = None
        self._looking: asyncio.Task[None] | None = None
        self._explaining: asyncio.Task[None] | None = None
        self._wondering = asyncio.Lock()
        """Held by the one who asks for all who wonder whether the peer answers."""
        self._answered_at = float("-inf")

    def ensure(self) -> None:
        """Start the task on the running loop if it does not run, unless the service is stopping."""
        loop = asyncio.get_running_loop()
        asking = self._task is not None and not self._task.done() and self._task.get_loop() is loop
        if asking or self._cell.stop is not None or self._cell.health.lost:
            return
        self._awake = asyncio.Event()
        self._task = loop.create_task(self._run(), name=f"outlast prober {self._cell.name}")

    def wake(self) -> None:
        """Look again now: the trial's place was given back."""
        if self._awake is not None:
            self._awake.set()

    def cancel(self) -> None:
        """End it: nothing is asked any more."""
        for task in (self._task, self._looking, self._explaining):
            if task is not None:
                task.cancel()
        self._task = self._looking = self._explaining = None
        # A lock belongs to the event loop in which somebody waited for it; the next use may be in another one.
        self._wondering, self._answered_at = asyncio.Lock(), float("-inf")

    def explain(self) -> None:
        """Find out what else is to be said of the fault that has opened the incident, and complete its line."""
        ask, fault, loop = self._cell.circumstances, self._cell.health.first, asyncio.get_running_loop()
        if ask is None or fault is None:
            self._cell.incident.complete("")
        elif self._explaining is None or self._explaining.done():
            self._explaining = loop.create_task(self._explain(ask, fault), name=f"outlast explains {self._cell.name}")

    async def _explain(self, ask: Callable[[Fault], Awaitable[str]], fault: Fault) -> None:
        incident, more = self._cell.incident, ""
        try:
            async with asyncio.timeout(CIRCUMSTANCES_S_MAX):
                more = await ask(fault)
        except Exception as exc:  # noqa: BLE001 - the line goes out without it
            logger.debug("%s: its circumstances are not known: %r", self._cell.name, exc)
        finally:
            incident.complete(more)
            incident.write()

    async def look(self) -> None:
        """Ask once although nothing is known to be wrong. Whoever wonders meanwhile shares the answer."""
        cell, loop = self._cell, asyncio.get_running_loop()
        if cell.probe is None or not cell.passable or cell.stop is not None or (cell.is_attended and cell.loop is not loop):
            return
        cell.bind()
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._look(cell.probe), name=f"outlast prober {cell.name} looks")
        await asyncio.wait({self._looking})

    async def answers(self, limit_s: float) -> bool:
        """Return whether the peer answers a probe within `limit_s` seconds; for the same time an answer holds for all."""
        cell, loop = self._cell, asyncio.get_running_loop()
        async with self._wondering:
            if cell.probe is None or cell.stop is not None or not cell.passable:
                return False
            if loop.time() - self._answered_at >= limit_s:
                try:
                    async with asyncio.timeout(limit_s):
                        await cell.probe()
                except Exception:  # noqa: BLE001 - whatever it is, the peer did not answer in time
                    return False
                self._answered_at = loop.time()
            return True

    async def _run(self) -> None:
        cell = self._cell
        while not cell.health.lost and (cell.waiters or (cell.health.state is State.DOWN and cell.probe is not None)):
            if cell.health.state is not State.DOWN:
                await self._ramp()
            elif (delay_s := self._delay_s()) > 0:
                await asyncio.sleep(delay_s)
            elif cell.probe is not None:
                await self._ask(cell.probe)
            else:
                await self._offer()

    def _delay_s(self) -> float:
        due_at = self._cell.health.probe_at
        return 0.0 if due_at is None else due_at - asyncio.get_running_loop().time()

    async def _ask(self, probe: Callable[[], Awaitable[None]]) -> None:
        failure = await self._answer(probe)
        if failure is None:
            self._cell.probe_passed()
        else:
            self._cell.probe_failed(*failure)

    async def _look(self, probe: Callable[[], Awaitable[None]]) -> None:
        epoch = self._cell.epoch
        failure = await self._answer(probe)
        if failure is not None:
            fault, exc = failure
            self._cell.observe(fault, exc, epoch)

    async def _answer(self, probe: Callable[[], Awaitable[None]]) -> tuple[Fault, Exception] | None:
        """Call the probe; return what it failed with, or None if it passed."""
        cell = self._cell
        try:
            async with asyncio.timeout(cell.probe_timeout_s):
                await probe()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            fault = cell.classifiers.classify(exc, source=cell.name, phase="probe")
            attach(exc, fault)
            return fault, exc
        return None

    async def _offer(self) -> None:
        """Hand the trial's place to the first waiter; wait until it has decided, or handed it back."""
        cell, loop = self._cell, asyncio.get_running_loop()
        assert self._awake is not None  # noqa: S101 - set by whoever made this task
        self._awake.clear()
        if cell.trial.offer(loop.time()):
            cell.waiters.release(1)
        handle = loop.call_later(ramp.SPACING_S * 10, self._awake.set)
        try:
            await self._awake.wait()
        finally:
            handle.cancel()

    async def _ramp(self) -> None:
        """Let those who wait now go, evenly spaced; stop at once when the dependency is down again."""
        cell, loop = self._cell, asyncio.get_running_loop()
        waiters, released, started_at = len(cell.waiters), 0, loop.time()
        while released < waiters and cell.waiters and cell.health.state is not State.DOWN:
            due = ramp.due(waiters, loop.time() - started_at)
            if due > released:
                cell.waiters.release(due - released)
                released = due
            if released < waiters:
                await asyncio.sleep(max(0.0, started_at + ramp.next_at_s(waiters, released) - loop.time()))
