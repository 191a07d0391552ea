"""Procedures in a service on a FakeStore, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from outlast import Service, Stop
from outlast.procedures import Procedure, Procedures, Run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from fake_procedure_store import FakeStore


class Served:
    """A runner in a service of its own."""

    def __init__(self, system: Procedures, deadline_s: float = 10.0) -> None:
        self.system = system
        self.service = Service("work", deadline_s=deadline_s)
        system.attach(self.service)
        self.runner = system._desk.runner
        self.stop = Stop()
        self.task: asyncio.Task[int] | None = None

    async def start(self) -> None:
        self.task = asyncio.create_task(self.service.run(self.stop))
        await self.service.until_ready()

    async def end(self) -> int:
        self.stop.fire("the test says so")
        assert self.task is not None
        return await self.task


def served_by(store: FakeStore, procedures: Sequence[Procedure], path: Path, deadline_s: float = 10.0, **settings: Any) -> Served:
    """A runner that is not started yet."""
    return Served(Procedures(store, procedures, journal_path=path, **settings), deadline_s)


@asynccontextmanager
async def served(store: FakeStore, procedures: Sequence[Procedure], path: Path, **settings: Any) -> AsyncIterator[Procedures]:
    """A runner in a service, from its start to the end of its stop."""
    runs = served_by(store, procedures, path / "journal", **settings)
    await runs.start()
    try:
        yield runs.system
    finally:
        assert await runs.end() == 0


def one_step(name: str, function: Callable[[Run], Awaitable[Any]], **settings: Any) -> Procedure:
    """A procedure of one step."""
    procedure = Procedure(name, **settings)
    procedure.step(name="do")(function)
    return procedure
