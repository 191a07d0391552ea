"""The one task that asks whether a dependency is back, and then lets its waiters go over a ramp."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from outlast.core import ramp
from outlast.core.faults import attach
from outlast.core.health import State

if TYPE_CHECKING:
    from outlast.runtime.dependency.dependency import Dependency


class Prober:
    """Exists as a task only while the dependency is not up. It is its own task on purpose: a caller that is
    cancelled can neither lose the probe nor be evidence.
    """

    def __init__(self, dependency: Dependency) -> None:
        """Belong to one dependency."""
        self._dependency = dependency
        self._task: asyncio.Task[None] | None = None
        self._awake: asyncio.Event | None = None

    def ensure(self) -> None:
        """Have the task running, unless the service is stopping. On the event loop's thread."""
        if self._dependency.is_stopping or (self._task is not None and not self._task.done()):
            return
        loop = asyncio.get_running_loop()
        self._awake = asyncio.Event()
        self._task = loop.create_task(self._run(), name=f"outlast prober {self._dependency.name}")

    def wake(self) -> None:
        """Look again now: the trial's place was given back."""
        if self._awake is not None:
            self._awake.set()

    def cancel(self) -> None:
        """End it: nothing is asked any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        dependency = self._dependency
        while dependency.waiting or (dependency.state is State.DOWN and dependency.has_probe):
            if dependency.state is not State.DOWN:
                await self._ramp()
            elif (delay_s := self._delay_s()) > 0:
                await asyncio.sleep(delay_s)
            elif dependency.has_probe:
                await self._ask()
            else:
                await self._offer()

    def _delay_s(self) -> float:
        due_at = self._dependency.health.probe_at
        return 0.0 if due_at is None else due_at - asyncio.get_running_loop().time()

    async def _ask(self) -> None:
        dependency = self._dependency
        try:
            async with asyncio.timeout(dependency.probe_timeout_s):
                await dependency.probe()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            fault = dependency.classifiers.classify(exc, source=dependency.name, phase="probe")
            attach(exc, fault)
            dependency.probe_failed(fault, exc)
        else:
            dependency.probe_passed()

    async def _offer(self) -> None:
        """Give the trial's place to the first waiter; wait until it has decided, or gave it back."""
        dependency, loop = self._dependency, asyncio.get_running_loop()
        assert self._awake is not None  # noqa: S101 - set by whoever made this task
        self._awake.clear()
        if dependency.trial.offer(loop.time()):
            dependency.release(1)
        handle = loop.call_later(ramp.SPACING_S * 10, self._awake.set)
        try:
            await self._awake.wait()
        finally:
            handle.cancel()

    async def _ramp(self) -> None:
        """Let those who wait now go, evenly spaced; stop at once when the dependency is down again."""
        dependency, loop = self._dependency, asyncio.get_running_loop()
        waiters, released, started_at = dependency.waiting, 0, loop.time()
        while released < waiters and dependency.waiting and dependency.state is not State.DOWN:
            due = ramp.due(waiters, loop.time() - started_at)
            if due > released:
                dependency.release(due - released)
                released = due
            if released < waiters:
                await asyncio.sleep(max(0.0, started_at + ramp.next_at_s(waiters, released) - loop.time()))
