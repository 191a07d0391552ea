"""The pool of a `Postgres` on a real server: who is let in, who is let out, and what takes nobody down."""

from __future__ import annotations

import asyncio
import contextlib
import select
import struct
from typing import TYPE_CHECKING

import psycopg
import pytest

import outlast
from outlast import Kind, Scope, State
from outlast._core.faults import attached
from outlast.extend import Pacer
from outlast.postgres import Connection, DeadlineExceededError, Postgres
from outlast.postgres._dependency import MODEST_S
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.expected_logs


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


async def too_many_parameters(conn: Connection) -> None:
    await conn.execute(("SELECT " + ",".join(["%s"] * 70_000)).encode(), [0] * 70_000)


async def write_in_own_read_only_transaction(conn: Connection) -> None:
    await conn.execute("SET TRANSACTION READ ONLY")
    await conn.execute("CREATE TABLE never (id int)")


async def slow_statement(conn: Connection) -> None:
    await conn.execute("SELECT pg_sleep(20)")


async def cursor_that_is_closed(conn: Connection) -> None:
    cursor = conn.cursor()
    await cursor.close()
    await cursor.execute("SELECT 1")


@pytest.mark.short
@pytest.mark.parametrize(
    ("act", "kind", "code"),
    [
        (too_many_parameters, Kind.REJECTED, "driver"),
        (write_in_own_read_only_transaction, Kind.REJECTED, "25006"),
        (slow_statement, Kind.TRANSIENT, "timeout"),
        (cursor_that_is_closed, Kind.BUG, "InterfaceError"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_callers_trouble_takes_nobody_else_down(
    database: str, act: Callable[[Connection], Awaitable[None]], kind: Kind, code: str
) -> None:
    async def main() -> None:
        db = Postgres(database, operation_timeout_s=0.3)
        async with db.connection() as other:
            with pytest.raises(psycopg.Error) as caught:
                async with db.connection() as conn:
                    await act(conn)
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.code.split("@")[0], fault.source) == (kind, code, "postgres")
            assert fault.scope is Scope.CALL or fault.kind is Kind.BUG
            assert (db.state, db.epoch, db.incident.book.incidents) == (State.UP, 0, 0)
            await other.execute("SELECT 1")
        await db.close()

    asyncio.run(main())


class OrderError(Exception):
    pass


def test_an_error_that_the_caller_wrapped_is_looked_at_too(database: str) -> None:
    async def order(db: Postgres) -> None:
        async with db.connection() as conn:
            try:
                await slow_statement(conn)
            except psycopg.Error as error:
                msg = "the order"
                raise OrderError(msg) from error

    async def main() -> None:
        db = Postgres(database, operation_timeout_s=0.3)
        with pytest.raises(OrderError) as caught:
            await order(db)
        assert db.state is State.UP
        assert db.classifiers.classify(caught.value).code == "timeout"
        await db.close()

    asyncio.run(main())


def test_a_write_on_a_server_that_is_only_read_is_no_outage(server: PostgresServer) -> None:
    server.settings = {**server.settings, "default_transaction_read_only": "on"}
    server.restart()

    async def main() -> None:
        db = Postgres(server.dsn(), writable=False)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            async with db.connection() as conn:
                await conn.execute("CREATE TABLE never (id int)")
        assert db.state is State.UP
        await db.close()

    asyncio.run(main())


async def insert_and_fail(db: Postgres) -> None:
    async with db.connection() as conn:
        await conn.execute("INSERT INTO orders VALUES (1)")
        raise ZeroDivisionError


@pytest.mark.short
def test_a_block_is_a_transaction(database: str) -> None:
    async def main() -> None:
        db = Postgres(database)
        async with db.connection() as conn:
            await conn.execute("CREATE TABLE orders (id int)")
        with pytest.raises(ZeroDivisionError):
            await insert_and_fail(db)
        async with db.connection() as conn:
            cursor = await conn.execute("SELECT count(*) FROM orders")
            assert await cursor.fetchone() == (0,)
        assert db.state is State.UP
        await db.close()

    asyncio.run(main())


@pytest.mark.short
def test_a_deadline_can_be_longer_for_what_takes_long(database: str) -> None:
    async def main() -> None:
        db = Postgres(database, operation_timeout_s=1.0)
        async with db.connection() as conn:
            with conn.deadline(None):
                await conn.execute("SELECT pg_sleep(1.2)")
            with conn.deadline(60):
                await conn.execute("SELECT pg_sleep(1.2)")
            assert conn.operation_timeout_s == 1.0
        await db.close()

    asyncio.run(main())


def test_those_who_wait_for_a_connection_are_let_out_when_the_server_goes_down(server: PostgresServer) -> None:
    async def main() -> None:
        db = Postgres(server.dsn(), connections_max=1, acquire_timeout_s=3600)
        lent = asyncio.Event()

        async def hold() -> None:
            async with db.connection() as conn:
                lent.set()
                await conn.execute("SELECT pg_sleep(20)")

        async def wait() -> None:
            with pytest.raises(outlast.Unavailable):
                async with db.connection():
                    pytest.fail("nobody is let in")

        holder = asyncio.create_task(hold())
        await lent.wait()
        waiters = [asyncio.create_task(wait()) for _ in range(20)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.stop, "immediate")
        with pytest.raises(psycopg.Error):
            await holder
        async with asyncio.timeout(60):
            await asyncio.gather(*waiters)
        await db.close()

    asyncio.run(main())


@pytest.mark.short
def test_those_who_wait_are_refused_with_the_first_cause_though_a_dial_hangs(server: PostgresServer, proxy: FaultProxy) -> None:
    async def main() -> None:
        db = Postgres(server.dsn(port=proxy.port), connections_max=2)
        async with db.connection():
            proxy.mode = "blackhole"

            async def wait() -> None:
                async with db.connection():
                    pytest.fail("nobody is let in")

            waiters = [asyncio.create_task(wait()) for _ in range(20)]
            while proxy.attempt_count < 2:
                await asyncio.sleep(0.01)
            db.report(ConnectionResetError("staged"))
            # A few turns of the event loop, and no wait of any kind.
            for _ in range(5):
                await asyncio.sleep(0)
            assert all(waiter.done() for waiter in waiters)
            for refused in [waiter.exception() for waiter in waiters]:
                assert isinstance(refused, outlast.Unavailable)
                assert refused.fault.code == "ECONNRESET"
            proxy.mode = "pass"
        await db.ready(timeout_s=20)
        async with db.connection() as conn:
            await conn.execute("SELECT 1")
        await db.close()

    asyncio.run(main())


def test_what_broke_while_it_lay_idle_is_noticed_before_it_is_lent(server: PostgresServer) -> None:
    async def main() -> None:
        db = Postgres(server.dsn())
        for end in ("SELECT pg_terminate_backend(%s)", "SELECT pg_notify('orders', %s::text)"):
            async with db.connection() as conn:
                await conn.execute("LISTEN orders")
                pid = conn.info.backend_pid
            async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as admin:
                await admin.execute(end.encode(), (pid,))
                query = b"SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
                while "terminate" in end and await (await admin.execute(query, (pid,))).fetchone() != (0,):
                    await asyncio.sleep(0.01)
            async with db.connection() as conn:
                await conn.execute("SELECT 1")
                assert (conn.info.backend_pid == pid) is ("notify" in end), "what only has something to say is lent"
        assert (db.state, db.epoch) == (State.UP, 0)
        await db.close()

    asyncio.run(main())


def test_a_session_that_the_server_has_given_notice_is_not_lent_although_its_socket_is_open_still() -> None:
    """Between the message of the end and the end of the socket lies a moment: here it lasts."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    welcome = (
        message(b"R", struct.pack("!i", 0))
        + message(b"S", b"server_version\00013.0\0")
        + message(b"K", struct.pack("!ii", 1, 2))
        + message(b"Z", b"I")
    )
    notice = message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")

    async def main() -> None:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(8)
            writer.write(b"N")
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            await reader.readexactly(length - 4)
            writer.write(welcome)
            writers.append(writer)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        db = Postgres(f"host=127.0.0.1 port={port} user=shop dbname=shop gssencmode=disable")
        async with db.connection() as first:
            pass
        async with db.connection() as again:
            assert again is first
        writers[0].write(notice)
        while not select.select([first.pgconn.socket], [], [], 0)[0]:
            await asyncio.sleep(0)
        async with db.connection() as second:
            assert second is not first
        assert (len(writers), db.state) == (2, State.UP)
        await db.close()
        listener.close()

    asyncio.run(main())


def test_a_connection_of_an_older_epoch_is_not_lent_again(server: PostgresServer) -> None:
    async def main() -> None:
        db = Postgres(server.dsn())
        async with db.connection() as old:
            db.report(ConnectionResetError("staged"))
            assert db.state is State.DOWN
            await db.ready(timeout_s=60)
            assert not old.closed, "whoever has it may finish"
        assert old.closed
        async with db.connection() as new:
            assert (new.epoch, db.epoch) == (1, 1)
        await db.close()

    asyncio.run(main())


def test_a_dedicated_connection_notices_that_the_server_froze(server: PostgresServer) -> None:
    async def main() -> None:
        db = Postgres(server.dsn(), operation_timeout_s=0.3)
        listener = await db.connect()
        await listener.execute("LISTEN orders")
        waiting = asyncio.create_task(anext(listener.notifies()))
        await asyncio.sleep(0.1)
        async with db.connection() as conn:
            server.freeze()
            try:
                with pytest.raises(DeadlineExceededError):
                    await conn.execute("SELECT 1")
                # It has no deadline of its own: only the dependency's fault ends its wait.
                db.report(TimeoutError("staged"))
                with pytest.raises(psycopg.OperationalError) as caught:
                    await waiting
            finally:
                server.thaw()
        fault = attached(caught.value)
        assert fault is not None
        assert fault.code == "timeout"
        await listener.close()
        await db.close()

    asyncio.run(main())


@pytest.mark.short
def test_closing_hangs_on_no_frozen_server_and_only_cancels(server: PostgresServer, proxy: FaultProxy) -> None:
    async def main() -> None:
        db = Postgres(server.dsn(port=proxy.port))

        async def work() -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT pg_sleep(60)")

        tasks = [asyncio.create_task(work()) for _ in range(5)]
        dedicated = await db.connect()
        await asyncio.sleep(0.5)
        attempts = proxy.attempt_count
        server.freeze()
        try:
            async with asyncio.timeout(30):
                await db.close()
                results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            server.thaw()
        await dedicated.close()
        assert all(isinstance(result, psycopg.OperationalError) for result in results)
        assert 1 <= db.cancels <= 5, "at most one for each statement"
        assert proxy.attempt_count <= attempts + db.cancels

    asyncio.run(main())


def test_each_connection_waits_for_its_moment(server: PostgresServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/unit/postgres/test_pacer.py shows that there are eight in any tenth of a second."""
    turns = 0
    turn = Pacer.turn

    async def counted(pacer: Pacer) -> None:
        nonlocal turns
        await turn(pacer)
        turns += 1

    monkeypatch.setattr(Pacer, "turn", counted)

    async def main() -> None:
        db = Postgres(server.dsn(port=proxy.port), connections_max=40)

        async def work() -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT pg_sleep(0.3)")

        dedicated = [asyncio.create_task(db.connect()) for _ in range(10)]
        await asyncio.gather(*(work() for _ in range(60)))
        for conn in await asyncio.gather(*dedicated):
            await conn.close()
        await db.close()

    asyncio.run(main())
    assert 20 < proxy.attempt_count <= turns


def test_a_standby_is_passed_over_by_the_probe_and_by_the_driver(server: PostgresServer) -> None:
    async def main() -> None:
        both = f"postgresql://postgres@127.0.0.1:{reader.port},127.0.0.1:{server.port}/postgres"
        db = Postgres(both)
        await db.probe()
        async with db.connection() as conn:
            assert conn.info.port == server.port
            await conn.execute("CREATE TABLE orders (id int)")
        await db.close()
        db = Postgres(both, writable=False)
        async with db.connection() as conn:
            assert conn.info.port == reader.port
        await db.close()

    with PostgresServer(settings={"default_transaction_read_only": "on"}) as reader:
        asyncio.run(main())


def test_after_too_many_connections_half_as_many_are_used_for_a_while(database: str) -> None:
    async def main() -> None:
        db, loop = Postgres(database, connections_max=8), asyncio.get_running_loop()

        async def work() -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT pg_sleep(0.7)")

        async def peak() -> int:
            tasks = [asyncio.create_task(work()) for _ in range(12)]
            most = 0
            while not all(task.done() for task in tasks):
                most = max(most, len(db._own_pool().places.borrowed))
                await asyncio.sleep(0.01)
            await asyncio.gather(*tasks)
            return most

        assert await peak() == 8
        db.report(psycopg.errors.TooManyConnections("staged"))
        await db.ready(timeout_s=60)
        assert await peak() == 4
        db._modest_until = loop.time() - MODEST_S
        assert await peak() == 8
        await db.close()

    asyncio.run(main())
