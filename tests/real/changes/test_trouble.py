"""What goes wrong with a stream: a sink that refuses, a slot that is missing or lost, and what follows: once, and told once."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING

import pytest
from changes_source import ITEM, LOGICAL, Memory, ask, insert, running, source_database, streams, until

import outlast
from outlast.changes import DeliveryPolicy, JsonLinesSink, PostgresSink, Quarantine, SourcePolicy, drop_slot
from outlast.changes._slot.watch import SlotState
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunAsync


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    """One server for the tests of this file that break none."""
    with PostgresServer(settings=LOGICAL) as server:
        yield server


@pytest.fixture
def source(logical: PostgresServer) -> Iterator[str]:
    with source_database(logical) as dsn:
        yield dsn


@pytest.fixture
def warehouse(database: str) -> str:
    ask(database, ITEM)
    return database


# What the sink refuses.


def tricky(database: str) -> None:
    ask(database, "ALTER TABLE item ADD CHECK (name <> 'bad')")


@pytest.mark.expected_logs("refused", "skipped")
def test_a_poison_transaction_is_quarantined_and_passed_over(
    source: str, warehouse: str, run_async: RunAsync, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tricky(warehouse)
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")

    async def main() -> None:
        sink = PostgresSink(Postgres(warehouse, name="warehouse"))
        async with running(source, sink, delivery=DeliveryPolicy(poison="skip", quarantine=quarantine)) as changes:
            await streams(source)
            await insert(source, 1)
            await asyncio.to_thread(ask, source, "INSERT INTO item VALUES (2, 'bad', 4711), (3, 'good', 1)")
            await insert(source, 4)
            kept = "SELECT id FROM item ORDER BY id"
            async with asyncio.timeout(60):
                while await asyncio.to_thread(ask, warehouse, kept) != [(1,), (4,)]:
                    await asyncio.sleep(0.05)
            assert changes.poison.skipped == 1
            assert changes.link.sessions == 4

    run_async(main)
    lines = [json.loads(line) for line in quarantine.path.read_text(encoding="utf-8").splitlines()]
    assert [line["op"] for line in lines] == ["refused", "insert", "insert", "commit"]
    assert lines[0]["fault"] == "23514"
    assert lines[1]["new"] == {"id": "2", "name": "bad", "amount": "4711"}
    assert quarantine.path.stat().st_mode & 0o777 == 0o600
    assert "4711" not in caplog.text
    assert caplog.text.count("skipped transaction") == 1


@pytest.mark.expected_logs("refused")
def test_a_flush_that_fails_is_found_out_one_by_one(source: str, warehouse: str, run_async: RunAsync, tmp_path: Path) -> None:
    """A constraint that is checked at the commit: the sink cannot say which of several transactions it was."""
    deferred = "ALTER TABLE item ADD CONSTRAINT name UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"
    ask(warehouse, deferred)

    async def main() -> None:
        sink = PostgresSink(Postgres(warehouse, name="warehouse"))
        quarantine = Quarantine(tmp_path / "quarantine.jsonl")
        ask(source, "CREATE PUBLICATION shop FOR TABLE item")
        ask(source, "SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
        for number, name in enumerate(["a", "b", "a", "c"]):
            ask(source, "INSERT INTO item VALUES (%s, %s, 1)", (number, name))
        async with running(source, sink, delivery=DeliveryPolicy(poison="skip", quarantine=quarantine)) as changes:
            kept = "SELECT name FROM item ORDER BY id"
            async with asyncio.timeout(60):
                while await asyncio.to_thread(ask, warehouse, kept) != [("a",), ("b",), ("c",)]:
                    await asyncio.sleep(0.05)
            assert changes.poison.skipped == 1

    run_async(main)


@pytest.mark.expected_logs("refused")
def test_a_poison_transaction_stops_the_stream_and_nothing_else(
    source: str, warehouse: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    tricky(warehouse)

    async def main() -> None:
        sink = PostgresSink(Postgres(warehouse, name="warehouse"))
        async with running(source, sink) as changes:
            await streams(source)
            await asyncio.to_thread(ask, source, "INSERT INTO item VALUES (2, 'bad', 1)")
            await insert(source, 3)
            await until(lambda: changes.over)
            assert changes.over is not None
            assert (changes.over.kind, changes.over.code) == (outlast.Kind.PERMANENT, "poison")
            sessions = changes.link.sessions
            await asyncio.sleep(1.0)
            assert changes.link.sessions == sessions

    run_async(main)
    assert ask(warehouse, "SELECT count(*) FROM item") == [(0,)]
    assert ask(source, "SELECT active FROM pg_replication_slots WHERE slot_name = 'shop'") == [(False,)]
    assert caplog.text.count("ERROR") == 1


# What is missing or lost.


@pytest.mark.expected_logs("publication")
def test_what_is_missing_and_may_not_be_made_is_told_with_its_sql(
    source: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        sink = Memory()
        async with running(source, sink, source=SourcePolicy(create=False)) as changes:
            await until(lambda: changes.link.incident.is_open)
            assert sink.opened == 1
        async with running(source, sink):
            await streams(source)
            await insert(source, 1)
            await until(lambda: sink.rows == [1])

    run_async(main)
    assert 'CREATE PUBLICATION "shop" FOR ALL TABLES' in caplog.text
    assert caplog.text.count("ERROR") == 1


@pytest.mark.expected_logs("is gone")
def test_a_slot_that_is_gone_ends_the_stream_of_a_sink_that_has_a_position(
    source: str, run_async: RunAsync, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "changes.jsonl"

    async def main() -> None:
        async with running(source, JsonLinesSink(file)):
            await streams(source)
            await insert(source, 1, 2)
            await until(lambda: file.read_bytes().count(b'"op":"commit"') == 2)
        db = Postgres(source)
        await drop_slot(db, "shop")
        await db.close()
        async with running(source, JsonLinesSink(file)) as changes:
            await until(lambda: changes.over)
            await asyncio.sleep(1.0)
            assert changes.link.sessions == 0

    run_async(main)
    assert caplog.text.count("ERROR") == 1
    assert "pg_create_logical_replication_slot" in caplog.text
    assert ask(source, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'shop'") == [(0,)]


@pytest.mark.expected_logs
def test_a_slot_is_warned_about_before_it_is_lost_and_then_told_once(
    run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    """`max_slot_wal_keep_size` of 16 MB, a writer of some 5 MB a second, and a sink that hangs."""
    small = {**LOGICAL, "max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}

    async def main(server: PostgresServer) -> None:
        dsn, sink = server.dsn(), Memory()
        ask(dsn, "CREATE TABLE item (id bigserial PRIMARY KEY, name text)")
        async with running(dsn, sink) as changes:
            await streams(dsn)
            sink.delay_s = 8.0
            for number in range(150):
                await asyncio.to_thread(ask, dsn, "INSERT INTO item (name) SELECT repeat('x', 1000) FROM generate_series(1, 500)")
                if number % 10 == 9:
                    await asyncio.to_thread(ask, dsn, "CHECKPOINT")
                await asyncio.sleep(0.1)
                if changes.monitor.state is SlotState.LOST:
                    break
            sink.delay_s = 0.0
            await until(lambda: changes.over, 40)
            sessions = changes.link.sessions
            await asyncio.sleep(3.0)
            assert changes.link.sessions == sessions

    with PostgresServer(settings=small) as server:
        run_async(lambda: main(server), limit_s=90)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert "will be lost" in lines[0]
    assert sum("will be lost" in line for line in lines) == 1
    assert sum("lost the log" in line or "is lost" in line for line in lines) == 1
