"""The regular work that keeps a queue in order: heartbeats, rescue, deadlines, retention."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, State, progress
from outlast.extend import fault_record
from outlast.jobs import _statements as statements
from outlast.jobs._decide import give_back
from outlast.jobs._model import FINAL, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Stop
    from outlast.extend import Quiet
    from outlast.jobs._acquirer import Acquirer
    from outlast.jobs._recorder import OutcomeRecorder
    from outlast.jobs._running import Attempt, Running
    from outlast.jobs._statements import Picking, Statements
    from outlast.postgres import Postgres

SWEEP_MAX: Final = 1_000
"""Rows a statement of upkeep touches at most, so that none holds locks for long."""
SWEEPS_MAX: Final = 50
"""Statements a round of upkeep makes at most; the next round goes on."""
HEARTBEATS: Final = 3
"""Heartbeats within a lease: two may be lost before a worker is taken for dead."""
PURGE_S: Final = 60.0
WORKER_DIED: Final = Fault(
    Kind.TRANSIENT, "worker died", "the worker stopped renewing its lease in the middle of the job", "jobs"
)
logger = logging.getLogger("outlast.jobs")


class Upkeep:
    """The regular work beside the jobs, done by every worker process; PostgreSQL sees to it that nothing is done twice."""

    def __init__(
        self,
        db: Postgres,
        said: Statements,
        acquirer: Acquirer,
        recorder: OutcomeRecorder,
        running: Running,
        *,
        worker: str,
        name: str,
        lease_s: float,
        retention_s: float | None,
        shortest_runs: Callable[[], str],
        quiet: Quiet,
    ) -> None:
        self._db = db
        self._said = said
        self._acquirer = acquirer
        self._recorder = recorder
        self._running = running
        self._worker = worker
        self._name = name
        self._lease_s = lease_s
        self._retention_s = retention_s
        self._shortest_runs = shortest_runs
        self._quiet = quiet
        self._usable_since: float | None = None
        self._purged_at = float("-inf")
        self._due = asyncio.Event()
        self.expired = self.rescued = self.purged = 0
        db.subscribe(self._on_change)

    def hurry(self) -> None:
        """Do a round now: a cancel was requested."""
        self._due.set()

    async def run(self, stop: Stop) -> None:
        """Do one round every third of a lease, until the stop."""
        loop = asyncio.get_running_loop()
        while True:
            if self._usable_since is None:
                self._usable_since = loop.time()
            self._due.clear()
            await self._round(loop.time())
            self._quiet.look(loop.time())
            progress()
            with suppress(TimeoutError):
                async with stop.timeout(self._lease_s / HEARTBEATS):
                    await self._due.wait()

    async def leave(self) -> None:
        """Delete the lease of this worker, if it holds no job: it ends."""
        if self._db.passable and not self._running:
            async with self._db.connection() as conn:
                await conn.execute(self._said(statements.LEAVE), {"worker": self._worker})

    def _on_change(self, state: State, fault: Fault | None) -> None:
        del fault
        if state is State.DOWN:
            self._usable_since = None

    async def _round(self, now: float) -> None:
        values = {"worker": self._worker, "name": self._name, "lease_s": self._lease_s}
        async with self._running.acquiring, self._db.connection() as conn:
            # No job is on its way from the table to us: what runs by the table runs by our own list as well.
            known = self._running.attempts()
            finished = {(outcome.id, outcome.attempt) for _, outcome in self._recorder.journal.records}
            await conn.execute(self._said(statements.HEARTBEAT), values)
            cursor = await conn.execute(self._said(statements.MINE), values)
            mine = {(row[0], row[1]): row[2] for row in await cursor.fetchall() if (row[0], row[1]) not in finished}
        await self._reconcile(known, mine)
        await self._expire()
        if self._usable_since is not None and now - self._usable_since >= self._lease_s / 2:
            await self._rescue()
        if self._retention_s is not None and now - self._purged_at >= PURGE_S:
            self._purged_at = now
            self.purged += await self.purge(self._retention_s)

    async def _reconcile(self, known: set[Attempt], mine: dict[Attempt, bool]) -> None:
        """Compare the jobs that run here with those that do by the table."""
        for attempt, cancel_requested in mine.items():
            if attempt not in known:
                # Acquired, but the reply was lost: nobody runs it, so it is given back without costing an attempt.
                job_id, number = attempt
                await self._recorder.make_safe(give_back(Job(job_id, "", None, number, number), 0.0))
            elif cancel_requested:
                self._running.interrupt(attempt, requested=True)
        for attempt in known - mine.keys():
            # Another process took it for lost and may run it by now. One that has ended meanwhile is not interrupted.
            self._running.interrupt(attempt, requested=False)

    async def _expire(self) -> None:
        values = {"run_s": self._shortest_runs()}
        count = await self._sweep(statements.EXPIRE, values)
        if count:
            self.expired += count
            logger.warning(
                "jobs: %d dropped unrun, their deadline cannot be met any more (%d since the start)", count, self.expired
            )

    async def _rescue(self) -> None:
        values = {"worker": self._worker, "lease_s": self._lease_s, "fault": json.dumps(fault_record(WORKER_DIED))}
        count = await self._sweep(statements.RESCUE, values)
        if count:
            self.rescued += count
            self._acquirer.wake()
            logger.warning("jobs: %d rescued from workers that died (%d since the start)", count, self.rescued)
        async with self._db.connection() as conn:
            await conn.execute(self._said(statements.FORGET_WORKERS))

    async def purge(self, age_s: float, states: list[str] | None = None) -> int:
        """Delete jobs that finished more than `age_s` seconds ago, in bounded batches; return how many."""
        values = {"age_s": age_s, "states": states or [state.value for state in FINAL]}
        return await self._sweep(statements.PURGE, values)

    async def _sweep(self, picking: Picking, values: dict[str, Any]) -> int:
        total = 0
        for _ in range(SWEEPS_MAX):
            count = len(await self._acquirer.picker.rows(picking, {**values, "count": SWEEP_MAX}))
            total += count
            if count < SWEEP_MAX:
                break
        return total
