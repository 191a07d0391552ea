"""The running side of a process: it claims records, works on them, renews its lease, and at the end nothing is left claimed."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast import progress
from outlast.extend import Needs, Recorder
from outlast.procedures._decisions.causes import CauseNews
from outlast.procedures._desk.waits import End
from outlast.procedures._model import ProcedureState, RecordWrite
from outlast.procedures._runner.calls import Calls
from outlast.procedures._runner.claimer import Claimer
from outlast.procedures._runner.driver import Driver
from outlast.procedures._runner.failures import Failures
from outlast.procedures._runner.heartbeat import Heartbeat
from outlast.procedures._runner.lease import Lease
from outlast.procedures._runner.progress import ProgressLoop
from outlast.procedures._runner.recording import Writing, writes_journal
from outlast.procedures._runner.running import Claimed, Running, Why
from outlast.procedures._runner.sweeper import Sweeper
from outlast.procedures._shown import ShownProcedures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast import Dependency, Service, Stop
    from outlast.procedures._desk.desk import Desk
    from outlast.procedures._limits import Settings
    from outlast.procedures._model import ProcedureRecord
    from outlast.procedures._procedure import Procedure

RELEASE_SHARE: Final = 0.03
"""The share of the stop's deadline in which the store may take the last writes, before the journal does."""
logger = logging.getLogger("outlast.procedures")


