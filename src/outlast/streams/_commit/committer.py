"""Group commit on one volume: appends queue by stream, one thread writes them, a round at a time.

A round is one call to the thread: of each of a few streams the appends that wait, as one frame that is written and synced. The
next round gathers while the last is on the disk, and the thread goes on with it by itself: two calls are handed over, and each
takes what waits when it begins. Behind an error it takes nothing until the event loop has seen that. Everything here but
`_write` is for the event loop's thread.

An append is refused, is queued, or is in the thread. Queued, it can be given up (cancelled, expired, refused) and is then never
written. In the thread it is written whatever its caller does, and the stream's next append comes behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from outlast import Fault, Kind, Stopping, Unavailable
from outlast.extend import Once, TornFileError
from outlast.streams._commit.deadlines import Deadlines
from outlast.streams._commit.lane import Control, Counts, Item, Lane, Round
from outlast.streams._commit.volume_queue import BACKLOG_BYTES, BACKLOG_MAX, RETRY_S, VolumeQueue
from outlast.streams._errors import ExpiredError, OutcomeUnknownError, StreamError
from outlast.streams._model import Appended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast import Dependency
    from outlast.streams._commit.lane import Calls
    from outlast.streams._model import Entry

T = TypeVar("T")

ROUNDS_MAX: Final = 2
"""Calls that the thread is handed: the one that it is at, and one behind it."""
HANG_S: Final = 2.0
"""A call that takes longer says that the disk hangs."""
logger = logging.getLogger("outlast.streams")


class Committer:
    """The queues of one volume, and the thread that empties them."""

    def __init__(
        self,
        disk: Dependency,
        thread: Calls,
        now_us: Callable[[], int],
        *,
        backlog_max: int = BACKLOG_MAX,
        backlog_bytes: int = BACKLOG_BYTES,
        counts: Counts | None = None,
    ) -> None:
        self.disk = disk
        self.counts = counts or Counts()
        self.queue = VolumeQueue(disk.name, backlog_max, backlog_bytes)
        self.stuck_since: float | None = None
        """Since when the thread has not returned, where that is longer than `HANG_S`."""
        self._thread = thread
        self._now_us = now_us
        self._rounds: deque[Round] = deque()
        """The calls that were handed to the thread and have not returned."""
        self._is_halted = False
        """Whether the thread takes nothing more until the event loop has seen its last round. Set there, and taken back here."""
        self.deadlines = Deadlines(self._expire)
        self._watch: asyncio.TimerHandle | None = None
        self._unsynced: set[Lane] = set()
        self._closed: str | None = None
        self._once = Once()
        self._idle: asyncio.Future[None] | None = None

    # Coming in.

    async def append(self, lane: Lane, entry: Entry, size: int, deadline_s: float | None = None) -> Appended:
        """Return when the entry is stored as its stream promises. Cancelled while it is queued, it never is.

        Raises the `StreamError` of the log, `ExpiredError`, `OutcomeUnknownError`, `Unavailable`, `Stopping`.
        """
        if (refusal := self.refusal(lane, size, deadline_s)) is not None:
            self.counts.refused += 1
            self.counts.expired += isinstance(refusal, ExpiredError)
            # Whoever comes back at once lets the others have their turn.
            await asyncio.sleep(0)
            raise refusal
        loop = asyncio.get_running_loop()
        item = Item(entry, size, loop.create_future())
        self._add(lane, item)
        if deadline_s is not None:
            self.deadlines.add(loop.time() + deadline_s, lane, item, self.queue.waiting)
        try:
            got = await item.future
        except asyncio.CancelledError:
            self.queue.give_up(lane, item)
            raise
        if isinstance(got, Appended):
            return got
        raise got

    async def call(self, lane: Lane, function: Callable[[], T]) -> T:
        """Call `function` in the thread when all that is queued before it in the lane has been done.

        Cancelled before its turn, it is not called. What it raises is raised. Raises `Unavailable` and `Stopping` as `append`.
        """
        if self._closed is not None:
            raise Stopping(self._closed)
        if self.stuck_since is not None:
            raise self._hangs()
        if (refusal := self.queue.refusal_of_call()) is not None:
            raise refusal
        control = Control(function, asyncio.get_running_loop().create_future())
        self._add(lane, control)
        return cast("T", await control.future)

    def refusal(self, lane: Lane, size: int, deadline_s: float | None = None) -> Exception | None:
        """Return why no append of this size can be added now, or None."""
        if self._closed is not None:
            return Stopping(self._closed)
        if deadline_s is not None and deadline_s <= 0:
            return ExpiredError(lane.name, f"the deadline of an append had passed {-deadline_s:g} s before it came")
        if self.stuck_since is not None:
            return self._hangs()
        return self.queue.refusal(lane, size)

    def _hangs(self) -> Unavailable:
        assert self.stuck_since is not None  # noqa: S101 - whoever asks has looked
        since_s = asyncio.get_running_loop().time() - self.stuck_since
        return Unavailable(self.disk.name, self._hang_fault(), since_s, RETRY_S)

    def _hang_fault(self) -> Fault:
        reason = f"a write has not returned for {HANG_S:g} s"
        return Fault(Kind.TRANSIENT, "hangs", reason, self.disk.name, hint="look at the disk; the kernel's log may say more")

    # Rounds.

    def _add(self, lane: Lane, work: Item | Control) -> None:
        self.queue.add(lane, work)
        self._call()

    def _call(self) -> None:
        """Hand a call to the thread if something is queued that no call is there for."""
        rounds = self._rounds
        if not self.queue or len(rounds) >= ROUNDS_MAX or (rounds and rounds[-1].works is None):
            return
        now = Round()
        rounds.append(now)
        if len(rounds) == 1:
            self._watch_over(now)
        self._thread.call(partial(self._write, now), partial(self._returned, now))

    def _watch_over(self, now: Round) -> None:
        """Watch a call that has no other before it."""
        loop = asyncio.get_running_loop()
        now.began_at = loop.time()
        if self._watch is None:
            self._watch = loop.call_at(now.began_at + HANG_S, self._look)

    def _write(self, now: Round) -> None:
        """Take a round and do it. In the thread."""
        if self._is_halted:
            now.works = []
            return
        now.epoch = self.disk.epoch
        self.queue.take(now)
        # Whatever ends it here, nothing is taken behind it.
        self._is_halted = True
        _make(now, self._now_us())
        self._is_halted = now.has_failed

    def _returned(self, done: Round, _result: object, error: Exception | None) -> None:
        rounds, works = self._rounds, done.works or []
        rounds.popleft()
        if error is not None:
            # What was to end the thread ended the round: of the rest nobody knows.
            done.outcomes += [error] * (len(works) - len(done.outcomes))
        self.counts.rounds += 1 if works else 0
        self.stuck_since = None
        for lane, left in done.passed_over:
            self.queue.leave(lane, left)
        # The faults first: what waits behind them would meet the same. After a hang that has ended it would not.
        refusals = [self._blame(done, outcome) for outcome in done.outcomes]
        if any(refusals) and not self.disk.passable:
            self._refuse_queued()
        if done.has_failed:
            self._is_halted = False
        if rounds:
            self._watch_over(rounds[0])
        self._call()
        if not rounds:
            self._end_drain()
        for (lane, work), outcome, refusal in zip(works, done.outcomes, refusals, strict=True):
            if isinstance(work, Control):
                self.queue.leave(lane, work)
                _settle_control(work, outcome)
            else:
                self._settle(lane, work, outcome, refusal)

    def _end_drain(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _blame(self, done: Round, outcome: object) -> OSError | None:
        """Take an error of the disk as evidence, once a work; return it."""
        if not isinstance(outcome, Exception):
            return None
        cause = outcome.__cause__ if isinstance(outcome, OutcomeUnknownError) else outcome
        if isinstance(cause, OSError):
            self.disk.report(cause, phase="append", epoch=done.epoch)
            return cause
        return None

    def _settle(self, lane: Lane, work: list[Item], outcome: Any, error: OSError | None) -> None:  # noqa: ANN401
        """Answer the callers of one frame."""
        if isinstance(outcome, BaseException):
            self.counts.failed += len(work)
            answers: list[Any] = [self._answer(lane, outcome, error) for _ in work]
        else:
            answers = outcome
            self._stored(lane, work, answers)
        for item, answer in zip(work, answers, strict=True):
            self.queue.leave(lane, item)
            if not item.future.done():
                item.future.set_result(answer)

    def _answer(self, lane: Lane, outcome: BaseException, error: OSError | None) -> BaseException:
        """Return what one caller of a frame that was not stored is told."""
        if isinstance(outcome, OutcomeUnknownError | TornFileError):
            self.counts.unknown += 1
            text = f"whether an append is stored is not known: {error or outcome}"
        elif isinstance(outcome, OSError):
            return self.disk.refusal(outcome)
        elif isinstance(outcome, StreamError | Unavailable):
            return outcome
        else:
            self.counts.unknown += 1
            text = f"an append met a bug: {outcome!r}"
            if self._once.news(repr(outcome)):
                logger.error("stream %r: %s", lane.name, text, exc_info=outcome)
        answer = OutcomeUnknownError(lane.name, text)
        answer.__cause__ = outcome
        return answer

    def _stored(self, lane: Lane, work: list[Item], answers: Sequence[Appended | StreamError]) -> None:
        counts, some = self.counts, False
        for item, answer in zip(work, answers, strict=True):
            if not isinstance(answer, Appended):
                counts.refused += 1
            elif answer.duplicate:
                counts.duplicates += 1
            else:
                some = True
                counts.appends += 1
                counts.records += answer.next - answer.first
                counts.bytes += item.size
        if not some:
            return
        counts.frames += 1
        if not lane.sync_every_s:
            counts.syncs += 1
        elif lane.syncing is None:
            self._sync_later(lane)
        if lane.on_stored is not None:
            lane.on_stored()

    # What is given up.

    def _refuse_queued(self) -> None:
        """Refuse all appends that are queued, as everyone who comes from now on is: they were never begun."""
        for lane, work in self.queue.queued():
            if isinstance(work, Item) and self.queue.give_up(lane, work):
                self.counts.refused += 1
                work.future.set_result(self.disk.unavailable())

    def _expire(self, lane: Lane, item: Item) -> None:
        """Answer an append whose deadline has passed."""
        if self.queue.give_up(lane, item):
            self.counts.expired += 1
            item.future.set_result(ExpiredError(lane.name, "the deadline passed before the append was begun"))
        else:
            self.counts.unknown += 1
            text = "the deadline passed while the append was on its way to the disk"
            item.future.set_result(OutcomeUnknownError(lane.name, text))

    def _look(self) -> None:
        """Look whether the thread hangs; look again while there is a round."""
        loop = asyncio.get_running_loop()
        self._watch = None
        if not self._rounds:
            return
        began_at = self._rounds[0].began_at
        due_at = began_at + HANG_S
        if loop.time() >= due_at:
            self.stuck_since = began_at
            self._end_drain()
            # Again each time: a probe that writes elsewhere on the disk may have passed meanwhile.
            if self.disk.passable:
                self.disk.observe(self._hang_fault(), epoch=self.disk.epoch)
            due_at = loop.time() + HANG_S
        self._watch = loop.call_at(due_at, self._look)

    # Streams that are synced now and then.

    def _sync_later(self, lane: Lane) -> None:
        self._unsynced.add(lane)
        lane.syncing = asyncio.get_running_loop().call_later(lane.sync_every_s, self._sync, lane)

    def _sync(self, lane: Lane) -> None:
        """Queue a sync of the lane; if it fails, the next is due after the same time."""
        lane.syncing = None
        self._unsynced.discard(lane)
        log = lane.log
        if log is None:
            return
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(partial(self._synced, lane))
        self._add(lane, Control(log.sync, future))

    def _synced(self, lane: Lane, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        if (error := future.exception()) is None:
            self.counts.syncs += 1
        elif lane.syncing is None and self._closed is None:
            logger.debug("stream %r: not synced: %r", lane.name, error)
            self._sync_later(lane)

    # The end.

    async def drain(self) -> None:
        """Sync what is not synced, and return when all that is queued is done, that of newcomers too, or the disk hangs."""
        for lane in list(self._unsynced):
            if lane.syncing is not None:
                lane.syncing.cancel()
            self._sync(lane)
        if self._rounds and self.stuck_since is None:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._idle})

    def forget(self, lane: Lane) -> None:
        """Sync the lane no more: its stream is gone."""
        self._unsynced.discard(lane)
        if lane.syncing is not None:
            lane.syncing.cancel()
            lane.syncing = None

    def close(self, reason: str) -> bool:
        """Refuse newcomers and answer everyone who still waits: the thread may never come back. Return whether it is busy."""
        self._closed = reason
        self.deadlines.close()
        for handle in (self._watch, *(lane.syncing for lane in self._unsynced)):
            if handle is not None:
                handle.cancel()
        self._unsynced.clear()
        for _, left in self.queue.clear():
            _answer_end(left.future, Stopping(reason), as_result=isinstance(left, Item))
        for lane, work in [each for now in self._rounds for each in now.works or ()]:
            if isinstance(work, Control):
                if not work.future.done():
                    text = f"the store ended ({reason}) before a call about the stream returned"
                    _answer_end(work.future, OutcomeUnknownError(lane.name, text), as_result=False)
                continue
            for item in work:
                if not item.future.done():
                    self.counts.unknown += 1
                    text = f"the store ended ({reason}) while the append was on its way to the disk"
                    _answer_end(item.future, OutcomeUnknownError(lane.name, text), as_result=True)
        return bool(self._rounds)


def _make(now: Round, time_us: int) -> None:
    """Do the work of a round. In the thread."""
    for lane, work in now.works or ():
        try:
            if isinstance(work, Control):
                outcome: Any = (work.function(),)
            else:
                log = lane.log
                assert log is not None  # noqa: S101 - nothing is queued before
                outcome = log.append([item.entry for item in work if item.entry is not None], time_us)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it belongs to the callers of this work
            outcome = exc
        now.outcomes.append(outcome)


def _settle_control(control: Control, outcome: Any) -> None:  # noqa: ANN401
    if control.future.done():
        return
    if isinstance(outcome, BaseException):
        control.future.set_exception(outcome)
    else:
        control.future.set_result(outcome[0])


def _answer_end(future: asyncio.Future[Any], error: Exception, *, as_result: bool) -> None:
    if as_result:
        future.set_result(error)
    else:
        future.set_exception(error)
