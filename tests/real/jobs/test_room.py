"""A queue whose server has no room for what handlers write: told once, paid for by no job, done when there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from worked_queue import on_queue, settled, until, working

from outlast.jobs import Job, Jobs
from outlast.jobs import _decide as decide

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.expected_logs
FULL = """
CREATE TABLE orders (id int);
CREATE FUNCTION "full"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER "full" BEFORE INSERT ON orders EXECUTE FUNCTION "full"()
"""


def test_a_full_tablespace_is_told_once_and_costs_no_job_an_attempt(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "ROOM_S", 0.2)
    refused = 0

    async def test(jobs: Jobs) -> None:
        @jobs.handler("insert", attempts_max=2)
        async def insert(job: Job) -> None:
            nonlocal refused
            async with jobs.db.connection() as conn:
                refused += 1
                await conn.execute("INSERT INTO orders VALUES (1)")

        @jobs.handler("read")
        async def read(job: Job) -> None:
            async with jobs.db.connection() as conn:
                await conn.execute("SELECT 1")

        async def often() -> bool:
            return refused > 20

        async def others_done() -> bool:
            return (await jobs.counts()).get("default", {}).get("done", 0) == 50

        for _ in range(5):
            await jobs.enqueue("insert")
        for _ in range(50):
            await jobs.enqueue("read")
        async with working(jobs, workers=4):
            await until(often)
            await until(others_done)
            async with jobs.db.connection() as conn:
                await conn.execute('DROP TRIGGER "full" ON orders')
            await until(lambda: settled(jobs))
        assert {(record.state.value, record.attempt) for record in await jobs.list()} == {("done", 1)}
        assert jobs.db.epoch == 0

    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(FULL.encode())
    on_queue(database, tmp_path, test)
    told = [record.message for record in caplog.records if "53100" in record.message]
    assert len(told) == 1, told
