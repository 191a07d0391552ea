"""Record outcomes, many in one statement; keep them in the journal while the database is away."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from outlast import Backoff, Fault, Incident, Kind, Stop, Stopping, Unavailable
from outlast.extend import BackoffState, Journal, JournalFullError, Once, OwnThread
from outlast.jobs._refusals import Refusals
from outlast.jobs._sieve import Sieve

if TYPE_CHECKING:
    from outlast.jobs._journal import Entry
    from outlast.jobs._model import Outcome
    from outlast.jobs._statements import Statements
    from outlast.postgres import Postgres

BATCH_MAX: Final = 500
RETRY_S: Final = 1.0
"""Between two tries at an outcome that neither the database nor the journal would take."""
HELD: Final = Backoff(base_s=0.5, cap_s=30.0)
"""Between two tries at outcomes that cannot be recorded now, while others can."""
Key = tuple[str, int, int]
logger = logging.getLogger("outlast.jobs")


class Recorder:
    """Take the outcome of each attempt and return when it is safe: in the database, or in the journal.

    Every outcome is recorded once, however often it is sent: the statement is fenced by the attempt. What is
    sent twice is counted in `late`, as is an outcome whose job another process has taken over. Those that cannot be recorded
    now, because another session holds their row, are *held*: they stay in the journal and are tried again by themselves, and no
    other outcome waits for them. Used on the event loop's thread only.
    """

    def __init__(self, db: Postgres, said: Statements, journal: Journal[Entry], worker: str) -> None:
        self._db = db
        self.journal = journal
        self.disk = OwnThread("outlast jobs journal")
        """The one thread that touches the journal: no handler that blocks can keep an outcome from the disk."""
        self._worker = worker
        self.sieve = Sieve(db, said, self.disk, Refusals(journal.path.with_name(f"{journal.path.name}.refused")))
        self._pending: deque[tuple[Outcome, asyncio.Future[None]]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._journal_lock = asyncio.Lock()
        """Held while the journal is read and then changed by it: places in it are valid no longer."""
        self.incident = Incident("jobs journal", verb="is failing")
        self.journalled = 0
        self.ended: Counter[str] = Counter()
        """How many attempts came to which end, since the start."""
        self._held: set[Key] = set()
        self._held_wait = BackoffState()
        self._held_until = 0.0
        self._rng = random.Random()
        self._once = Once()
        self._limit_s: float | None = None
        self._limit: asyncio.Timeout | None = None

    async def open(self) -> None:
        """Open the journal, and set aside what cannot be read. Raises `ConfigurationError`."""
        journal = self.journal
        await self.disk.run(journal.open)
        if journal.torn_bytes:
            logger.warning("jobs: cut %d torn bytes off the end of the journal %s", journal.torn_bytes, journal.path)
        if journal.damaged:
            count = sum(each.rstrip(b"\n").count(b"\n") + 1 for each in journal.damaged)
            where = await self.disk.run(self.sieve.refusals.keep_damaged, journal.damaged)
            await self.disk.run(journal.drop, 0)
            logger.error("jobs: %d lines of the journal %s cannot be read: the last of them %s", count, journal.path, where)
        if journal.records:
            logger.info("jobs: the journal holds %d outcomes of an earlier process", len(journal.records))

    async def record(self, outcome: Outcome) -> None:
        """Return when the outcome is safe. Waiters are bounded by the workers: each awaits its own."""
        future = asyncio.get_running_loop().create_future()
        self.ended[outcome.end] += 1
        self._pending.append((outcome, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name="outlast jobs recorder")
        await future

    @property
    def is_behind(self) -> bool:
        """Whether the journal holds what could be recorded now."""
        return bool(self.journal.records) and bool(self._places(1))

    def due_in_s(self) -> float | None:
        """Return the seconds until held outcomes are worth another try; None if there are none."""
        return max(0.0, self._held_until - asyncio.get_running_loop().time()) if self._held else None

    async def replay(self, stop: Stop) -> None:
        """Record what the journal holds, oldest first, except for what is held. Raises the faults that concern everyone."""
        while self.is_behind and not stop.requested:
            async with self._journal_lock:
                places = self._places()
                entries = [self.journal.records[place] for place in places]
                before, late = self.sieve.recorded, self.sieve.late
                left = await self.sieve.record(entries)
                again = {_key(entry) for entry in left}
                done = {place for place, entry in zip(places, entries, strict=True) if _key(entry) not in again}
                kept = set(range(len(self.journal.records))) - done
                await self.disk.run(self.journal.keep_only, kept)
                self._hold(left, entries)
            if done:
                self._tell_recorded(self.sieve.recorded - before, self.sieve.late - late)

    def _tell_recorded(self, recorded: int, late: int) -> None:
        # Once an incident: one that comes and goes would say it each time.
        level = logging.INFO if self._once.news(self._db.health.opened_at) else logging.DEBUG
        message = "jobs: %d outcomes kept in the journal are recorded (the jobs of %d of them were taken over meanwhile)"
        logger.log(level, message, recorded, late)

    def _places(self, count: int = BATCH_MAX) -> list[int]:
        """Return the places of the next batch: of what is not held, or of everything when what is held is due."""
        due = self._due()
        places = (place for place, entry in enumerate(self.journal.records) if due or _key(entry) not in self._held)
        return list(itertools.islice(places, count))

    def _due(self) -> bool:
        return bool(self._held) and asyncio.get_running_loop().time() >= self._held_until

    def _hold(self, left: list[Entry], tried: list[Entry]) -> None:
        """Take note of what could not be recorded now, of those that were tried."""
        self._held.difference_update(_key(entry) for entry in tried)
        self._held.update(_key(entry) for entry in left)
        if not self._held:
            self._held_wait = BackoffState()
        elif left:
            now = asyncio.get_running_loop().time()
            self._held_wait, wait_s = HELD.next_always(self._held_wait, now, self._rng)
            self._held_until = now + wait_s

    def hurry(self, limit_s: float) -> None:
        """Wait no longer than `limit_s` seconds for the database from now on, then use the journal: the service ends."""
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
            left = await self._make_safe([(self._worker, outcome) for outcome, _ in batch])
            missing = {id(outcome) for _, outcome in left}
            for outcome, future in batch:
                if id(outcome) not in missing and not future.done():
                    future.set_result(None)
            if left:
                self._pending.extendleft(item for item in reversed(batch) if id(item[0]) in missing)
                await asyncio.sleep(RETRY_S)

    async def _make_safe(self, entries: list[Entry]) -> list[Entry]:
        """Record them or keep them; return those that neither the database nor the journal would take."""
        held = False
        # Behind what the journal holds already, so that nothing overtakes it.
        if self._db.passable and not self.is_behind:
            entries, held = await self._recorded(entries)
        if not entries:
            return []
        left = await self._keep(entries)
        if held:
            missing = {id(entry) for entry in left}
            self._hold([entry for entry in entries if id(entry) not in missing], [])
        return left

    async def _recorded(self, entries: list[Entry]) -> tuple[list[Entry], bool]:
        """Record them in the database; return those that are not recorded, and whether only they have to wait."""
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                self._limit = limit
                try:
                    return await self.sieve.record(entries), True
                finally:
                    self._limit = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the outcomes must be kept
            if not isinstance(exc, Unavailable | Stopping):
                self._blame(exc)
            return entries, False

    def _blame(self, exc: Exception) -> None:
        fault = self._db.classifiers.classify(exc, source=self._db.name)
        if not fault.is_evidence:
            self.incident.fault(fault, exc)

    async def _keep(self, entries: list[Entry]) -> list[Entry]:
        """Write to the journal; return what it would not take. One that is too large keeps no other out."""
        fit: list[Entry] = entries
        left: list[Entry] = []
        try:
            async with self._journal_lock:
                try:
                    await self.disk.run(self.journal.append, fit)
                except JournalFullError as exc:
                    self.incident.fault(Fault(Kind.EXHAUSTED, "journal full", str(exc), "journal"))
                    fit, left = self.journal.fitting(entries)
                    await self.disk.run(self.journal.append, fit)
        except OSError as exc:
            self.incident.fault(self._db.classifiers.classify(exc, source="journal"))
            return entries
        self.journalled += len(fit)
        return left


def _key(entry: Entry) -> Key:
    worker, outcome = entry
    return worker, outcome.id, outcome.attempt
