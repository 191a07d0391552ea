"""A worker process of the queue: its loops run handlers and make every outcome safe."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import uuid
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Classifiers, Fault, Incident, Kind, Link, Stop, progress
from outlast.extend import JsonTooLargeError, Needs, NotJsonError, Quiet, Reaction, contained, refusal_in
from outlast.jobs._acquirer import Acquirer
from outlast.jobs._bodies import Bodies, result_json
from outlast.jobs._decide import Handling, after_fault, dead, give_back
from outlast.jobs._journal import outcomes_journal
from outlast.jobs._model import Job, JobState, Outcome
from outlast.jobs._recorder import OutcomeRecorder
from outlast.jobs._running import Running
from outlast.jobs._upkeep import Upkeep
from outlast.postgres import wait_on_purpose

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from outlast import Dependency, Service
    from outlast.jobs._bodies import Handler
    from outlast.jobs._statements import Statements
    from outlast.postgres import Connection, Postgres

RUNS_WEIGHT: Final = 0.1
"""The weight of the newest duration of a kind in its average."""
SHORTEST: Final = 0.5
"""A job is hopeless when less than half its kind's average duration is left: averages are not minima."""
RELEASE_SHARE: Final = 0.03
"""The share of the stop's deadline in which the database may take the last outcomes, before the journal does."""
logger = logging.getLogger("outlast.jobs")


