"""Fold what repeats: the first at once, reminders at growing intervals with exact counts, a last word when it is over.

A **storm** is one key for as long as it keeps coming: it begins with the first occurrence, which is shown, and is over when
the key was not seen for `quiet_s`. What is not shown is **pending** until a `Summary` tells its number. At every instant

    seen == shown + summarised + pending

Memory is bounded by `keys_max` storms. When as many are open, an unknown key is still shown, but no more than `others_per_s`
of them (ten seconds' worth at once); what goes beyond is counted exactly in one storm of its own, the **others**, which
announces itself as soon as it opens. So a flood of distinct keys is one named storm, and a new kind of fault in the middle
of a flood is hidden only where the reader has been told that something is. While the others are open no freed place is
given away at once: otherwise a long flood would fill `keys_max` lines every `quiet_s`.

Nothing here is safe for threads by itself, and nothing reads a clock: the caller locks, and passes the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import count as counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

OTHERS_KEY: Final = "outlast.others"
"""The key of the summaries of what had no place among `keys_max` keys."""

OTHERS_AT_ONCE_S: Final = 10.0
"""The seconds' worth of unknown keys that a full fold shows at once, after a pause."""

STEP_BACK_S: Final = 1.0
"""A clock that goes back by more than this was set; less is the difference between two threads' readings."""


class What(Enum):
    """The message of a summary about its storm."""

    REMINDER = "reminder"
    """It goes on."""
    QUIET = "quiet"
    """It was not seen for `quiet_s`: "quiet since", which is no promise that its cause is gone."""
    RESOLVED = "resolved"
    """Somebody who knows said that it is over."""
    OTHERS = "others"
    """Keys that had no place of their own; whether that is over is said by `Summary.over`."""


@dataclass(frozen=True, slots=True)
class FoldPolicy:
    """Limits of what is shown, and the times of reminders. The defaults write seven lines for a storm of twenty minutes."""

    burst: int = 1
    """The occurrences that are shown before a storm folds; at least one."""
    reminder_first_s: float = 5.0
    """The first reminder comes this long after the first occurrence that was folded."""
    reminder_factor: float = 2.0
    reminder_max_s: float = 900.0
    quiet_s: float = 30.0
    """A storm is over when its key was not seen this long."""
    keys_max: int = 10_000
    """The storms that are kept by name."""
    others_per_s: float = 1.0
    """The unknown keys a second that are shown while there is no place for them."""

    def __post_init__(self) -> None:
        if self.burst < 1 or self.keys_max < 1 or self.reminder_factor < 1:
            raise ValueError(f"burst, keys_max and reminder_factor are at least 1, not {self}")
        if not (0 < self.reminder_first_s <= self.reminder_max_s and self.quiet_s > 0 and self.others_per_s > 0):
            raise ValueError(f"the times are above 0 s, reminder_first_s at most reminder_max_s, not {self}")


@dataclass(frozen=True, slots=True)
class Summary:
    """The report about one storm. Times are those that the caller passed, in seconds of its clock."""

    key: Hashable
    example: object
    """The value that the caller handed over with the first occurrence."""
    count: int
    """Folded since the last summary."""
    total: int
    """All of the storm so far: shown and folded."""
    first_at: float
    last_at: float
    what: What
    over: bool
    """Whether this is the last word about this storm."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Exact counts over the life of a fold; `seen == shown + summarised + pending`."""

    seen: int
    shown: int
    summarised: int
    pending: int


@dataclass(slots=True, eq=False)
class Storm:
    """One key while it is coming. `folding` says that its burst is used up, its reminders are scheduled, and it is not over.

    A caller who holds the lock may count without a call, as `Fold.seen` does. While the storm is folding: add to `pending`, set
    `last_at`. While there is room, that is before its burst is used up: take from `room`, add to `shown`, set `last_at`.
    """

    key: Hashable
    example: object
    first_at: float
    last_at: float
    interval_s: float
    remind_at: float | None = None
    room: int = 0
    shown: int = 0
    pending: int = 0
    summarised: int = 0
    folding: bool = False
    entry: int = -1
    """The entry of the schedule that is this storm's; others that name it are stale."""


