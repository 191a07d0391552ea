"""The submitting side of a process: what it knows of keys, its submissions, those who wait for results, the news of the store."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, Stopping, Unavailable
from outlast.extend import fault_of_record
from outlast.procedures._decisions.front import Front
from outlast.procedures._desk.live_count import LiveCount
from outlast.procedures._desk.submitter import Item, Submitter
from outlast.procedures._desk.waits import Waits
from outlast.procedures._model import FINAL, Pause, ProcedureState, StoreEventKind, Submission
from outlast.procedures._tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from outlast import Stop
    from outlast.procedures._model import KeyOf, ProcedureRecord, StoreEvent, Submitted
    from outlast.procedures._runner.runner import Runner
    from outlast.procedures._stores.port import ProcedureStore

NEWS_S: Final = 15.0
"""One call for news waits so long at most."""
PACE_S: Final = 0.03
"""Between two calls for news, at least."""
LOAD_BATCH: Final = 1_000
LOAD_MAX: Final = 50_000
"""Dead records that are loaded: as many as the memory of failure holds."""
AGAIN_S: Final = 1.0
"""Between two tries of regular work while the store is down."""
SOON_S: Final = 0.05
LIKELY_OURS_S: Final = 0.5
"""A record that was live a moment ago is looked for after this time, where this process may have it itself."""
EXTEND_S: Final = 0.25
"""Between two looks for deadlines that joiners have put off."""
UNKNOWN: Final = Fault(Kind.BUG, "unknown", "the record says of no fault", "procedures")


class Desk:
    """The side that every process has, whether it runs procedures or only submits. On the event loop's thread only."""

    def __init__(self, store: ProcedureStore, runner_id: str, *, backlog_max: int, make: bool = True) -> None:
        """`make`: tables that are not there, or older, are made."""
        self.store = store
        self._make = make
        self.front = Front(random.Random())
        self.tally = Tally()
        self.backlog = LiveCount(store, backlog_max)
        self.runner: Runner | None = None
        """The running side, if this process has one."""
        self.pauses: set[Pause] = set()
        self.submitter = Submitter(store, runner_id, reserve=self._reserve, answered=self._answered, guard=self._guard)
        self.waits = Waits(store, self._is_here, self.found_ended)
        self._opened = False
        self._opening = asyncio.Lock()
        self._number: int | None = None
        self.on_events: Callable[[], None] = self._no_events
        """Called when causes may have changed."""

    async def open(self) -> None:
        """Open the store, once. Raises what the store raises."""
        if self._opened:
            return
        async with self._opening:
            if not self._opened:
                if self._make:
                    await self.store.open()
                self._opened = True

    async def keep(self, work: Callable[[Stop], Awaitable[None]], stop: Stop) -> None:
        """Do regular work until the stop, and go on with it when the store is back.

        It is tried while the store is down, too: one that has no room down to its last byte still reads, deletes and renews.
        Raises what is no outage.
        """
        dependency = self.store.dependency
        while not stop.requested:
            try:
                await self.open()
                await work(stop)
            except Stopping:
                raise
            except Exception as exc:
                if (
                    not isinstance(exc, Unavailable)
                    and not dependency.classifiers.classify(exc, source=dependency.name).is_evidence
                ):
                    raise
                with suppress(Unavailable):
                    await dependency.ready(timeout_s=AGAIN_S, stop=stop)
                # Whoever comes back at once after a refusal is taken to spin.
                await stop.sleep(SOON_S)

    # Submissions.

    def _guard(self) -> AbstractContextManager[None]:
        return nullcontext() if self.runner is None else self.runner.calls.one()

    def _reserve(self, item: Item) -> bool:
        runner = self.runner
        if runner is None or not item.begin or item.delay_s > 0 or not runner.claimer.reserve(item.of.kind):
            return False
        item.losses = runner.lease.losses
        return True

    def _answered(self, item: Item, submitted: Submitted | None) -> None:
        """Take note of an answer of the store, and begin the record if it is ours."""
        runner, now = self.runner, asyncio.get_running_loop().time()
        if runner is not None and item.claim:
            runner.claimer.reserved -= 1
        if submitted is None:
            self.front.not_created(item.of)
            if item.claim and runner is not None:
                runner.calls.trouble()
                runner.claimer.freed()
            return
        record = submitted.record
        if submitted.answer is Submission.FAILING:
            self.remember_record(record)
        elif record.state in FINAL:
            # Ours, sent again after a lost reply: it has ended meanwhile.
            self.found_ended(record)
        else:
            mine = runner is not None and runner.takes(record, claim=item.claim)
            here = mine or self._is_here(record.id)
            begun = here or record.began_at is not None
            self.front.created(now, item.of, record.id, submitted.answer, mine=here, begun=begun)
            self.backlog.made += submitted.answer is not Submission.JOINED
            self.tally.submitted += 1
            if mine and runner is not None:
                runner.begin(record, item.losses)
                return
            if runner is not None and record.state is ProcedureState.QUEUED:
                runner.due(item.delay_s)
        if item.claim and runner is not None:
            runner.claimer.freed()

    def remember_record(self, record: ProcedureRecord) -> None:
        """Take a dead record, as the store has it, into the memory of failure."""
        until_s = max(0.0, (record.until_at or record.read_at) - record.read_at)
        since_s = max(0.0, record.read_at - record.created_at)
        faults = record.first_fault, record.last_fault
        self.remember(record.of, record.id, *faults, failures=record.failures, since_s=since_s, until_s=until_s)

    def remember(
        self,
        of: KeyOf,
        record_id: str,
        first: dict[str, Any] | None,
        last: dict[str, Any] | None,
        *,
        failures: int,
        since_s: float,
        until_s: float,
    ) -> None:
        """Take a dead key into the memory of failure, unless it was cleared: then it may be tried at once."""
        if failures == 0:
            self.front.not_created(of)
            return
        now = asyncio.get_running_loop().time()
        faults = fault_of(first, last), fault_of(last, first)
        self.front.failing(now, of, record_id, *faults, failures=failures, since_s=since_s, until_s=until_s)

    def first_look_s(self, live_at: float | None) -> float:
        """Return in how many seconds to look first for a record that was live then: this process is likely to claim it."""
        if live_at is None or self.runner is None:
            return 0.0
        return max(0.0, live_at + LIKELY_OURS_S - asyncio.get_running_loop().time())

    def _is_here(self, record_id: str) -> bool:
        return self.runner is not None and self.runner.running.get(record_id) is not None

    def found_ended(self, record: ProcedureRecord) -> None:
        """Take note of a record that has ended, as the store says."""
        if record.state is ProcedureState.DEAD:
            self.remember_record(record)
        else:
            self.front.ended(asyncio.get_running_loop().time(), record.of, record.state)

    # The regular work, of every process.

    async def run_news(self, stop: Stop) -> None:
        """Load what the store remembers, then follow its news until the stop. Raises the faults of the store."""
        while not stop.requested:
            if self._number is None:
                news = await self.store.news(None, 0.0)
                await self._load()
                self._number = news.number
            async with stop.timeout(None):
                news = await self.store.news(self._number, NEWS_S)
            if news.lost:
                self._number = None
            else:
                self._number = news.number
                for event in news.events:
                    self._hear(event)
            if self.runner is not None and (news.work or news.lost or news.events):
                self.runner.heard(lost=news.lost)
            # Each submission is news of work: a busy store is asked now and then, not for each.
            await stop.sleep(PACE_S)

    async def run_upkeep(self, stop: Stop) -> None:
        """Put off deadlines for joiners, and count the backlog now and then, until the stop."""
        while not stop.requested:
            later = self.front.later(asyncio.get_running_loop().time())
            if later:
                await self.store.extend(later)
            await self.backlog.refresh()
            await stop.sleep(EXTEND_S)

    async def _load(self) -> None:
        """Read all pauses, and the failing keys: the newest, up to as many as are remembered."""
        self.pauses = set(await self.store.pauses())
        before: str | None = None
        pages: list[list[ProcedureRecord]] = []
        while sum(map(len, pages)) < LOAD_MAX:
            page = await self.store.records(states=[ProcedureState.DEAD], before=before, count=LOAD_BATCH)
            pages.append([replace(record, payload_json="", body_json="") for record in page])
            if len(page) < LOAD_BATCH:
                break
            before = page[-1].id
        # The oldest first: when there is no room, that one is forgotten which was remembered first.
        for page in reversed(pages):
            for record in reversed(page):
                if not self._is_here(record.id):
                    self.remember_record(record)
            # Others have their turn: a memory that is full takes half a second.
            await asyncio.sleep(0)

    def _hear(self, event: StoreEvent) -> None:
        match event.what:
            case StoreEventKind.CLEARED:
                self.cleared(event.kind, event.key)
            case StoreEventKind.FIXED:
                source, kind, code = cause_of(event.text)
                if kind is not None:
                    self.fixed(source, kind, code)
            case StoreEventKind.PAUSED:
                self.pauses.add(Pause(event.kind, event.key))
            case StoreEventKind.RESUMED:
                self.pauses.discard(Pause(event.kind, event.key))
            case StoreEventKind.CANCEL:
                if self.runner is not None:
                    self.runner.cancel(event.text)
                self.waits.left(event.text)
            case StoreEventKind.SIGNAL:
                # It made the record due, which is news of work.
                return

    def cleared(self, kind: str, key: str) -> None:
        """Forget failures, since somebody says so."""
        self.front.cleared(kind, key)
        self.on_events()

    def fixed(self, source: str, kind: Kind, code: str) -> None:
        """Take a cause for gone, since somebody says so."""
        self.front.fixed(source, kind, code)
        self.on_events()

    def _no_events(self) -> None:
        self.front.events()


def cause_of(text: str) -> tuple[str, Kind | None, str]:
    """Return source, kind and code of a cause as an event has it. A source may hold slashes, a code may not."""
    head, _, code = text.rpartition("/")
    source, _, kind = head.rpartition("/")
    return source, next((each for each in Kind if each.value == kind), None), code


def fault_of(stored: dict[str, Any] | None, other: dict[str, Any] | None) -> Fault:
    """Return the stored fault of what failed; if there is none, the other one."""
    found = stored or other
    return UNKNOWN if found is None else fault_of_record(found)