class WorkerProcess:
    """The parts that `Jobs.work` adds to a service: worker loops, one acquirer, one recorder, upkeep, and a listener.

    All of it runs on the event loop's thread, apart from handlers and the journal.
    """

    def __init__(
        self,
        db: Postgres,
        said: Statements,
        handlers: dict[str, tuple[Handler, Handling]],
        *,
        queues: tuple[str, ...],
        journal_path: Path,
        lease_s: float,
        poll_s: float,
        retention_s: float | None,
        result_bytes_max: int,
        classifiers: Classifiers,
    ) -> None:
        self.id = str(uuid.uuid4())
        self._db = db
        self._said = said
        self._handlers = handlers
        self._classifiers = classifiers
        self._result_bytes_max = result_bytes_max
        self._rng = random.Random()
        self._runs_s: dict[str, float] = {}
        self._slots: deque[int] = deque()
        self._release_s = 0.5
        self.incident = Incident("jobs", verb="are failing")
        self.recorder = OutcomeRecorder(db, said, outcomes_journal(journal_path), self.id)
        self.running = Running()
        self.needs = Needs(self._needed, "jobs")
        self.acquirer = Acquirer(
            db,
            said,
            self.recorder,
            self.running,
            worker=self.id,
            queues=queues,
            needs=self.needs,
            shortest_runs=self._shortest_runs,
            poll_s=poll_s,
            incident=self.incident,
        )
        self.needs.wake = self.acquirer.wake
        self._quiet = Quiet(self.incident, self.recorder.incident, self.recorder.sieve.refusals.incident)
        self.upkeep = Upkeep(
            db,
            said,
            self.acquirer,
            self.recorder,
            self.running,
            worker=self.id,
            name=f"{socket.gethostname()}:{os.getpid()}",
            lease_s=lease_s,
            retention_s=retention_s,
            shortest_runs=self._shortest_runs,
            quiet=self._quiet,
        )

    def attach(self, service: Service, workers: int) -> None:
        """Add the loops and tasks to `service`."""
        self._bodies = Bodies(
            self._handlers,
            workers=workers,
            service=service,
            result_bytes_max=self._result_bytes_max,
            freed=self.acquirer.wake,
        )
        self._slots = deque(range(workers))
        self._release_s = RELEASE_SHARE * service.deadline_s
        self.needs.workers = workers
        self.needs.known = service.all_dependencies
        for _, handling in self._handlers.values():
            service.needs(*handling.needs)
        service.on_start(self._open)
        service.on_stop(self._close)
        service.task(needs=self._db, name="jobs upkeep")(self.upkeep.run)
        service.task(needs=self._db, name="jobs acquirer")(self.acquirer.run)
        listener = Link("jobs", dial=self._dial, serve=self._listen)
        listener.attach(service, needs=self._db)
        service.loop(workers=workers, name="jobs worker")(self._one)

    def _needed(self) -> dict[str, tuple[Dependency, ...]]:
        return self._bodies.needs()

    async def _open(self) -> None:
        await self.recorder.open()

    async def _close(self) -> None:
        self.needs.close()
        self._quiet.end()
        self.recorder.hurry(self._release_s)
        await self.recorder.drain()
        try:
            async with asyncio.timeout(self._release_s):
                await self.upkeep.leave()
        except Exception as exc:  # noqa: BLE001 - the lease runs out by itself
            logger.debug("jobs: could not delete the lease of this worker: %s", exc)
        await self.recorder.close()

    # One job.

    async def _one(self, stop: Stop) -> None:
        """Run one job from acquire to a safe outcome."""
        job = await self.acquirer.next(stop)
        slot = self._slots.popleft() if self._slots else 0
        try:
            outcome = await self._run(replace(job, worker=slot), stop)
            self.needs.ended(job, worked=outcome.state == JobState.DONE.value)
            await self._safe(outcome)
        finally:
            self._slots.append(slot)
            self.running.remove(job)
        progress()

    async def _run(self, job: Job, stop: Stop) -> Outcome:
        """Run the handler and return the outcome. Nothing that it raises ends the service."""
        loop = asyncio.get_running_loop()
        handling = self._handlers[job.kind][1]
        started_at = loop.time()
        task = self.running.begin(job, contained(self._bodies.call(job), job.kind, stop))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Our own stop: the job goes back as if it had not been taken, and the cancel goes on.
            task.cancel()
            self.recorder.hurry(self._release_s)
            await asyncio.wait({task})
            await self._safe(self._finished(job, task) or give_back(job, 0.0))
            raise
        requested = self.running.interrupted(job)
        if task.cancelled() and requested is not None:
            # We cancelled it: that was requested, or the job was taken from us.
            return Outcome(job.id, job.attempt, JobState.CANCELLED.value) if requested else give_back(job, 0.0)
        exc = _raised(task)
        if exc is None:
            self._ran(job.kind, loop.time() - started_at)
            return self._result(job, task.result())
        return self._after_fault(job, exc, handling, stop)

    def _finished(self, job: Job, task: asyncio.Task[Any]) -> Outcome | None:
        """Return the outcome, if the handler came to its end although it was told to stop."""
        if task.cancelled() or task.exception() is not None:
            return None
        return self._result(job, task.result())

    def _result(self, job: Job, result: object) -> Outcome:
        try:
            text = result_json(result, self._result_bytes_max)
        except JsonTooLargeError as error:
            fault = Fault(Kind.REJECTED, "result size", f"the result of {job.kind} is too large: {error}", job.kind)
        except NotJsonError as error:
            fault = Fault(Kind.BUG, "result", f"the result of {job.kind} is no JSON: {error}", job.kind)
        else:
            return Outcome(job.id, job.attempt, JobState.DONE.value, result_json=text)
        return self._told(dead(job, fault), fault, None)

    def _after_fault(self, job: Job, exc: BaseException, handling: Handling, stop: Stop) -> Outcome:
        fault = self._classifiers.classify(exc, source=job.kind).met_while(stopping=stop.requested)
        if fault.reaction is Reaction.LEAVE:
            # The place, for the person who is to look at it.
            fault = replace(fault, reason=f"job {job.id} of {job.kind}: {fault.reason}")
        refusal = refusal_in(exc)
        held = refusal is not None and refusal.dependency != self._db.name and self.needs.refused(job, refusal, stop)
        outcome = after_fault(job, fault, exc, handling, self._db.name, self._rng, held=held)
        if outcome.give_back:
            if fault.kind in {Kind.EXHAUSTED, Kind.OVERLOADED} and not fault.is_evidence and refusal is None:
                # The server is up, so no incident of its own says that it has no room.
                self._told(outcome, fault, exc)
            return outcome
        return self._told(outcome, fault, exc)

    def _told(self, outcome: Outcome, fault: Fault, exc: BaseException | None) -> Outcome:
        self.incident.fault(fault, exc)
        return outcome

    async def _safe(self, outcome: Outcome) -> None:
        """Return when the outcome is recorded or journalled, also when this is cancelled meanwhile."""
        recording = asyncio.ensure_future(self.recorder.make_safe(outcome))
        try:
            await asyncio.shield(recording)
        except asyncio.CancelledError:
            self.recorder.hurry(self._release_s)
            await recording
            raise

    def _ran(self, kind: str, seconds: float) -> None:
        before = self._runs_s.get(kind, seconds)
        self._runs_s[kind] = before + RUNS_WEIGHT * (seconds - before)

    def _shortest_runs(self) -> str:
        return json.dumps({kind: round(seconds * SHORTEST, 3) for kind, seconds in self._runs_s.items()})

    # The listener.

    @asynccontextmanager
    async def _dial(self) -> AsyncGenerator[Connection]:
        conn = await self._db.connect()
        try:
            conn.operation_timeout_s = self._db.operation_timeout_s
            await wait_on_purpose(conn)
            await conn.execute(self._said.listen())
            conn.operation_timeout_s = None
            # Jobs may have been enqueued, or cancelled, while nobody listened.
            self.acquirer.wake()
            self.upkeep.hurry()
            yield conn
        finally:
            await conn.close()

    async def _listen(self, conn: Connection, stop: Stop) -> None:
        async with stop.timeout(None):
            await self._hear(conn)

    async def _hear(self, conn: Connection) -> None:
        try:
            async for notification in conn.notifies():
                if notification.payload == "cancel":
                    self.upkeep.hurry()
                else:
                    self.acquirer.wake()
        except Exception as exc:
            self._db.report(exc, epoch=conn.epoch)
            raise


def _raised(task: asyncio.Task[Any]) -> BaseException | None:
    """Return what a handler raised. A cancellation that we did not ask for is one too: the handler let another's out."""
    try:
        return task.exception()
    except asyncio.CancelledError as exc:
        return exc
