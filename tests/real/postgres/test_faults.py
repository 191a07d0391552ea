"""A service on a real PostgreSQL that refuses, misleads and comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import psycopg
import pytest

import outlast
from outlast.postgres import DeadlineExceededError, Postgres
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.expected_logs
TRIGGER = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER no BEFORE INSERT ON orders EXECUTE FUNCTION no()
"""
RULES = """
local all all trust
host all app 127.0.0.1/32 {method}
host all all 127.0.0.1/32 trust
"""


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


def run_sql(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@contextlib.asynccontextmanager
async def running(service: outlast.Service) -> AsyncIterator[None]:
    stop = outlast.Stop()
    task = asyncio.create_task(service.run(stop))
    try:
        yield
    finally:
        stop.fire("test")
        assert await task == 0


async def until_state(db: Postgres, *states: outlast.State, limit_s: float = 60.0) -> None:
    async with asyncio.timeout(limit_s):
        while db.state not in states:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
def test_a_wrong_password_is_permanent_said_once_and_heals(
    server: PostgresServer, proxy: FaultProxy, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    encryption = "md5" if method == "md5" else "scram-sha-256"
    run_sql(server.dsn(), f"SET password_encryption = '{encryption}'", "CREATE ROLE app LOGIN PASSWORD 'right'")
    (server.data / "pg_hba.conf").write_text(RULES.format(method=method), encoding="utf-8")
    server.restart()

    async def main() -> None:
        dsn = f"postgresql://app:wrong@127.0.0.1:{proxy.port}/postgres"
        # The rhythm of a fault that needs a person, made quicker: the default asks after 2.5 to 5 s.
        policy = outlast.HealthPolicy(permanent=outlast.Backoff(0.4, 2.0))
        db = Postgres(dsn, policy=policy)
        service = outlast.Service("shop")

        @service.loop(needs=db, workers=20)
        async def ask(stop: outlast.Stop) -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT 1")

        async with running(service):
            await until_state(db, outlast.State.DOWN)
            assert db.fault is not None
            assert (db.fault.kind, db.fault.code) == (outlast.Kind.PERMANENT, "28P01")
            await asyncio.sleep(3)
            assert proxy.attempt_count < 25
            await asyncio.to_thread(
                run_sql, server.dsn(), f"SET password_encryption = '{encryption}'", "ALTER ROLE app PASSWORD 'wrong'"
            )
            await until_state(db, outlast.State.RECOVERING, outlast.State.UP)

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    errors = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(errors) == 1, errors
    assert errors[0].startswith("postgres is down: PERMANENT 28P01")
    assert "put the password right" in errors[0]
    assert "wrong@" not in caplog.text


def test_an_unknown_database_is_permanent_said_once_and_heals(
    server: PostgresServer, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        policy = outlast.HealthPolicy(permanent=outlast.Backoff(0.4, 2.0))
        db = Postgres(server.dsn("shop", port=proxy.port), policy=policy)
        with pytest.raises(outlast.Unavailable):
            async with db.connection():
                pytest.fail("there is no such database")
        assert db.fault is not None
        assert (db.fault.kind, db.fault.code) == (outlast.Kind.PERMANENT, "3D000")
        await asyncio.to_thread(run_sql, server.dsn(), "CREATE DATABASE shop")
        await db.ready(timeout_s=60)
        async with db.connection() as conn:
            await conn.execute("SELECT 1")
        await db.close()

    asyncio.run(main())
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        ("REVOKE ALL ON orders FROM app", "42501"),
        (
            TRIGGER,
            "P0001",
        ),
    ],
    ids=["revoked table", "trigger that raises"],
)
def test_work_that_fails_while_the_probe_passes_backs_off_and_takes_nobody_down(
    server: PostgresServer, break_it: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    run_sql(server.dsn(), "CREATE ROLE app LOGIN", "CREATE TABLE orders (id int)", "GRANT ALL ON orders TO app", break_it)

    async def main() -> tuple[list[float], int]:
        db = Postgres(server.dsn().replace("postgres@", "app@"))
        service, tries, others = outlast.Service("shop"), list[float](), 0

        @service.loop(needs=db, backoff=outlast.Backoff(0.05, 0.8))
        async def settle(stop: outlast.Stop) -> None:
            tries.append(asyncio.get_running_loop().time())
            async with db.connection() as conn:
                await conn.execute("INSERT INTO orders VALUES (1)")

        @service.loop(needs=db, every_s=0.1)
        async def other(stop: outlast.Stop) -> None:
            nonlocal others
            async with db.connection() as conn:
                await conn.execute("SELECT 1")
            others += 1

        async with running(service):
            await asyncio.sleep(6)
            assert db.state is outlast.State.UP
        return tries, others

    with caplog.at_level(logging.INFO):
        tries, others = asyncio.run(main())
    gaps = [later - earlier for earlier, later in zip(tries, tries[1:], strict=False)]
    if code == "P0001":
        # The upper half of the cap, once it has grown: 0.05, 0.1, 0.2, 0.4, 0.8.
        assert len(gaps) > 5
        assert all(gap >= 0.4 for gap in gaps[5:])
    else:
        # A right that a person has to grant: no sooner than 5 s.
        assert all(gap >= 5.0 for gap in gaps)
    assert others > len(tries), "and it goes on"
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1, [record.message for record in told]
    assert code in told[0].message


@pytest.mark.short
@pytest.mark.parametrize("state", ["53100", "58030", "08001", "3D000"])
def test_what_one_statement_meets_slows_no_other_loop_down(server: PostgresServer, state: str) -> None:
    """A full tablespace, an unreadable block, a foreign server that is away: reads have as many turns as without."""
    run_sql(server.dsn(), "CREATE TABLE orders (id int)", TRIGGER.replace("'no'", f"'no' USING ERRCODE = '{state}'"))

    async def main() -> None:
        db, service, stop, refused = Postgres(server.dsn()), outlast.Service("shop"), outlast.Stop(), asyncio.Event()
        reads = 0

        @service.loop(needs=db, workers=5, backoff=outlast.Backoff(0.05, 0.1))
        async def insert(_: outlast.Stop) -> None:
            try:
                async with db.connection() as conn:
                    await conn.execute("INSERT INTO orders VALUES (1)")
            finally:
                refused.set()

        @service.loop(needs=db, every_s=0.01)
        async def read(_: outlast.Stop) -> None:
            nonlocal reads
            await refused.wait()
            async with db.connection() as conn:
                await conn.execute("SELECT 1")
            reads += 1
            if reads == 100:
                stop.fire("enough")

        async with asyncio.timeout(60):
            assert await service.run(stop) == 0
        assert (db.state, db.epoch, db.incident.book.incidents) == (outlast.State.UP, 0, 0)

    asyncio.run(main())


def test_a_connection_killed_again_and_again_is_one_incident_with_growing_waits(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Work succeeds for half a second, then its backend is terminated, for twenty seconds."""

    async def main() -> list[float]:
        db = Postgres(server.dsn(), name="db")
        service, cuts, loop = outlast.Service("shop"), list[float](), asyncio.get_running_loop()

        @service.loop(needs=db)
        async def work(stop: outlast.Stop) -> None:
            async with db.connection() as conn:
                for _ in range(5):
                    await conn.execute("SELECT pg_sleep(0.1)")
                cuts.append(loop.time())
                await asyncio.to_thread(run_sql, server.dsn(), f"SELECT pg_terminate_backend({conn.info.backend_pid})")
                await conn.execute("SELECT 1")

        async with running(service):
            await asyncio.sleep(20)
        assert db.incident.book.incidents == 1
        return [later - earlier for earlier, later in zip(cuts, cuts[1:], strict=False)]

    with caplog.at_level(logging.INFO):
        gaps = asyncio.run(main())
    assert len(gaps) <= 9
    assert gaps[-1] > 2.5
    assert gaps[-1] > gaps[0]
    assert len(caplog.records) <= 8, [record.message for record in caplog.records]


@pytest.mark.short
def test_a_frozen_server_is_a_fault_and_not_a_hang(server: PostgresServer, proxy: FaultProxy) -> None:
    async def main() -> None:
        db = Postgres(server.dsn(port=proxy.port), operation_timeout_s=0.5, connect_timeout_s=2.0)
        async with db.connection() as conn:
            await conn.execute("SELECT 1")
        attempts = proxy.attempt_count
        server.freeze()
        try:
            with pytest.raises(DeadlineExceededError, match=r"did not answer within 0\.5 s"):
                async with db.connection() as conn:
                    await conn.execute("SELECT 1")
            assert db.cancels <= 1
            assert proxy.attempt_count <= attempts + 1 + db.cancels, "a probe to see whose fault it is"
            with pytest.raises(outlast.Unavailable):
                async with db.connection():
                    pytest.fail("must not get in")
        finally:
            server.thaw()
        await db.ready(timeout_s=60)
        async with db.connection() as conn:
            await conn.execute("SELECT 1")
        await db.close()

    asyncio.run(main())


def test_a_cancel_is_instant_and_asks_the_server_once(server: PostgresServer, proxy: FaultProxy) -> None:
    async def main() -> None:
        db = Postgres(server.dsn(port=proxy.port))
        began = asyncio.Event()

        async def work() -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT 1")
                proxy.mode = "blackhole"
                began.set()
                await conn.execute("SELECT 1")

        task = asyncio.create_task(work())
        await began.wait()
        await asyncio.sleep(0.1)
        attempts = proxy.attempt_count
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # psycopg by itself opens a connection here, and waits for it for eleven seconds.
        assert db.unended == 1, "the server cannot be asked"
        assert proxy.attempt_count <= attempts + db.cancels
        assert db.cancels <= 1
        assert db.state is outlast.State.UP, "our own cancel is no evidence"
        await db.close()

    asyncio.run(main())


def test_leaving_while_a_connection_is_dialled_and_without_closing_does_not_hang(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    async def main() -> None:
        proxy.mode = "blackhole"
        db = Postgres(server.dsn(port=proxy.port))
        working = asyncio.create_task(db.connection().__aenter__())
        await asyncio.sleep(0.3)
        assert not working.done()
        raise LookupError

    # The event loop cancels what is left, the pool's own tasks too, and waits for them.
    with pytest.raises(LookupError):
        asyncio.run(main())


def test_a_server_that_has_become_read_only_is_left_until_it_is_writable(server: PostgresServer) -> None:
    run_sql(server.dsn(), "CREATE TABLE orders (id int)")

    async def main() -> None:
        db = Postgres(server.dsn())
        async with db.connection() as conn:
            await conn.execute("INSERT INTO orders VALUES (1)")
        set_to = "ALTER SYSTEM SET default_transaction_read_only = "
        await asyncio.to_thread(run_sql, server.dsn(), set_to + "on", "SELECT pg_reload_conf()")
        async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as conn, asyncio.timeout(60):
            while await (await conn.execute("SHOW default_transaction_read_only")).fetchone() != ("on",):
                await asyncio.sleep(0.02)
        # A session of ours may have been told a moment later.
        await asyncio.sleep(0.5)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            async with db.connection() as conn:
                await conn.execute("INSERT INTO orders VALUES (2)")
        assert db.state is outlast.State.DOWN
        await asyncio.sleep(2)
        assert db.state is outlast.State.DOWN, "that it lets us in is not enough"
        writable = f"{server.dsn()}?options=-c%20default_transaction_read_only%3Doff"
        await asyncio.to_thread(run_sql, writable, set_to + "off", "SELECT pg_reload_conf()")
        await db.ready(timeout_s=60)
        async with db.connection() as conn:
            await conn.execute("INSERT INTO orders VALUES (3)")
        await db.close()

    asyncio.run(main())


def test_too_many_connections_give_ours_back(server: PostgresServer) -> None:
    run_sql(server.dsn(), "ALTER SYSTEM SET max_connections = 8", "ALTER SYSTEM SET superuser_reserved_connections = 0")
    server.settings = {name: value for name, value in server.settings.items() if name != "max_connections"}
    server.restart()

    async def main() -> None:
        db = Postgres(server.dsn(), connections_max=20, acquire_timeout_s=10)
        others = [await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) for _ in range(6)]

        async def hold() -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT pg_sleep(0.5)")

        results = await asyncio.gather(*(hold() for _ in range(6)), return_exceptions=True)
        codes = {outlast.Classifiers().classify(result).code for result in results if isinstance(result, BaseException)}
        assert "53300" in codes, results
        assert db.fault is not None
        assert (db.fault.kind, db.fault.code) == (outlast.Kind.EXHAUSTED, "53300")
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outlast'"
        async with asyncio.timeout(60):
            # None of ours is kept idle.
            while await (await others[0].execute(ours)).fetchone() != (0,):
                await asyncio.sleep(0.02)
        for other in others:
            await other.close()
        await db.ready(timeout_s=60)
        async with db.connection() as conn:
            await conn.execute("SELECT 1")
        await db.close()

    asyncio.run(main())


def test_sessions_that_live_for_fifty_milliseconds_are_few_and_one_incident(
    server: PostgresServer, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> int:
        db, loop, sessions = Postgres(server.dsn(port=proxy.port)), asyncio.get_running_loop(), 0
        end_at = loop.time() + 10
        while loop.time() < end_at:
            await db.ready(timeout_s=60)
            with contextlib.suppress(psycopg.Error, outlast.Unavailable):
                async with db.connection() as conn:
                    sessions += 1
                    loop.call_later(0.05, proxy.cut)
                    await conn.execute("SELECT pg_sleep(10)")
        assert db.incident.book.incidents == 1
        await db.close()
        return sessions

    with caplog.at_level(logging.INFO):
        sessions = asyncio.run(main())
    assert sessions <= 12
    assert proxy.attempt_count <= 24, "a probe for each session"
    assert len(caplog.records) <= 4, [record.message for record in caplog.records]
