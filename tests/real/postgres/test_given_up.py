"""What is given up here is given up on the server: cancel requests, places that are the server's, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from outlast import Kind, Scope, State
from outlast._core.faults import attached
from outlast.postgres import DeadlineExceededError, NoConnectionError, Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outlast.testing import PostgresServer

pytestmark = pytest.mark.expected_logs
ROWS = Path(__file__).parent / "row_lock.py"
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('outlast', 'outlast probe')"
DEAF = """
CREATE FUNCTION deaf() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
    END LOOP;
END $$
"""
"""A statement that no cancel request ends."""


@contextlib.contextmanager
def locked_row(dsn: str) -> Iterator[psycopg.Connection]:
    """Hold the lock of the only order; gives a connection of its own to look at the server with."""
    with psycopg.connect(dsn, autocommit=True) as admin, psycopg.connect(dsn) as holder:
        admin.execute("CREATE TABLE orders (id int PRIMARY KEY, total int)")
        admin.execute("INSERT INTO orders VALUES (1, 0)")
        holder.execute("SELECT * FROM orders FOR UPDATE")
        yield admin


def count(conn: psycopg.Connection, query: str = OURS) -> int:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


@pytest.mark.short
@pytest.mark.parametrize("end_by", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_row_that_somebody_else_has_locked_does_not_fill_the_server(server: PostgresServer, end_by: signal.Signals) -> None:
    with locked_row(server.dsn()) as admin:
        environment = {**os.environ, "ROWS_DSN": server.dsn(), "ROWS_DEADLINE_S": "0.3"}
        with subprocess.Popen([sys.executable, ROWS], env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                until(lambda: count(admin, f"{OURS} AND wait_event_type = 'Lock'") == 10)
                peak = 0
                for _ in range(60):
                    peak = max(peak, count(admin))
                    time.sleep(0.05)
                psycopg.connect(server.dsn()).close()
                until(lambda: count(admin, f"{OURS} AND wait_event_type = 'Lock'") == 10)
                process.send_signal(end_by)
                _, said = process.communicate(timeout=10)
            finally:
                process.kill()
        assert peak <= 13, "connections_max and three beside it"
        if end_by is signal.SIGTERM:
            assert process.returncode == 0, said
            assert int(said.rpartition("cancel requests: ")[2]) >= 20, "each statement that was given up is cancelled"
        # The lock is still held: without a word from us these would stay for as long as it is.
        until(lambda: count(admin) == 0)


@pytest.mark.parametrize("libpq", ["new", "older than 17"])
def test_a_statement_whose_caller_is_cancelled_ends_on_the_server(
    server: PostgresServer, libpq: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if libpq != "new":
        monkeypatch.setattr("psycopg.capabilities.has_cancel_safe", lambda: False)

    async def main(admin: psycopg.Connection) -> None:
        # The net under the cancel request is taken away.
        db = Postgres(f"{server.dsn()}?options=-c%20client_connection_check_interval%3D0", connections_max=1)

        async def update() -> None:
            async with db.connection() as conn:
                await conn.execute("UPDATE orders SET total = 1")

        for turn in range(5):
            task = asyncio.create_task(update())
            while not await asyncio.to_thread(count, admin, f"{OURS} AND wait_event_type = 'Lock'"):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert db.unended == 1
            async with asyncio.timeout(30):
                while db.unended:
                    await asyncio.sleep(0.01)
            async with db.connection() as conn:
                await conn.execute("SELECT 1")
            assert db.cancels >= turn + 1
            assert db.state is State.UP
        await db.close()

    with locked_row(server.dsn()) as admin:
        asyncio.run(main(admin))


def test_at_the_bound_callers_are_told_what_has_not_ended_and_since_when(server: PostgresServer) -> None:
    async def main() -> None:
        db = Postgres(
            f"{server.dsn()}?options=-c%20client_connection_check_interval%3D0", connections_max=2, operation_timeout_s=0.3
        )

        async def call() -> None:
            async with db.connection() as conn:
                await conn.execute("SELECT deaf()")

        results = await asyncio.gather(call(), call(), return_exceptions=True)
        assert all(isinstance(result, DeadlineExceededError) for result in results), results
        for _ in ("after a wait", "at once"):
            with pytest.raises(NoConnectionError) as caught:
                await call()
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.code, fault.scope, fault.source) == (
                Kind.OVERLOADED,
                "not ended",
                Scope.CALL,
                "postgres",
            )
            assert "2 statements of ours have not ended on the server, the oldest since" in fault.reason
        assert db.state is State.UP, "nobody else's trouble"
        conn = await db.connect()
        await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT deaf()'")
        await conn.close()
        async with asyncio.timeout(30):
            while db.unended:
                await asyncio.sleep(0.01)
        async with db.connection() as conn:
            await conn.execute("SELECT 1")
        await db.close()

    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(DEAF.encode())
    asyncio.run(main())
