"""The initial snapshot of a real server: consistent with the slot, and right again after any interruption."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from memory_progress import MemoryProgress

from outlast.changes._decoding.decoder import Decoder
from outlast.changes._decoding.messages import Delete, Insert, Relation, Truncate, Update
from outlast.changes._snapshot.model import SnapshotBatch, SnapshotGoneError, SnapshotState, Source
from outlast.changes._snapshot.progress import PostgresProgress
from outlast.changes._snapshot.reader import Snapshot
from outlast.postgres import Postgres
from outlast.postgres.replication import Replication
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from conftest import RunAsync
    from outlast.changes._snapshot.copy_text import Row


class Copy:
    """A sink that replaces rows by their key, and fails when told to."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.tables: dict[str, dict[Any, Row]] = {}
        self.begun: list[str] = []
        self.batches: list[int] = []
        self.fail_after = fail_after
        self.prepared = 0
        self.has_unique_indexes = False

    async def prepare(self, relations: Sequence[Relation]) -> None:
        self.prepared += 1

    async def replaces(self, relation: Relation) -> bool:
        return not self.has_unique_indexes

    async def begin(self, relation: Relation) -> None:
        self.begun.append(relation.name)
        self.tables[relation.name] = {}

    async def write(self, batch: SnapshotBatch) -> None:
        self.batches.append(len(batch.rows))
        await asyncio.sleep(0)
        rows = self.tables[batch.relation.name]
        for row in batch.rows:
            rows[self.key(batch.relation, row) if batch.relation.key_places else len(rows)] = row
        # It has the rows, and the reader does not hear of it: the harder case.
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                raise ConnectionResetError("the sink is gone")

    @staticmethod
    def key(relation: Relation, row: Any) -> tuple[Any, ...]:
        return tuple(row[place] for place in relation.key_places)

    def apply(self, change: object, skip_until: dict[str, int], lsn: int) -> None:
        """Carry out a change of the stream."""
        if not isinstance(change, Insert | Update | Delete) or lsn < skip_until.get(change.relation.name, 0):
            assert not isinstance(change, Truncate)
            return
        relation, rows = change.relation, self.tables[change.relation.name]
        if isinstance(change, Insert):
            rows[self.key(relation, change.new) if relation.key_places else object()] = change.new
        elif isinstance(change, Update):
            if change.old_key is not None:
                rows.pop(change.old_key, None)
            rows[self.key(relation, change.new)] = change.new
        else:
            rows.pop(change.old_key, None)


@asynccontextmanager
async def exported(db: Postgres) -> AsyncIterator[Source]:
    """A snapshot of now."""
    async with await Replication.connect(db) as session:
        slot = await session.create_slot("for_the_snapshot", temporary=True)
        assert slot.snapshot is not None
        yield Source(slot.consistent_lsn, slot.snapshot)
        await session.drop_slot("for_the_snapshot")


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    with PostgresServer(settings={"wal_level": "logical"}) as server:
        yield server


