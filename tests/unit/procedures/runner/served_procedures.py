"""Procedures in a service on a FakeStore, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from outlast import Service, Stop
from outlast.procedures import Procedure, Procedures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from fake_procedure_store import FakeStore


@asynccontextmanager
async def served(store: FakeStore, procedures: Sequence[Procedure], path: Path, **settings: Any) -> AsyncIterator[Procedures]:
    """A service that runs these procedures, from its start to the end of its stop."""
    system = Procedures(store, procedures, journal_path=path / f"{id(store)}.journal", **settings)
    service = Service("work", deadline_s=10.0)
    system.attach(service)
    stop = Stop()
    running = asyncio.create_task(service.run(stop))
    await service.until_ready()
    try:
        yield system
    finally:
        stop.fire("the test is over")
        assert await running == 0
