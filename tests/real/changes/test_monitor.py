"""Watching a slot on a real server until it is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

import outlast
from outlast.changes._slot.monitor import Monitor
from outlast.changes._slot.watch import Report, SlotState, Thresholds
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync

SETTINGS = {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "16MB",
    "wal_keep_size": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "32MB",
    "checkpoint_timeout": "30s",
}
WRITE = "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 8000))) FROM generate_series(1, 128)"
"""About 1 MiB of WAL that no table has to hold."""


@pytest.fixture
def small() -> Iterator[PostgresServer]:
    with PostgresServer(settings=SETTINGS) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("CREATE PUBLICATION pub")
            conn.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
        yield server


def test_warned_with_the_time_to_loss_then_lost_once(
    small: PostgresServer, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    """A writer of 5 MB/s, 16 MB kept, and nobody reads: attached to a service, as a user would."""
    caplog.set_level("INFO", "outlast.changes")

    async def main() -> list[Report]:
        db = Postgres(small.dsn(), connections_max=2)
        reports: list[Report] = []
        service = outlast.Service("shop")
        monitor = Monitor(db, "slot")
        monitor.attach(service, every_s=5.0)

        @service.loop(needs=db)
        async def write(stop: outlast.Stop) -> None:
            async with db.connection() as conn:
                await conn.execute(WRITE)
            if monitor.report is not None and (not reports or reports[-1] is not monitor.report):
                reports.append(monitor.report)
            if monitor.state is SlotState.LOST:
                await stop.sleep(1.0)
                service.stop("seen enough")
            await stop.sleep(0.2)

        await service.run()
        return reports

    reports = run_async(main)
    lines = [record for record in caplog.records if record.name == "outlast.changes"]
    assert [record.levelname for record in lines] == ["WARNING", "ERROR"], caplog.text
    assert "slot slot will be lost in about" in lines[0].getMessage()
    assert "SELECT pg_drop_replication_slot('slot')" in lines[1].getMessage()
    warned = next(report for report in reports if report.state is SlotState.ENDANGERED)
    assert warned.loss_s is not None
    assert warned.loss_s > 0
    assert warned.sample.wal_status in {"reserved", "extended"}, "before the server itself sees danger"
    assert reports[-1].sample.wal_status == "lost"


def test_a_missing_slot_and_one_that_comes_back(small: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(small.dsn())
        told: list[Report] = []
        monitor = Monitor(db, "other", on_change=told.append, thresholds=Thresholds(lag_s=(1e6, 1e6)))
        assert monitor.state is SlotState.UNKNOWN
        assert (await monitor.sample()).state is SlotState.LOST
        assert (await monitor.sample()).announced is None
        async with db.connection() as conn:
            await conn.execute("SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
        report = await monitor.sample()
        assert (report.state, report.announced) == (SlotState.OK, SlotState.LOST)
        assert report.sample.limit_bytes == 16 * 1024 * 1024
        assert report.sample.safe_bytes is not None
        assert report.sample.standbys is None
        assert [each.state for each in told] == [SlotState.LOST, SlotState.OK]
        await db.close()

    run_async(main)


def test_standbys_are_counted(small: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(small.dsn())
        for key in (-(2**63), -5, 7, 2**33 + 1, 2**63 - 1):
            monitor = Monitor(db, "slot", lock_key=key)
            holder, waiter = await db.connect(), await db.connect()
            await holder.execute("SELECT pg_advisory_lock(%s)", (key,))
            assert (await monitor.sample()).sample.standbys == 0
            waiting = asyncio.create_task(waiter.execute("SELECT pg_advisory_lock(%s)", (key,)))
            while (await monitor.sample()).sample.standbys != 1:
                await asyncio.sleep(0.02)
            await holder.close()
            await waiting
            await waiter.close()
        await db.close()

    run_async(main)


@pytest.mark.expected_logs("postgres is down")
def test_without_the_server_nothing_is_known(small: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(small.dsn())
        monitor = Monitor(db, "slot", on_change=lambda report: None)
        await monitor.sample()
        small.stop("immediate")
        with pytest.raises((psycopg.OperationalError, outlast.Unavailable)):
            await monitor.sample()
        assert monitor.state is SlotState.UNKNOWN
        await db.close()

    run_async(main)


def test_an_interval_that_cannot_work() -> None:
    with pytest.raises(outlast.ConfigurationError, match="every_s must be above 0"):
        Monitor(Postgres("postgresql://localhost/x"), "slot").attach(outlast.Service("shop"), every_s=0)
