"""A server that is killed, read-only, or stopped while points are written: what was acknowledged is there, and nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest
from table_store_rig import INTEGER, group, ids, read, shape, write

from outlast import Unavailable
from outlast.postgres import Postgres
from outlast.tables._stores.postgres import PostgresStore
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from conftest import RunAsync

WRITERS = 3
ROWS = 20
pytestmark = pytest.mark.expected_logs("is down", "still down", "postgres: also")


class Writer:
    """Writes batches of points to a table, each again until it is acknowledged: the same point a second time is no second one."""

    def __init__(self, store: PostgresStore, number: int) -> None:
        self.store = store
        self.name = f"t{number}"
        self.sent = 0
        self.acknowledged = 0

    async def write(self) -> None:
        """Write until it is cancelled."""
        record = await shape(self.store, self.name, v=INTEGER)
        [series] = await ids(self.store, record, ())
        while True:
            rows = [[series, self.sent * ROWS + each, self.sent] for each in range(ROWS)]
            self.sent += 1
            while True:
                try:
                    await write(self.store, group(record, "v", *rows))
                except (psycopg.Error, Unavailable):
                    await self.store.dependency.ready()
                else:
                    self.acknowledged = self.sent
                    break


async def killed(server: PostgresServer, kills: int) -> None:
    db = Postgres(server.dsn())
    store = PostgresStore(db)
    await store.open()
    writers = [Writer(store, number) for number in range(WRITERS)]
    tasks = [asyncio.create_task(writer.write()) for writer in writers]
    try:
        for _ in range(kills):
            goal = [writer.acknowledged + 5 for writer in writers]
            while any(writer.acknowledged < least for writer, least in zip(writers, goal, strict=True)):
                assert not any(task.done() for task in tasks)
                await asyncio.sleep(0.005)
            await asyncio.to_thread(server.kill)
            told = [writer.acknowledged for writer in writers]
            await asyncio.to_thread(server.start)
            await db.ready(30.0)
            for writer, count in zip(writers, told, strict=True):
                found = Counter(fields["v"] for _, _, fields in await read(store, writer.name))
                assert set(found) >= set(range(count)), "what was acknowledged is there"
                assert set(found.values()) == {ROWS}, "whole, and once"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await db.close()


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(run_async: RunAsync) -> None:
    # A server that acknowledges before it has written, unless a session says otherwise.
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "0"}
    with PostgresServer(settings=settings) as server:
        run_async(lambda: killed(server, 2))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_often(run_async: RunAsync) -> None:
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "0"}
    with PostgresServer(settings=settings) as server:
        run_async(lambda: killed(server, 40), limit_s=800.0)


def test_a_server_that_is_read_only_is_away_for_writers(server: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(server.dsn())
        store = PostgresStore(db)
        await store.open()
        record = await shape(store, v=INTEGER)
        [series] = await ids(store, record, ())
        await write(store, group(record, "v", [series, 1, 1]))
        server.settings["default_transaction_read_only"] = "on"
        await asyncio.to_thread(server.restart)
        for _ in range(3):
            with pytest.raises((psycopg.Error, Unavailable)) as refusal:
                await write(store, group(record, "v", [series, 2, 2]))
        assert isinstance(refusal.value, Unavailable)
        assert refusal.value.retry_after_s is not None
        with pytest.raises(Unavailable):
            await shape(store, "mem", v=INTEGER)
        server.settings["default_transaction_read_only"] = "off"
        await asyncio.to_thread(server.restart)
        await db.ready(30.0)
        await write(store, group(record, "v", [series, 2, 2]))
        assert [time for _, time, _ in await read(store)] == [1, 2]
        await db.close()

    run_async(main)
