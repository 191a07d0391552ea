"""A loop that catches every refusal and comes back at once, against a real server that goes away and comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from outlast.testing import PostgresServer

pytestmark = pytest.mark.expected_logs
LIMIT_S = 60.0


@pytest.mark.short
def test_a_task_that_spins_around_its_refusals_does_not_keep_the_outage_from_ending(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It used to keep the event loop, so that nobody asked whether the server was back."""

    async def main() -> tuple[int, int]:
        db = Postgres(server.dsn(), name="db")
        service, stop = outlast.Service("shop"), outlast.Stop()
        refusals = done = 0

        @service.task()
        async def poll(stop: outlast.Stop) -> None:
            nonlocal refusals, done
            while not stop.requested:
                try:
                    async with db.connection() as conn:
                        await conn.execute("SELECT pg_sleep(0.01)")
                        done += 1
                except Exception:  # noqa: BLE001 - the mistake that is tested
                    refusals += 1

        async def until_done(count: int) -> None:
            async with asyncio.timeout(LIMIT_S):
                while done < count:
                    await asyncio.sleep(0.01)

        service.needs(db)
        running = asyncio.create_task(service.run(stop))
        await until_done(3)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(3)
        seen = refusals
        await asyncio.to_thread(server.start)
        await until_done(done + 3)
        stop.fire("test")
        assert await running == 0
        return seen, db.epoch

    refusals, epoch = asyncio.run(main())
    assert 3 <= refusals <= 60, "a hundred thousand a second before"
    assert epoch >= 1
    assert "task poll spins: db is down" in caplog.text
