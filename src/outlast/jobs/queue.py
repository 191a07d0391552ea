"""The queue: handlers, enqueueing, and what an operator does with jobs."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar

import psycopg

from outlast import Classifiers, ConfigurationError, Unavailable
from outlast.jobs import schema as tables
from outlast.jobs import statements
from outlast.jobs.decide import BACKOFF, Handling
from outlast.jobs.importable import carry, place_of
from outlast.jobs.model import (
    FINAL,
    EnqueueResult,
    JobRecord,
    JobState,
    NewJob,
    OutcomeUnknownError,
    PayloadTooLargeError,
)
from outlast.jobs.statements import Statements
from outlast.jobs.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from outlast import Backoff, Service
    from outlast.jobs.bodies import Handler
    from outlast.postgres import Postgres

H = TypeVar("H", bound="Handler")
Rows = list[tuple[Any, ...]]
Records = list[JobRecord]
BYTES_MAX: Final = 256 * 1024
"""Of one payload or result. Keep what is larger elsewhere, and its place in the job."""
LIST_MAX: Final = 1_000
ATTEMPTS_MAX: Final = 5


class Jobs:
    """A job queue in PostgreSQL.

        jobs = Jobs(db)

        @jobs.handler("settle")
        async def settle(job: Job) -> None: ...

        jobs.work(service, workers=50)
        await jobs.enqueue("settle", {"order": 7})

    Its tables lie in `schema`; `migrate` makes them. `journal_path` is where a worker process keeps outcomes while the
    database is away; each process needs its own, and finds it again after a restart. `lease_s`: a worker that is silent for
    longer is taken for dead. `poll_s`: how often to look without being notified. `retention_s`: finished jobs are deleted
    after that.
    """

    def __init__(
        self,
        db: Postgres,
        *,
        schema: str = "outlast",
        journal_path: str | os.PathLike[str] | None = None,
        lease_s: float = 30.0,
        poll_s: float = 5.0,
        retention_s: float | None = 7 * 86_400.0,
        payload_bytes_max: int = BYTES_MAX,
        classifiers: Classifiers | None = None,
    ) -> None:
        """Describe the queue; nothing is dialled. Raises `ConfigurationError`."""
        for name, value in (("lease_s", lease_s), ("poll_s", poll_s)):
            if value <= 0:
                msg = f"jobs: {name} must be above 0 seconds, not {value}"
                raise ConfigurationError(msg)
        self.db = db
        self.schema = schema
        self.journal_path = Path(journal_path) if journal_path is not None else _default_journal(schema)
        self.lease_s = lease_s
        self.poll_s = poll_s
        self.retention_s = retention_s
        self.payload_bytes_max = payload_bytes_max
        self._classifiers = (classifiers or Classifiers()).also(db.classifiers)
        self._said = Statements(schema)
        self._handlers: dict[str, tuple[Handler, Handling]] = {}

    # Workers.

    def handler(
        self,
        kind: str,
        *,
        attempts_max: int = ATTEMPTS_MAX,
        backoff: Backoff = BACKOFF,
        timeout_s: float | None = None,
        process: bool = False,
    ) -> Callable[[H], H]:
        """Decorate the function that does jobs of this kind: `async def f(job)`, or a plain one, run in a thread.

        What it returns (anything that is JSON) is the job's result. It may run more than once for one job. With `process`
        a plain function at the top level of a module runs in a child process, which is killed when `timeout_s` is over.
        """

        def add(function: H) -> H:
            if kind in self._handlers:
                msg = f"jobs: there is a handler for {kind!r} already"
                raise ConfigurationError(msg)
            if process:
                place_of(kind, function)
                carry(function, self._classifiers)
            self._handlers[kind] = (function, Handling(attempts_max, backoff, timeout_s, process))
            return function

        return add

    def work(self, service: Service, *, workers: int = 10, queues: Sequence[str] = ("default",)) -> WorkerProcess:
        """Have `service` do jobs of these queues, `workers` at a time. Only kinds with a handler are taken."""
        if not queues:
            msg = "jobs: work() needs at least one queue"
            raise ConfigurationError(msg)
        process = WorkerProcess(
            self.db,
            self._said,
            self._handlers,
            queues=tuple(queues),
            journal_path=self.journal_path,
            lease_s=self.lease_s,
            poll_s=self.poll_s,
            retention_s=self.retention_s,
            result_bytes_max=self.payload_bytes_max,
            classifiers=self._classifiers,
        )
        process.attach(service, workers)
        return process

    # Enqueueing.

    async def enqueue(
        self,
        kind: str,
        payload: Any = None,  # noqa: ANN401 - anything that is JSON
        *,
        queue: str = "default",
        priority: int = 0,
        run_at: datetime | None = None,
        delay_s: float | None = None,
        unique_key: str | None = None,
        deadline_at: datetime | None = None,
        deadline_s: float | None = None,
        attempts_max: int | None = None,
        conn: psycopg.AsyncConnection[Any] | None = None,
        wait_s: float | None = None,
    ) -> EnqueueResult:
        """Enqueue one job; when this returns it is durable, unless `conn` is given.

        Higher `priority` first. `run_at`, or `delay_s` seconds from now: not before. `deadline_at`, or `deadline_s`: dropped if
        it has not begun in time to be done by then. `unique_key`: at most one such job that is still to be done. With `conn`,
        a connection of the caller's, the job is part of the caller's transaction. While the database is away this raises
        `Unavailable` at once, or keeps trying for `wait_s` seconds; it raises `OutcomeUnknownError` if the connection
        broke in the middle and there is no time left to find out.
        """
        job = NewJob(kind, payload, queue, priority, run_at, delay_s, unique_key, deadline_at, deadline_s, attempts_max)
        return (await self.enqueue_many([job], conn=conn, wait_s=wait_s))[0]

    async def enqueue_many(
        self,
        jobs: Sequence[NewJob],
        *,
        conn: psycopg.AsyncConnection[Any] | None = None,
        wait_s: float | None = None,
    ) -> list[EnqueueResult]:
        """Enqueue jobs in one statement, all or none; results in the same order. See `enqueue`."""
        jobs = [replace(job, token=str(uuid.uuid4())) for job in jobs]
        if not jobs:
            return []
        columns = self._columns(jobs)
        if conn is not None:
            return await self._insert(conn, jobs, columns)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + (wait_s or 0.0)
        unknown: BaseException | None = None
        while True:
            try:
                async with self.db.connection() as own:
                    return await self._insert(own, jobs, columns)
            except Unavailable:
                if loop.time() >= give_up_at and unknown is None:
                    raise
            except psycopg.Error as exc:
                fault = self.db.classifiers.classify(exc, source=self.db.name)
                if not fault.is_evidence:
                    raise
                # With a SQLSTATE the server itself says that it did not do it.
                unknown = unknown if exc.sqlstate else exc
            left_s = give_up_at - loop.time()
            try:
                if left_s > 0:
                    await self.db.ready(timeout_s=left_s)
                    continue
            except Unavailable:
                if unknown is None:
                    raise
            if unknown is not None:
                msg = f"the connection broke while {len(jobs)} jobs were being enqueued: they may or may not be there"
                raise OutcomeUnknownError(msg) from unknown
            raise self.db.unavailable()

    def enqueue_in(self, conn: psycopg.Connection[Any], jobs: Sequence[NewJob]) -> list[EnqueueResult]:
        """Enqueue jobs in the transaction of a plain (not async) psycopg connection of the caller's."""
        jobs = [replace(job, token=str(uuid.uuid4())) for job in jobs]
        columns = self._columns(jobs)
        rows = conn.execute(self._said(statements.ENQUEUE), columns).fetchall()
        if len(rows) < len(jobs):
            rows += conn.execute(self._said(statements.FIND), columns).fetchall()
        return _in_order(jobs, rows)

    async def _insert(
        self, conn: psycopg.AsyncConnection[Any], jobs: Sequence[NewJob], columns: dict[str, list[Any]]
    ) -> list[EnqueueResult]:
        cursor = await conn.execute(self._said(statements.ENQUEUE), columns)
        rows = await cursor.fetchall()
        if len(rows) < len(jobs):
            cursor = await conn.execute(self._said(statements.FIND), columns)
            rows += await cursor.fetchall()
        return _in_order(jobs, rows)

    def _columns(self, jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
        return {
            "token": [job.token for job in jobs],
            "queue": [job.queue for job in jobs],
            "kind": [job.kind for job in jobs],
            "payload": [self._json(job) for job in jobs],
            "priority": [job.priority for job in jobs],
            "run_at": [job.run_at for job in jobs],
            "delay_s": [job.delay_s for job in jobs],
            "deadline_at": [job.deadline_at for job in jobs],
            "deadline_s": [job.deadline_s for job in jobs],
            "unique_key": [job.unique_key for job in jobs],
            "attempts_max": [self._attempts_max(job) for job in jobs],
        }

    def _attempts_max(self, job: NewJob) -> int:
        if job.attempts_max is not None:
            return job.attempts_max
        handler = self._handlers.get(job.kind)
        return ATTEMPTS_MAX if handler is None else handler[1].attempts_max

    def _json(self, job: NewJob) -> str:
        try:
            text = json.dumps(job.payload)
        except (TypeError, ValueError) as error:
            msg = f"enqueue {job.kind}: the payload is no JSON: {error}"
            raise ValueError(msg) from None
        if len(text) > self.payload_bytes_max:
            msg = (
                f"enqueue {job.kind}: the payload has {len(text)} bytes, the limit is {self.payload_bytes_max} "
                "(payload_bytes_max); keep it elsewhere and its place in the job"
            )
            raise PayloadTooLargeError(msg)
        return text

    # What an operator does.

    async def migrate(self) -> int:
        """Make or update the tables; gives how many migrations were needed. Safe to run at any time, from anywhere."""
        async with self.db.connection() as conn:
            return await tables.migrate(conn, self.schema)

    async def cancel(self, job_id: int) -> JobState | None:
        """Cancel a job: at once if it waits, by cancelling its handler if it runs; None if it is finished or unknown."""
        rows = await self._rows(statements.CANCEL, {"id": job_id})
        return JobState(rows[0][0]) if rows else None

    async def retry(self, job_id: int) -> bool:
        """Make a dead, cancelled or expired job available again, with all its attempts; False if it is none of these."""
        return bool(await self._rows(statements.RETRY, {"id": job_id}))

    async def get(self, job_id: int) -> JobRecord | None:
        """One job, or None."""
        found = await self._list(job_id, None, None, None, 1)
        return found[0] if found else None

    async def list(
        self,
        *,
        state: JobState | None = None,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = 50,
    ) -> Records:
        """The newest jobs first, at most `limit` (and 1,000)."""
        return await self._list(None, state, queue, kind, min(limit, LIST_MAX))

    async def _list(self, job_id: int | None, state: JobState | None, queue: str | None, kind: str | None, limit: int) -> Records:
        values = {
            "id": job_id,
            "state": state.value if state is not None else None,
            "queue": queue,
            "kind": kind,
            "count": limit,
        }
        rows = await self._rows(statements.LIST, values)
        return [replace(JobRecord(*row), state=JobState(row[3])) for row in rows]

    async def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs there are, by queue and state."""
        counted: dict[str, dict[str, int]] = {}
        for queue, state, count in await self._rows(statements.COUNTS, {}):
            counted.setdefault(queue, {})[state] = count
        return counted

    async def purge(self, *, age_s: float = 0.0, states: Sequence[JobState] = FINAL) -> int:
        """Delete finished jobs that ended more than `age_s` seconds ago, in batches; gives how many."""
        unfinished = [state.value for state in states if state not in FINAL]
        if unfinished:
            msg = f"purge deletes finished jobs only, not {', '.join(unfinished)}; cancel them first"
            raise ValueError(msg)
        total = 0
        while True:
            values = {"age_s": age_s, "states": [state.value for state in states], "count": LIST_MAX}
            count = len(await self._rows(statements.PURGE, values))
            total += count
            if count < LIST_MAX:
                return total

    async def _rows(self, statement: LiteralString, values: dict[str, Any]) -> Rows:
        async with self.db.connection() as conn:
            cursor = await conn.execute(self._said(statement), values)
            return await cursor.fetchall()


def _in_order(jobs: Sequence[NewJob], rows: list[Any]) -> list[EnqueueResult]:
    found = {token: EnqueueResult(job_id, created) for token, job_id, created in rows}
    missing = [job.kind for job in jobs if job.token not in found]
    if missing:
        # A job with the same unique key ended between the two statements.
        msg = f"enqueue: {len(missing)} of {len(jobs)} jobs met one that was just finishing; enqueue them again"
        raise OutcomeUnknownError(msg)
    return [found[job.token] for job in jobs]


def _default_journal(schema: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "outlast" / f"{schema}.journal"
