"""Tables of a sink that are not like those of the source: each change reaches its own rows, and no others."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from changes_mirror import Mirror, mirrored
from changes_source import LOGICAL, ask, running, streams

from outlast import Kind
from outlast._core.faults import attached
from outlast.changes import PostgresSink, SourcePolicy
from outlast.changes._sinks.tables import TableChangedError
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync

FAMILY = "CREATE TABLE m (id int PRIMARY KEY, note text); CREATE TABLE c (PRIMARY KEY (id)) INHERITS (m)"
PARTS = """
CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (100) TO (200)
"""


@pytest.fixture(scope="module")
def side_by_side() -> Iterator[Mirror]:
    with PostgresServer(settings=LOGICAL) as server, mirrored(server) as mirror:
        yield mirror


@pytest.fixture
def mirror(side_by_side: Mirror) -> Mirror:
    side_by_side.reset()
    return side_by_side


# Inheritance.


def test_a_change_of_a_parent_leaves_the_rows_of_its_children_alone(mirror: Mirror, run_async: RunAsync) -> None:
    mirror.both(FAMILY)
    mirror.publish()

    async def main() -> None:
        await mirror.apply("INSERT INTO m VALUES (1, 'm'), (2, 'm')", "INSERT INTO c VALUES (1, 'c'), (2, 'c')")
        await mirror.apply("UPDATE ONLY m SET note = 'changed' WHERE id = 1", "DELETE FROM ONLY m WHERE id = 2")
        assert mirror.differences("m", "c") == {}
        await mirror.apply("UPDATE ONLY m SET id = 3 WHERE id = 1", "TRUNCATE ONLY m")
        assert mirror.rows(mirror.sink, "c") == ["(1,c)", "(2,c)"]
        await mirror.apply("INSERT INTO m VALUES (9, 'm')", "TRUNCATE m")
        assert mirror.differences("m", "c") == {}
        assert mirror.rows(mirror.sink, "c") == []

    run_async(main)


def test_a_snapshot_reads_and_empties_every_table_for_itself(mirror: Mirror, run_async: RunAsync) -> None:
    mirror.both(FAMILY + ";" + PARTS)
    mirror.source.execute("INSERT INTO m SELECT i, 'm' FROM generate_series(1, 50) AS i")
    mirror.source.execute("INSERT INTO c SELECT i, 'c' FROM generate_series(41, 90) AS i")
    mirror.source.execute("INSERT INTO p SELECT i, 'p' FROM generate_series(1, 199) AS i; ANALYZE")
    source, sink = mirror.source.info.dsn, mirror.sink.info.dsn

    async def equal() -> None:
        # Not in this thread: what is asked for waits for a transaction of ours.
        async with asyncio.timeout(30):
            while await asyncio.to_thread(mirror.differences, "m", "c", "p_low", "p_high"):
                await asyncio.sleep(0.01)

    async def main() -> None:
        async with running(source, PostgresSink(Postgres(sink, name="sink")), source=SourcePolicy(snapshot=True)):
            await streams(source)
            await equal()
            await asyncio.to_thread(ask, source, "TRUNCATE ONLY m; UPDATE p SET note = 'changed' WHERE id % 10 = 0")
            await equal()

    run_async(main)
    assert [len(mirror.rows(mirror.sink, table)) for table in ("m", "c", "p")] == [0, 50, 199]


@pytest.mark.parametrize("via_root", [False, True], ids=["partitions", "root"])
@pytest.mark.parametrize("flat", [False, True], ids=["like the source", "one table"])
def test_partitions_are_written_wherever_the_rows_are(mirror: Mirror, run_async: RunAsync, *, via_root: bool, flat: bool) -> None:
    mirror.source.execute(PARTS)
    if flat:
        names = ["p"] if via_root else ["p_low", "p_high"]
        mirror.sink.execute("; ".join(f"CREATE TABLE {name} (id int PRIMARY KEY, note text)" for name in names).encode())
    else:
        mirror.sink.execute(PARTS)
    mirror.publish(f"WITH (publish_via_partition_root = {str(via_root).lower()})")
    tables = ["p"] if via_root else ["p_low", "p_high"]

    async def main() -> None:
        await mirror.apply("INSERT INTO p SELECT i, 'p' FROM generate_series(90, 110) AS i")
        await mirror.apply(
            "UPDATE p SET note = 'changed' WHERE id > 95",
            "UPDATE p SET id = id + 50 WHERE id < 95",
            "DELETE FROM p WHERE id = 100",
        )
        assert mirror.differences(*tables) == {}
        await mirror.apply("TRUNCATE p", "INSERT INTO p VALUES (1, 'again')")
        assert mirror.differences(*tables) == {}

    run_async(main)


def test_a_whole_table_of_the_source_may_have_children_in_the_sink(mirror: Mirror, run_async: RunAsync) -> None:
    mirror.source.execute("CREATE TABLE m (id int PRIMARY KEY, note text)")
    mirror.sink.execute(FAMILY + "; INSERT INTO c VALUES (1, 'not ours')")
    mirror.publish()

    async def main() -> None:
        await mirror.apply("INSERT INTO m VALUES (1, 'm')", "UPDATE m SET id = 2", "TRUNCATE m RESTART IDENTITY CASCADE")

    run_async(main)
    assert mirror.rows(mirror.sink, "m") == []
    assert mirror.rows(mirror.sink, "c") == ['(1,"not ours")']


WORK = (
    "INSERT INTO {table} VALUES ({id}, 'new') ON CONFLICT DO NOTHING",
    "INSERT INTO {table} SELECT i, 'many' FROM generate_series({id}, {id} + 5) AS i ON CONFLICT DO NOTHING",
    "UPDATE {only} {table} SET note = 'updated {other}' WHERE id % 7 = {id} % 7",
    "UPDATE {only} {table} SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT FROM ONLY {table} WHERE id = {other})",
    "DELETE FROM {only} {table} WHERE id % 5 = {id} % 5",
)


async def random_family_load(mirror: Mirror, seed: int, rounds: int) -> None:
    """Write to a parent, to its child, and to both, and empty them now and then."""
    rng = random.Random(seed)
    for _ in range(rounds):
        statements = []
        for _ in range(rng.randrange(1, 12)):
            table, only = rng.choice([("m", "ONLY"), ("m", ""), ("c", "ONLY")])
            work = rng.choice(WORK) if rng.random() < 0.9 else "TRUNCATE {only} {table}"
            if "SET id" in work:
                only = "ONLY"
            statements.append(work.format(table=table, only=only, id=rng.randrange(200), other=rng.randrange(200)))
        await mirror.apply(*statements)


@pytest.mark.parametrize("seed", range(2))
def test_a_family_is_equal_after_a_random_load(mirror: Mirror, run_async: RunAsync, seed: int) -> None:
    mirror.both(FAMILY)
    mirror.publish()
    run_async(lambda: random_family_load(mirror, seed, 20))
    assert mirror.differences("m", "c") == {}
    assert mirror.rows(mirror.sink, "c"), "there is something to lose"


# A table that is altered.


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
