"""The arm *naive*: the service of the incident as it was.

Job loops ask again at once when asking failed, and log every failure. The session controller has a backoff, and
resets it after a dial and a pre-check that do not touch the database, so it never backs off either.
"""

from __future__ import annotations

import asyncio

from outlast._drill.coder.arms import ledger
from outlast._drill.coder.arms.dialing_pool import DialingPool
from outlast._drill.coder.arms.plain_queue import acquire, complete
from outlast._drill.lab.arm.service import POLL_S, PlainService, one_line

HEARTBEAT_S = 1.0
RETRY_S_MIN = 0.05
RETRY_S_MAX = 10.0


class Naive(PlainService):
    """Job loops without a backoff, and a controller whose backoff is reset by a pre-check."""

    def __init__(self) -> None:
        super().__init__("naive")
        self.pool = DialingPool(self.settings.dsn)

    async def acquire_loop(self, loop: int) -> None:
        """Acquire, work, complete; on failure log and go round again."""
        while not self.stopping.is_set():
            try:
                job = await acquire(self.pool, loop)
            except Exception as exc:  # noqa: BLE001  what the service of the incident did
                self.log.error("acquire job: loop %d: %s", loop, one_line(exc))  # noqa: TRY400
                continue
            if job is None:
                await self.sleep(POLL_S)
                continue
            await self.work(loop, job)
            try:
                await complete(self.pool, job)
            except Exception as exc:  # noqa: BLE001  what the service of the incident did
                self.log.error("complete job %d: %s", job, one_line(exc))  # noqa: TRY400

    async def ledger_loop(self) -> None:
        """Count and enter lines; on failure log and go round again."""
        while not self.stopping.is_set():
            try:
                async with self.pool.connection() as conn:
                    await ledger.write(conn)
            except Exception as exc:  # noqa: BLE001  what the service of the incident did
                self.log.error("ledger: %s", one_line(exc))  # noqa: TRY400
                continue
            await self.sleep(ledger.PAUSE_S)

    async def controller(self) -> None:
        """Keep a session to the coordinator; its retrier is reset too early, which is the incident."""
        retry_s = 0.0
        while not self.stopping.is_set():
            await asyncio.sleep(retry_s)
            retry_s = min(RETRY_S_MAX, max(RETRY_S_MIN, retry_s * 2))
            self.log.info("controller: dialling the coordinator")
            # Dial and pre-check are answered by the coordinator itself: they pass while the database is away.
            retry_s = 0.0
            try:
                async with self.pool.connection() as conn:
                    await conn.execute("SELECT 1")
                await self.sleep(HEARTBEAT_S)
            except Exception as exc:  # noqa: BLE001  what the service of the incident did
                self.log.error("controller: coordinate: %s", one_line(exc))  # noqa: TRY400


async def main() -> None:
    """Run the arm until SIGTERM."""
    service = Naive()
    await service.run(service.acquire_loop, service.controller, *[service.ledger_loop] * ledger.LOOPS)


if __name__ == "__main__":
    asyncio.run(main())
