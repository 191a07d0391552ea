"""A process of procedures, as it shows itself through the port of `outlast.extend`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from outlast import Stopping, Unavailable, progress
from outlast.extend import Act, Figure, Lag, SystemHealth, Unit
from outlast.procedures._model import FINAL, ProcedureState, Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from outlast import Fault, Incident, Service, Stop
    from outlast.extend import Recorder
    from outlast.procedures._model import Pause, RecordWrite
    from outlast.procedures._stores.port import ProcedureStore
    from outlast.procedures._tally import Tally

EVERY_S: Final = 60.0
SHARE: Final = 0.005
"""Of the store's time that counting may take: half a second for a million records, and then 100 s without."""
SWEEPS_MAX: Final = 20
"""Batches that one call of an act deletes."""
SWEEP: Final = Sweep(done_keep_s=0.0, dead_keep_s=None, dead_max=2**31 - 1)
"""Deletes what is finished, and leaves the dead."""

logger = logging.getLogger("outlast.procedures")


class Known(Protocol):
    """The numbers of what a process knows of keys; a member of it each, and each may be read from any thread."""

    @property
    def failing(self) -> int: ...
    @property
    def failing_bytes(self) -> int: ...
    @property
    def forgotten(self) -> int: ...
    @property
    def probes(self) -> int: ...
    @property
    def canaries(self) -> int: ...


class OpenCause(Protocol):
    """A cause that holds a kind of procedure."""

    @property
    def kind(self) -> str: ...
    @property
    def fault(self) -> Fault: ...
    @property
    def since(self) -> float: ...


class Front(Protocol):
    """The knowledge of a process about keys, as far as it is shown; each may be read from any thread."""

    @property
    def counts(self) -> Known: ...
    @property
    def open_causes(self) -> Sequence[OpenCause]: ...


class Counted(NamedTuple):
    """The content of the store when it was last counted."""

    held: dict[tuple[str, str], int]
    oldest_due_s: float
    pauses: list[Pause]
    read_at: float


