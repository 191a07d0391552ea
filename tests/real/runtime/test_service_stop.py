"""SIGTERM while PostgreSQL is well, stopped, frozen or in backoff: out in time, with exit code 0, and no attempt after it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stop_rounds import Shop

from outlast.jobs import Jobs, NewJob
from outlast.postgres import Postgres
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOP = Path(__file__).parent / "shop.py"


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


def prepare(dsn: str) -> None:
    async def main() -> None:
        db = Postgres(dsn)
        jobs = Jobs(db)
        await jobs.migrate()
        await jobs.enqueue_many([NewJob("sleep", {"seconds": 0.05}) for _ in range(3_000)])
        await db.close()

    asyncio.run(main())


def start(dsn: str, journal: Path) -> Shop:
    """How soon it is out after a signal, `bench/stop.py` measures."""
    shop = Shop(argv=[sys.executable, str(SHOP)], env={"SHOP_DSN": dsn, "SHOP_JOURNAL": str(journal)})
    shop.until("shop started")
    return shop


def until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def works(server: PostgresServer) -> bool:
    import psycopg

    with psycopg.connect(server.dsn()) as conn:
        row = conn.execute("SELECT count(*) FROM outlast.jobs WHERE state = 'done'").fetchone()
    return row is not None and row[0] > 100


def nothing(server: PostgresServer) -> None:
    assert server.running


def stopped(server: PostgresServer) -> None:
    server.stop()


def crashed(server: PostgresServer) -> None:
    server.kill()


def recovering(server: PostgresServer) -> None:
    server.stop()
    time.sleep(2)
    server.start()


def frozen(server: PostgresServer) -> None:
    server.freeze()


@pytest.mark.parametrize(
    ("fault", "then_s"),
    [
        pytest.param(nothing, 0.0, marks=pytest.mark.short),
        pytest.param(stopped, 0.0, marks=pytest.mark.short),
        (stopped, 4.0),
        (crashed, 0.5),
        (recovering, 0.0),
        (recovering, 0.3),
        (frozen, 0.2),
        (frozen, 12.0),
    ],
    ids=["well", "just stopped", "in backoff", "crashed", "just recovering", "recovering", "frozen unnoticed", "frozen and down"],
)
def test_sigterm_ends_the_process_in_time(
    server: PostgresServer,
    proxy: FaultProxy,
    tmp_path: Path,
    fault: Callable[[PostgresServer], None],
    then_s: float,
) -> None:
    prepare(server.dsn())
    shop = start(server.dsn(port=proxy.port), tmp_path / "journal")
    try:
        until(lambda: works(server))
        fault(server)
        time.sleep(then_s)
        signalled_at = shop.signal(signal.SIGTERM)
        shop.until("shop stops within")
        # A dial that was under way when the signal was seen is not an attempt after it.
        seen_at = time.monotonic() + 0.2
        ended = shop.end(signalled_at)
    finally:
        shop.process.kill()
        server.thaw()
    said = ended.said
    assert ended.code == 0, said
    # A statement that the stop gives up on is given up on the server, too, with a cancel request: that is none.
    cancels = int(said.rpartition("cancel requests: ")[2])
    assert proxy.since(seen_at) <= cancels
    assert "ERROR" not in said
    assert "CRITICAL" not in said
    assert "shop stopped in" in said


@pytest.mark.short
def test_jobs_that_were_running_at_the_stop_keep_their_attempts(
    server: PostgresServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    async def enqueue() -> None:
        db = Postgres(server.dsn())
        jobs = Jobs(db)
        await jobs.migrate()
        await jobs.enqueue_many([NewJob("sleep", {"seconds": 60}) for _ in range(20)])
        await db.close()

    async def look() -> list[tuple[str, int]]:
        db = Postgres(server.dsn())
        found = [(job.state.value, job.attempt) for job in await Jobs(db).list()]
        await db.close()
        return found

    asyncio.run(enqueue())
    shop = start(server.dsn(port=proxy.port), tmp_path / "journal")
    try:
        until(lambda: [state for state, _ in asyncio.run(look())].count("running") == 20)
        ended = shop.end(shop.signal(signal.SIGTERM))
    finally:
        shop.process.kill()
    assert ended.code == 0, ended.said
    assert asyncio.run(look()) == [("available", 0)] * 20
