"""The queue: handlers, enqueueing, and what an operator does with jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar, cast

import psycopg

from outlast import Classifiers, ConfigurationError, Dependency, Stopping, Unavailable
from outlast.extend import JsonTooLargeError, NotJsonError, json_or_text, to_json
from outlast.jobs import _limits as limits
from outlast.jobs import _statements as statements
from outlast.jobs._decide import BACKOFF, Handling
from outlast.jobs._importable import carry, place_of
from outlast.jobs._model import (
    FINAL,
    EnqueueResult,
    InvalidJobError,
    JobRecord,
    JobState,
    NewJob,
    OutcomeUnknownError,
    PayloadTooLargeError,
)
from outlast.jobs._schema import TABLES
from outlast.jobs._shown import ShownJobs
from outlast.jobs._statements import Statements
from outlast.jobs._worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from outlast import Admission, Backoff, Service
    from outlast.jobs._bodies import Handler
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
    after that. `admission` is asked before jobs are enqueued, except in a transaction of the caller's (`conn`, `enqueue_in`).
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
        admission: Admission | None = None,
    ) -> None:
        """Raises `ConfigurationError` for a setting out of its limits. Nothing is dialled."""
        with _configuring():
            limits.above_zero("lease_s", lease_s, limits.LEASE_S_MAX)
            limits.above_zero("poll_s", poll_s, limits.POLL_S_MAX)
            if retention_s is not None:
                limits.seconds("retention_s", retention_s)
            limits.number("payload_bytes_max", payload_bytes_max, 1, limits.PAYLOAD_BYTES_LIMIT)
        self.db = db
        self.schema = schema
        self.journal_path = Path(journal_path) if journal_path is not None else _default_journal(schema)
        self.lease_s = lease_s
        self.poll_s = poll_s
        self.retention_s = retention_s
        self.payload_bytes_max = payload_bytes_max
        self.admission = admission
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
        needs: Dependency | Sequence[Dependency] = (),
        process: bool = False,
    ) -> Callable[[H], H]:
        """Decorate the function that does jobs of this kind: `async def f(job)`, or a plain one, run in a thread.

        While one of `needs` is down no job of this kind is acquired; what is not named here is learned from its refusal. With
        `process` a plain function at the top level of a module runs in a child process, which is killed at its `timeout_s`.
        What it returns (anything that is JSON) is the job's result. It may run more than once for one job.
        """
        # The queue's own database is needed by all kinds.
        named = (needs,) if isinstance(needs, Dependency) else tuple(needs)
        wanted = tuple(dependency for dependency in named if dependency is not self.db)
        with _configuring():
            limits.named("a kind", kind)
            limits.number(f"handler {kind}: attempts_max", attempts_max, 1, limits.ATTEMPTS_LIMIT)
            if timeout_s is not None:
                limits.above_zero(f"handler {kind}: timeout_s", timeout_s, limits.TIMEOUT_S_MAX)

        def add(function: H) -> H:
            if kind in self._handlers:
                msg = f"jobs: there is a handler for {kind!r} already"
                raise ConfigurationError(msg)
            if process:
                place_of(kind, function)
                carry(function, self._classifiers)
            self._handlers[kind] = (function, Handling(attempts_max, backoff, timeout_s, wanted, process))
            return function

        return add

    def work(self, service: Service, *, workers: int = 10, queues: Sequence[str] = ("default",)) -> WorkerProcess:
        """Let `service` do jobs of these queues, `workers` at a time. Only kinds with a handler are taken."""
        if not queues:
            msg = "jobs: work() needs at least one queue"
            raise ConfigurationError(msg)
        with _configuring():
            for queue in queues:
                limits.named("a queue", queue)
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
        ShownJobs(self, process, self._said, queues).attach(service)
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
        it has not begun in time to be done by then. `unique_key`: at most one such job that is still to be done. Durations
        are at most a hundred years, times before the year 9000; one without a time zone is local. With `conn`, a connection
        of the caller's, the job is part of the caller's transaction.

        What is out of its limits, or no JSON, is refused with `InvalidJobError`, a payload above `payload_bytes_max` with
        `PayloadTooLargeError`. While the database is away this raises `Unavailable` at once, or keeps trying for `wait_s`
        seconds; it raises `OutcomeUnknownError` if the connection broke in the middle and there is no time left to find out. What
        the admission of the queue does not let in is refused with `outlast.admission.Refused`, which says when to come back.
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
        """Enqueue jobs in one statement, all or none, and return the results in the same order. See `enqueue`."""
        jobs = [replace(job, token=str(uuid.uuid4())) for job in jobs]
        if not jobs:
            return []
        columns = self._columns(jobs)
        if conn is not None:
            return await self._insert(conn, jobs, columns)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + (0.0 if wait_s is None else limits.seconds("wait_s", wait_s))
        if self.admission is None:
            return await self._enqueue(jobs, columns, give_up_at)
        if not self.db.passable and loop.time() < give_up_at:
            await self.db.ready(timeout_s=give_up_at - loop.time())
        async with contextlib.AsyncExitStack() as stack:
            # A database that is away refuses by itself, and says why: no ticket is held for it. While the service stops, what
            # is under way may still enqueue what follows from it.
            if self.db.passable and not self.admission.closed:
                with contextlib.suppress(Stopping):
                    await stack.enter_async_context(self._entry(self.admission, jobs, columns))
            return await self._enqueue(jobs, columns, give_up_at)

    def _entry(
        self, admission: Admission, jobs: Sequence[NewJob], columns: dict[str, list[Any]]
    ) -> AbstractAsyncContextManager[Any]:
        """Return the way in for these jobs: under the queue and kind that most of them have."""
        queue, kind = Counter((job.queue, job.kind) for job in jobs).most_common(1)[0][0]
        size_bytes = sum(map(len, columns["payload"]))
        return admission.enter(key=f"{queue}/{kind}", tenant=queue, cost=len(jobs), size_bytes=size_bytes)

    async def _enqueue(self, jobs: Sequence[NewJob], columns: dict[str, list[Any]], give_up_at: float) -> list[EnqueueResult]:
        loop = asyncio.get_running_loop()
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
        if not jobs:
            return []
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
        rows = [self._checked(job) for job in jobs]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _checked(self, job: NewJob) -> dict[str, Any]:
        """Return the columns of one job. Raises `InvalidJobError` or `PayloadTooLargeError`, naming the job and the limit."""
        kind = limits.named("the kind of a job", job.kind)
        try:
            return {
                "token": job.token,
                "queue": limits.named("queue", job.queue),
                "kind": kind,
                "payload": self._json(kind, job.payload),
                "priority": limits.number("priority", job.priority, -limits.PRIORITY_MAX - 1, limits.PRIORITY_MAX),
                "run_at": None if job.run_at is None else limits.moment("run_at", job.run_at),
                "delay_s": None if job.delay_s is None else limits.seconds("delay_s", job.delay_s),
                "deadline_at": None if job.deadline_at is None else limits.moment("deadline_at", job.deadline_at),
                "deadline_s": None if job.deadline_s is None else limits.seconds("deadline_s", job.deadline_s),
                "unique_key": None if job.unique_key is None else limits.named("unique_key", job.unique_key),
                "attempts_max": limits.number("attempts_max", self._attempts_max(job), 1, limits.ATTEMPTS_LIMIT),
            }
        except InvalidJobError as error:
            msg = f"enqueue {kind}: {error}"
            raise InvalidJobError(msg) from None

    def _attempts_max(self, job: NewJob) -> int:
        if job.attempts_max is not None:
            return job.attempts_max
        handler = self._handlers.get(job.kind)
        return ATTEMPTS_MAX if handler is None else handler[1].attempts_max

    def _json(self, kind: str, payload: object) -> str:
        try:
            return to_json(payload, self.payload_bytes_max)
        except JsonTooLargeError as error:
            hint = "keep it elsewhere and its place in the job"
            msg = f"enqueue {kind}: the payload is too large: {error} (payload_bytes_max); {hint}"
            raise PayloadTooLargeError(msg) from None
        except NotJsonError as error:
            msg = f"the payload is no JSON: {error}"
            raise InvalidJobError(msg) from None

    # What an operator does.

    async def migrate(self) -> int:
        """Make or update the tables; return how many migrations were needed. Safe to run at any time, from anywhere."""
        async with self.db.connection() as conn:
            return await TABLES.migrate(conn, self.schema)

    async def cancel(self, job_id: int) -> JobState | None:
        """Cancel a job: at once if it waits, by cancelling its handler if it runs.

        Return its state now; None if it is finished or unknown.
        """
        if not _is_id(job_id):
            return None
        rows = await self._rows(statements.CANCEL, {"id": job_id})
        return JobState(rows[0][0]) if rows else None

    async def retry(self, job_id: int) -> bool:
        """Make a dead, cancelled or expired job available again, with all its attempts; return whether it was one of these."""
        return _is_id(job_id) and bool(await self._rows(statements.RETRY, {"id": job_id}))

    async def get(self, job_id: int) -> JobRecord | None:
        """Return one job; None if there is none with this id."""
        found = await self._list(job_id, None, None, None, 1) if _is_id(job_id) else None
        return found[0] if found else None

    async def list(
        self,
        *,
        state: JobState | None = None,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = 50,
    ) -> Records:
        """Return the newest jobs first, at most `limit` (and 1,000). Raises `InvalidJobError` for a name that no job can have."""
        for what, name in (("queue", queue), ("kind", kind)):
            if name is not None:
                limits.named(what, name)
        limits.number("limit", limit, 1, limits.ID_MAX)
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
        return [_record(row) for row in rows]

    async def counts(self) -> dict[str, dict[str, int]]:
        """Return how many jobs there are, by queue and state."""
        counted: dict[str, dict[str, int]] = {}
        for queue, state, count in await self._rows(statements.COUNTS, {}):
            counted.setdefault(queue, {})[state] = count
        return counted

    async def purge(self, *, age_s: float = 0.0, states: Sequence[JobState] = FINAL) -> int:
        """Delete finished jobs that ended more than `age_s` seconds ago, in batches; return how many."""
        unfinished = [state.value for state in states if state not in FINAL]
        if unfinished:
            msg = f"purge deletes finished jobs only, not {', '.join(unfinished)}; cancel them first"
            raise ValueError(msg)
        limits.seconds("age_s", age_s)
        total = 0
        while True:
            values = {"age_s": age_s, "states": [state.value for state in states], "count": LIST_MAX, "without": []}
            count = len(await self._rows(statements.PURGE.whole, values))
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


def _record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row of LIST, which holds JSON as text and times as numbers."""
    record = JobRecord(*row)
    times = ("run_at", "enqueued_at", "deadline_at", "started_at", "finished_at")
    values: dict[str, Any] = {name: statements.at(getattr(record, name)) for name in times}
    values |= {name: json_or_text(getattr(record, name)) for name in ("payload", "result")}
    values |= {name: _fault(getattr(record, name)) for name in ("first_fault", "last_fault")}
    return replace(record, state=JobState(record.state), **values)


def _fault(text: str | None) -> dict[str, Any] | None:
    fault = json_or_text(text)
    if fault is None:
        return None
    return cast("dict[str, Any]", fault) if isinstance(fault, dict) else {"code": "", "reason": str(fault)}


def _is_id(job_id: object) -> bool:
    """Return whether a job can have this id; the column takes no other."""
    return isinstance(job_id, int) and 0 < job_id <= limits.ID_MAX


@contextlib.contextmanager
def _configuring() -> Generator[None]:
    """Raise `ConfigurationError` in place of `InvalidJobError`: a setting of the queue is refused here, not a job."""
    try:
        yield
    except InvalidJobError as error:
        msg = f"jobs: {error}"
        raise ConfigurationError(msg) from None


def _default_journal(schema: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "outlast" / f"{schema}.journal"
