"""Writers of the same points: they wait for each other, and where they cannot, the server ends one and it tries again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from postgres_table_rig import PostgresRig, emptied, shared_database
from table_store_rig import INTEGER, group, ids, read, shape, write

from outlast.postgres import Connection, Postgres
from outlast.tables._stores.port import Wrote
from outlast.tables._stores.postgres._sessions import pipelined, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync
    from outlast.testing import PostgresServer


DEADLOCK = """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 20', current_database()); END $$"""
NOTED = """
CREATE TABLE public.noted (number bigint GENERATED ALWAYS AS IDENTITY, name text, time bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.noted (name, time) VALUES (TG_TABLE_NAME, NEW.time);
    RETURN NEW;
END $$;
CREATE TRIGGER note BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION note();
"""


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[str]:
    with shared_database(postgres.dsn()) as dsn:
        yield dsn


@pytest.fixture
def rig(shared: str) -> PostgresRig:
    return PostgresRig(emptied(shared))


def test_tables_and_rows_are_written_in_one_order_by_all(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            a, b = await shape(store, "a", v=INTEGER), await shape(store, "b", v=INTEGER)
            [of_a], [of_b] = await ids(store, a, ()), await ids(store, b, ())
            await rig.by_hand(NOTED)
            rows = [[of_a, 3, 1], [of_a, -1, 2], [of_a, 2, 3]]
            await write(store, group(b, "v", [of_b, 2, 1], [of_b, 1, 1]), group(a, "v", *rows))
            noted = await rig.ask("SELECT name, time FROM public.noted ORDER BY number")
            assert noted == [("a", -1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]
            assert [row[1] for row in rows] == [3, -1, 2], "the caller's rows are as they were"

    rig.run(main)


def test_a_writer_that_the_server_ends_to_break_a_deadlock_writes_again(database: str) -> None:
    rig = PostgresRig(database)

    async def main() -> None:
        await rig.by_hand(DEADLOCK)
        async with rig.opened() as store:
            a, b = await shape(store, "a", v=INTEGER), await shape(store, "b", v=INTEGER)
            [of_a], [of_b] = await ids(store, a, ()), await ids(store, b, ())
            async with await psycopg.AsyncConnection.connect(rig.place) as other:
                await other.execute("SET LOCAL deadlock_timeout = '60s'")
                insert = "INSERT INTO metrics.{} (series, time, v) VALUES (%s, 1, 7)"
                await other.execute(insert.format("b").encode(), (of_b,))
                ours = asyncio.create_task(write(store, group(a, "v", [of_a, 1, 1]), group(b, "v", [of_b, 1, 1])))
                while not await rig.ask("SELECT FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.005)
                # It waits for our row of a, and ours for its row of b.
                await other.execute(insert.format("a").encode(), (of_a,))
            await ours
            assert [fields["v"] for name in "ab" for _, _, fields in await read(store, name)] == [1, 1]

    rig.run(main)


@pytest.mark.parametrize("rounds", [25, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_write_that_is_cancelled_is_done_or_not_and_leaves_nothing_open(rig: PostgresRig, rounds: int) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            a, b = await shape(store, "a", v=INTEGER), await shape(store, "b", v=INTEGER)
            [of_a], [of_b] = await ids(store, a, ()), await ids(store, b, ())
            ended = 0
            for number in range(rounds):
                # Every second one is refused a row, and written the careful way.
                rows = [[of_a, number, number], *([[of_a, -1 - number, 2**63]] if number % 2 else [])]
                task = asyncio.create_task(store.write([group(a, "v", *rows), group(b, "v", [of_b, number, number])]))
                for _ in range(number % 25):
                    await asyncio.sleep(0.0005)
                task.cancel()
                [end] = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(end, asyncio.CancelledError | Wrote), end
                ended += isinstance(end, Wrote)
            await write(store, group(a, "v", [of_a, rounds, 1]), group(b, "v", [of_b, rounds, 1]))
            in_a, in_b = [[time for _, time, _ in await read(store, name)] for name in "ab"]
            assert in_a == in_b, "both groups or neither"
            assert len(in_a) > ended
            others = "datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
            while await rig.ask(f"SELECT FROM pg_stat_activity WHERE {others} AND state LIKE 'idle in%'"):
                await asyncio.sleep(0.005)

    rig.run(main)


@pytest.mark.expected_logs("is down", "postgres: also")
def test_a_session_that_is_ended_in_the_middle_of_a_write_leaves_no_line_of_the_driver(rig: PostgresRig) -> None:
    async def main() -> None:
        rounds = 2
        async with rig.opened() as store:
            a, b = await shape(store, "a", v=INTEGER), await shape(store, "b", v=INTEGER)
            [of_a], [of_b] = await ids(store, a, ()), await ids(store, b, ())
            for number in range(rounds):
                async with await psycopg.AsyncConnection.connect(rig.place) as other:
                    await other.execute("LOCK TABLE metrics.a IN SHARE MODE")
                    rows = [group(a, "v", [of_a, number, 1]), group(b, "v", [of_b, number, 1])]
                    ours = asyncio.create_task(store.write(rows))
                    while not (waits := await rig.ask("SELECT pid FROM pg_locks WHERE NOT granted")):
                        await asyncio.sleep(0.002)
                    await rig.ask(f"SELECT pg_terminate_backend({waits[0][0]})")
                    [end] = await asyncio.gather(ours, return_exceptions=True)
                    assert isinstance(end, psycopg.Error), end
                await store.dependency.ready(10.0)
                await write(store, *rows)
            assert len(await read(store, "a")) == len(await read(store, "b")) == rounds

    rig.run(main)


def test_a_pipeline_that_cannot_end_ends_its_connection(
    rig: PostgresRig, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies says so, and the socket is open a moment longer: psycopg stays in the pipeline, and would log that."""

    def fails(pipeline: psycopg.AsyncPipeline) -> Iterator[None]:
        msg = f"cannot exit {pipeline}"
        raise psycopg.OperationalError(msg)
        yield

    async def main() -> None:
        db = Postgres(rig.place)
        used: list[Connection] = []

        async def dies() -> None:
            async with db.connection() as conn, pipelined(conn):
                used.append(conn)
                await run(conn, "SELECT 1")
                monkeypatch.setattr(psycopg.AsyncPipeline, "_exit_gen", fails)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await dies()
        monkeypatch.undo()
        assert [conn.closed for conn in used] == [True]
        async with db.connection() as another:
            assert await rows(another, "SELECT 1") == [(1,)]
        await db.close()

    run_async(main)