@pytest.fixture
def shop(logical: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(logical.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE shop")
        with psycopg.connect(logical.dsn("shop"), autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (shop text, id int, note text, PRIMARY KEY (shop, id))")
            conn.execute(
                "INSERT INTO orders SELECT chr(97 + i % 26), i, CASE WHEN i % 7 > 0 THEN E'a\\tb\\n\\\\' || i END"
                " FROM generate_series(1, 5000) AS i"
            )
            conn.execute("ANALYZE orders; CREATE PUBLICATION pub FOR TABLE orders")
            yield conn
        # Whoever read from one was killed, and the server may not have noticed yet.
        admin.execute("SELECT pg_terminate_backend(active_pid, 20000) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
        admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        admin.execute("DROP DATABASE shop WITH (FORCE)")


def table_of(conn: psycopg.Connection, name: str = "orders") -> list[Row]:
    columns = conn.execute(f"SELECT * FROM {name} LIMIT 0".encode()).description or []
    texts = ", ".join(f"{column.name}::text" for column in columns)
    return sorted(conn.execute(f"SELECT {texts} FROM {name}".encode()).fetchall(), key=str)


def write_some(conn: psycopg.Connection, rng: random.Random, count: int = 200) -> None:
    """Inserts, updates, deletes, and changes of keys, most of them in rows that a snapshot has."""
    for _ in range(count):
        number, other = rng.randrange(1, 5200), rng.randrange(1, 10_000)
        # Two rows that would come to have one key are left as they are.
        with suppress(psycopg.errors.UniqueViolation), conn.transaction():
            match rng.randrange(4):
                case 0:
                    conn.execute("INSERT INTO orders VALUES ('m', %s, 'new') ON CONFLICT DO NOTHING", (other,))
                case 1:
                    conn.execute("UPDATE orders SET note = %s WHERE id = %s", (f"updated {other}", number))
                case 2:
                    conn.execute("DELETE FROM orders WHERE id = %s", (number,))
                case _:
                    move = "UPDATE orders SET shop = chr(97 + %s %% 26), note = 'moved' WHERE id = %s"
                    conn.execute(move, (other, number))


def stream_into(conn: psycopg.Connection, copy: Copy, skip_until: dict[str, int]) -> None:
    """Bring what the slot has since its beginning."""
    decoder = Decoder()
    rows = conn.execute(
        "SELECT lsn - '0/0', data FROM pg_logical_slot_get_binary_changes('slot', NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'pub')"
    ).fetchall()
    pending: list[object] = []
    for _, data in rows:
        message = decoder.decode(data)
        if type(message).__name__ == "Commit":
            for change in pending:
                copy.apply(change, skip_until, message.lsn)  # type: ignore[union-attr]
            pending = []
        else:
            pending.append(message)


def test_consistent_with_the_slot_while_others_write(
    logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync
) -> None:
    async def main() -> None:
        db = Postgres(logical.dsn("shop"))
        copy, rng = Copy(), random.Random(1)
        async with await Replication.connect(db) as session:
            slot = await session.create_slot("slot")
            before = table_of(shop)
            write_some(shop, rng)
            snapshot = Snapshot(
                db, "pub", stream="shop", into=copy, progress=MemoryProgress(), rows_per_range=500, batch_rows=100, workers=3
            )
            assert slot.snapshot is not None
            (table,) = await snapshot.run(slot.consistent_lsn, Source(slot.consistent_lsn, slot.snapshot))
        assert sorted(copy.tables["orders"].values(), key=str) == before, "it is the table as it was where the slot begins"
        assert (table.done, table.rows, table.skip_until_lsn) == (True, 5000, slot.consistent_lsn)
        assert 8 <= len(table.ranges) <= 10
        assert max(copy.batches) == 100
        (seen,) = snapshot.progress()
        assert (seen.rows, seen.rows_estimated, seen.ranges_done) == (5000, 5000, seen.ranges)
        stream_into(shop, copy, {"orders": table.skip_until_lsn})
        assert sorted(copy.tables["orders"].values(), key=str) == table_of(shop)
        await db.close()

    run_async(main)


@pytest.mark.parametrize("mixable", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_right_again_after_interruptions(
    logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync, seed: int, *, mixable: bool
) -> None:
    """The exported snapshot is gone each time, the sink fails again and again, and others write all the time."""

    async def main() -> None:
        db, rng, copy = Postgres(logical.dsn("shop")), random.Random(seed), Copy()
        copy.has_unique_indexes = not mixable
        progress = PostgresProgress(db, schema="kept")
        async with await Replication.connect(db) as session:
            slot = await session.create_slot("slot")
        write_some(shop, rng)
        failures, tables, batches_max = 0, None, rng.randrange(1, 9)
        while tables is None:
            copy.fail_after = batches_max
            # Each time a new process, that knows only what was kept.
            snapshot = Snapshot(
                db,
                "pub",
                stream="shop",
                into=copy,
                progress=progress,
                rows_per_range=1000,
                batch_rows=200,
                workers=2,
            )
            async with exported(db) as source:
                try:
                    tables = await snapshot.run(slot.consistent_lsn, source)
                except ConnectionResetError:
                    failures += 1
                    if not mixable:
                        batches_max *= 2
            write_some(shop, rng, 50)
        assert failures >= 1
        (table,) = tables
        assert table.consistent_lsn > slot.consistent_lsn
        assert bool(table.skip_until_lsn) == (not mixable), "under one snapshot its position is known"
        assert copy.prepared == 1
        assert copy.begun.count("orders") == (1 if mixable else failures + 1)
        if mixable:
            assert sum(copy.batches) <= 5300 + 2 * 200 * failures, "what was durable is not read again"
        write_some(shop, rng)
        stream_into(shop, copy, {"orders": table.skip_until_lsn})
        assert sorted(copy.tables["orders"].values(), key=str) == table_of(shop)
        await db.close()

    run_async(main)


@pytest.mark.parametrize("keys_change", [True, False])
def test_a_table_with_large_values_is_read_under_one_snapshot(
    logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync, *, keys_change: bool
) -> None:
    shop.execute("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL")
    shop.execute("UPDATE orders SET note = repeat('x', 9000) WHERE id = 5000")

    async def main() -> list[str]:
        db, copy, progress = Postgres(logical.dsn("shop")), Copy(fail_after=3), MemoryProgress()
        for failing in (True, False):
            snapshot = Snapshot(
                db, "pub", stream="shop", into=copy, progress=progress, batch_rows=500, workers=1, keys_change=keys_change
            )
            async with exported(db) as source:
                if failing:
                    with pytest.raises(ConnectionResetError):
                        await snapshot.run(1, source)
                    copy.fail_after = None
                else:
                    await snapshot.run(1, source)
        await db.close()
        assert len(copy.tables["orders"]) == 5000
        return copy.begun

    assert run_async(main) == ["orders"] * (2 if keys_change else 1)


def test_tables_of_every_kind(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    shop.execute(
        """
        CREATE TABLE keyless (n int, at timestamptz DEFAULT '2026-01-31 12:00+01', i interval DEFAULT '1 day 02:03:04');
        INSERT INTO keyless SELECT generate_series(1, 300);
        CREATE TABLE empty (id uuid PRIMARY KEY);
        CREATE TABLE computed (id numeric PRIMARY KEY, double numeric GENERATED ALWAYS AS (id * 2) STORED, b bytea, f float8);
        INSERT INTO computed (id, b, f) SELECT i / 3.0, 'x', i / 3.0 FROM generate_series(1, 100) AS i;
        CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
        CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (1000);
        INSERT INTO parted SELECT generate_series(1, 500);
        CREATE TABLE "Odd ""name" ("The Key" text PRIMARY KEY);
        INSERT INTO "Odd ""name" SELECT i || E'\\\\''{%s}' FROM generate_series(1, 50) AS i;
        ALTER PUBLICATION pub ADD TABLE keyless, empty, computed, parted, "Odd ""name";
        ALTER DATABASE shop SET datestyle = 'SQL, DMY';
        ANALYZE
        """
    )

    async def main() -> Copy:
        db, copy = Postgres(logical.dsn("shop")), Copy()
        async with await Replication.connect(db) as session:
            slot = await session.create_slot("slot")
            assert slot.snapshot is not None
            snapshot = Snapshot(
                db, "pub", stream="shop", into=copy, progress=PostgresProgress(db), rows_per_range=20, batch_rows=7, ranges_max=5
            )
            tables = await snapshot.run(slot.consistent_lsn, Source(slot.consistent_lsn, slot.snapshot))
        assert all(table.done and len(table.ranges) <= 5 for table in tables)
        assert {table.name: len(table.ranges) for table in tables}["keyless"] == 1
        kept = await PostgresProgress(db).load("shop")
        assert kept == SnapshotState(slot.consistent_lsn, tables)
        await PostgresProgress(db).forget("shop")
        assert await PostgresProgress(db).load("shop") is None
        await db.close()
        return copy

    copy = run_async(main)
    counts = {name: len(rows) for name, rows in copy.tables.items()}
    wanted = {"orders": 5000, "keyless": 300, "computed": 100, "parted_1": 99, "parted_2": 401, 'Odd "name': 50}
    assert counts == wanted | {"empty": 0}
    assert copy.tables["keyless"][0] == ("1", "2026-01-31 11:00:00+00", "1 day 02:03:04")
    shop.execute("SET datestyle = 'ISO'")
    assert sorted(row[0] for row in copy.tables["computed"].values() if row[0]) == sorted(
        row[0] or "" for row in table_of(shop, "(SELECT id FROM computed) AS c")
    )
    assert len(next(iter(copy.tables["computed"].values()))) == 3, "what the server computes is not published"


def test_column_lists_and_row_filters(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    if shop.info.server_version < 150000:
        pytest.skip("PostgreSQL 15 brought them")
    shop.execute("UPDATE orders SET note = '{}' WHERE id = 2; DROP PUBLICATION pub")
    even = "id % 2 = 0 AND note IS DISTINCT FROM '{}'"
    shop.execute(f"CREATE PUBLICATION pub FOR TABLE orders (shop, id) WHERE ({even}) WITH (publish = 'insert')".encode())

    async def main() -> Copy:
        db, copy = Postgres(logical.dsn("shop")), Copy()
        snapshot = Snapshot(db, "pub", stream="shop", into=copy, progress=MemoryProgress(), rows_per_range=500)
        async with exported(db) as source:
            await snapshot.run(1, source)
        await db.close()
        return copy

    rows = run_async(main).tables["orders"]
    assert len(rows) == 2499
    assert all(len(row) == 2 and int(row[1] or 1) % 2 == 0 for row in rows.values())


def test_a_table_without_a_key_begins_anew(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    shop.execute("CREATE TABLE keyless (n int); INSERT INTO keyless SELECT generate_series(1, 300)")
    shop.execute("ALTER PUBLICATION pub SET TABLE keyless")

    async def main() -> None:
        db, copy, progress = Postgres(logical.dsn("shop")), Copy(fail_after=1), MemoryProgress()
        snapshot = Snapshot(db, "pub", stream="shop", into=copy, progress=progress, batch_rows=100)
        async with await Replication.connect(db) as session:
            slot = await session.create_slot("slot")
            assert slot.snapshot is not None
            gone = Source(slot.consistent_lsn, slot.snapshot)
            with pytest.raises(ConnectionResetError):
                await snapshot.run(slot.consistent_lsn, gone)
        copy.fail_after = None
        with pytest.raises(SnapshotGoneError, match="is gone"):
            await snapshot.run(slot.consistent_lsn, gone)
        shop.execute("INSERT INTO keyless VALUES (301)")
        async with exported(db) as source:
            (table,) = await snapshot.run(slot.consistent_lsn, source)
        shop.execute("INSERT INTO keyless VALUES (302)")
        assert len(copy.tables["keyless"]) == 301
        assert copy.begun == ["keyless", "keyless"]
        stream_into(shop, copy, {"keyless": table.skip_until_lsn})
        assert sorted(copy.tables["keyless"].values(), key=str) == table_of(shop, "keyless"), "301 did not come twice"
        await db.close()

    run_async(main)


def test_another_slot_begins_anew(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    async def main() -> None:
        db, copy, progress = Postgres(logical.dsn("shop")), Copy(), MemoryProgress()
        snapshot = Snapshot(db, "pub", stream="shop", into=copy, progress=progress)
        async with exported(db) as source:
            await snapshot.run(1, source)
            batches = len(copy.batches)
            await snapshot.run(1, source)
        assert len(copy.batches) == batches, "it is done"
        shop.execute("DELETE FROM orders WHERE id > 10")
        async with exported(db) as source:
            await snapshot.run(2, source)
        assert len(copy.tables["orders"]) == 10
        assert copy.begun == ["orders", "orders"]
        await db.close()

    run_async(main)


def test_memory_is_bounded_by_bytes(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    shop.execute("CREATE TABLE wide (id int PRIMARY KEY, body text); ALTER PUBLICATION pub SET TABLE wide")
    shop.execute("INSERT INTO wide SELECT i, repeat('x', 100000) FROM generate_series(1, 100) AS i")

    async def main() -> None:
        db, copy = Postgres(logical.dsn("shop")), Copy()
        snapshot = Snapshot(db, "pub", stream="shop", into=copy, progress=MemoryProgress(), batch_bytes=250_000)
        async with exported(db) as source:
            await snapshot.run(1, source)
        assert set(copy.batches[:-1]) == {3}
        assert len(copy.tables["wide"]) == 100
        await db.close()

    run_async(main)


def test_cancelled_in_the_middle_it_leaves_no_session(
    logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync
) -> None:
    async def main() -> None:
        db, copy, progress = Postgres(logical.dsn("shop")), Copy(), MemoryProgress()
        snapshot = Snapshot(db, "pub", stream="shop", into=copy, progress=progress, batch_rows=10, workers=4, rows_per_range=100)
        async with exported(db) as source:
            reading = asyncio.create_task(snapshot.run(1, source))
            while len(copy.batches) < 20:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await db.close()
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND pid <> pg_backend_pid()"
        while shop.execute(others.encode()).fetchone() != (0,):
            await asyncio.sleep(0.02)

    run_async(main)
