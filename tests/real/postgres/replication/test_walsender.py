"""A walsender session on a real PostgreSQL: slow sinks, frozen and vanished servers, and cancels."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest
from walsender import (
    BIG,
    OPTIONS,
    RULE,
    confirmed,
    expect,
    first_commit,
    is_active,
    prepare,
    read_on,
    sql,
    streaming,
    take_rows,
    until,
)

import outlast
from outlast import Kind, Scope, State
from outlast._core.faults import attached
from outlast.changes._slot.troubles import Meaning, meaning_of
from outlast.postgres import DeadlineExceededError, Postgres
from outlast.postgres.replication import Replication, SlotWaitsError, StreamEndedError, parse_lsn
from outlast.testing import FaultProxy, PostgresServer

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


@pytest.mark.short
def test_it_streams_confirms_and_says_goodbye(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        async with await Replication.connect(db) as session:
            system = await session.identify()
            assert (system.database, session.timeout_s) == ("postgres", 6.0)
            slot = await session.create_slot("s")
            assert slot.snapshot is not None
            assert slot.consistent_lsn >= system.flushed_lsn
            state = await session.slot_state("s")
            assert state is not None
            assert (state.plugin, state.holder, state.is_lost) == ("pgoutput", None, False)
            assert await session.slot_state("other") is None
            await session.start("s", slot.consistent_lsn, OPTIONS)
            await asyncio.to_thread(sql, source, "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
            end = await take_rows(session, 2)
            session.confirm(end)
            assert await session.finish()
        assert confirmed(source) == end
        assert not is_active(source)
        async with await Replication.connect(db) as session:
            await session.drop_slot("s")
            assert await session.slot_state("s") is None
        await db.close()

    run_async(main)


def test_an_exported_snapshot_shows_what_the_slot_does_not_send(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        sql(source, "INSERT INTO t VALUES (1, 'before')")
        async with await Replication.connect(db) as session:
            slot = await session.create_slot("s")
            sql(source, "INSERT INTO t VALUES (2, 'after')")
            async with db.connection() as conn:
                await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                await conn.execute(f"SET TRANSACTION SNAPSHOT '{slot.snapshot}'".encode())
                assert await (await conn.execute("SELECT text FROM t")).fetchall() == [("before",)]
            await session.start("s", slot.consistent_lsn, OPTIONS)
            payloads = []
            while not any(payload[:1] == b"C" for payload in payloads):
                payloads += await session.next_batch()
            inserts = [payload for payload in payloads if payload[:1] == b"I"]
            assert len(inserts) == 1
            assert b"after" in inserts[0]
        await db.close()

    run_async(main)


@pytest.mark.parametrize("rows_statement", [BIG, "INSERT INTO t VALUES (1, 'a')"], ids=["data in the way", "idle"])
def test_a_slow_sink_keeps_its_connection_beyond_the_timeout(
    source: PostgresServer, run_async: RunAsync, rows_statement: str
) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        async with await streaming(db, wal_sender_timeout_s=2.0) as session:
            pid = session.backend_pid
            # In a thread: whoever keeps the event loop from turning is silent, and is cut off with good reason.
            await asyncio.to_thread(sql, source, rows_statement)
            count = int(str((await asyncio.to_thread(sql, source, "SELECT count(*) FROM t"))[0][0]))
            await session.next_batch()
            await asyncio.sleep(5.0)
            assert session.stream is not None
            assert session.stream._size <= (4 << 20) + 65_536, "what waits for the consumer has a bound"
            session.confirm(await take_rows(session, count - 20_000 if count > 20_000 else 0) if count > 20_000 else 0)
            assert session.backend_pid == pid
            assert session.stream.error is None
        assert db.state is State.UP
        await db.close()

    run_async(main)


def test_a_quiet_stream_is_told_how_far_the_server_is(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        sql(source, "CREATE TABLE IF NOT EXISTS elsewhere (id int)")
        async with await streaming(db, wal_sender_timeout_s=1.0) as session:
            sql(source, "INSERT INTO elsewhere SELECT generate_series(1, 1000)")
            written = parse_lsn(str(sql(source, "SELECT pg_current_wal_lsn()")[0][0]))
            while session.keepalive_lsn < written:
                await session.next_batch()
            session.confirm(session.keepalive_lsn)
            assert await session.finish()
            assert confirmed(source) >= written
        await db.close()

    run_async(main)


def test_a_server_that_shuts_down_is_let_go_by_a_stream_that_confirms(
    own: PostgresServer, run_async: RunAsync, expected_logs: Callable[..., None]
) -> None:
    expected_logs("is down", optional=True)

    async def main() -> None:
        db = Postgres(own.dsn())
        async with await streaming(db) as session:
            sql(own, "INSERT INTO t VALUES (1, 'a')")
            session.confirm(await take_rows(session, 1))

            async def follow() -> None:
                while True:
                    await session.next_batch()
                    session.confirm(session.keepalive_lsn)

            stopping = asyncio.ensure_future(asyncio.to_thread(own.stop))
            with pytest.raises(psycopg.OperationalError) as caught:
                await follow()
            assert meaning_of(caught.value) is Meaning.SHUTTING_DOWN
            assert isinstance(caught.value, StreamEndedError)
            await stopping
        await db.close()

    run_async(main)


def test_a_frozen_server_is_noticed_by_our_own_deadline(own: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(own.dsn())
        async with await streaming(db, wal_sender_timeout_s=1.0) as session:
            sql(own, "INSERT INTO t VALUES (1, 'a')")
            await take_rows(session, 1)
            own.freeze()
            try:
                with pytest.raises(DeadlineExceededError, match=r"nothing for 1 s \(wal_sender_timeout\)"):
                    await read_on(session)
                assert not await session.finish(0.2)
            finally:
                own.thaw()
        assert db.state is State.UP, "the next login tells"
        await db.close()

    run_async(main)


def test_a_link_that_swallows_everything_is_noticed_as_well(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        with FaultProxy("127.0.0.1", source.port) as proxy:
            db = Postgres(source.dsn(port=proxy.port))
            async with await streaming(db, wal_sender_timeout_s=1.0) as session:
                proxy.mode = "blackhole"
                with pytest.raises(DeadlineExceededError):
                    await read_on(session)
            # The server gives the slot up by its own timeout: the client's end of the link lives on.
            await until(lambda: not is_active(source))
            await db.close()

    run_async(main)


async def cancelled_while(work: Awaitable[object], ready: Callable[[], object]) -> None:
    """Start, wait until it is under way, cancel; it must end at once: psycopg's own cancel would take 11 s here."""
    task = asyncio.ensure_future(work)
    await until(ready)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_cancel_ends_the_session_at_once_though_the_server_is_frozen(own: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(own.dsn())

        async def consume() -> None:
            async with await streaming(db) as session:
                async for batch in session.batches():
                    session.confirm(session.received_lsn) if batch else None

        task = asyncio.ensure_future(consume())
        await until(lambda: is_active(own))
        own.freeze()
        try:
            await cancelled_while(task, lambda: True)
        finally:
            own.thaw()
        await until(lambda: not is_active(own))
        await db.close()

    run_async(main)


def test_a_slot_that_waits_for_a_transaction_is_given_up_with_its_maker(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        async with await psycopg.AsyncConnection.connect(source.dsn(), application_name="the report that never ends") as old:
            await old.execute("INSERT INTO t VALUES (1, 'open')")
            session = await Replication.connect(db)
            pid = session.backend_pid

            async def create() -> None:
                async with session:
                    await session.create_slot("s")

            def waits() -> object:
                return sql(source, f"SELECT 1 WHERE cardinality(pg_blocking_pids({pid})) > 0")

            task = asyncio.ensure_future(create())
            await until(waits)
            await cancelled_while(task, lambda: True)
            await until(lambda: not sql(source, "SELECT 1 FROM pg_replication_slots"))
            async with await Replication.connect(db, rule=RULE) as session:
                with pytest.raises(SlotWaitsError) as caught:
                    await session.create_slot("s", timeout_s=0.5)
                expect(caught.value, Meaning.SLOT_WAITS, Kind.CONTENDED, "ORDER BY xact_start")
            await old.rollback()
        await until(lambda: not sql(source, "SELECT 1 FROM pg_replication_slots"))
        assert db.state is State.UP
        await db.close()

    run_async(main)


def test_saying_goodbye_in_the_middle_of_a_large_transaction_is_bounded(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        async with await streaming(db) as session:
            sql(source, "INSERT INTO t VALUES (0, 'first')")
            end = await take_rows(session, 1)
            sql(source, BIG)
            await session.next_batch()
            session.confirm(end)
            await session.finish(10.0)
        await until(lambda: not is_active(source))
        assert confirmed(source) == end
        await db.close()

    run_async(main)


def test_a_terminated_session_takes_nobody_down(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        async with await streaming(db) as session:
            sql(source, f"SELECT pg_terminate_backend({session.backend_pid})")
            with pytest.raises(psycopg.errors.AdminShutdown) as caught:
                await read_on(session)
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.scope) == (Kind.TRANSIENT, Scope.CALL)
        assert db.state is State.UP
        await db.close()

    run_async(main)


@pytest.mark.expected_logs
def test_while_the_server_is_down_nothing_is_dialled(own: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        own.stop("immediate")
        with FaultProxy("127.0.0.1", own.port) as proxy:
            db = Postgres(own.dsn(port=proxy.port))
            with pytest.raises(psycopg.OperationalError):
                await Replication.connect(db)
            assert db.state is State.DOWN
            dialled = proxy.attempt_count
            for _ in range(100):
                # Each in a task of its own: one that came back at once would wait longer each time.
                with pytest.raises(outlast.Unavailable):
                    await asyncio.create_task(Replication.connect(db))
            assert proxy.attempt_count <= dialled + 1, "the prober's"
            await db.close()

    run_async(main)


def test_positions_that_are_confirmed_are_not_sent_again(source: PostgresServer, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(source.dsn())
        ends: list[int] = []
        async with await streaming(db) as session:
            for number in range(5):
                sql(source, f"INSERT INTO t VALUES ({number}, 'a')")
                ends.append(await take_rows(session, 1))
            session.confirm(ends[2])
            assert await session.finish()
        async with await Replication.connect(db) as session:
            await session.start("s", 0, OPTIONS)
            assert await first_commit(session) == ends[3]
        # The sink knows more than the server was told: it says where to begin.
        async with await Replication.connect(db) as session:
            await session.start("s", ends[3], OPTIONS)
            assert await first_commit(session) == ends[4]
        await db.close()

    run_async(main)


def test_nothing_is_left_behind_in_an_encrypted_connection(own: PostgresServer, run_async: RunAsync) -> None:
    """OpenSSL takes whole records from the socket, which is silent then, while libpq takes only what it has room for."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = own.data / "server.crt", own.data / "server.key"
    command = "openssl req -new -x509 -days 2 -nodes -newkey rsa:2048 -subj /CN=localhost"
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    owner = own.data.stat()
    for path in (certificate, key):
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    own.settings["ssl"] = "on"
    own.restart()
    sizes = [1, 100, 2_000, 9_000, 20_000, 40_000, 100_000, 1_000_000]

    async def main() -> None:
        # Nothing but the data itself wakes the reader: no heartbeat is due before the test is over.
        db = Postgres(f"{own.dsn()}?sslmode=require")
        async with await streaming(db, wal_sender_timeout_s=600.0) as session:
            assert session.conn.pgconn.ssl_in_use
            for size in sizes:
                rows = max(1, 3_000_000 // size // 10)
                await asyncio.to_thread(sql, own, "TRUNCATE t")
                await asyncio.to_thread(
                    sql, own, f"INSERT INTO t SELECT i, repeat('x', {size}) FROM generate_series(1, {rows}) AS i"
                )
                await take_rows(session, rows)
        await db.close()

    run_async(main)
