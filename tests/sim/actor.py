"""Carries out what a body was drawn to do, and raises the faults that were drawn for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import outlast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.sim.shape import Act, FaultPlan
    from tests.sim.world import ServiceRecord, World


class Actor:
    """One run of a tree of acts, by a body or a request handler."""

    def __init__(self, world: World, service: ServiceRecord, name: str, faults: list[FaultPlan]) -> None:
        self.world = world
        self.service = service
        self.name = name
        self.faults = faults

    async def act(self, act: Act, stop: outlast.Stop) -> None:
        match act.kind:
            case "seq":
                for inner in act.inner:
                    await self.act(inner, stop)
            case "timeout":
                async with stop.timeout(act.seconds):
                    await self.act(act.inner[0], stop)
            case "gate":
                await self._inside(act, stop)
            case "group":
                await self._together(act.inner, stop)
            case "cleanup":
                await self._cleaned_up(act, stop)
            case "deaf":
                try:
                    await self.act(act.inner[0], stop)
                except asyncio.CancelledError:
                    await self.world.ignore(act.seconds)
            case _:
                await self._leaf(act, stop)

    async def _leaf(self, act: Act, stop: outlast.Stop) -> None:
        try:
            await self._wait(act, stop)
        except outlast.Stopping:
            self.raise_due("stopping")
            raise
        except asyncio.CancelledError:
            self.raise_due("cancelled")
            raise
        self.raise_due("leaf")

    async def _wait(self, act: Act, stop: outlast.Stop) -> None:
        match act.kind:
            case "sleep":
                await stop.sleep(act.seconds or 0.0)
            case "until":
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                timer = loop.call_later(act.seconds or 0.0, _done, future)
                try:
                    await stop.until(future)
                finally:
                    timer.cancel()
            case "wait":
                await stop.wait()
                if not stop.requested:
                    self.world.trace.violation("a", f"{self.name} was woken by a stop that is not requested")
            case "plain":
                await self.world.pass_time(act.seconds)
            case "call":
                await self._call(act, stop)

    async def _call(self, act: Act, stop: outlast.Stop) -> None:
        dependency = self.world.dependencies[act.peer]
        if not act.heeds_stop:
            async with stop.timeout(act.seconds), dependency.use():
                await dependency.peer.call()
            return
        async with dependency.use():
            try:
                async with asyncio.timeout(act.seconds):
                    await dependency.peer.call()
            except TimeoutError:
                self.world.timeouts_inside += 1
                raise

    async def _inside(self, act: Act, stop: outlast.Stop) -> None:
        owner = self.service if act.gate == "own" else self.service.parent or self.service
        async with owner.service.gate.enter(self.name):
            if owner.requested:
                self.world.trace.violation("b", f"{self.name} entered the gate of {owner.plan.name} after its stop")
            await self.act(act.inner[0], stop)

    async def _together(self, acts: Iterable[Act], stop: outlast.Stop) -> None:
        async with asyncio.TaskGroup() as group:
            for number, act in enumerate(acts):
                group.create_task(self.act(act, stop), name=f"{self.name}/{number}")

    async def _cleaned_up(self, act: Act, stop: outlast.Stop) -> None:
        try:
            await self.act(act.inner[0], stop)
        finally:
            if act.heeds_stop:
                await stop.sleep(act.seconds or 0.0)
            else:
                await asyncio.sleep(act.seconds or 0.0)
            self.raise_due("finally")

    def raise_due(self, place: str) -> None:
        """Raise the fault that was drawn for this place, if its time has come."""
        for fault in self.faults:
            if fault.place == place and self.world.trace.now >= fault.after_s and not self.world.healed:
                self.faults.remove(fault)
                raise self.world.raising(fault.kind, f"{self.name} ({place})")


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
