"""What a real PostgreSQL refuses a walsender session, in its own words, and what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from walsender import (
    OPTIONS,
    RULE,
    expect,
    prepare,
    read_on,
    sql,
    streaming,
)

from outlast import Kind, State
from outlast.changes._slot.troubles import Meaning
from outlast.postgres import Postgres
from outlast.postgres.replication import Replication, read_slot
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from conftest import RunAsync


@pytest.fixture(scope="module")
def shared() -> Iterator[PostgresServer]:
    with PostgresServer(settings={"wal_level": "logical", "max_wal_size": "2GB"}) as server:
        yield server


@pytest.fixture
def source(shared: PostgresServer) -> Iterator[PostgresServer]:
    """The shared server with an empty table and its publication; slots of a test before are gone."""
    prepare(shared)
    yield shared
    sql(shared, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
    sql(shared, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'outlast%'")


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server to be broken."""
    settings = {"wal_level": "logical", "max_replication_slots": "2", "max_wal_senders": "2"}
    with PostgresServer(settings=settings) as server:
        prepare(server)
        yield server


# What servers refuse, in their own words.


async def refused(
    server: PostgresServer, act: Callable[[Replication], Awaitable[object]], user: str = "postgres"
) -> psycopg.Error:
    db = Postgres(server.dsn(user=user))
    try:
        with pytest.raises(psycopg.Error) as caught:
            async with await Replication.connect(db, rule=RULE) as session:
                await act(session)
        assert db.state is State.UP, "one stream's trouble is nobody else's"
    finally:
        await db.close()
    return caught.value


async def start_slot(session: Replication) -> None:
    await session.start("s", 0, OPTIONS)
    await read_on(session)


async def create_slot(session: Replication) -> None:
    await session.create_slot("s")


def test_a_slot_that_is_taken_is_contended_and_its_holder_is_known(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn(), application_name="somebody")
        async with await streaming(db) as session:
            error = await refused(source, start_slot)
            expect(error, Meaning.SLOT_IN_USE, Kind.CONTENDED, "WHERE slot_name = 's'")
            async with db.connection() as conn:
                slot = await read_slot(conn, "s")
                assert slot is not None
                assert slot.holder is not None
                who = slot.holder
                assert (who.pid, who.application) == (session.backend_pid, "outlast replication")
                assert "since 20" in str(who)
                assert await read_slot(conn, "no_such_slot") is None
        await db.close()

    run_async(main)


def test_what_is_missing_is_said_with_the_statement_that_makes_it(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        expect(
            await refused(source, start_slot),
            Meaning.SLOT_MISSING,
            Kind.PERMANENT,
            "pg_create_logical_replication_slot('s', 'pgoutput')",
        )
        sql(source, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        sql(source, "DROP PUBLICATION pub")
        sql(source, "INSERT INTO t VALUES (1, 'a')")
        if int(str(sql(source, "SHOW server_version_num")[0][0])) < 180_000:
            # Newer ones send nothing, and a warning to their own log.
            expect(await refused(source, start_slot), Meaning.PUBLICATION_MISSING, Kind.PERMANENT, 'CREATE PUBLICATION "pub"')

    run_async(main)


def test_a_protocol_that_the_server_does_not_have(source: PostgresServer, run_async: RunAsync) -> None:
    async def ask(session: Replication) -> None:
        await session.create_slot("s")
        await session.start("s", 0, {"proto_version": "99", "publication_names": "pub"})
        await read_on(session)

    async def main() -> None:
        expect(await refused(source, ask), Meaning.PROTOCOL, Kind.PERMANENT, "lower proto_version")

    run_async(main)


def test_rights_and_room_that_are_missing(own: PostgresServer, run_async: RunAsync) -> None:
    sql(own, "CREATE ROLE app LOGIN")

    async def nothing(session: Replication) -> None:
        del session

    async def main() -> None:
        error = await refused(own, nothing, user="app")
        expect(error, Meaning.NO_RIGHT, Kind.PERMANENT, 'ALTER ROLE "app" REPLICATION')
        sql(own, "ALTER ROLE app REPLICATION")
        for name in ("a", "b"):
            sql(own, f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        error = await refused(own, create_slot, user="app")
        expect(error, Meaning.SLOTS_USED_UP, Kind.EXHAUSTED, "max_replication_slots")
        db = Postgres(own.dsn())
        sessions = [await Replication.connect(db) for _ in range(2)]
        error = await refused(own, nothing)
        expect(error, Meaning.SENDERS_USED_UP, Kind.EXHAUSTED, "max_wal_senders")
        for session in sessions:
            session.close()
        await db.close()

    run_async(main)


def test_a_server_that_keeps_too_little_of_its_log(run_async: RunAsync) -> None:
    async def main() -> None:
        with PostgresServer(settings={"wal_level": "replica"}) as server:
            error = await refused(server, create_slot)
        expect(error, Meaning.WAL_LEVEL, Kind.PERMANENT, "ALTER SYSTEM SET wal_level = 'logical'")

    run_async(main)


def test_a_slot_that_is_lost(run_async: RunAsync) -> None:
    settings = {"wal_level": "logical", "max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}

    async def main() -> None:
        with PostgresServer(settings=settings) as server:
            prepare(server)
            sql(server, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
            for _ in range(6):
                sql(server, "SELECT pg_switch_wal() FROM (SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))) AS m")
            sql(server, "CHECKPOINT")
            db = Postgres(server.dsn())
            async with await Replication.connect(db) as session:
                state = await session.slot_state("s")
                assert state is not None
                assert state.is_lost
            await db.close()
            expect(await refused(server, start_slot), Meaning.SLOT_LOST, Kind.PERMANENT, "pg_drop_replication_slot('s')")

    run_async(main)