class Fold:
    """Counts occurrences by key and says which are to be shown, and what is to be said of the rest.

    `seen` costs one dictionary lookup for an occurrence that is folded. `due` costs time only for the storms that are due.
    Bounded by `policy.keys_max`. Any clock will do for the counts. One that is set back delays what is due by one interval,
    from the next call of `due`, or of `seen` with a key that is not folding.
    """

    __slots__ = ("_heap", "_latest", "_others", "_room_at", "_sequence", "_shown", "_storms", "_summarised", "policy")

    def __init__(self, policy: FoldPolicy = FoldPolicy()) -> None:
        self.policy = policy
        self._storms: dict[Hashable, Storm] = {}
        self._others: Storm | None = None
        self._heap: list[tuple[float, int, Storm]] = []
        self._sequence = counter()
        self._shown = 0
        self._summarised = 0
        self._room_at: float | None = None
        self._latest = float("-inf")

    def __len__(self) -> int:
        """Return how many storms are kept by name."""
        return len(self._storms)

    def __contains__(self, key: Hashable) -> bool:
        """Return whether a storm of `key` is open under its own name."""
        return key in self._storms

    @property
    def totals(self) -> Totals:
        """The exact counts at this instant. Costs a pass over the storms."""
        storms = self._everything()
        shown = self._shown + sum(storm.shown for storm in storms)
        pending = sum(storm.pending for storm in storms)
        return Totals(shown + self._summarised + pending, shown, self._summarised, pending)

    def seen(self, key: Hashable, now: float, count: int = 1, example: object = None) -> int:
        """Count `count` occurrences of `key`, and give how many of them, the first ones, are to be shown.

        `example` is kept with a key's first occurrence and given back with its summaries.
        """
        storm = self._storms.get(key)
        if storm is not None:
            if storm.folding:
                storm.pending += count
                storm.last_at = now
                return 0
            if 0 < count <= storm.room:
                storm.room -= count
                storm.shown += count
                storm.last_at = now
                return count
        return self._seen(key, storm, now, count, example)

    def storm(self, key: Hashable) -> Storm | None:
        """Return the open storm of `key`, for callers who keep it to spare the lookup."""
        return self._storms.get(key)

    def _seen(self, key: Hashable, storm: Storm | None, now: float, count: int, example: object) -> int:
        if count < 1:
            return 0
        self._look_at_clock(now)
        if storm is None:
            crowded = self._others is not None or len(self._storms) >= self.policy.keys_max
            if crowded and not self._may_show(now):
                self._count_other(now, count, example)
                return 0
            if len(self._storms) >= self.policy.keys_max and not self._evict(now):
                self._shown += 1
                if count > 1:
                    self._count_other(now, count - 1, example)
                return 1
            storm = self._storms[key] = Storm(key, example, now, now, self.policy.reminder_first_s, room=self.policy.burst)
            self._schedule(storm, now + self.policy.quiet_s)
        storm.last_at = now
        shown = min(count, storm.room)
        storm.room -= shown
        storm.shown += shown
        if shown < count:
            storm.pending += count - shown
            storm.folding = True
            storm.remind_at = now + storm.interval_s
            self._schedule(storm, min(storm.remind_at, now + self.policy.quiet_s))
        return shown

    def next_due_at(self) -> float | None:
        """Return the time at which to call `due` next; None while there is nothing to wait for. It may be early, never late."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Summary]:
        """Return the reminders and last words that are due. What they count is pending no more."""
        self._look_at_clock(now)
        said: list[Summary] = []
        waiting: list[Storm] = []
        while self._heap and self._heap[0][0] <= now:
            _, entry, storm = heappop(self._heap)
            if storm.entry != entry:
                continue
            if now >= storm.last_at + self.policy.quiet_s:
                folded = storm.folding
                self._forget(storm)
                if folded:
                    said.append(self._say(storm, What.QUIET, over=True))
                continue
            if storm.remind_at is not None and now >= storm.remind_at:
                if storm.pending:
                    said.append(self._say(storm, What.REMINDER, over=False))
                    storm.interval_s = min(storm.interval_s * self.policy.reminder_factor, self.policy.reminder_max_s)
                storm.remind_at = now + storm.interval_s
            waiting.append(storm)
        for storm in waiting:
            quiet_at = storm.last_at + self.policy.quiet_s
            self._schedule(storm, quiet_at if storm.remind_at is None else min(quiet_at, storm.remind_at))
        return said

    def end(self, now: float) -> list[Summary]:
        """Return a summary of everything that is still pending, and forget all storms. The totals stay."""
        said: list[Summary] = []
        for storm in self._everything():
            self._leave(storm)
            if storm.pending:
                quiet = now >= storm.last_at + self.policy.quiet_s
                said.append(self._say(storm, What.QUIET if quiet else What.REMINDER, over=True))
        self._storms.clear()
        self._heap.clear()
        self._others = None
        return said

    def resolve(self, key: Hashable, now: float) -> Summary | None:
        """Close the storm of `key` because its cause is known to be gone; None when none is open."""
        storm = self._storms.get(key)
        if storm is None:
            return None
        self._forget(storm)
        storm.last_at = min(storm.last_at, now)
        return self._say(storm, What.RESOLVED, over=True)

    def _say(self, storm: Storm, what: What, *, over: bool) -> Summary:
        count, storm.pending = storm.pending, 0
        storm.summarised += count
        self._summarised += count
        total = storm.shown + storm.summarised
        if storm.key is OTHERS_KEY:
            what = What.OTHERS
        return Summary(storm.key, storm.example, count, total, storm.first_at, storm.last_at, what, over)

    def _leave(self, storm: Storm) -> None:
        """Count nothing in `storm` from now on."""
        storm.entry = -1
        storm.folding = False
        storm.room = 0
        self._shown += storm.shown

    def _forget(self, storm: Storm) -> None:
        self._leave(storm)
        if storm is self._others:
            self._others = None
        else:
            del self._storms[storm.key]

    def _schedule(self, storm: Storm, at: float) -> None:
        storm.entry = next(self._sequence)
        heappush(self._heap, (at, storm.entry, storm))
        # A storm has at most two entries unless somebody resolves it again and again.
        if len(self._heap) > 2 * len(self._storms) + 64:
            self._heap = [entry for entry in self._heap if entry[2].entry == entry[1]]
            heapify(self._heap)

    def _may_show(self, now: float) -> bool:
        """Take one of the places for unknown keys: a bucket that fills with `others_per_s`, written as the time it is full."""
        each_s = 1 / self.policy.others_per_s
        depth_s = max(OTHERS_AT_ONCE_S, each_s)
        full_at = each_s + (now if self._room_at is None else min(max(self._room_at, now), now + depth_s))
        if full_at > now + depth_s:
            return False
        self._room_at = full_at
        return True

    def _count_other(self, now: float, count: int, example: object) -> None:
        others = self._others
        if others is None:
            others = self._others = Storm(
                OTHERS_KEY, example, now, now, self.policy.reminder_first_s, remind_at=now, folding=True
            )
            self._schedule(others, now)
        others.pending += count
        others.last_at = now

    def _evict(self, now: float) -> bool:
        """Make room by forgetting a storm that is over and was not asked for yet; what it had pending goes to the others."""
        kept: list[tuple[float, int, Storm]] = []
        idle: Storm | None = None
        while idle is None and self._heap and self._heap[0][0] <= now and len(kept) < 16:
            at, entry, storm = heappop(self._heap)
            if storm.entry != entry:
                continue
            if storm is not self._others and now >= storm.last_at + self.policy.quiet_s:
                idle = storm
            else:
                kept.append((at, entry, storm))
        for item in kept:
            heappush(self._heap, item)
        if idle is None:
            return False
        self._forget(idle)
        if idle.pending:
            self._count_other(now, idle.pending, idle.example)
        return True

    def _everything(self) -> list[Storm]:
        return [*self._storms.values(), *([self._others] if self._others is not None else [])]

    def _look_at_clock(self, now: float) -> None:
        """Let no time lie further ahead than if it were set now, in case the clock was set back."""
        latest, self._latest = self._latest, now
        if now >= latest - STEP_BACK_S:
            return
        self._heap.clear()
        for storm in self._everything():
            storm.first_at = min(storm.first_at, now)
            storm.last_at = min(storm.last_at, now)
            at = storm.last_at + self.policy.quiet_s
            if storm.remind_at is not None:
                storm.remind_at = min(storm.remind_at, now + storm.interval_s)
                at = min(at, storm.remind_at)
            storm.entry = next(self._sequence)
            self._heap.append((at, storm.entry, storm))
        heapify(self._heap)
        self._room_at = None
