"""The formats of the tables that systems keep: made, taken over, raised by one process at a time, refused when newer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import outlast
from outlast import Kind
from outlast.changes._sinks.postgres import POSITIONS, PostgresSink
from outlast.changes._snapshot.progress import RANGES, PostgresProgress
from outlast.extend import NewerFormatError, attached
from outlast.jobs import Jobs, JobState
from outlast.jobs._schema import TABLES as JOBS
from outlast.postgres import Postgres
from outlast.postgres import schema as schema_module
from outlast.postgres.ownership import Standby
from outlast.postgres.ownership._epochs import TABLES as OWNERSHIP
from outlast.postgres.schema import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from conftest import RunAsync

SAMPLE_OF_JOBS = """
CREATE SCHEMA outlast;
CREATE TABLE outlast.migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
INSERT INTO outlast.migrations (version) VALUES (1);
CREATE TABLE outlast.jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token uuid NOT NULL UNIQUE,
    queue text NOT NULL,
    kind text NOT NULL,
    payload json,
    state text NOT NULL DEFAULT 'available'
        CHECK (state IN ('available', 'running', 'done', 'dead', 'cancelled', 'expired')),
    priority integer NOT NULL,
    run_at timestamptz NOT NULL,
    deadline_at timestamptz,
    unique_key text,
    attempt integer NOT NULL DEFAULT 0,
    attempts_max integer NOT NULL CHECK (attempts_max > 0),
    worker uuid,
    cancel_requested boolean NOT NULL DEFAULT false,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    result json,
    first_fault json,
    last_fault json
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX jobs_available ON outlast.jobs (queue, priority DESC, run_at, id) WHERE state = 'available';
CREATE INDEX jobs_running ON outlast.jobs (worker) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_unique_key ON outlast.jobs (unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('available', 'running');
CREATE INDEX jobs_deadline ON outlast.jobs (deadline_at) WHERE state = 'available' AND deadline_at IS NOT NULL;
CREATE INDEX jobs_finished ON outlast.jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE outlast.workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);
INSERT INTO outlast.jobs (token, queue, kind, payload, priority, run_at, attempts_max)
VALUES (gen_random_uuid(), 'default', 'settle', '{"order": 7}', 0, now(), 5)
"""
SAMPLE_OF_CHANGES = """
CREATE SCHEMA IF NOT EXISTS outlast;
CREATE TABLE IF NOT EXISTS outlast.change_epochs (
    stream text PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    taken_at timestamptz NOT NULL
);
INSERT INTO outlast.change_epochs VALUES ('shop', 7, 'host-a pid 1', now());
CREATE TABLE IF NOT EXISTS outlast.change_positions (
    stream text PRIMARY KEY,
    lsn pg_lsn NOT NULL,
    epoch bigint NOT NULL,
    filled boolean NOT NULL DEFAULT false,
    snapshot_due boolean NOT NULL DEFAULT false,
    copied_until pg_lsn NOT NULL DEFAULT '0/0',
    mixed_until pg_lsn NOT NULL DEFAULT '0/0',
    updated_at timestamptz NOT NULL
);
INSERT INTO outlast.change_positions VALUES ('shop', '0/10', 7, true, false, '0/8', '0/9', now());
CREATE TABLE IF NOT EXISTS outlast.snapshot_ranges (
    stream text NOT NULL,
    origin pg_lsn NOT NULL,
    place integer NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    key_columns text[] NOT NULL,
    rows_estimated bigint NOT NULL,
    number integer NOT NULL,
    low text[],
    high text[],
    position text[],
    rows bigint NOT NULL,
    done boolean NOT NULL,
    source_lsn pg_lsn,
    source_name text,
    mixed boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, table_schema, table_name, number)
);
INSERT INTO outlast.snapshot_ranges VALUES
    ('shop', '0/8', 0, 'public', 'item', '{id}', 3, 0, NULL, NULL, '{3}', 3, true, NULL, NULL, false, now())
