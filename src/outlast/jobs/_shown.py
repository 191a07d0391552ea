"""A worker process of a queue, as it shows itself through the port of `outlast.extend`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors

from outlast import progress
from outlast.extend import Act, Figure, Lag, SystemHealth, Unit
from outlast.jobs._model import FINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outlast import Service, Stop
    from outlast.jobs._queue import Jobs
    from outlast.jobs._statements import Statements
    from outlast.jobs._worker import WorkerProcess

EVERY_S: Final = 60.0
SHARE: Final = 0.005
"""Of the server's time that counting may take: half a second for a million jobs, and then 100 s without."""
COUNT_S_MAX: Final = 2.0
"""At most 400 s lie between two counts, which is less than the ten minutes after which a figure is left out."""
ACT_MAX: Final = 1_000
"""Jobs that one call of an act touches."""

COUNT: Final = """
SELECT queue, state, count(*),
    extract(epoch FROM clock_timestamp() - min(run_at) FILTER (WHERE state = 'available'))::float8
FROM {schema}.jobs GROUP BY queue, state
"""
"""For each queue and state: how many, and for how long the one that is due longest has waited."""

DEAD: Final = "SELECT id FROM {schema}.jobs WHERE state = 'dead' AND queue = ANY(%(queues)s) ORDER BY id LIMIT %(count)s"

Counts = dict[tuple[str, str], float]
logger = logging.getLogger("outlast.jobs")


