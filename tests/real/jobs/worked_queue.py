"""A queue on a database, and a service that works it off in this process, for the tests of the queue."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import outlast
from outlast.jobs import Jobs, JobState
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path
    from typing import Any


def on_queue(database: str, directory: Path, test: Callable[[Jobs], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run `test` on a migrated queue."""

    async def main() -> None:
        db = Postgres(database)
        jobs = Jobs(db, journal_path=directory / "journal", **options)
        await jobs.migrate()
        try:
            await test(jobs)
        finally:
            await db.close()

    asyncio.run(main())


@contextlib.asynccontextmanager
async def working(jobs: Jobs, workers: int = 1) -> AsyncIterator[None]:
    """Have a service work the queue off for the time of the block."""
    service, stop = outlast.Service("worker", deadline_s=2.0), outlast.Stop()
    jobs.work(service, workers=workers)
    running = asyncio.create_task(service.run(stop))
    try:
        yield
    finally:
        stop.fire("test")
        await running


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], limit_s: float = 60.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.01)


async def left(jobs: Jobs, *ids: int) -> bool:
    """Whether these are all of the default queue that is not finished."""
    states = {JobState.AVAILABLE, JobState.RUNNING}
    return {record.id for record in await jobs.list(queue="default") if record.state in states} == set(ids)


async def settled(jobs: Jobs) -> bool:
    """Whether nothing is left to be done."""
    return not {"available", "running"} & (await jobs.counts()).get("default", {}).keys()