"""
"""As installations have them that are older than the table of formats. They never change."""
EVERY = [JOBS, OWNERSHIP, POSITIONS, RANGES]
TOY = Tables("toy", ("CREATE TABLE {schema}.toy (a int)", "ALTER TABLE {schema}.toy ADD b int DEFAULT 5"), ("toy", "a"))


def ask(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def connected(dsn: str, run_async: RunAsync, test: Callable[[psycopg.AsyncConnection[Any]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await test(conn)

    run_async(main)


@pytest.mark.parametrize("tables", EVERY, ids=lambda tables: tables.system)
def test_tables_are_made_once_and_their_format_is_recorded(database: str, run_async: RunAsync, tables: Tables) -> None:
    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        newest = len(tables.migrations)
        assert await tables.format(conn, "our own") == 0
        assert await tables.migrate(conn, "our own") == newest
        assert await tables.format(conn, "our own") == newest
        assert await tables.migrate(conn, "our own") == 0

    connected(database, run_async, test)
    rows = ask(database, 'SELECT system, format FROM "our own".formats ORDER BY 2')
    assert rows == [(tables.system, number) for number in range(1, len(tables.migrations) + 1)]


def test_a_queue_of_before_is_taken_over_with_its_jobs(database: str, run_async: RunAsync) -> None:
    ask(database, SAMPLE_OF_JOBS)

    async def main() -> None:
        db = Postgres(database)
        jobs = Jobs(db)
        assert await jobs.migrate() == len(JOBS.migrations) - 1
        record = await jobs.get(1)
        assert record is not None
        assert (record.state, record.payload) == (JobState.AVAILABLE, {"order": 7})
        assert (await jobs.enqueue("settle")).created
        await db.close()

    run_async(main)


def test_streams_of_before_are_taken_over_with_owner_position_and_snapshot(database: str, run_async: RunAsync) -> None:
    ask(database, SAMPLE_OF_CHANGES)

    async def main() -> None:
        db = Postgres(database)
        state = await PostgresProgress(db).load("shop")
        assert state is not None
        assert (state.origin_lsn, state.tables[0].ranges[0].position) == (8, ("3",))
        standby = Standby(db, "shop")
        async with standby:
            assert standby.epoch == 8
        sink = PostgresSink(db)
        assert await sink.open("shop", 8) == 0x10
        assert sink.copied_until == 8
        await sink.close()
        await db.close()

    run_async(main)
    assert ask(database, "SELECT system, format FROM outlast.formats") == [("ownership", 2)]


def test_a_process_of_the_version_before_takes_and_checks_the_same_epochs(database: str, run_async: RunAsync) -> None:
    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        await OWNERSHIP.migrate(conn, "outlast")

    connected(database, run_async, test)
    take = (
        "INSERT INTO outlast.change_epochs AS e (stream, epoch, owner, taken_at) VALUES ('shop', 1, 'old', clock_timestamp())"
        " ON CONFLICT (stream) DO UPDATE SET epoch = e.epoch + 1, owner = excluded.owner, taken_at = excluded.taken_at"
        " RETURNING epoch"
    )
    assert ask(database, take) == [(1,)]
    assert ask(database, "UPDATE outlast.epochs SET epoch = 41", take) == [(42,)]
    assert ask(database, "SELECT epoch, owner FROM outlast.change_epochs WHERE stream = 'shop' FOR SHARE") == [(42, "old")]
    ask(database, "CREATE TABLE IF NOT EXISTS outlast.change_epochs (stream text)")
    assert ask(database, "SELECT epoch FROM outlast.epochs WHERE name = 'shop'") == [(42,)]


@pytest.mark.parametrize("tables", EVERY, ids=lambda tables: tables.system)
def test_a_newer_format_is_refused_by_name(database: str, run_async: RunAsync, tables: Tables) -> None:
    newest = len(tables.migrations)
    wanted = (
        f"^schema outlast of \\w+ has {tables.system} format {newest + 2}, this version knows up to {newest}: upgrade Outlast$"
    )

    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        await tables.migrate(conn, "outlast")
        await conn.execute("INSERT INTO outlast.formats (system, format) VALUES (%s, %s)", (tables.system, newest + 2))
        for act in (tables.format, tables.migrate):
            with pytest.raises(NewerFormatError, match=wanted) as caught:
                await act(conn, "outlast")
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.hint, fault.is_evidence) == (Kind.PERMANENT, "upgrade Outlast", False)

    connected(database, run_async, test)


def test_whoever_uses_tables_of_a_newer_format_is_refused(database: str, run_async: RunAsync, tmp_path: Any, caplog: Any) -> None:
    async def main() -> None:
        db = Postgres(database)
        async with db.connection() as conn:
            for tables in EVERY:
                await tables.migrate(conn, "outlast")
                await conn.execute("INSERT INTO outlast.formats (system, format) VALUES (%s, 9)", (tables.system,))
        with pytest.raises(NewerFormatError, match="ownership format 9"):
            await Standby(db, "shop").__aenter__()
        sink = PostgresSink(db)
        with pytest.raises(NewerFormatError, match="changes positions format 9"):
            await sink.open("shop", 1)
        await sink.close()
        with pytest.raises(NewerFormatError, match="changes snapshots format 9"):
            await PostgresProgress(db).load("shop")
        jobs = Jobs(db, journal_path=tmp_path / "journal")
        with pytest.raises(NewerFormatError, match="jobs format 9"):
            await jobs.migrate()
        ran: list[object] = []

        @jobs.handler("settle")
        async def settle(job: object) -> None:
            ran.append(job)

        await jobs.enqueue("settle")
        service, stop = outlast.Service("worker", deadline_s=2.0), outlast.Stop()
        jobs.work(service, workers=1)
        running = asyncio.create_task(service.run(stop))
        while "jobs format 9" not in caplog.text:
            await asyncio.sleep(0.02)
        stop.fire("test")
        await running
        assert ran == []
        assert db.state is outlast.State.UP
        await db.close()

    run_async(main)


def test_of_many_who_migrate_at_once_one_does(database: str, run_async: RunAsync) -> None:
    async def one() -> int:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            return await TOY.migrate(conn, "outlast")

    async def main() -> None:
        assert sorted(await asyncio.gather(*(one() for _ in range(6)))) == [0, 0, 0, 0, 0, 2]

    run_async(main)


def test_a_migration_that_fails_leaves_what_there_was(database: str, run_async: RunAsync) -> None:
    bad = Tables("toy", (*TOY.migrations, "ALTER TABLE {schema}.toy DROP a; ALTER TABLE {schema}.gone ADD c int"), ("toy", "a"))

    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        await TOY.migrate(conn, "outlast")
        await conn.execute("INSERT INTO outlast.toy VALUES (1)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            await bad.migrate(conn, "outlast")
        assert await bad.format(conn, "outlast") == 2

    connected(database, run_async, test)
    assert ask(database, "SELECT a, b FROM outlast.toy") == [(1, 5)]


def test_a_table_of_the_same_name_is_not_taken_for_ours(database: str, run_async: RunAsync) -> None:
    ask(database, "CREATE TABLE public.jobs (id int)")

    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        assert await JOBS.format(conn, "public") == 0
        with pytest.raises(psycopg.errors.DuplicateTable):
            await JOBS.migrate(conn, "public")
        assert await JOBS.format(conn, "public") == 0

    connected(database, run_async, test)


def test_a_table_that_is_in_use_is_waited_for_in_bounds(
    database: str, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_module, "LOCK_S_MAX", 0.05)
    older = Tables("toy", TOY.migrations[:1], ("toy", "a"))

    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        await older.migrate(conn, "outlast")
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("SELECT FROM outlast.toy")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await TOY.migrate(conn, "outlast")
            # The wait for another process that migrates has no such bound: it is no lock of a table.
            await other.rollback()
            await other.execute("SELECT pg_advisory_xact_lock(%s)", (schema_module._LOCK,))
            waiting = asyncio.create_task(TOY.migrate(conn, "outlast"))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await other.rollback()
            assert await waiting == 1

    connected(database, run_async, test)


def test_what_is_up_to_date_needs_no_right_but_to_read_and_what_is_not_says_which(database: str, run_async: RunAsync) -> None:
    role = f"reader_{database.rpartition('_')[2][:12]}"

    async def test(conn: psycopg.AsyncConnection[Any]) -> None:
        await TOY.migrate(conn, "outlast")
        await conn.execute(f"CREATE ROLE {role}".encode())
        try:
            await conn.execute(f"GRANT USAGE ON SCHEMA outlast TO {role}; GRANT SELECT ON outlast.formats TO {role}".encode())
            await conn.execute(f"SET ROLE {role}".encode())
            assert await TOY.migrate(conn, "outlast") == 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                await Tables("other", ("CREATE TABLE {schema}.other (a int)",), ("other", "a")).migrate(conn, "outlast")
            fault = attached(caught.value)
            assert fault is not None
            assert fault.kind is Kind.PERMANENT
            assert "has other format 0, and this role may not make it 1: permission denied" in fault.reason
            assert "as the owner of the tables" in fault.hint
        finally:
            await conn.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())

    connected(database, run_async, test)