class ShownProcedures:
    """One process, as it is shown to those who run it. A loop counts what the store holds, which is shown with its age."""

    system = "procedures"

    def __init__(
        self,
        name: str,
        store: ProcedureStore,
        tally: Tally,
        front: Front,
        recorder: Recorder[RecordWrite],
        incident: Incident,
        *,
        slots: int,
        running: Callable[[], int],
    ) -> None:
        """`running` returns the number of records that this process has, `incident` is that of attempts that failed."""
        self.name = name
        self._store = store
        self._tally = tally
        self._front = front
        self._recorder = recorder
        self._incident = incident
        self._slots = slots
        self._running = running
        self._service: Service | None = None
        self._counted: Counted | None = None
        """Replaced whole by the loop's thread; read by others, who take it once."""

    def attach(self, service: Service) -> None:
        """Add it to what the service shows, with a loop that counts now and then."""
        self._service = service
        service.show(self)
        service.loop(needs=self._store.dependency, name="procedures counts")(self.count)

    # On the event loop.

    async def count(self, stop: Stop) -> None:
        """Count once, unless it takes too long, and sleep until the next count."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            counts = await self._store.counts()
            self._counted = Counted(counts.held, counts.oldest_due_s, await self._store.pauses(), loop.time())
        except (Unavailable, Stopping):
            raise
        except Exception as exc:
            dependency = self._store.dependency
            fault = dependency.classifiers.classify(exc, source=dependency.name)
            if fault.is_evidence:
                raise
            # Too many records, or no table, which the runner meets and logs. The last count grows old, and is left out then.
            logger.debug("procedures: not counted: %s", fault.code)
        progress()
        await stop.sleep(max(EVERY_S, (loop.time() - began_at) / SHARE))

    async def resume_all(self) -> int:
        """Take back every pause; return how many there were."""
        return sum([await self._store.resume(pause) for pause in await self._store.pauses()])

    async def fixed_all(self) -> int:
        """Say of every cause that is open here that it is fixed; return how many they are."""
        faults = [cause.fault for cause in self._front.open_causes]
        for fault in faults:
            await self._store.fixed(fault.source, fault.kind.value, fault.code)
        return len(faults)

    async def delete_finished(self) -> int:
        """Delete finished records, at most `SWEEPS_MAX` batches; return how many."""
        deleted = 0
        for _ in range(SWEEPS_MAX):
            swept = await self._store.sweep(SWEEP)
            deleted += swept.deleted
            if not swept.more:
                break
        return deleted

    # From any thread.

    def figures(self) -> list[Figure]:
        """Return what this process was asked for, what it did and knows, and what the store holds."""
        return [*self._of_store(), *self._of_submissions(), *self._of_records(), *self._of_memory(), *self._of_journal()]

    def _of_store(self) -> Iterator[Figure]:
        counted = self._counted
        if counted is not None:
            text = "Records in the store by kind and state."
            yield Figure.gauge("held", text, counted.held, labels=("kind", "state"), read_at=counted.read_at)
            text = "Pauses: of a key, of a kind, or of everything."
            yield Figure.gauge("pauses", text, len(counted.pauses), read_at=counted.read_at)

    def _of_submissions(self) -> Iterator[Figure]:
        tally = self._tally
        yield Figure.counter("submitted", "Submissions that went to the store.", tally.submitted)
        yield Figure.counter("joined", "Submissions that joined a record which was there.", tally.joined)
        text = "Submissions that were refused, by what refused them."
        yield Figure.counter("refused", text, dict(tally.refused), labels=("reason",))

    def _of_records(self) -> Iterator[Figure]:
        tally = self._tally
        yield Figure.counter("claimed", "Records this process took.", tally.claimed)
        yield Figure.counter("taken_over", "Records this process took from runners that died.", tally.taken_over)
        yield Figure.gauge("running", "Records this process has; each holds a slot.", self._running())
        yield Figure.gauge("slots", "How many records this process has at a time.", self._slots)
        yield Figure.counter("ended", "Records that ended here, by their state.", dict(tally.ended), labels=("state",))
        yield Figure.counter("put_off", "Records that left their slot to wait, or for another runner.", tally.waited)
        yield Figure.counter("expired", "Records this process dropped unrun, past their deadline.", tally.expired)
        yield Figure.counter("deleted", "Finished records this process deleted for their age.", tally.deleted)
        yield Figure.counter("dead_deleted", "Dead records this process deleted for age or number.", tally.dead_deleted)

    def _of_memory(self) -> Iterator[Figure]:
        known, causes = self._front.counts, self._front.open_causes
        yield Figure.gauge("failing_keys", "Keys that are refused from memory until their backoff has passed.", known.failing)
        text = "Size of the memory of failure."
        yield Figure.gauge("memory", text, known.failing_bytes, unit=Unit.BYTES)
        yield Figure.counter("forgotten_keys", "Failing keys that were forgotten for lack of room.", known.forgotten)
        yield Figure.counter("probes", "Attempts at failing keys.", known.probes)
        yield Figure.counter("canaries", "Attempts that were to show whether a cause is gone.", known.canaries)
        open_of: dict[str, float] = {}
        for cause in causes:
            open_of[cause.kind] = open_of.get(cause.kind, 0.0) + 1.0
        yield Figure.gauge("causes_open", "Causes that hold a kind of procedure.", open_of, labels=("kind",))

    def _of_journal(self) -> Iterator[Figure]:
        journal = self._recorder.journal
        yield Figure.gauge("journal_writes", "Writes kept on disk until they can be recorded.", len(journal.records))
        text = "Share of the journal that is used; at 1 no more records are taken."
        yield Figure.gauge("journal_used", text, len(journal.records) / journal.records_max, unit=Unit.RATIO)
        yield Figure.counter("late_writes", "Writes sent twice, or whose record another runner had by then.", self._tally.late)

    def health(self) -> SystemHealth:
        """Return whether it works. A key that fails is its own affair; a cause that holds a kind is not."""
        if self._service is None or not self._service.ready:
            return SystemHealth(None, "not at work")
        if unwell := SystemHealth.waiting_for(self._store.dependency) or self._journal_health():
            return unwell
        incident = self._incident
        if causes := self._front.open_causes:
            return SystemHealth(False, "held by a cause", causes[0].fault, causes[0].since)
        if incident.is_open:
            return SystemHealth(True, "working; procedures fail", incident.first, incident.book.opened_at)
        return SystemHealth(True, "working")

    def _journal_health(self) -> SystemHealth | None:
        incident = self._recorder.incident
        if incident.is_open:
            return SystemHealth(False, "the journal is failing", incident.first, incident.book.opened_at)
        return SystemHealth(False, "recording what the journal holds") if self._recorder.journal.records else None

    def lag(self) -> Lag | None:
        """Return for how long the record that is due longest has waited for a slot."""
        counted = self._counted
        return None if counted is None else Lag(seconds=counted.oldest_due_s, read_at=counted.read_at)

    def acts(self) -> list[Act]:
        """Return what can be done with many records at once."""
        counted, causes = self._counted, self._front.open_causes
        pauses = finished = read_at = None
        if counted is not None:
            final = {state.value for state in FINAL - {ProcedureState.DEAD}}
            finished = sum(count for (_, state), count in counted.held.items() if state in final)
            pauses, read_at = len(counted.pauses), counted.read_at
        text = "Forgets every failure, in all processes: each key that fails may be tried at once."
        clear = Act("clear everything failing", text, self._store.clear, self._front.counts.failing)
        text = "Says of every cause that holds a kind here that it is fixed: what waits for it is released in waves."
        fixed = Act("release what is held", text, self.fixed_all, len(causes))
        text = "Takes back every pause: of keys, of kinds, and of everything."
        resume = Act("resume all", text, self.resume_all, pauses, read_at=read_at)
        text = "Deletes finished records with their results: done, cancelled and expired ones. The dead stay."
        delete = Act("delete finished records", text, self.delete_finished, finished, destructive=True, read_at=read_at)
        return [clear, fixed, resume, delete]