class ShownJobs:
    """One worker process, as it is shown to those who run it. A loop counts what the table holds, which is shown with its age."""

    system = "jobs"

    def __init__(self, jobs: Jobs, process: WorkerProcess, said: Statements, queues: Sequence[str]) -> None:
        self._jobs = jobs
        self._process = process
        self._said = said
        self._queues = list(queues)
        self._service: Service | None = None
        # Replaced together and whole by the loop's thread; read by others, who take the tuple once.
        self._counted: tuple[Counts, float | None, float | None] = ({}, None, None)
        """The counts, for how long the oldest due job has waited, and when they were read."""

    def attach(self, service: Service) -> None:
        """Add it to what the service shows, with a loop that counts now and then."""
        self._service = service
        service.show(self)
        service.loop(needs=self._jobs.db, name="jobs counts")(self.count)

    @property
    def name(self) -> str:
        """The queues it works for."""
        return ",".join(self._queues)

    # On the event loop.

    async def count(self, stop: Stop) -> None:
        """Count once, unless it takes too long, and sleep until the next count."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            counts, oldest_s = await self._count()
            self._counted = counts, oldest_s, loop.time()
        except psycopg.Error as exc:
            fault = self._jobs.db.classifiers.classify(exc, source=self._jobs.db.name)
            if fault.is_evidence:
                raise
            # Too many rows, or no table, which upkeep meets and logs. What was counted before grows old, and is left out then.
            logger.debug("jobs: not counted: %s", fault.code)
        progress()
        await stop.sleep(max(EVERY_S, (loop.time() - began_at) / SHARE))

    async def _count(self) -> tuple[Counts, float]:
        counts, oldest_s = Counts(), 0.0
        async with self._jobs.db.connection() as conn, conn.transaction():
            await conn.execute("SELECT set_config('statement_timeout', %s, true)", (f"{COUNT_S_MAX:g}s",))
            cursor = await conn.execute(self._said(COUNT))
            for queue, state, count, waited_s in await cursor.fetchall():
                counts[queue, state] = count
                if queue in self._queues:
                    oldest_s = max(oldest_s, waited_s or 0.0)
        return counts, oldest_s

    async def retry_dead(self) -> int:
        """Make dead jobs of these queues available again, at most `ACT_MAX`; one whose key is taken stays dead."""
        retried = 0
        async with self._jobs.db.connection() as conn:
            cursor = await conn.execute(self._said(DEAD), {"queues": self._queues, "count": ACT_MAX})
            rows = await cursor.fetchall()
        for (job_id,) in rows:
            try:
                retried += await self._jobs.retry(job_id)
            except errors.UniqueViolation:
                continue
        return retried

    # From any thread.

    def figures(self) -> list[Figure]:
        """Return what this process did, what it has, and what the table holds."""
        return [*self._of_table(), *self._of_process(), *self._of_upkeep()]

    def _of_table(self) -> Iterator[Figure]:
        counts, _, read_at = self._counted
        text = "Jobs in the table by queue and state."
        if read_at is not None:
            yield Figure.gauge("held", text, counts, labels=("queue", "state"), read_at=read_at)

    def _of_process(self) -> Iterator[Figure]:
        process, recorder = self._process, self._process.recorder
        yield Figure.counter("acquired", "Jobs this process took.", process.running.acquired)
        text = "Attempts by how they ended; given_back costs the job no attempt."
        yield Figure.counter("ended", text, dict(recorder.ended), labels=("outcome",))
        yield Figure.gauge("running", "Jobs this process has, until their outcome is safe.", len(process.running))
        yield Figure.gauge("workers", "How many jobs this process does at a time.", process.needs.workers)
        yield Figure.gauge("journal_outcomes", "Outcomes kept on disk until they can be recorded.", len(recorder.journal.records))
        text = "Share of the journal that is used; at 1 no more jobs are taken."
        used = len(recorder.journal.records) / recorder.journal.records_max
        yield Figure.gauge("journal_used", text, used, unit=Unit.RATIO)
        yield Figure.counter(
            "late_outcomes", "Outcomes sent twice, or whose job another process had by then.", recorder.sieve.late
        )

    def _of_upkeep(self) -> Iterator[Figure]:
        upkeep = self._process.upkeep
        yield Figure.counter("expired", "Jobs this process dropped unrun, past their deadline.", upkeep.expired)
        yield Figure.counter("rescued", "Jobs this process took from workers that died.", upkeep.rescued)
        yield Figure.counter("purged", "Finished jobs this process deleted for their age.", upkeep.purged)

    def health(self) -> SystemHealth:
        """Return whether it works: jobs that fail are theirs, and no trouble of the queue."""
        if self._service is None or not self._service.ready:
            return SystemHealth(None, "not at work")
        recorder, incident = self._process.recorder, self._process.incident
        if waits := SystemHealth.waiting_for(self._jobs.db):
            return waits
        if recorder.incident.is_open:
            book = recorder.incident.book
            return SystemHealth(False, "the journal is failing", book.first, book.opened_at)
        if recorder.journal.records:
            return SystemHealth(False, "recording what the journal holds")
        if incident.is_open:
            return SystemHealth(True, "working; jobs fail", incident.first, incident.book.opened_at)
        return SystemHealth(True, "working")

    def lag(self) -> Lag | None:
        """Return for how long the job of its queues that is due longest has waited."""
        _, oldest_s, read_at = self._counted
        return None if read_at is None else Lag(seconds=oldest_s, read_at=read_at)

    def acts(self) -> list[Act]:
        """Return what can be done with many jobs at once."""
        counts, _, read_at = self._counted
        dead = finished = None
        if read_at is not None:
            dead = int(sum(counts.get((queue, JobState.DEAD.value), 0) for queue in self._queues))
            final = {state.value for state in FINAL}
            finished = int(sum(count for (_, state), count in counts.items() if state in final))
        text = f"Makes dead jobs of {self.name} available again with all their attempts, at most {ACT_MAX:,} at a time."
        retry = Act("retry dead jobs", text, self.retry_dead, dead, read_at=read_at)
        text = "Deletes every finished job of all queues: done, dead, cancelled and expired ones."
        purge = Act("delete finished jobs", text, self._jobs.purge, finished, destructive=True, read_at=read_at)
        return [retry, purge]
