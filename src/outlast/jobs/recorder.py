"""Records outcomes, many in one statement; keeps them in the journal while the database is away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Incident, Kind, Stop, Stopping, Unavailable
from outlast.jobs import statements
from outlast.jobs.journal import Entry, Journal, JournalFullError
from outlast.jobs.threads import OwnThread

if TYPE_CHECKING:
    from outlast.jobs.model import Outcome
    from outlast.jobs.statements import Statements
    from outlast.postgres import Postgres

BATCH_MAX: Final = 500
RETRY_S: Final = 1.0
"""Between two tries at an outcome that neither the database nor the journal would take."""
logger = logging.getLogger("outlast")


class Recorder:
    """Takes the outcome of each attempt and returns when it is safe: in the database, or in the journal.

    Every outcome is recorded once, however often it is sent: the statement is fenced by the attempt. What is
    sent twice is counted in `late`, as is an outcome whose job was taken over by somebody else.
    """

    def __init__(self, db: Postgres, said: Statements, journal: Journal, worker: str) -> None:
        """Belong to one worker process."""
        self._db = db
        self._said = said
        self.journal = journal
        self.disk = OwnThread("outlast jobs journal")
        """The one thread that touches the journal: no handler that blocks can keep an outcome from the disk."""
        self._worker = worker
        self._pending: deque[tuple[Outcome, asyncio.Future[None]]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._journal_lock = asyncio.Lock()
        self.incident = Incident("jobs journal", verb="is failing")
        self.recorded = self.late = self.journalled = 0
        self._told_in: float | None = -1.0
        self._limit_s: float | None = None
        self._limit: asyncio.Timeout | None = None

    async def record(self, outcome: Outcome) -> None:
        """Return when the outcome is safe. Waiters are bounded by the workers: each awaits its own."""
        future = asyncio.get_running_loop().create_future()
        self._pending.append((outcome, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name="outlast jobs recorder")
        await future

    async def replay(self, stop: Stop) -> None:
        """Record what the journal holds, oldest first. Returns when it is empty; raises the database's faults."""
        while self.journal.entries and not stop.requested:
            async with self._journal_lock:
                entries = self.journal.entries[:BATCH_MAX]
                recorded = await self._write(entries)
                await self.disk.run(self.journal.drop, len(entries))
            # Once an incident: one that comes and goes would say it each time.
            level = logging.DEBUG if self._told_in == self._db.health.opened_at else logging.INFO
            self._told_in = self._db.health.opened_at
            logger.log(
                level,
                "jobs: %d outcomes kept in the journal are recorded (%d of them somebody else's by now)",
                recorded,
                len(entries) - recorded,
            )

    def hurry(self, limit_s: float) -> None:
        """Give the database no longer than this from now on, then use the journal: the service ends."""
        self._limit_s = limit_s
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + limit_s)
            self._limit = None

    async def drain(self) -> None:
        """Wait for what is being recorded now."""
        if self._flusher is not None:
            await asyncio.wait({self._flusher})

    async def _flush(self) -> None:
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(BATCH_MAX, len(self._pending)))]
            outcomes = [outcome for outcome, _ in batch]
            # Behind what the journal holds already, so that nothing overtakes it.
            if self.journal.entries or not self._db.passable or not await self._written(outcomes):
                while not await self._keep(outcomes):  # noqa: ASYNC110 - it waits for a disk, which sets no event
                    await asyncio.sleep(RETRY_S)
            for _, future in batch:
                if not future.done():
                    future.set_result(None)

    async def _written(self, outcomes: list[Outcome]) -> bool:
        """Record them in the database; False if it would not."""
        try:
            await self._write_within([(self._worker, outcome) for outcome in outcomes])
        except Exception as exc:  # noqa: BLE001 - whatever it is, the outcomes must be kept
            if not isinstance(exc, Unavailable | Stopping):
                self._blame(exc)
            return False
        return True

    async def _write_within(self, entries: list[Entry]) -> None:
        async with asyncio.timeout(self._limit_s) as limit:
            self._limit = limit
            try:
                await self._write(entries)
            finally:
                self._limit = None

    def _blame(self, exc: Exception) -> None:
        fault = self._db.classifiers.classify(exc, source=self._db.name)
        if not fault.is_evidence:
            self.incident.fault(fault, exc)

    async def _keep(self, outcomes: list[Outcome]) -> bool:
        """Write to the journal; False if it would not take them."""
        try:
            async with self._journal_lock:
                entries: list[Entry] = [(self._worker, outcome) for outcome in outcomes]
                await self.disk.run(self.journal.append, entries)
        except JournalFullError as exc:
            self.incident.fault(Fault(Kind.EXHAUSTED, "journal full", str(exc), "journal"))
            return False
        except OSError as exc:
            self.incident.fault(self._db.classifiers.classify(exc, source="journal"))
            return False
        self.journalled += len(outcomes)
        return True

    async def _write(self, entries: list[Entry]) -> int:
        """One statement for all; gives how many of them were still ours to record."""
        columns: dict[str, list[Any]] = {
            "id": [outcome.id for _, outcome in entries],
            "attempt": [outcome.attempt for _, outcome in entries],
            "worker": [worker for worker, _ in entries],
            "state": [outcome.state for _, outcome in entries],
            "result": [None if outcome.result is None else json.dumps(outcome.result) for _, outcome in entries],
            "fault": [None if outcome.fault is None else json.dumps(outcome.fault) for _, outcome in entries],
            "delay_s": [outcome.delay_s for _, outcome in entries],
            "give_back": [outcome.give_back for _, outcome in entries],
        }
        async with self._db.connection() as conn:
            cursor = await conn.execute(self._said(statements.RECORD), columns)
            rows = await cursor.fetchall()
        self.recorded += len(rows)
        self.late += len(entries) - len(rows)
        return len(rows)
