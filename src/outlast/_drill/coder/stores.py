"""The job store of each arm, as the harness fills and audits it: past the proxy, while the arm works."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import LiteralString, Protocol

import psycopg

from outlast._drill.coder.arms.plain_queue import CREATE, ENQUEUE
from outlast.jobs import Jobs, NewJob
from outlast.postgres import Postgres

Connection = psycopg.Connection[tuple[object, ...]]

OUTLAST_KIND = "drill_job"
PAYMENT_KIND = "drill_payment"
"""The kinds of jobs that `arms/outlast_jobs.py` has handlers for."""

PAYMENTS_FROM = 1_000_000_001
"""The number of the first payment: far beyond those of the other jobs."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The jobs that the store has as done, and those that it would still hand out."""

    done: set[int]
    waiting: set[int]


class JobStore(Protocol):
    """One arm's way to keep jobs. Job ids are 1, 2, 3 … whatever the store calls them inside."""

    def create(self, dsn: str) -> None:
        """Make the tables."""
        ...

    def enqueue(self, conn: Connection, first: int, last: int) -> None:
        """Add the jobs `first` to `last` in one transaction."""
        ...

    def unfinished(self, conn: Connection) -> int:
        """Count the jobs that are not done."""
        ...

    def audit(self, conn: Connection) -> Audit:
        """Read the state of all jobs."""
        ...


class PlainStore:
    """The table `drill_jobs` of the arms without a queue of their own."""

    def create(self, dsn: str) -> None:
        """Make the table."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(CREATE)

    def enqueue(self, conn: Connection, first: int, last: int) -> None:
        """Insert rows in state ready."""
        conn.execute(ENQUEUE, {"first": first, "last": last})

    def unfinished(self, conn: Connection) -> int:
        """Count what is not done."""
        return len(_ids(conn, "SELECT id FROM drill_jobs WHERE state <> 'done'"))

    def audit(self, conn: Connection) -> Audit:
        """Read the states done and ready."""
        return Audit(
            done=_ids(conn, "SELECT id FROM drill_jobs WHERE state = 'done'"),
            waiting=_ids(conn, "SELECT id FROM drill_jobs WHERE state = 'ready'"),
        )


class ProcrastinateStore:
    """Procrastinate's own schema; the job's number is its argument."""

    def create(self, dsn: str) -> None:
        """Apply procrastinate's schema."""
        import procrastinate

        app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=dsn))
        with contextlib.closing(app.open()):
            app.schema_manager.apply_schema()

    def enqueue(self, conn: Connection, first: int, last: int) -> None:
        """Insert rows as a batch of deferred jobs would."""
        conn.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
            " SELECT 'drill', 'drill_job', jsonb_build_object('job', number)"
            " FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number",
            {"first": first, "last": last},
        )

    def unfinished(self, conn: Connection) -> int:
        """Count what has not succeeded."""
        return len(_ids(conn, "SELECT id FROM procrastinate_jobs WHERE status <> 'succeeded'"))

    def audit(self, conn: Connection) -> Audit:
        """Read the states succeeded and todo."""
        select: LiteralString = "SELECT (args ->> 'job')::bigint FROM procrastinate_jobs WHERE status = "
        return Audit(done=_ids(conn, select + "'succeeded'"), waiting=_ids(conn, select + "'todo'"))


class OutlastStore:
    """The schema of outlast.jobs; the job's number is its payload."""

    def create(self, dsn: str) -> None:
        """Migrate, as `outlast jobs migrate` does."""
        asyncio.run(self._migrate(dsn))

    async def _migrate(self, dsn: str) -> None:
        db = Postgres(dsn)
        await db.open()
        try:
            await Jobs(db).migrate()
        finally:
            await db.close()

    def enqueue(self, conn: Connection, first: int, last: int) -> None:
        """Enqueue one batch on the harness's own connection."""
        queue = Jobs(Postgres(conn.info.dsn))
        queue.enqueue_in(conn, [NewJob(OUTLAST_KIND, {"job": number}) for number in range(first, last + 1)])

    def enqueue_payments(self, conn: Connection, count: int, over_s: float) -> None:
        """Enqueue jobs that need a second service, due one after another over that time."""
        queue = Jobs(Postgres(conn.info.dsn))
        each_s = over_s / count
        payments = [NewJob(PAYMENT_KIND, {"job": PAYMENTS_FROM + index}, delay_s=index * each_s) for index in range(count)]
        queue.enqueue_in(conn, payments)

    def unfinished(self, conn: Connection) -> int:
        """Count what is not done."""
        return len(_ids(conn, "SELECT id FROM outlast.jobs WHERE state <> 'done'"))

    def audit(self, conn: Connection) -> Audit:
        """Read the states done and available."""
        select: LiteralString = "SELECT (payload ->> 'job')::bigint FROM outlast.jobs WHERE state = "
        return Audit(done=_ids(conn, select + "'done'"), waiting=_ids(conn, select + "'available'"))


def _ids(conn: Connection, query: LiteralString) -> set[int]:
    return {int(str(row[0])) for row in conn.execute(query)}
