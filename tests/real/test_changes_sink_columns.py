"""Columns that a sink generates or refuses to set, and a table that changes while it is written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from changes_mirror import Mirror, mirrored
from changes_source import LOGICAL, ask, running, streams

from outlast import Kind
from outlast.changes import PostgresSink
from outlast.changes.sink_tables import TableChangedError
from outlast.core.faults import attached
from outlast.postgres import Postgres
from outlast.testing import PostgresServer, find_postgres_majors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync

pytestmark = pytest.mark.short
LARGE = "repeat(md5(random()::text), 200)"
EXTERNAL = "; ALTER TABLE t ALTER body SET STORAGE EXTERNAL"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(settings=LOGICAL) as server:
        yield server


@pytest.fixture(scope="module")
def newest() -> Iterator[PostgresServer]:
    """A server of the version that brought virtual columns, and publishes those that it generates."""
    if not find_postgres_majors() or find_postgres_majors()[0] < 18:
        pytest.skip("needs PostgreSQL 18")
    with PostgresServer(settings=LOGICAL, major=find_postgres_majors()[0]) as server:
        yield server


@pytest.fixture
def mirror(server: PostgresServer) -> Iterator[Mirror]:
    with mirrored(server) as mirror:
        yield mirror


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
@pytest.mark.parametrize("kind", ["ALWAYS", "BY DEFAULT"])
def test_a_change_beside_a_large_value_leaves_an_identity_alone(
    mirror: Mirror, run_async: RunAsync, kind: str, identity: str
) -> None:
    mirror.both(f"CREATE TABLE t (id int GENERATED {kind} AS IDENTITY PRIMARY KEY, note text, body text)" + EXTERNAL)
    mirror.source.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}".encode())
    mirror.publish()

    async def main() -> None:
        await mirror.apply(f"INSERT INTO t (note, body) SELECT 'first', {LARGE} FROM generate_series(1, 3)")
        await mirror.apply("UPDATE t SET note = 'changed' WHERE id < 3", "UPDATE t SET body = 'small' WHERE id = 2")
        await mirror.apply("DELETE FROM t WHERE id = 3", "UPDATE t SET id = DEFAULT WHERE id = 1")

    run_async(main)
    assert mirror.differences("t") == {}
    assert len(mirror.rows(mirror.sink, "t")) == 2


def test_a_key_that_cannot_be_set_takes_along_what_is_not_repeated(mirror: Mirror, run_async: RunAsync) -> None:
    mirror.source.execute(("CREATE TABLE t (id int PRIMARY KEY, note text, body text)" + EXTERNAL).encode())
    mirror.sink.execute(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, body text, own text DEFAULT 'default')"
    )
    mirror.publish()

    async def main() -> None:
        await mirror.apply(f"INSERT INTO t SELECT i, 'first', {LARGE} FROM generate_series(1, 4) AS i")
        mirror.sink.execute("UPDATE t SET own = 'of the sink'")
        await mirror.apply(
            "UPDATE t SET id = id + 10 WHERE id < 3", "UPDATE t SET id = 20, note = 'both', body = 'x' WHERE id = 3"
        )
        await mirror.apply("BEGIN; UPDATE t SET id = 99 WHERE id = 11; UPDATE t SET id = 11 WHERE id = 12; COMMIT")

    run_async(main)
    assert mirror.differences("t", columns="ROW(id, note, body)") == {}
    assert mirror.sink.execute("SELECT count(*) FROM t WHERE own = 'of the sink'").fetchone() == (4,)


def test_a_column_beside_the_key_that_cannot_be_set_is_right_as_well(mirror: Mirror, run_async: RunAsync) -> None:
    mirror.source.execute(("CREATE TABLE t (code text PRIMARY KEY, n bigint, body text)" + EXTERNAL).encode())
    mirror.sink.execute("CREATE TABLE t (code text PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY, body text)")
    mirror.publish()

    async def main() -> None:
        await mirror.apply(f"INSERT INTO t SELECT 'c' || i, i, {LARGE} FROM generate_series(1, 4) AS i")
        await mirror.apply("UPDATE t SET n = n + 10 WHERE n < 3", "UPDATE t SET code = 'x', n = 77 WHERE n = 3")
        await mirror.apply("UPDATE t SET n = 5, body = 'small' WHERE n = 4", "UPDATE t SET body = 'other' WHERE n = 5")

    run_async(main)
    assert mirror.differences("t") == {}


def test_what_the_sink_generates_is_its_own_affair(mirror: Mirror, run_async: RunAsync) -> None:
    run_async(lambda: generated_in_the_sink(mirror, "STORED"))


def test_what_is_generated_when_it_is_read_and_what_the_source_publishes_of_it(
    newest: PostgresServer, run_async: RunAsync
) -> None:
    with mirrored(newest) as mirror:
        mirror.source.execute("CREATE TABLE g (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
        mirror.source.execute("INSERT INTO g SELECT i, i FROM generate_series(1, 5) AS i")
        mirror.source.execute("CREATE PUBLICATION shop FOR ALL TABLES WITH (publish_generated_columns = stored)")
        mirror.sink.execute("CREATE TABLE g (id int PRIMARY KEY, n int, twice int)")
        run_async(lambda: generated_in_the_sink(mirror, "VIRTUAL"))
        assert mirror.differences("g") == {}


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
    async with running(source, PostgresSink(Postgres(sink, name="sink")), snapshot=True):
        await streams(source)
        await asyncio.to_thread(ask, source, work)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(mirror.differences, "t", columns="ROW(id, name, body)"):
                await asyncio.sleep(0.02)
    assert ask(sink, "SELECT count(*) FROM t WHERE shown = name || '!'") == [(50,)]
    ask(source, "SELECT pg_drop_replication_slot('shop')")


def test_a_table_that_changes_while_it_is_written_is_looked_at_again(mirror: Mirror, run_async: RunAsync) -> None:
    """An ordinary table becomes a partitioned one: what is updated with ONLY there would be nothing."""
    mirror.both("CREATE TABLE t (id int PRIMARY KEY, note text)")
    mirror.publish()
    mirror.source.execute("INSERT INTO t SELECT i, 'first' FROM generate_series(1, 3) AS i")
    inserts = mirror.changes()
    mirror.source.execute("UPDATE t SET note = 'moved', id = 13 WHERE id = 3; DELETE FROM t WHERE id = 1")
    changes = mirror.changes()

    async def main() -> None:
        sink = mirror.writer
        await sink.open("shop", 1)
        for delivery in inserts:
            await sink.write(delivery)
        position = await sink.flush()
        mirror.sink.execute(
            "BEGIN; ALTER TABLE t RENAME TO t_all; CREATE TABLE t (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);"
            "ALTER TABLE t ATTACH PARTITION t_all DEFAULT; COMMIT"
        )
        for delivery in changes:
            await sink.write(delivery)
        with pytest.raises(TableChangedError, match=r"public\.t ") as told:
            await sink.flush()
        fault = attached(told.value)
        assert fault is not None
        assert fault.kind is Kind.TRANSIENT
        await sink.close()
        assert await sink.open("shop", 1) == position
        for delivery in changes:
            await sink.write(delivery)
        assert await sink.flush() > position
        await sink.close()

    run_async(main)
    assert mirror.rows(mirror.sink, "t") == mirror.rows(mirror.source, "t") == ["(13,moved)", "(2,first)"]
