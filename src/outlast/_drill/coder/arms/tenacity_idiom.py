"""The arm *tenacity*: the same service with the decorators that tenacity's documentation shows.

Exponential waits with jitter from 1 s (the default) up to 10 s, a log line before each sleep, a fresh state for every
call. The cap is ours: without it the last wait before the server is back could be as long as the outage.
"""

from __future__ import annotations

import asyncio
import logging

from tenacity import before_sleep_log, retry, wait_exponential_jitter

from outlast._drill.coder.arms import ledger, plain_queue
from outlast._drill.coder.arms.dialing_pool import DialingPool
from outlast._drill.lab.arm.service import POLL_S, PlainService

WAIT_S_MAX = 10.0

log = logging.getLogger("tenacity")

patiently = retry(wait=wait_exponential_jitter(max=WAIT_S_MAX), before_sleep=before_sleep_log(log, logging.WARNING))


@patiently
async def acquire(pool: DialingPool, loop: int) -> int | None:
    """Take the next job, however long it takes."""
    return await plain_queue.acquire(pool, loop)


@patiently
async def complete(pool: DialingPool, job: int) -> None:
    """Record the result, however long it takes."""
    await plain_queue.complete(pool, job)


@patiently
async def enter(pool: DialingPool) -> None:
    """Count and enter a line, however long it takes."""
    async with pool.connection() as conn:
        await ledger.write(conn)


class Tenacity(PlainService):
    """Job loops whose calls are retried forever."""

    def __init__(self) -> None:
        super().__init__("tenacity")
        self.pool = DialingPool(self.settings.dsn)

    async def acquire_loop(self, loop: int) -> None:
        """Acquire, work, complete."""
        while not self.stopping.is_set():
            job = await acquire(self.pool, loop)
            if job is None:
                await self.sleep(POLL_S)
                continue
            await self.work(loop, job)
            await complete(self.pool, job)

    async def ledger_loop(self) -> None:
        """Count and enter lines."""
        while not self.stopping.is_set():
            await enter(self.pool)
            await self.sleep(ledger.PAUSE_S)


async def main() -> None:
    """Run the arm until SIGTERM."""
    service = Tenacity()
    await service.run(service.acquire_loop, *[service.ledger_loop] * ledger.LOOPS)


if __name__ == "__main__":
    asyncio.run(main())
