"""Sessions that wait on purpose, for a role whose own time-outs are short: none of them may end what we wait for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from changes_source import ITEM, LOGICAL, Memory, ask, insert, running, streams, until
from psycopg.conninfo import make_conninfo

import outlast
from outlast.changes._slot.blockers import create_slot
from outlast.jobs import Jobs
from outlast.postgres import Postgres
from outlast.postgres.ownership._standby import Standby
from outlast.postgres.replication import Replication
from outlast.testing import PostgresServer
from outlast.testing._postgres.binaries import find_postgres_majors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync

TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
LIMIT_S = 1.0
BEYOND_S = 1.5 * LIMIT_S
"""Longer than the role's time-outs: what they end has ended by then."""


@pytest.fixture(scope="module", params=sorted({min(find_postgres_majors()), max(find_postgres_majors())}))
def limited(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a role to whom the server grants a second for everything that has a time-out."""
    with PostgresServer(settings=LOGICAL, major=request.param) as server:
        ask(server.dsn(), "CREATE ROLE hasty SUPERUSER LOGIN")
        newer = ("transaction_timeout",) if request.param >= 17 else ()
        for name in (*TIMEOUTS, *newer):
            ask(server.dsn(), f"ALTER ROLE hasty SET {name} = '{LIMIT_S}s'")
        ask(server.dsn(), "CREATE DATABASE hasty")
        ask(server.dsn("hasty"), ITEM)
        yield make_conninfo(server.dsn("hasty"), user="hasty", options=f"-c statement_timeout={int(1000 * LIMIT_S)}")


def sessions(dsn: str, application: str = "") -> set[int]:
    """The server's processes of this application."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
    return {row[0] for row in ask(dsn, f"{query} AND application_name LIKE %s", (f"{application}%",))}


def test_a_standby_takes_over_in_the_same_wait(limited: str, run_async: RunAsync) -> None:
    """And nothing is told of it: no incident, no line, no second session."""

    async def main() -> None:
        first, second = Memory(), Memory()
        async with contextlib.AsyncExitStack() as stack:
            async with running(limited, first) as owner:
                await streams(limited)
                await insert(limited, 1)
                await until(lambda: first.rows == [1])
                following = await stack.enter_async_context(running(limited, second))
                await until(lambda: len(sessions(limited, "outlast standby")) == 2)
                before = sessions(limited, "outlast standby")
                await asyncio.sleep(BEYOND_S)
                assert sessions(limited, "outlast standby") == before
                assert owner.link.sessions == 1
            await insert(limited, 2)
            await until(lambda: 2 in second.rows)
            assert sessions(limited, "outlast standby") < before
            assert following.link.sessions == 1
            for one in (owner, following):
                assert one.link.incident.book.incidents == 0

    run_async(main)


def test_every_session_that_waits_outlasts_the_time_outs_of_its_role(limited: str, run_async: RunAsync) -> None:
    """An idle owner, a standby, an exported snapshot, who listens for jobs, and a slot that waits for a transaction."""

    async def main() -> None:
        db = Postgres(limited, operation_timeout_s=30.0)
        service, stop = outlast.Service("shop", deadline_s=5.0), outlast.Stop()
        jobs = Jobs(Postgres(limited, name="jobs"))
        await jobs.migrate()
        jobs.work(service, workers=1)
        running_jobs = asyncio.create_task(service.run(stop))
        owner, following = Standby(db, "waits"), Standby(db, "waits")
        listening = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        async with owner as lost, await Replication.connect(db) as replication:
            made = await replication.create_slot("waits", temporary=True)
            entering = asyncio.create_task(following.__aenter__())
            await until(lambda: len(sessions(limited, "outlast standby waits")) == 2)
            await until(lambda: ask(limited, listening))
            before = sessions(limited, "outlast standby waits"), ask(limited, listening)
            forgotten = await db.connect(autocommit=False)
            await forgotten.execute("SET transaction_timeout = 0" if forgotten.pgconn.server_version >= 170000 else "SELECT 1")
            for name in TIMEOUTS:
                await forgotten.execute(f"SET {name} = 0".encode())
            await forgotten.execute("INSERT INTO item VALUES (77, 'forgotten', 1)")
            creating = asyncio.create_task(create_slot(db, "patient", on_blocked=lambda _: None))
            await asyncio.sleep(BEYOND_S)
            assert (sessions(limited, "outlast standby waits"), ask(limited, listening)) == before
            assert not lost.done()
            assert not entering.done()
            assert not creating.done()
            await forgotten.rollback()
            await forgotten.close()
            assert await creating
            reader = await db.connect(autocommit=False)
            await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await reader.execute(f"SET TRANSACTION SNAPSHOT '{made.snapshot}'".encode())
            await reader.close()
        await entering
        await following.__aexit__(None, None, None)
        stop.fire("done")
        assert await running_jobs == 0
        await db.close()

    run_async(main)
    ask(limited, "SELECT pg_drop_replication_slot('patient')")
