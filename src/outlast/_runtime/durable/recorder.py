"""Record what was done, many entries in one call of the store; keep them in a journal while the store is away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from outlast._core.backoff import Backoff, BackoffState
from outlast._core.faults import Fault, Kind, Unavailable
from outlast._core.once import Once
from outlast._files.aside import Aside
from outlast._files.journal import JournalFullError
from outlast._runtime.dependency.incident import Incident
from outlast._runtime.process.own_thread import OwnThread
from outlast._runtime.service.stop import Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from outlast._files.journal import Journal
    from outlast._runtime.dependency.dependency import Dependency
    from outlast._runtime.service.stop import Stop

Entry = TypeVar("Entry")

BATCH_MAX: Final = 500
RETRY_S: Final = 1.0
"""Between two tries at an entry that neither the store nor the journal would take."""
HELD: Final = Backoff(base_s=0.5, cap_s=30.0)
"""Between two tries at entries that cannot be recorded now, while others can."""


class Recorder(Generic[Entry]):
    """Take entries and return when each is safe: in the store, or in the journal.

    An entry may be sent more than once, after a crash or when a reply is lost: the store must know it again. Those of one key are
    recorded in the order in which they came, if each is awaited before the next is made: what comes while the journal holds
    one of its key goes behind it. Entries that cannot be recorded now, while others can, are *held*: they stay in the journal
    and are tried again by themselves, and nothing of another key waits for them. Used on the event loop's thread only.
    """

    def __init__(
        self,
        journal: Journal[Entry],
        write: Callable[[list[Entry]], Awaitable[Sequence[Entry]]],
        *,
        dependency: Dependency,
        name: str,
        key: Callable[[Entry], Hashable],
        batch_max: int = BATCH_MAX,
        late: Callable[[], int] = int,
        aside: Aside | None = None,
    ) -> None:
        """Do nothing yet; `open` opens the journal.

        `write` records all of its entries, at most `batch_max`, and returns those of them that are to be tried again later. It
        raises what concerns everyone: then none of them counts as recorded. `name` is that of the system, in its log lines.
        `late` returns the number of entries so far that the store had already, or that came too late for it: it is logged.
        `aside` takes what of the journal cannot be read; a file beside the journal unless given.
        """
        self.journal = journal
        self.disk = OwnThread(f"outlast {name} journal")
        """The one thread that touches the journal: nothing else that blocks can keep an entry from the disk."""
        self.aside = aside or Aside(journal.path.with_name(f"{journal.path.name}.refused"))
        self.incident = Incident(f"{name} journal", verb="is failing")
        self.journalled = self.recorded = 0
        """Entries that went to the journal, and those that the store has taken, since the start."""
        self._write = write
        self._dependency = dependency
        self._name = name
        self._key = key
        self._batch_max = batch_max
        self._late = late
        self._logger = logging.getLogger(f"outlast.{name}")
        self._pending: deque[tuple[Entry, asyncio.Future[bool]]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._journal_lock = asyncio.Lock()
        """Held while the journal is read and then changed by it: places in it are valid no longer."""
        self._kept: Counter[Hashable] = Counter()
        """The number of entries of each key in the journal."""
        self._settling: dict[Hashable, asyncio.Event] = {}
        self._held: set[Hashable] = set()
        self._held_wait = BackoffState()
        self._held_until = 0.0
        self._rng = random.Random()
        self._once = Once()
        self._limit_s: float | None = None
        self._limit: asyncio.Timeout | None = None

    async def open(self) -> None:
        """Open the journal, and set aside what cannot be read. Raises `ConfigurationError`."""
        journal, name = self.journal, self._name
        await self.disk.run(journal.open)
        if journal.torn_bytes:
            self._logger.warning("%s: cut %d torn bytes off the end of the journal %s", name, journal.torn_bytes, journal.path)
        if journal.damaged:
            count = sum(each.rstrip(b"\n").count(b"\n") + 1 for each in journal.damaged)
            where = [await self.disk.run(self.aside.put, each) for each in journal.damaged][-1]
            await self.disk.run(journal.drop, 0)
            text = "%s: %d lines of the journal %s cannot be read: the last of them %s"
            self._logger.error(text, name, count, journal.path, where)
        if journal.records:
            self._logger.info("%s: the journal holds %d outcomes of an earlier process", name, len(journal.records))
        self._kept = Counter(map(self._key, journal.records))

    async def record(self, entry: Entry) -> bool:
        """Return when the entry is safe: True if it is in the store, False if it is in the journal, to be recorded later.

        Callers are bounded by what their system does at a time: each awaits its own. If this is cancelled, the entry is recorded
        all the same.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((entry, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name=f"outlast {self._name} recorder")
        return await future

    async def settled(self, key: Hashable) -> None:
        """Wait until the journal holds nothing of this key. While the store is away that takes as long as it is."""
        while key in self._kept:
            await self._settling.setdefault(key, asyncio.Event()).wait()

    @property
    def is_behind(self) -> bool:
        """Whether the journal holds what could be recorded now."""
        return bool(self.journal.records) and bool(self._places(1))

    def due_in_s(self) -> float | None:
        """Return the seconds until held entries are worth another try; None if there are none."""
        return max(0.0, self._held_until - asyncio.get_running_loop().time()) if self._held else None

    async def replay(self, stop: Stop) -> None:
        """Record what the journal holds, oldest first, except for what is held. Raises the faults that concern everyone."""
        while self.is_behind and not stop.requested:
            async with self._journal_lock:
                places = self._places(self._batch_max)
                entries = [self.journal.records[place] for place in places]
                late = self._late()
                left = await self._write(entries)
                again = {self._key(entry) for entry in left}
                # Of a key there is one entry in a batch.
                done = {place: self._key(entry) for place, entry in zip(places, entries, strict=True)}
                done = {place: key for place, key in done.items() if key not in again}
                kept = set(range(len(self.journal.records))) - done.keys()
                await self.disk.run(self.journal.keep_only, kept)
                self._settle(done.values())
                self._hold(left, entries)
            self.recorded += len(done)
            if done:
                late = self._late() - late
                self._tell_recorded(len(done) - late, late)

    def hurry(self, limit_s: float) -> None:
        """Wait no longer than `limit_s` seconds for the store from now on, then use the journal: the service ends."""
        self._limit_s = limit_s
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + limit_s)
            self._limit = None

    async def drain(self) -> None:
        """Wait for what is being recorded now."""
        if self._flusher is not None:
            await asyncio.wait({self._flusher})

    async def close(self) -> None:
        """Close the journal, and say what it still holds. Nothing may be recorded any more."""
        journal = self.journal
        if journal.records:
            text = "%s: %d outcomes stay in the journal %s until the next start"
            self._logger.info(text, self._name, len(journal.records), journal.path)
        await self.disk.run(journal.close)
        self.disk.close()

    # Inside.

    def _tell_recorded(self, recorded: int, late: int) -> None:
        # Once an incident: one that comes and goes would say it each time.
        level = logging.INFO if self._once.news(self._dependency.health.opened_at) else logging.DEBUG
        text = "%s: %d outcomes kept in the journal are recorded (the work of %d more was taken over meanwhile)"
        self._logger.log(level, text, self._name, recorded, late)

    def _places(self, count: int) -> list[int]:
        """Return the places of the next batch, the oldest of each key: of what is not held, or of everything when that is due."""
        held = frozenset[Hashable]() if self._due() else self._held
        places: list[int] = []
        seen: set[Hashable] = set()
        for place, entry in enumerate(self.journal.records):
            key = self._key(entry)
            if key not in held and key not in seen:
                seen.add(key)
                places.append(place)
                if len(places) == count:
                    break
        return places

    def _due(self) -> bool:
        return bool(self._held) and asyncio.get_running_loop().time() >= self._held_until

    def _hold(self, left: Sequence[Entry], tried: list[Entry]) -> None:
        """Take note of what could not be recorded now, of those that were tried."""
        self._held.difference_update(self._key(entry) for entry in tried)
        self._held.update(self._key(entry) for entry in left)
        if not self._held:
            self._held_wait = BackoffState()
        elif left:
            now = asyncio.get_running_loop().time()
            self._held_wait, wait_s = HELD.next_always(self._held_wait, now, self._rng)
            self._held_until = now + wait_s

    def _settle(self, keys: Iterable[Hashable]) -> None:
        """Take note that one entry of each key has left the journal, and wake who waits for the last."""
        for key in keys:
            self._kept[key] -= 1
            if not self._kept[key]:
                del self._kept[key]
                if settling := self._settling.pop(key, None):
                    settling.set()

    async def _flush(self) -> None:
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(self._batch_max, len(self._pending)))]
            kept, left = await self._make_safe([entry for entry, _ in batch])
            in_journal, missing = set(map(id, kept)), set(map(id, left))
            for entry, future in batch:
                if id(entry) not in missing and not future.done():
                    future.set_result(id(entry) not in in_journal)
            if left:
                self._pending.extendleft(item for item in reversed(batch) if id(item[0]) in missing)
                await asyncio.sleep(RETRY_S)

    async def _make_safe(self, entries: list[Entry]) -> tuple[Sequence[Entry], Sequence[Entry]]:
        """Record them or keep them; return those in the journal, and those that neither it nor the store would take."""
        # Behind what the journal holds already, so that nothing overtakes it.
        if not self._dependency.passable or self.is_behind:
            return await self._keep(entries)
        behind = [entry for entry in entries if self._key(entry) in self._kept] if self._kept else []
        ahead = [entry for entry in entries if self._key(entry) not in self._kept] if behind else entries
        again, held = await self._recorded(ahead) if ahead else ((), True)
        if not again and not behind:
            return [], []
        kept, left = await self._keep([*again, *behind])
        if held:
            missing = set(map(id, left))
            self._hold([entry for entry in again if id(entry) not in missing], [])
        return kept, left

    async def _recorded(self, entries: list[Entry]) -> tuple[Sequence[Entry], bool]:
        """Record them in the store; return those that are not recorded, and whether only they have to wait."""
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                self._limit = limit
                try:
                    left = await self._write(entries)
                finally:
                    self._limit = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the entries must be kept
            if not isinstance(exc, Unavailable | Stopping):
                self._blame(exc)
            return entries, False
        self.recorded += len(entries) - len(left)
        return left, True

    def _blame(self, exc: Exception) -> None:
        fault = self._dependency.classifiers.classify(exc, source=self._dependency.name)
        if not fault.is_evidence:
            self.incident.fault(fault, exc)

    async def _keep(self, entries: list[Entry]) -> tuple[Sequence[Entry], Sequence[Entry]]:
        """Write to the journal; return what it took and what not. One that is too large keeps no other out."""
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
                self._kept.update(map(self._key, fit))
        except OSError as exc:
            self.incident.fault(self._dependency.classifiers.classify(exc, source="journal"))
            return [], entries
        self.journalled += len(fit)
        return fit, left
