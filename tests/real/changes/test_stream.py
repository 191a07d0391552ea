"""A stream from a real server: held slots, slow sinks, large transactions, iteration."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from changes_source import ITEM, LOGICAL, Memory, ask, insert, running, source_database, streams, until
from held_slot import BEGIN_S, SETTINGS, WAYS, stand_by
from psycopg.conninfo import make_conninfo

import outlast
from outlast.changes import Changes, DeliveryPolicy, Insert, OwnerPolicy, PostgresSink, StreamOverError, TransactionPart, Update
from outlast.changes._slot.claim import BACKOFF
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync
    from outlast.changes import Delivery

WORKER = Path(__file__).with_name("change_worker.py")
HELD_S = float(os.environ.get("OUTLAST_TEST_HELD_S", "8"))
"""The promise is for 90 s."""
RSS_MIB_MAX = 200


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    """One server for the tests of this file that break none."""
    with PostgresServer(settings=LOGICAL | SETTINGS) as server:
        yield server


@pytest.fixture
def source(logical: PostgresServer) -> Iterator[str]:
    with source_database(logical) as dsn:
        yield dsn


@pytest.fixture
def warehouse(database: str) -> str:
    ask(database, ITEM)
    return database


# Who reads the slot.


@pytest.mark.expected_logs
@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
@pytest.mark.parametrize("way", WAYS)
def test_a_slot_that_somebody_reads_past_the_lock_is_waited_for_cheaply(
    source: str, logical: PostgresServer, run_async: RunAsync, way: str, *, hidden: bool
) -> None:
    """Held by a foreign pg_recvlogical: few attempts and few lines, also in a loop that crashes each time; then it goes on."""
    cost = run_async(lambda: stand_by(logical, source, way, HELD_S, hidden=hidden), limit_s=HELD_S + 150)
    sys.stdout.write(f"\nslot held for {HELD_S:g} s, {way}: {cost}\n")
    assert len(cost.lines) <= 5, cost.lines
    assert sum("standing by, " in line and "read by" in line for line in cost.lines) == (not hidden)
    assert sum("standing by, " in line and "is active for PID" in line for line in cost.lines) == hidden
    if not hidden:
        # It is looked at until it is free. The second session is for a crash that came before the first look.
        assert cost.refused == 0
        assert cost.sessions <= (1 if way == "attached" else 2)
        assert cost.connections <= 2 * cost.sessions + 1
    else:
        assert 2 <= cost.refused <= attempts_max(BEGIN_S + HELD_S)
        assert cost.sessions <= cost.refused + 1
    assert (cost.crashes > 0) == (way != "attached")


def attempts_max(seconds: float) -> int:
    """The most attempts that the backoff allows in so many seconds: each wait at least half of what it doubles to."""
    count, sum_s, wait_s = 1, 0.0, BACKOFF.base_s
    while (sum_s := sum_s + wait_s / 2) <= seconds:
        count, wait_s = count + 1, min(2 * wait_s, BACKOFF.cap_s)
    assert count <= 15
    return count


def test_a_sink_that_is_slow_beyond_the_timeout_keeps_the_connection(source: str, run_async: RunAsync) -> None:
    sink = Memory()

    async def main() -> None:
        async with running(source, sink, owner=OwnerPolicy(wal_sender_timeout_s=1.0)) as changes:
            await streams(source)
            sink.delay_s = 3.0
            await insert(source, 1)
            # More than fits into what is on the way: the server has to wait, too.
            filler = "INSERT INTO item SELECT g, repeat('x', 1000), 1 FROM generate_series(100, 20100) g"
            await asyncio.to_thread(ask, source, filler)
            await until(lambda: sink.rows)
            sink.delay_s = 0.0
            await until(lambda: len(sink.rows) == 20_002)
            assert (changes.link.sessions, sink.opened) == (1, 1)

    run_async(main)


# Large transactions.


@pytest.mark.parametrize("large", [200_000, pytest.param(2_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("streaming", [False, True], ids=["protocol 1", "protocol 2"])
def test_a_transaction_of_many_rows_takes_little_memory(source: str, tmp_path: Path, large: int, *, streaming: bool) -> None:
    told = tmp_path / "told"
    environment = {"WORKER_DSN": source, "WORKER_TOLD": str(told), "WORKER_TELL_FROM": str(large)}
    environment |= {"WORKER_STREAMING": "1", "WORKER_SPOOL": str(tmp_path)} if streaming else {}
    with (tmp_path / "stderr").open("wb") as stderr:
        worker = subprocess.Popen([sys.executable, WORKER], env={**os.environ, **environment}, stderr=stderr)
    try:
        active = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'shop' AND active"
        end = time.monotonic() + 120
        while not ask(source, active):
            assert time.monotonic() < end
            time.sleep(0.05)
        began = time.monotonic()
        ask(source, f"INSERT INTO item SELECT g, 'item', g FROM generate_series(1, {large}) g")
        while "given" not in told.read_text(encoding="ascii"):
            assert time.monotonic() < end, (tmp_path / "stderr").read_text(encoding="utf-8")
            time.sleep(0.05)
    finally:
        worker.terminate()
        assert worker.wait() == 0
    *_, count, kib = next(line for line in told.read_text(encoding="ascii").splitlines() if " given " in line).split()
    mib = int(kib) / 1024
    took_s = time.monotonic() - began
    sys.stdout.write(
        f"\n{count} rows in one transaction, {'spooled' if streaming else 'in parts'}: {mib:.0f} MiB, {took_s:.0f} s\n"
    )
    assert int(count) == large
    assert mib < RSS_MIB_MAX


@pytest.mark.parametrize("streaming", [False, True], ids=["protocol 1", "protocol 2"])
def test_a_large_transaction_reaches_the_sink_whole_or_not_at_all(
    source: str, warehouse: str, run_async: RunAsync, tmp_path: Path, *, streaming: bool
) -> None:
    """Large values that an update leaves alone, deletes, a truncate, and a stop between two parts."""
    ask(source, "ALTER TABLE item ALTER name SET STORAGE EXTERNAL")

    async def main() -> None:
        sink = PostgresSink(Postgres(warehouse, name="warehouse"))
        async with running(source, sink, delivery=DeliveryPolicy(streaming=streaming, spool_directory=tmp_path)) as changes:
            await streams(source)
            ask(source, "INSERT INTO item SELECT g, repeat('x', 5000), 1 FROM generate_series(1, 20) g")
            ask(source, "UPDATE item SET amount = 2 WHERE id <= 10")
            ask(source, "INSERT INTO item SELECT g, 'y', 1 FROM generate_series(100, 30100) g")
            await until(lambda: changes.received > 10_020)
            # In the middle of it.
        assert ask(warehouse, "SELECT count(*) FROM item WHERE id >= 100")[0][0] in {0, 30_001}
        async with running(source, sink, delivery=DeliveryPolicy(streaming=streaming, spool_directory=tmp_path)):
            ask(source, "DELETE FROM item WHERE id % 3 = 0")
            rows = "SELECT id, md5(name), amount FROM item ORDER BY id"
            expected = ask(source, rows)
            async with asyncio.timeout(60):
                while await asyncio.to_thread(ask, warehouse, rows) != expected:
                    await asyncio.sleep(0.1)
            ask(source, "TRUNCATE item")
            async with asyncio.timeout(60):
                while await asyncio.to_thread(ask, warehouse, "SELECT count(*) FROM item") != [(0,)]:
                    await asyncio.sleep(0.1)

    run_async(main, limit_s=90)


def test_values_arrive_whatever_the_settings_of_the_two_databases_are(
    logical: PostgresServer, warehouse: str, run_async: RunAsync
) -> None:
    table = "CREATE TABLE odd (id int PRIMARY KEY, d date, t timestamptz, i interval, f float8, b bytea, s text)"
    row = (
        r"INSERT INTO odd VALUES (1, '2026-02-03', '2026-02-03 04:05:06+07', '-1 day 02:03:04', 0.1::float8 + 0.2, '\x00ff', 'Ä')"
    )
    with source_database(logical) as source:
        name = source.rpartition("/")[2]
        ask(logical.dsn(), f"DROP DATABASE {name}")
        ask(logical.dsn(), f"CREATE DATABASE {name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        styles = {
            "datestyle": "'German, DMY'",
            "intervalstyle": "sql_standard",
            "extra_float_digits": "0",
            "bytea_output": "escape",
        }
        for style, value in styles.items():
            ask(logical.dsn(), f"ALTER DATABASE {name} SET {style} = {value}")
        ask(warehouse, f"ALTER DATABASE {warehouse.rpartition('dbname=')[2].split()[0]} SET intervalstyle = sql_standard")
        ask(source, table)
        ask(warehouse, table)

        # And whatever a DSN says, or PGOPTIONS.
        told = " ".join(f"-c {style}={value.strip(chr(39)).replace(' ', '')}" for style, value in styles.items())

        async def main() -> None:
            sink = PostgresSink(Postgres(make_conninfo(warehouse, options=told), name="warehouse"))
            async with running(make_conninfo(source, options=told), sink):
                await streams(source)
                ask(source, row)
                async with asyncio.timeout(60):
                    while not await asyncio.to_thread(ask, warehouse, "SELECT 1 FROM odd"):
                        await asyncio.sleep(0.05)

        run_async(main)
        columns = "d - date '2000-01-01', extract(epoch FROM t), extract(epoch FROM i), f = 0.1::float8 + 0.2, b = '\\x00ff', s"
        same = f"SELECT {columns} FROM odd"
        assert ask(source, same) == ask(warehouse, same)


# Iteration.


@pytest.mark.short
def test_iterating_says_that_the_last_one_is_durable(source: str, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source)
        changes = Changes(db, "shop")
        stop = outlast.Stop()
        seen: list[Delivery] = []

        async def consume(count: int) -> None:
            async with contextlib.aclosing(changes.stream(stop)) as transactions:
                async for transaction in transactions:
                    seen.append(transaction)
                    if len(seen) == count:
                        return

        first = asyncio.create_task(consume(2))
        await streams(source)
        await insert(source, 1, 2, 3)
        await first
        # The second was not asked beyond: it comes again.
        await consume(4)
        assert [int(str(change.new[0])) for tx in seen for change in tx.changes if isinstance(change, Insert)] == [1, 2, 2, 3]
        # A script of its own that kept the position with its data.
        again = Changes(db, "shop")
        await insert(source, 4)
        async with contextlib.aclosing(again.stream(after=seen[-1].end_lsn or 0)) as transactions:
            transaction = await anext(transactions)
            assert [change.new[0] for change in transaction.changes if isinstance(change, Insert)] == ["4"]
        # A stop ends an iteration quietly.
        asyncio.get_running_loop().call_later(0.2, stop.fire, "done")
        async with contextlib.aclosing(changes.stream(stop)) as transactions:
            assert [tx async for tx in transactions]
        await db.close()

    run_async(main)


@pytest.mark.short
@pytest.mark.expected_logs("ECONNRESET")
def test_a_loop_of_a_service_iterates(source: str, run_async: RunAsync) -> None:
    """The body fails now and then: the transaction comes again, nothing is left out."""
    seen: list[int] = []

    async def main() -> None:
        db = Postgres(source)
        changes = Changes(db, "shop", delivery=DeliveryPolicy(typed=True))
        service, stop = outlast.Service("shop", deadline_s=5.0), outlast.Stop()

        @service.loop(needs=db)
        async def consume(stop: outlast.Stop) -> None:
            async with contextlib.aclosing(changes.stream(stop)) as transactions:
                async for transaction in transactions:
                    assert not isinstance(transaction, TransactionPart)
                    for change in transaction.changes:
                        assert isinstance(change, Insert | Update)
                        seen.append(change.as_dict()["id"])  # type: ignore[arg-type]  # typed
                    if len(seen) in {2, 5}:
                        raise ConnectionResetError(104, "whatever")

        life = asyncio.create_task(service.run(stop))
        await streams(source)
        await insert(source, *range(1, 9))
        await until(lambda: 8 in seen)
        stop.fire("done")
        assert await life == 0

    run_async(main)
    assert list(dict.fromkeys(seen)) == list(range(1, 9))
    assert len(seen) == 10


@pytest.mark.expected_logs("is gone")
def test_an_iteration_whose_stream_is_over_raises(source: str, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source)
        changes = Changes(db, "shop")
        async with contextlib.aclosing(changes.stream(after=1)) as transactions:
            with pytest.raises(StreamOverError, match="slot shop is gone"):
                await anext(transactions)
        await db.close()

    run_async(main)