class Runner:
    """The parts that `Procedures.attach` adds to a service. All of it is on the event loop's thread, apart from the journal."""

    def __init__(self, desk: Desk, runner_id: str, procedures: Mapping[str, Procedure], settings: Settings) -> None:
        store = desk.store
        self.id = runner_id
        self.desk = desk
        self.slots = settings.slots
        self._store = store
        self._procedures = procedures
        self._stop: Stop | None = None
        self._release_s = 0.5
        self.failures = Failures()
        self.writing = Writing(store, self.failures.steps, desk.tally)
        self.recorder: Recorder[RecordWrite] = Recorder(
            writes_journal(settings.journal_path),
            self.writing.write,
            dependency=store.dependency,
            name="procedures",
            key=lambda write: write.id,
            late=lambda: self.writing.late,
        )
        self.running = Running()
        self.calls = Calls()
        self.needs = Needs(self._needed, "procedures")
        self.needs.workers = settings.slots
        self.lease = Lease(settings.lease_s, self._lease_lost)
        self.claimer = Claimer(
            store,
            runner_id,
            slots=settings.slots,
            running=self.running,
            recorder=self.recorder,
            needs=self.needs,
            front=desk.front,
            calls=self.calls,
            lease=self.lease,
            begin=self.begin,
            poll_s=settings.poll_s,
        )
        self.needs.wake = self.claimer.wake
        self.heartbeat = Heartbeat(self, f"{socket.gethostname()}:{os.getpid()}")
        self.progress = ProgressLoop(store, self.recorder, self.running)
        self.sweeper = Sweeper(store, settings.sweep, desk.tally)
        self._driver = Driver(
            procedures,
            recorder=self.recorder,
            writing=self.writing,
            front=desk.front,
            needs=self.needs,
            lease=self.lease,
            failures=self.failures,
            classifiers=settings.classifiers.also(store.dependency.classifiers),
            result_bytes_max=settings.result_bytes_max,
            ended=self._ended,
            left=self._left,
        )
        self._cleared: set[asyncio.Task[None]] = set()
        desk.runner = self
        desk.on_events = self._events

    def attach(self, service: Service) -> None:
        """Add the tasks to `service`."""
        store, desk = self._store, self.desk
        self._release_s = RELEASE_SHARE * service.deadline_s
        self.needs.known = service.all_dependencies
        for procedure in self._procedures.values():
            service.needs(*procedure.needs)
        service.on_start(self.recorder.open)
        service.on_stop(self._close)
        service.needs(store.dependency)
        # A store without room is down for those who claim, and not for those who make room, listen, or renew a lease.
        for name, work in (
            ("news", desk.run_news),
            ("upkeep", desk.run_upkeep),
            ("heartbeat", self.heartbeat.run),
            ("sweeper", self.sweeper.run),
        ):
            service.task(name=f"procedures {name}")(partial(desk.keep, work))
        service.task(needs=store.dependency, name="procedures claimer")(self._claim)
        service.task(name="procedures lease")(self.lease.watch)
        service.task(name="procedures progress")(self.progress.run)
        service.task(name="procedures")(self._work)
        shown = ShownProcedures(
            store.dependency.name,
            store,
            desk.tally,
            desk.front,
            self.recorder,
            self.failures.steps,
            slots=self.slots,
            running=lambda: len(self.running),
        )
        shown.attach(service)

    def _needed(self) -> Mapping[str, tuple[Dependency, ...]]:
        return {kind: procedure.needs for kind, procedure in self._procedures.items()}

    # The tasks.

    async def _claim(self, stop: Stop) -> None:
        await self.desk.open()
        await self.claimer.run(stop)

    async def _work(self, stop: Stop) -> None:
        """Stand for all records in the drain: what is under way may finish, and is then given back."""
        self._stop = stop
        await stop.wait()
        try:
            while tasks := self.running.tasks():
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            self.recorder.hurry(self._release_s)
            for claimed in self.running:
                claimed.interrupt(Why.STOP)
            while tasks := self.running.tasks():
                await asyncio.wait(tasks)
            raise

    async def _close(self) -> None:
        self.recorder.hurry(self._release_s)
        while tasks := self.running.tasks():
            # Claimed while the stop came: they are given back.
            await asyncio.wait(tasks)
        self.needs.close()
        self.failures.end()
        await self.recorder.drain()
        if self._store.dependency.passable:
            try:
                async with asyncio.timeout(self._release_s):
                    await self._store.leave(self.id)
            except Exception as exc:  # noqa: BLE001 - the lease runs out by itself
                logger.debug("procedures: could not end the lease of this runner: %s", exc)
        await self.recorder.close()
        with suppress(Exception):
            async with asyncio.timeout(self._release_s):
                await self._store.close()

    # Records.

    def takes(self, record: ProcedureRecord, *, claim: bool) -> bool:
        """Return whether the answer to a submission has given this runner a record."""
        ours = claim and record.state is ProcedureState.RUNNING and record.owner == self.id
        return ours and self.running.get(record.id) is None

    def begin(self, record: ProcedureRecord, losses: int) -> None:
        """Begin to work on a record; `losses` is how often the lease had been lost when it was claimed.

        If it was lost meanwhile, another runner may have the record by now: the next heartbeat says whether it is still ours.
        """
        if not self.lease.is_held or self.lease.losses != losses:
            self.running.leave(record)
            self.desk.front.left(asyncio.get_running_loop().time(), record.of)
            self.calls.trouble()
            return
        stop = self._stop
        claimed = Claimed(record, asyncio.get_running_loop().time())
        self.desk.tally.claimed += 1
        self.desk.tally.taken_over += record.deaths > 0
        self.needs.took(record)
        if stop is None:
            msg = "a record was claimed before the service was at work"
            raise RuntimeError(msg)
        self.running.begin(claimed, self._drive(claimed, stop))

    async def _drive(self, claimed: Claimed, stop: Stop) -> None:
        try:
            await self._driver.drive(claimed, stop)
        except Exception as exc:
            # A defect of ours. The record is given back by a heartbeat, which finds that nobody works on it.
            self.desk.front.left(asyncio.get_running_loop().time(), claimed.record.of)
            logger.exception("procedures: the work on %s ended by a bug: %s", claimed.record.id, exc)  # noqa: TRY401
        finally:
            self.running.end(claimed)
            self.claimer.freed()
            self.desk.waits.left(claimed.record.id)
            self._events()
            progress()

    def cancel(self, record_id: str) -> None:
        """Cancel a record that somebody asked to end, if it is here; else look for it."""
        claimed = self.running.get(record_id)
        if claimed is None:
            self.claimer.wake()
        else:
            claimed.interrupt(Why.CANCEL)

    def due(self, seconds: float | None) -> None:
        """Look for work in so many seconds."""
        if seconds is None:
            return
        if seconds <= 0:
            self.claimer.wake()
        else:
            self.claimer.due_in(seconds)

    def heard(self, *, lost: bool) -> None:
        """Take note of news: there may be work; after a gap anything may have happened to what is here."""
        self.claimer.wake()
        if lost:
            self.heartbeat.hurry()

    def _left(self, claimed: Claimed, due_s: float | None) -> None:
        self.desk.tally.waited += 1
        self.running.end(claimed)
        self.due(due_s)

    def _ended(self, claimed: Claimed, write: RecordWrite) -> None:
        """Note an end that is recorded, and let those who wait for it go on."""
        record, desk = claimed.record, self.desk
        desk.tally.ended[write.state] += 1
        state = ProcedureState(write.state)
        desk.backlog.made -= 1
        self.running.end(claimed)
        now = asyncio.get_running_loop().time()
        first, last = record.first_fault or write.fault, write.fault or record.last_fault
        if state is ProcedureState.DEAD:
            since_s = claimed.store_now(now) - record.created_at
            desk.remember(record.of, record.id, first, last, failures=write.failures, since_s=since_s, until_s=write.until_s)
        else:
            desk.front.ended(now, record.of, state)
        desk.waits.ended(record.id, End(state, write.result_json, first, last))

    def _lease_lost(self) -> None:
        """Leave everything at once: another runner may have it by now."""
        logger.warning("procedures: the lease of this runner is over: %d records are left to others", len(self.running))
        for claimed in self.running:
            self.running.lose(claimed)

    # Causes.

    def _events(self) -> None:
        events = self.desk.front.events()
        if not events:
            if self.desk.front.is_holding:
                # A canary's place may be free, or the last of a wave has ended.
                self.claimer.wake()
            return
        self.failures.of_causes(events)
        for event in events:
            if event.what is CauseNews.GONE:
                task = asyncio.create_task(self._fixed(*event.fault.key), name="outlast procedures cause")
                self._cleared.add(task)
                task.add_done_callback(self._cleared.discard)
        self.claimer.wake()

    async def _fixed(self, source: str, kind: object, code: str) -> None:
        """Let the store forget the keys that are dead by a cause that is gone."""
        with suppress(Exception):
            await self._store.fixed(source, str(getattr(kind, "value", kind)), code)
