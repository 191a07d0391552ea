"""Group commit on one volume: appends queue by stream, one thread writes them, a round at a time.

A round is one call to the thread: of each of a few streams the appends that wait, as one frame that is written and synced. The
next round gathers while the last is on the disk. Everything here but `_make` is for the event loop's thread.

An append is refused, is queued, or is in the thread. Queued, it can be given up (cancelled, expired, refused) and is then never
written. In the thread it is written whatever its caller does, and the stream's next append comes behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from outlast import Fault, Kind, Scope, Stopping, Unavailable
from outlast.extend import Once, TornFileError
from outlast.streams._commit.deadlines import Deadlines
from outlast.streams._commit.lane import Control, Counts, Item, Lane, Round
from outlast.streams._errors import ExpiredError, OutcomeUnknownError, StreamError
from outlast.streams._model import Appended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast import Dependency
    from outlast.streams._commit.lane import Calls
    from outlast.streams._model import Entry

T = TypeVar("T")

BACKLOG_MAX: Final = 100_000
"""Appends that may wait on one volume; a stream may have half of them."""
BACKLOG_BYTES: Final = 64 << 20
"""Bytes of appends that may wait on one volume; a stream may have half of them, and always one append."""
CONTROLS_MAX: Final = 1_000
"""Trims, closes, deletes and the like that may wait on one volume."""
LANES_A_ROUND: Final = 16
"""Streams of one round: each costs a sync, and all their callers wait for the round."""
FRAME_BYTES: Final = 1 << 20
"""Appends are gathered into one frame up to this size: a reader takes in a frame as a whole."""
HANG_S: Final = 2.0
"""A call that takes longer says that the disk hangs."""
RETRY_S: Final = 1.0
"""The seconds after which it is worth coming back to a full backlog: there is no better estimate."""
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
        self.backlog_max = backlog_max
        self.backlog_bytes = backlog_bytes
        self.waiting = 0
        """Appends that are queued or in the thread. Those given up while queued count until their turn: they hold a place."""
        self.size_bytes = 0
        self.stuck_since: float | None = None
        """Since when the thread has not returned, where that is longer than `HANG_S`."""
        self._thread = thread
        self._now_us = now_us
        self._lanes: deque[Lane] = deque()
        self._round: Round | None = None
        self._controls = 0
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
        if (refusal := self._refusal(lane, size, deadline_s)) is not None:
            self.counts.refused += 1
            # Whoever comes back at once lets the others have their turn.
            await asyncio.sleep(0)
            raise refusal
        loop = asyncio.get_running_loop()
        item = Item(entry, size, loop.create_future())
        lane.items.append(item)
        lane.waiting += 1
        lane.size_bytes += size
        self.waiting += 1
        self.size_bytes += size
        if deadline_s is not None:
            self.deadlines.add(loop.time() + deadline_s, lane, item, self.waiting)
        self._enqueue(lane)
        try:
            got = await item.future
        except asyncio.CancelledError:
            self._give_up(lane, item)
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
        if self._controls >= CONTROLS_MAX:
            raise self._overloaded("controls full", f"{self._controls} calls about streams wait (limit {CONTROLS_MAX})")
        control = Control(function, asyncio.get_running_loop().create_future())
        self._controls += 1
        lane.items.append(control)
        self._enqueue(lane)
        return cast("T", await control.future)

    def _refusal(self, lane: Lane, size: int, deadline_s: float | None) -> Exception | None:
        if self._closed is not None:
            return Stopping(self._closed)
        if deadline_s is not None and deadline_s <= 0:
            self.counts.expired += 1
            return ExpiredError(lane.name, f"the deadline of an append had passed {-deadline_s:g} s before it came")
        if self.stuck_since is not None:
            return self._hangs()
        if self.waiting >= self.backlog_max or self.size_bytes + size > max(self.backlog_bytes, size):
            return self._full(f"volume {self.disk.name}", self.waiting, self.size_bytes, 1)
        if lane.waiting >= max(1, self.backlog_max // 2) or lane.size_bytes + size > max(self.backlog_bytes // 2, size):
            return self._full(f"stream {lane.name!r}", lane.waiting, lane.size_bytes, 2)
        return None

    def _full(self, whose: str, waiting: int, size_bytes: int, share: int) -> Unavailable:
        reason = (
            f"{waiting} appends of {size_bytes} bytes wait in {whose} "
            f"(limits {self.backlog_max // share} and {self.backlog_bytes // share})"
        )
        return self._overloaded("backlog", reason)

    def _overloaded(self, code: str, reason: str) -> Unavailable:
        fault = Fault(Kind.OVERLOADED, code, reason, self.disk.name, Scope.CALL, RETRY_S, "send less at a time")
        return Unavailable(self.disk.name, fault, 0.0, RETRY_S)

    def _hangs(self) -> Unavailable:
        assert self.stuck_since is not None  # noqa: S101 - whoever asks has looked
        since_s = asyncio.get_running_loop().time() - self.stuck_since
        return Unavailable(self.disk.name, self._hang_fault(), since_s, RETRY_S)

    def _hang_fault(self) -> Fault:
        reason = f"a write has not returned for {HANG_S:g} s"
        return Fault(Kind.TRANSIENT, "hangs", reason, self.disk.name, hint="look at the disk; the kernel's log may say more")

    # Rounds.

    def _enqueue(self, lane: Lane) -> None:
        if not lane.queued:
            lane.queued = True
            self._lanes.append(lane)
        if self._round is None:
            self._begin()

    def _begin(self) -> None:
        """Hand the next round to the thread, if there is something to do."""
        works: list[tuple[Lane, list[Item] | Control]] = []
        lanes = self._lanes
        for _ in range(len(lanes)):
            if len(works) >= LANES_A_ROUND:
                break
            lane = lanes.popleft()
            work = self._take(lane)
            if work:
                works.append((lane, work))
            if lane.items:
                lanes.append(lane)
            else:
                lane.queued = False
        if not works:
            self._end_drain()
            return
        loop = asyncio.get_running_loop()
        self._round = now = Round(works, loop.time(), self.disk.epoch)
        if self._watch is None:
            self._watch = loop.call_at(now.began_at + HANG_S, self._look)
        self._thread.call(partial(_make, now, self._now_us()), partial(self._returned, now))

    def _end_drain(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _take(self, lane: Lane) -> list[Item] | Control | None:
        """Take the next work of a lane: one call, or appends for one frame. What was given up is passed over."""
        taken: list[Item] = []
        size = 0
        items = lane.items
        while items:
            first = items[0]
            if isinstance(first, Control):
                if taken:
                    break
                items.popleft()
                self._controls -= 1
                if first.future.done():
                    continue
                return first
            if first.future.done():
                self._give_up(lane, first)
                items.popleft()
                self._leave(lane, first)
                continue
            if taken and size + first.size > FRAME_BYTES:
                break
            items.popleft()
            size += first.size
            first.began = True
            taken.append(first)
        return taken or None

    def _leave(self, lane: Lane, item: Item) -> None:
        """Free the place of an append: the thread is back with it, or it was given up and its turn has come."""
        lane.waiting -= 1
        lane.size_bytes -= item.size
        self.waiting -= 1
        self.size_bytes -= item.size

    def _returned(self, done: Round, _result: object, error: Exception | None) -> None:
        if error is not None:
            # What was to end the thread ended the round: of the rest nobody knows.
            done.outcomes += [error] * (len(done.works) - len(done.outcomes))
        self._round = None
        self.counts.rounds += 1
        self.stuck_since = None
        # The faults first: what waits behind them would meet the same. After a hang that has ended it would not.
        refusals = [self._blame(done, outcome) for outcome in done.outcomes]
        if any(refusals) and not self.disk.passable:
            self._refuse_queued()
        self._begin()
        for (lane, work), outcome, refusal in zip(done.works, done.outcomes, refusals, strict=True):
            if isinstance(work, Control):
                _settle_control(work, outcome)
            else:
                self._settle(lane, work, outcome, refusal)

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
        counts = self.counts
        for item in work:
            self._leave(lane, item)
        if isinstance(outcome, BaseException):
            counts.failed += len(work)
            answers: list[Any] = [self._answer(lane, outcome, error) for _ in work]
        else:
            answers = outcome
            self._stored(lane, work, answers)
        for item, answer in zip(work, answers, strict=True):
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

    def _give_up(self, lane: Lane, item: Item) -> None:
        """Forget an append that is queued: its bytes at once, its place when its turn comes."""
        if not item.began and item.entry is not None:
            item.entry = None
            lane.size_bytes -= item.size
            self.size_bytes -= item.size
            item.size = 0

    def _refuse_queued(self) -> None:
        """Refuse all appends that are queued, as everyone who comes from now on is: they were never begun."""
        for lane in self._lanes:
            for item in lane.items:
                if isinstance(item, Item) and not item.future.done():
                    self.counts.refused += 1
                    item.future.set_result(self.disk.unavailable())
                    self._give_up(lane, item)

    def _expire(self, lane: Lane, item: Item) -> None:
        """Answer an append whose deadline has passed."""
        if item.began:
            self.counts.unknown += 1
            text = "the deadline passed while the append was on its way to the disk"
            item.future.set_result(OutcomeUnknownError(lane.name, text))
        else:
            self.counts.expired += 1
            item.future.set_result(ExpiredError(lane.name, "the deadline passed before the append was begun"))
            self._give_up(lane, item)

    def _look(self) -> None:
        """Look whether the thread hangs; look again while there is a round."""
        loop, now = asyncio.get_running_loop(), self._round
        self._watch = None
        if now is None:
            return
        due_at = now.began_at + HANG_S
        if loop.time() >= due_at:
            self.stuck_since = now.began_at
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
        self._controls += 1
        lane.items.append(Control(log.sync, future))
        future.add_done_callback(partial(self._synced, lane))
        self._enqueue(lane)

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
        if self._round is not None and self.stuck_since is None:
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
        for lane in self._lanes:
            for item in lane.items:
                if not item.future.done():
                    _answer_end(item.future, Stopping(reason), as_result=isinstance(item, Item))
            lane.items.clear()
        for lane, work in () if self._round is None else self._round.works:
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
        return self._round is not None


def _make(now: Round, time_us: int) -> None:
    """Do the work of a round. In the thread."""
    for lane, work in now.works:
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
