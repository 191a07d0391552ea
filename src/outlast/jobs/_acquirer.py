"""Acquire jobs for all idle workers of a process at once, and hand them out in the order of asking."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, progress
from outlast.extend import NotJsonError, from_json
from outlast.jobs import _statements as statements
from outlast.jobs._decide import dead, give_back
from outlast.jobs._model import Job
from outlast.jobs._picker import Picker
from outlast.jobs._schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Incident, Stop
    from outlast.extend import Needs
    from outlast.jobs._model import Outcome
    from outlast.jobs._recorder import OutcomeRecorder
    from outlast.jobs._running import Running
    from outlast.jobs._statements import Statements
    from outlast.postgres import Postgres

    Row = tuple[Any, ...]
    Share = tuple[list[str], int | None]

BATCH_MAX: Final = 200
JITTER: Final = 0.2
"""The slow poll comes at 80 to 120 % of `poll_s`, so that many processes do not poll in step."""


class Acquirer:
    """One statement for all who wait: a thousand idle workers cost as much as one, and need one connection.

    Call `wake` when there may be work: after a notification, after a recovery. Without that it looks every `poll_s` seconds, and
    when the next `run_at` has come.
    """

    def __init__(
        self,
        db: Postgres,
        said: Statements,
        recorder: OutcomeRecorder,
        running: Running,
        *,
        worker: str,
        queues: tuple[str, ...],
        needs: Needs,
        shortest_runs: Callable[[], str],
        poll_s: float,
        incident: Incident,
    ) -> None:
        self._db = db
        self._said = said
        self._recorder = recorder
        self._running = running
        self._worker = worker
        self._queues = queues
        self._needs = needs
        self._shortest_runs = shortest_runs
        self._poll_s = poll_s
        self._incident = incident
        self.picker = Picker(db, said, incident)
        self._waiting: dict[asyncio.Future[Job], None] = {}
        self._wanted = asyncio.Event()
        self._maybe = asyncio.Event()
        self._rng = random.Random()
        self.turn = 0

    def wake(self) -> None:
        """Look for jobs now."""
        self._maybe.set()

    async def next(self, stop: Stop) -> Job:
        """Wait for a job and return it. Raises `Stopping` when the stop is fired."""
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        self._wanted.set()
        try:
            return await stop.until(future)
        finally:
            self._waiting.pop(future, None)

    async def run(self, stop: Stop) -> None:
        """Acquire jobs for the workers that wait, until the stop. Raises the faults of the database."""
        self._maybe.set()
        async with self._db.connection() as conn:
            # Tables that a later version has made are refused before a job is taken from them.
            await TABLES.format(conn, self._said.schema)
        while not stop.requested:
            if not self._waiting:
                self._wanted.clear()
                await self._until_set(self._wanted, stop, self._recorder.due_in_s())
            if self._recorder.is_behind:
                # First what is finished, then what is new.
                await self._recorder.replay(stop)
            if not self._waiting:
                continue
            self._maybe.clear()
            wanted = min(BATCH_MAX, len(self._waiting), self._room())
            found = await self._turn(wanted, stop) if wanted > 0 else 0
            if found:
                progress()
            if found < max(1, wanted):
                await self._until_set(self._maybe, stop, await self._pause_s())

    def _room(self) -> int:
        """Return how many outcomes the journal has room for, beside those of the jobs that run."""
        journal = self._recorder.journal
        return journal.records_max - len(journal.records) - len(self._running)

    async def _turn(self, wanted: int, stop: Stop) -> int:
        """Acquire once, hand out the jobs, and return how many they were."""
        async with self._running.acquiring:
            jobs, unread = self._read(await self._acquire(wanted, stop))
            for job in (*jobs, *(job for job, _ in unread)):
                self._running.add(job)
            undelivered = self._hand_out(jobs)
            outcomes = [(job, give_back(job, 0.0)) for job in undelivered] + unread
        await asyncio.gather(*(self._end(job, outcome) for job, outcome in outcomes))
        return len(jobs) + len(unread)

    async def _end(self, job: Job, outcome: Outcome) -> None:
        await self._recorder.make_safe(outcome)
        self._running.remove(job)

    def _hand_out(self, jobs: list[Job]) -> list[Job]:
        """Hand each job to the worker that has waited longest; return those that no worker waits for any more."""
        left: list[Job] = []
        for job in jobs:
            future = next((future for future in self._waiting if not future.done()), None)
            if future is None:
                left.append(job)
            else:
                del self._waiting[future]
                self._needs.took(job)
                future.set_result(job)
        return left

    async def _acquire(self, wanted: int, stop: Stop) -> list[Row]:
        """Take up to `wanted` jobs of the kinds that may be acquired. Each queue has its turn to be first."""
        self.turn += 1
        shares = self._needs.shares(stop)
        if not shares:
            return []
        try:
            async with self._db.connection() as conn:
                return await self._fill(shares, wanted, partial(self.picker.on, conn, statements.ACQUIRE))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            self.picker.check(exc)
        return await self._fill(shares, wanted, partial(self.picker.carefully, statements.ACQUIRE))

    async def _fill(self, shares: list[Share], wanted: int, run: Callable[[dict[str, Any]], Awaitable[list[Row]]]) -> list[Row]:
        rows: list[Row] = []
        for kinds, most in shares:
            end = wanted if most is None else min(wanted, len(rows) + most)
            for number in range(len(self._queues)):
                if len(rows) >= end:
                    break
                values: dict[str, Any] = {
                    "queue": self._queues[(number + self.turn) % len(self._queues)],
                    "kinds": kinds,
                    "count": end - len(rows),
                    "worker": self._worker,
                    "run_s": self._shortest_runs(),
                }
                rows += await run(values)
        return rows

    def _read(self, rows: list[Row]) -> tuple[list[Job], list[tuple[Job, Outcome]]]:
        """Return the jobs of these rows, the most urgent first, and apart the outcomes of those whose payload cannot be read."""
        jobs: list[Job] = []
        unread: list[tuple[Job, Outcome]] = []
        for row in rows:
            try:
                jobs.append(_job(row, from_json(row[2])))
            except NotJsonError as error:
                job = _job(row, None)
                fault = Fault(Kind.REJECTED, "payload", f"the payload of a {job.kind} cannot be read: {error}", job.kind)
                self._incident.fault(fault)
                unread.append((job, dead(job, fault)))
        jobs.sort(key=lambda job: (-job.priority, job.id))
        return jobs, unread

    async def _pause_s(self) -> float:
        pause_s = self._poll_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        async with self._db.connection() as conn:
            cursor = await conn.execute(self._said(statements.NEXT_RUN_AT), {"queues": list(self._queues)})
            row = await cursor.fetchone()
        next_s = row[0] if row else None
        if next_s is not None:
            pause_s = min(pause_s, max(0.0, next_s) + 0.001)
        others = (self._recorder.due_in_s(), self._needs.next_in_s())
        return min([pause_s, *(wait_s for wait_s in others if wait_s is not None)])

    async def _until_set(self, event: asyncio.Event, stop: Stop, timeout_s: float | None) -> None:
        with suppress(TimeoutError):
            async with stop.timeout(timeout_s):
                await event.wait()


def _job(row: Row, payload: Any) -> Job:  # noqa: ANN401 - anything that is JSON
    """Make a job of a row of ACQUIRE, whose payload has been read."""
    job_id, kind, _, attempt, attempts_max, queue, priority, unique_key, enqueued_at, deadline_at = row
    times = statements.at(enqueued_at), statements.at(deadline_at)
    return Job(job_id, kind, payload, attempt, attempts_max, queue, priority, unique_key, *times)
