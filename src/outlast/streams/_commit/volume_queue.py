"""The appends and calls that wait on one volume, by stream: the event loop adds and gives up, the thread that writes takes.

Only here do the two meet, under a lock: what is given up before it is taken is never written, what is taken is written.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, Scope, Unavailable
from outlast.streams._commit.lane import Control, Item

if TYPE_CHECKING:
    from outlast.streams._commit.lane import Lane, Round, Work

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
RETRY_S: Final = 1.0
"""The seconds after which it is worth coming back to a full backlog: there is no better estimate."""


class VolumeQueue:
    """See the head of this file. Everything but `take` is for the event loop's thread."""

    def __init__(self, name: str, appends_max: int, bytes_max: int) -> None:
        self.name = name
        self.appends_max = appends_max
        self.bytes_max = bytes_max
        self.waiting = 0
        """Appends that are queued or in the thread. Those given up while queued count until their turn: they hold a place."""
        self.size_bytes = 0
        self.controls = 0
        """Calls that are queued or in the thread."""
        # Held by no one who waits for anything. It guards the lines and their items, and what `Item` says of the taking.
        self._lock = threading.Lock()
        self._lanes: deque[Lane] = deque()

    def __bool__(self) -> bool:
        """Return whether something is queued."""
        return bool(self._lanes)

    def refusal(self, lane: Lane, size: int) -> Unavailable | None:
        """Return why no append of this size can be added, or None."""
        if self.waiting >= self.appends_max or self.size_bytes + size > max(self.bytes_max, size):
            return self._full(f"volume {self.name}", self.waiting, self.size_bytes, 1)
        if lane.waiting >= max(1, self.appends_max // 2) or lane.size_bytes + size > max(self.bytes_max // 2, size):
            return self._full(f"stream {lane.name!r}", lane.waiting, lane.size_bytes, 2)
        return None

    def refusal_of_call(self) -> Unavailable | None:
        """Return why no call can be added, or None."""
        if self.controls < CONTROLS_MAX:
            return None
        return self._overloaded("controls full", f"{self.controls} calls about streams wait (limit {CONTROLS_MAX})")

    def _full(self, whose: str, waiting: int, size_bytes: int, share: int) -> Unavailable:
        reason = (
            f"{waiting} appends of {size_bytes} bytes wait in {whose} "
            f"(limits {self.appends_max // share} and {self.bytes_max // share})"
        )
        return self._overloaded("backlog", reason)

    def _overloaded(self, code: str, reason: str) -> Unavailable:
        fault = Fault(Kind.OVERLOADED, code, reason, self.name, Scope.CALL, RETRY_S, "send less at a time")
        return Unavailable(self.name, fault, 0.0, RETRY_S)

    def add(self, lane: Lane, work: Item | Control) -> None:
        """Queue an append or a call behind what waits in its lane."""
        if isinstance(work, Control):
            self.controls += 1
        else:
            lane.waiting += 1
            lane.size_bytes += work.size
            self.waiting += 1
            self.size_bytes += work.size
        with self._lock:
            lane.items.append(work)
            if not lane.queued:
                lane.queued = True
                self._lanes.append(lane)

    def leave(self, lane: Lane, work: Item | Control) -> None:
        """Free the place of what has been done, or was given up and has had its turn."""
        if isinstance(work, Control):
            self.controls -= 1
        else:
            lane.waiting -= 1
            lane.size_bytes -= work.size
            self.waiting -= 1
            self.size_bytes -= work.size
            work.size = 0

    def give_up(self, lane: Lane, item: Item) -> bool:
        """Forget an append that is queued: its bytes at once, its place when its turn comes. Return False: it was taken."""
        with self._lock:
            if item.taken:
                return False
            item.entry = None
        lane.size_bytes -= item.size
        self.size_bytes -= item.size
        item.size = 0
        return True

    def queued(self) -> list[tuple[Lane, Item | Control]]:
        """Return what is queued and nobody has given up; the thread may take it any moment."""
        with self._lock:
            return self._queued()

    def clear(self) -> list[tuple[Lane, Item | Control]]:
        """Forget all that is queued, and return what of it nobody had given up."""
        with self._lock:
            left = self._queued()
            for lane in self._lanes:
                lane.items.clear()
        return left

    def _queued(self) -> list[tuple[Lane, Item | Control]]:
        return [(lane, work) for lane in self._lanes for work in lane.items if not work.future.done()]

    def take(self, now: Round) -> None:
        """Take the next round: of each of a few streams one call, or appends for one frame. In the thread."""
        works: list[tuple[Lane, Work]] = []
        lanes = self._lanes
        with self._lock:
            for _ in range(len(lanes)):
                if len(works) >= LANES_A_ROUND:
                    break
                lane = lanes.popleft()
                work = _take(lane, now.passed_over)
                if work:
                    works.append((lane, work))
                if lane.items:
                    lanes.append(lane)
                else:
                    lane.queued = False
            now.works = works


def _take(lane: Lane, passed_over: list[tuple[Lane, Item | Control]]) -> Work | None:
    """Take the next work of a lane. What was given up is passed over."""
    taken: list[Item] = []
    size = 0
    items = lane.items
    while items:
        first = items[0]
        # Whoever is cancelled has not always come to give it up yet.
        if first.future.done() or (isinstance(first, Item) and first.entry is None):
            passed_over.append((lane, items.popleft()))
            continue
        if isinstance(first, Control):
            if taken:
                break
            items.popleft()
            return first
        if taken and size + first.size > FRAME_BYTES:
            break
        items.popleft()
        size += first.size
        first.taken = True
        taken.append(first)
    return taken or None
