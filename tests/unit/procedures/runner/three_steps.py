"""A procedure of three steps with undos, which writes down all that is done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from outlast.procedures import Procedure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.procedures import Run, StepOutcome

NAMES = ("one", "two", "three")


class World:
    """The effects of steps and undos, each under its idempotency key, and a place to wait in."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []
        self.outcomes: list[bool] = []
        self.inside: asyncio.Event = asyncio.Event()
        self.stay_in: str = ""
        """The step, or "undo two", in which everyone stays until `go`."""
        self.go = asyncio.Event()
        self.running = self.running_max = 0

    async def pass_through(self, name: str) -> None:
        if name == self.stay_in:
            self.inside.set()
            await self.go.wait()


def three_steps(world: World, kind: str = "three") -> Procedure:
    procedure = Procedure(kind)
    for name in NAMES:
        step = procedure.step(name=name)(_step(world, name))
        step.undo(_undo(world, name))
    return procedure


def _step(world: World, name: str) -> Callable[[Run], Awaitable[str]]:
    async def do(run: Run) -> str:
        world.running += 1
        world.running_max = max(world.running, world.running_max)
        try:
            await world.pass_through(name)
        finally:
            world.running -= 1
        world.done.append(name)
        world.keys.append(run.idempotency_key)
        return f"{name} of {run.key}"

    return do


def _undo(world: World, name: str) -> Callable[[Run, StepOutcome], Awaitable[None]]:
    async def undo(run: Run, outcome: StepOutcome) -> None:
        await world.pass_through(f"undo {name}")
        world.done.append(f"undo {name}")
        world.keys.append(run.idempotency_key)
        world.outcomes.append(outcome.known)

    return undo
