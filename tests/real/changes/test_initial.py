"""A stream that reads what is there first: nothing is missing and nothing twice, whoever is cut off in the middle."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from changes_source import LOGICAL, ask, running, source_database, streams, until

from outlast import Backoff, HealthPolicy
from outlast._core.faults import attached
from outlast.changes import Column, FencedError, OwnerPolicy, PostgresSink, Relation, ReplicaIdentity, SourcePolicy
from outlast.changes._sinks.postgres_snapshot import TargetNotEmptyError
from outlast.changes._snapshot.model import SnapshotBatch
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync

TABLES = """
CREATE TABLE keyed (part text, id int, note text, PRIMARY KEY (part, id));
CREATE TABLE named (id int PRIMARY KEY, name text UNIQUE);
CREATE TABLE keyless (n int, note text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE large (id int PRIMARY KEY, body text, count int);
ALTER TABLE large ALTER body SET STORAGE EXTERNAL;
CREATE TABLE empty (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, double bigint GENERATED ALWAYS AS (id * 2) STORED);
"""
ROWS = """
INSERT INTO keyed SELECT chr(97 + i % 26), i, CASE WHEN i % 7 > 0 THEN E'a\\tb\\n\\\\' || i END
    FROM generate_series(1, 6000) AS i;
INSERT INTO named SELECT i, 'name ' || i FROM generate_series(1, 3000) AS i;
INSERT INTO keyless SELECT i, 'n' FROM generate_series(1, 2000) AS i;
INSERT INTO large SELECT i, repeat(chr(97 + i % 26), 3000), 0 FROM generate_series(1, 300) AS i;
ANALYZE;
"""
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('application_name') NOT LIKE 'outlast sink%' THEN PERFORM pg_sleep({seconds}); END IF; RETURN NULL;
END $$;
"""
"""A batch of the snapshot takes as long as on a machine with real disks; what the stream brings does not."""
NAMES = ("keyed", "named", "keyless", "large", "empty", "item")
QUICK = HealthPolicy(relapse=Backoff(base_s=0.05, cap_s=0.2, sustained_s=5.0), probe=Backoff(base_s=0.05, cap_s=0.2))
SOON = OwnerPolicy(backoff=Backoff(base_s=0.05, cap_s=0.2, sustained_s=5.0))
FIRST = SourcePolicy(snapshot=True)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(settings=LOGICAL) as server:
        yield server


@pytest.fixture
def source(server: PostgresServer) -> Iterator[str]:
    with source_database(server) as dsn:
        ask(dsn, TABLES)
        ask(dsn, ROWS)
        yield dsn


@pytest.fixture
def warehouse(server: PostgresServer) -> Iterator[str]:
    name = "warehouse"
    ask(server.dsn(), f"CREATE DATABASE {name}")
    ask(server.dsn(name), TABLES + "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount numeric)")
    yield server.dsn(name)
    ask(server.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


def into(dsn: str) -> PostgresSink:
    return PostgresSink(Postgres(dsn, name="warehouse", policy=QUICK))


def rows_of(dsn: str, name: str) -> list[tuple[Any, ...]]:
    return sorted(ask(dsn, f"SELECT t::text FROM {name} AS t"))


def differences(source: str, warehouse: str) -> list[str]:
    return [name for name in NAMES if rows_of(source, name) != rows_of(warehouse, name)]


def write_some(conn: psycopg.Connection, rng: random.Random) -> None:
    """One transaction: inserts, updates, deletes, changes of keys, most of them in rows that a snapshot has."""
    number, other = rng.randrange(1, 6200), rng.randrange(1, 10_000)
    statements: list[tuple[str, tuple[Any, ...]]] = [
        ("INSERT INTO keyed VALUES ('m', %s, 'new') ON CONFLICT DO NOTHING", (other,)),
        ("UPDATE keyed SET note = %s WHERE id = %s", (f"updated {other}", number)),
        ("DELETE FROM keyed WHERE id = %s", (number,)),
        ("UPDATE keyed SET part = chr(97 + %s %% 26), note = 'moved' WHERE id = %s", (other, number)),
        ("UPDATE named SET name = 'name ' || %s WHERE id = %s", (other, number // 2)),
        ("UPDATE named SET id = %s WHERE id = %s", (other, number // 2)),
        ("INSERT INTO keyless VALUES (%s, 'new'), (%s, 'new')", (other, other + 10_000)),
        ("UPDATE keyless SET note = 'changed' WHERE n = %s", (number // 3,)),
        ("UPDATE large SET count = count + 1, id = id + 1000 WHERE id = %s", (number // 20,)),
        ("UPDATE large SET count = count + 1 WHERE id = %s", (number // 20,)),
        ("INSERT INTO empty DEFAULT VALUES", ()),
    ]
    # Two rows that would come to have one key are left as they are.
    with suppress(psycopg.errors.UniqueViolation), conn.transaction():
        for query, values in rng.sample(statements, 2):
            conn.execute(query.encode(), values)


@contextmanager
def writing(dsn: str, seed: int = 0) -> Iterator[None]:
    """Write all the time, in a thread."""
    enough, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        rng = random.Random(seed)
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                while not enough.wait(0.002):
                    write_some(conn, rng)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    writer = threading.Thread(target=work, daemon=True)
    writer.start()
    try:
        yield
    finally:
        enough.set()
        writer.join(60)
    assert not errors


async def equal(source: str, warehouse: str) -> None:
    async with asyncio.timeout(60):
        while await asyncio.to_thread(differences, source, warehouse):
            await asyncio.sleep(0.05)


def test_what_is_there_comes_first_and_what_changes_meanwhile_after_it(
    source: str, warehouse: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with writing(source):
            async with running(source, into(warehouse), source=FIRST) as changes:
                await until(lambda: changes.received > 20)
                # A publication of all tables has our own as well; they are none of what is read.
                assert {table.name for table in changes.snapshot} == set(NAMES)
                assert sum(table.rows for table in changes.snapshot) >= 11_000
        async with running(source, into(warehouse), source=FIRST) as changes:
            await equal(source, warehouse)
            assert changes.snapshot == (), "it is done"

    caplog.set_level(logging.INFO, "outlast")
    run_async(main)
    said = [record.message for record in caplog.records if "read" in record.message]
    assert len(said) == 1, said
    assert "read 6 tables, 11" in said[0]
    assert ask(source, "SELECT count(*) FROM pg_replication_slots WHERE temporary") == [(0,)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.expected_logs(r"^\w+ outlast\b", "terminating <psycopg.AsyncPipeline")
def test_whoever_is_cut_off_while_the_tables_are_read(source: str, warehouse: str, run_async: RunAsync, seed: int) -> None:
    """The readers, the session that holds the snapshot, the lock's, the sink's: it goes on, and the tables are equal."""
    rng = random.Random(seed)
    slow = SLOW.format(seconds=0.3)
    for name in NAMES:
        slow += f"CREATE TRIGGER slow AFTER INSERT ON {name} FOR EACH STATEMENT EXECUTE FUNCTION slow();"
    ask(warehouse, slow)
    others = "datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'writer'"
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others} ORDER BY random() LIMIT 1"

    async def main() -> None:
        cut = 0
        with writing(f"{source}?application_name=writer", seed):
            async with running(source, into(warehouse), policy=QUICK, owner=SOON, source=FIRST) as changes:
                while not changes.received:
                    await asyncio.sleep(rng.uniform(0.0, 0.3))
                    cut += len(await asyncio.to_thread(ask, rng.choice((source, warehouse)), kill))
                    if cut >= 12:
                        break
                await until(lambda: changes.received > 20, 60.0)
        assert cut >= 3
        async with running(source, into(warehouse), owner=SOON):
            await equal(source, warehouse)

    run_async(main)


def test_a_stop_in_the_middle_leaves_at_once_and_the_next_goes_on(source: str, warehouse: str, run_async: RunAsync) -> None:
    ask(source, "INSERT INTO item SELECT i, 'x', 1 FROM generate_series(1, 150000) AS i; ANALYZE item")

    async def main() -> None:
        async with running(source, into(warehouse), source=SourcePolicy(snapshot=True, snapshot_workers=1)) as changes:
            await until(lambda: any(table.name == "item" and table.rows for table in changes.snapshot))
        before = sum(rows for (rows,) in ask(warehouse, "SELECT rows FROM outlast.snapshot_ranges WHERE table_name = 'item'"))
        assert 0 < before < 150_000
        # It was begun, so it is ended, asked for or not.
        async with running(source, into(warehouse)):
            await equal(source, warehouse)
        after = sum(rows for (rows,) in ask(warehouse, "SELECT rows FROM outlast.snapshot_ranges WHERE table_name = 'item'"))
        assert after == 150_000, "each row was read once"

    run_async(main)


@pytest.mark.expected_logs("is not empty")
def test_a_table_that_is_not_empty_is_not_touched(
    source: str, warehouse: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    ask(warehouse, "INSERT INTO keyed VALUES ('mine', 1, 'precious')")

    async def main() -> None:
        async with running(source, into(warehouse), source=FIRST, owner=SOON) as changes:
            await until(lambda: changes.link.incident.is_open)
            assert rows_of(warehouse, "keyed") == [("(mine,1,precious)",)]
            await asyncio.to_thread(ask, warehouse, "TRUNCATE keyed")
            await equal(source, warehouse)

    caplog.set_level(logging.INFO, "outlast")
    run_async(main)
    assert 'table "public"."keyed" is not empty' in caplog.text
    assert 'TRUNCATE ONLY "public"."keyed"; or write into another table' in caplog.text


@pytest.mark.expected_logs("is gone")
def test_a_lost_slot_is_answered_by_reading_all_again_once(
    source: str, warehouse: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    drop = "SELECT pg_drop_replication_slot('shop')"

    async def main() -> None:
        async with running(source, into(warehouse)) as changes:
            await streams(source)
            await asyncio.to_thread(ask, source, "INSERT INTO item SELECT i, 'x', 1 FROM generate_series(1, 10) AS i")
            await until(lambda: changes.received >= 10)
        ask(source, drop)
        ask(source, "DELETE FROM item WHERE id < 5; UPDATE item SET name = 'y' WHERE id = 7")
        async with running(source, into(warehouse), source=SourcePolicy(lost="snapshot")) as changes:
            await equal(source, warehouse)
        # The stream has not passed yet what was read.
        ask(source, drop)
        ask(source, "DELETE FROM item WHERE id = 7")
        async with running(source, into(warehouse), source=SourcePolicy(lost="snapshot")) as changes:
            await until(lambda: changes.over)
            assert changes.over is not None
            assert "not caught up with yet" in changes.over.reason

    caplog.set_level(logging.INFO, "outlast")
    run_async(main)
    warnings = [
        record.message for record in caplog.records if record.levelno == logging.WARNING and "read again" in record.message
    ]
    assert len(warnings) == 1
    assert "slot shop is gone; all tables are read again" in warnings[0]


def test_begun_anew_it_is_ended_by_whoever_comes_next(source: str, warehouse: str, run_async: RunAsync) -> None:
    """Between the loss and the new slot nothing says that rows are missing but what the sink has noted."""

    async def main() -> None:
        async with running(source, into(warehouse), source=FIRST):
            await equal(source, warehouse)
        ask(source, "SELECT pg_drop_replication_slot('shop')")
        ask(source, "DELETE FROM keyed WHERE id < 1000")
        sink = into(warehouse)
        (epoch,) = ask(warehouse, "SELECT epoch FROM outlast.change_positions")[0]
        assert await sink.open("shop", epoch) > 0
        await sink.snapshot_target().again()
        await sink.close()
        await sink.db.close()
        async with running(source, into(warehouse)):
            await equal(source, warehouse)

    run_async(main)


@pytest.mark.expected_logs("slot moved")
def test_a_slot_that_was_read_meanwhile_ends_the_stream(source: str, warehouse: str, run_async: RunAsync) -> None:
    ask(
        warehouse, SLOW.format(seconds=1) + "CREATE TRIGGER slow AFTER INSERT ON large FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    )

    async def main() -> None:
        async with running(source, into(warehouse), source=SourcePolicy(snapshot=True, snapshot_workers=1)) as changes:
            await until(lambda: any(table.name == "large" and table.ranges for table in changes.snapshot))
            ask(source, "INSERT INTO item VALUES (1, 'gone', 1)")
            advance = "SELECT pg_replication_slot_advance('shop', pg_current_wal_lsn())"
            await asyncio.to_thread(ask, source, advance)
            await until(lambda: changes.over)
            assert changes.over is not None
            assert "was read by somebody else while the tables were copied" in changes.over.reason

    run_async(main)


NAMED = Relation(1, "public", "named", ReplicaIdentity.DEFAULT, (Column("id", 23, -1, True), Column("name", 25, -1, False)))


def test_a_former_owner_writes_nothing(warehouse: str, run_async: RunAsync) -> None:
    async def main() -> None:
        first, second = into(warehouse), into(warehouse)
        await first.open("shop", 1)
        former = first.snapshot_target()
        await former.prepare([NAMED])
        await former.write(SnapshotBatch(NAMED, (b"1\ta\n",), 0))
        await former.write(SnapshotBatch(NAMED, (b"1\tb\n", b"2\t\\N\n"), 0))
        await second.open("shop", 2)
        assert second.snapshot_due
        for late in (
            former.begin(NAMED),
            former.write(SnapshotBatch(NAMED, (b"3\tc\n",), 0)),
            former.again(),
            former.finish(7, ()),
            former.prepare([NAMED]),
            former.progress.forget("shop"),
        ):
            with pytest.raises(FencedError):
                await late
        for sink in (first, second):
            await sink.close()
            await sink.db.close()

    run_async(main)
    assert rows_of(warehouse, "named") == [("(1,b)",), ("(2,)",)]


def test_a_table_that_others_refer_to_is_emptied_too(warehouse: str, run_async: RunAsync) -> None:
    ask(warehouse, "CREATE TABLE refers (id int REFERENCES named); INSERT INTO named VALUES (1, 'a')")

    async def main() -> None:
        sink = into(warehouse)
        await sink.open("shop", 1)
        target = sink.snapshot_target()
        assert not await target.replaces(NAMED), "name is unique, too"
        with pytest.raises(TargetNotEmptyError) as refused:
            await target.prepare([NAMED])
        fault = attached(refused.value)
        assert fault is not None
        assert "TRUNCATE" in fault.hint
        await target.begin(NAMED)
        await sink.close()
        await sink.db.close()

    run_async(main)
    assert rows_of(warehouse, "named") == []
