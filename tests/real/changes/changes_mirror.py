"""A source and a mirror of it, side by side on one server, with as much of a stream between them as writes rows."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
from changes_source import ask, running, streams

from outlast.changes import PostgresSink, SourcePolicy
from outlast.changes._decoding.decoder import Decoder
from outlast.changes._decoding.transactions import Assembler
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outlast.changes import Delivery, Transaction, TransactionPart
    from outlast.testing import PostgresServer

LARGE = "repeat(md5(random()::text), 200)"
EXTERNAL = "; ALTER TABLE t ALTER body SET STORAGE EXTERNAL"
CHANGES = """
SELECT data FROM pg_logical_slot_get_binary_changes(current_database(), NULL, NULL,
    'proto_version', '1', 'publication_names', 'shop')
"""


class Mirror:
    """Two databases with the same tables, unless they are given others. What changed is carried over by `apply`."""

    def __init__(self, source: psycopg.Connection, sink: psycopg.Connection) -> None:
        self.source = source
        self.sink = sink
        self.writer = PostgresSink(Postgres(sink.info.dsn, name="sink"))
        self.epoch = 0

    def reset(self) -> None:
        """Begin anew: to make a database costs more than all the rest of a test."""
        slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
        self.source.execute("DROP PUBLICATION IF EXISTS shop")
        self.source.execute(slots.encode())
        for conn in (self.source, self.sink):
            conn.execute(f"RESET ALL; ALTER DATABASE {conn.info.dbname} RESET ALL".encode())
            conn.execute("SET client_min_messages = warning; DROP SCHEMA IF EXISTS outlast CASCADE")
            conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        self.epoch = 0

    def both(self, statements: str) -> None:
        for conn in (self.source, self.sink):
            conn.execute(statements.encode())

    def publish(self, options: str = "") -> None:
        """Publish all tables there are, and have what changes from now on kept."""
        self.source.execute(f"CREATE PUBLICATION shop FOR ALL TABLES {options}".encode())
        self.source.execute("SELECT pg_create_logical_replication_slot(current_database(), 'pgoutput')")

    def changes(self) -> list[Transaction | TransactionPart]:
        """What has changed since the last call."""
        assembler = Assembler(Decoder())
        payloads = [data for (data,) in self.source.execute(CHANGES).fetchall()]
        return [unit for unit in assembler.feed_all(payloads) if hasattr(unit, "changes")]  # type: ignore[misc]

    async def apply(self, *statements: str) -> None:
        """Run the statements in the source, and bring what they changed into the mirror."""
        for statement in statements:
            self.source.execute(statement.encode())
        await self.write(self.changes())

    async def write(self, deliveries: Sequence[Delivery], *, again: bool = False) -> None:
        """Write them in one transaction; `again`: into tables that a snapshot has later rows of."""
        self.epoch += 1
        position = await self.writer.open("shop", self.epoch)
        try:
            if again:
                self.writer.go_on_from(position, 0, 1 << 62)
            for delivery in deliveries:
                await self.writer.write(delivery)
            await self.writer.flush()
        finally:
            await self.writer.close()

    def rows(self, conn: psycopg.Connection, table: str, columns: str = "t") -> list[str]:
        """The rows of one table as text, without those of its children."""
        partitioned = conn.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)", (table,)).fetchone()
        only = "" if partitioned == (True,) else "ONLY"
        return sorted(row for (row,) in conn.execute(f"SELECT ({columns})::text FROM {only} {table} AS t".encode()).fetchall())

    def differences(self, *tables: str, columns: str = "t") -> dict[str, tuple[list[str], list[str]]]:
        """What the source has and the mirror has not, and the other way round; {} when they are equal."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for table in tables:
            source, sink = (Counter(self.rows(conn, table, columns)) for conn in (self.source, self.sink))
            if source != sink:
                found[table] = sorted((source - sink).elements()), sorted((sink - source).elements())
        return found


@contextlib.contextmanager
def mirrored(server: PostgresServer) -> Iterator[Mirror]:
    """Two empty databases of one's own."""
    names = [f"{side}_{uuid.uuid4().hex[:12]}" for side in ("source", "sink")]
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            with contextlib.ExitStack() as stack:
                source, sink = (stack.enter_context(psycopg.connect(server.dsn(name), autocommit=True)) for name in names)
                yield Mirror(source, sink)
        finally:
            drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
            admin.execute(drop, (names[0],))
            for name in names:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def generated_in_the_sink(mirror: Mirror, kind: str) -> None:
    """Read a table first, and then change it, whose `shown` the sink computes."""
    mirror.source.execute(("CREATE TABLE t (id int PRIMARY KEY, name text, shown text, body text)" + EXTERNAL).encode())
    insert = f"INSERT INTO t SELECT i, E'tab\\t\\\\' || i, 'of the source', {LARGE} FROM generate_series(1, 50) AS i"
    mirror.source.execute(insert.encode())
    generated = f"shown text GENERATED ALWAYS AS (name || '!') {kind}"
    mirror.sink.execute(f"CREATE TABLE t (id int PRIMARY KEY, name text, {generated}, body text)".encode())
    source, sink = mirror.source.info.dsn, mirror.sink.info.dsn
    work = (
        "INSERT INTO t VALUES (51, 'a', 'b', 'c'); UPDATE t SET name = 'changed', shown = 'x' WHERE id = 51;"
        "UPDATE t SET id = 52 WHERE id = 51; UPDATE t SET shown = 'y' WHERE id < 10; DELETE FROM t WHERE id = 50"
    )
    async with running(source, PostgresSink(Postgres(sink, name="sink")), source=SourcePolicy(snapshot=True)):
        await streams(source)
        await asyncio.to_thread(ask, source, work)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(mirror.differences, "t", columns="ROW(id, name, body)"):
                await asyncio.sleep(0.02)
    assert ask(sink, "SELECT count(*) FROM t WHERE shown = name || '!'") == [(50,)]
