"""The arm *coder-fixed*: the service of the incident after its fix.

Each loop has a backoff of its own: 10 ms to 1 s, factor 1.618, no jitter, back to 10 ms after one success. A failure
is two warnings, one from the call and one from the loop. The result of a job is still written once, without a retry:
the fix was about acquiring.
"""

from __future__ import annotations

import asyncio

from outlast._drill.coder.arms import ledger
from outlast._drill.coder.arms.dialing_pool import DialingPool
from outlast._drill.coder.arms.plain_queue import acquire, complete
from outlast._drill.lab.arm.service import POLL_S, PlainService, one_line

RETRY_S_MIN = 0.01
RETRY_S_MAX = 1.0
RETRY_FACTOR = 1.618
HEARTBEAT_S = 1.0


class Retrier:
    """Exponential waits without jitter; `reset` goes back to the first."""

    def __init__(self) -> None:
        self._wait_s = RETRY_S_MIN

    def next_s(self) -> float:
        """Return the next wait, in seconds."""
        wait_s, self._wait_s = self._wait_s, min(RETRY_S_MAX, self._wait_s * RETRY_FACTOR)
        return wait_s

    def reset(self) -> None:
        """Start again."""
        self._wait_s = RETRY_S_MIN


class CoderFixed(PlainService):
    """Job loops with a backoff each, and a controller that asks the database before it resets its own."""

    def __init__(self) -> None:
        super().__init__("coder-fixed")
        self.pool = DialingPool(self.settings.dsn)

    async def acquire_loop(self, loop: int) -> None:
        """Acquire, work, complete; on failure wait a little longer each time."""
        retrier = Retrier()
        while not self.stopping.is_set():
            try:
                job = await acquire(self.pool, loop)
            except Exception as exc:  # noqa: BLE001  what the fixed service does
                await self._back_off("acquire job", loop, exc, retrier)
                continue
            retrier.reset()
            if job is None:
                await self.sleep(POLL_S)
                continue
            await self.work(loop, job)
            try:
                await complete(self.pool, job)
            except Exception as exc:  # noqa: BLE001  what the fixed service does
                self.log.warning("complete job %d: %s", job, one_line(exc))

    async def ledger_loop(self) -> None:
        """Count and enter lines."""
        retrier = Retrier()
        while not self.stopping.is_set():
            try:
                async with self.pool.connection() as conn:
                    await ledger.write(conn)
            except Exception as exc:  # noqa: BLE001  what the fixed service does
                await self._back_off("ledger", self.settings.loops, exc, retrier)
                continue
            retrier.reset()
            await self.sleep(ledger.PAUSE_S)

    async def controller(self) -> None:
        """Keep a session to the coordinator, which now pings the database when it is dialled."""
        retrier = Retrier()
        while not self.stopping.is_set():
            try:
                async with self.pool.connection() as conn:
                    await conn.execute("SELECT 1")
            except Exception as exc:  # noqa: BLE001  what the fixed service does
                await self._back_off("controller: dial", self.settings.loops, exc, retrier)
                continue
            retrier.reset()
            await self.sleep(HEARTBEAT_S)

    async def _back_off(self, what: str, loop: int, exc: Exception, retrier: Retrier) -> None:
        wait_s = retrier.next_s()
        self.log.warning("%s: loop %d: %s", what, loop, one_line(exc))
        self.log.warning("%s: loop %d failed, trying again in %.3f s", what, loop, wait_s)
        await self.sleep(wait_s)


async def main() -> None:
    """Run the arm until SIGTERM."""
    service = CoderFixed()
    await service.run(service.acquire_loop, service.controller, *[service.ledger_loop] * ledger.LOOPS)


if __name__ == "__main__":
    asyncio.run(main())
