"""The plan of retention: of which streams how many of the oldest segments go. It decides; others delete.

Room may return some time after its file is deleted: a file system frees in the background, and a reader may still have the file
open. Whoever looked at the free room alone would delete a segment more at every look. So what was deleted counts as free
for `LATE_S`, or until the disk has shown it.
"""

from __future__ import annotations

import enum
import heapq
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from outlast.streams._model import Retention

LATE_S: Final = 30.0
"""Seconds for which what was deleted counts as free although the disk does not show it. ext4 and XFS free within some seconds
(a commit of the journal: 5 s by default in ext4); after that the room is somebody else's."""


class Reason(enum.Enum):
    """The reason for which a segment goes."""

    AGE = "age"
    SIZE = "size"
    LOW = "low disk"


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A segment that takes no more records. `youngest_s` is the time of its youngest record, in seconds since 1970."""

    size_bytes: int
    youngest_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A stream: its closed segments, oldest first, and its size with the segment that is being written."""

    stream: str
    retention: Retention
    segments: Sequence[ClosedSegment]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The oldest `segments` of a stream go, which have `size_bytes`. `reasons` in the order in which they applied."""

    stream: str
    segments: int
    size_bytes: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Freed:
    """Deletions on one disk whose room it has not shown as free yet."""

    missing_bytes: int = 0
    """Bytes that the disk lacked when it was looked at last."""
    owed: tuple[tuple[float, int], ...] = ()
    """Time and size of each deletion that counts."""

    @property
    def owed_bytes(self) -> int:
        """The room that is to come."""
        return sum(size for _, size in self.owed)

    def deleted(self, now_s: float, size_bytes: int) -> Freed:
        """Count a deletion, by retention or by anybody else."""
        return replace(self, owed=(*self.owed, (now_s, size_bytes))) if size_bytes else self

    def looked(self, now_s: float, missing_bytes: int | None) -> Freed:
        """Take what the disk lacks now; None: it lacks nothing, so nothing is owed."""
        if missing_bytes is None:
            return Freed()
        returned, owed = max(0, self.missing_bytes - missing_bytes), list[tuple[float, int]]()
        for at_s, size in self.owed:
            shown = min(returned, size)
            returned -= shown
            # A time ahead of now is of a clock that was set back.
            if size > shown and 0 <= now_s - at_s < LATE_S:
                owed.append((at_s, size - shown))
        return Freed(missing_bytes, tuple(owed))


NOTHING_FREED: Final = Freed()


@dataclass(slots=True)
class _Going:
    """The plan for one stream, as far as it has come."""

    held: Held
    now_s: float
    segments: int = 0
    size_bytes: int = 0
    reasons: list[Reason] = field(default_factory=list[Reason])

    @property
    def oldest(self) -> ClosedSegment | None:
        """The oldest segment that may go and is not going yet; none with a record younger than the floor."""
        if self.segments == len(self.held.segments):
            return None
        oldest = self.held.segments[self.segments]
        return oldest if self.now_s - oldest.youngest_s >= self.held.retention.floor_s else None

    def take(self, segment: ClosedSegment, reason: Reason) -> None:
        self.segments += 1
        self.size_bytes += segment.size_bytes
        if reason not in self.reasons:
            self.reasons.append(reason)

    def take_by_age_and_size(self) -> None:
        retention = self.held.retention
        while (oldest := self.oldest) is not None:
            if retention.age_s is not None and self.now_s - oldest.youngest_s > retention.age_s:
                self.take(oldest, Reason.AGE)
            elif retention.size_bytes is not None and self.held.size_bytes - self.size_bytes > retention.size_bytes:
                self.take(oldest, Reason.SIZE)
            else:
                return


def plan(streams: Iterable[Held], now_s: float, *, missing_bytes: int | None = None, freed: Freed = NOTHING_FREED) -> list[Drop]:
    """Return what goes of the streams of one disk. `now_s` is wall time, `freed` is what `looked` has returned just now.

    Never a segment with a record younger than `Retention.floor_s`, nor one behind such a segment: data goes oldest first.
    `missing_bytes` is what the disk lacks; for it goes the oldest data over all streams with `when_low`, and no more than that.
    """
    going = [_Going(held, now_s) for held in streams]
    for each in going:
        each.take_by_age_and_size()
    if missing_bytes is not None:
        _take_the_oldest(going, missing_bytes - freed.owed_bytes - sum(each.size_bytes for each in going))
    return [Drop(each.held.stream, each.segments, each.size_bytes, tuple(each.reasons)) for each in going if each.segments]


def _take_the_oldest(going: list[_Going], missing_bytes: int) -> None:
    heap = [
        (oldest.youngest_s, place)
        for place, each in enumerate(going)
        if each.held.retention.when_low and (oldest := each.oldest) is not None
    ]
    heapq.heapify(heap)
    while missing_bytes > 0 and heap:
        place = heapq.heappop(heap)[1]
        each = going[place]
        oldest = each.oldest
        if oldest is None:
            continue
        each.take(oldest, Reason.LOW)
        missing_bytes -= oldest.size_bytes
        if (following := each.oldest) is not None:
            heapq.heappush(heap, (following.youngest_s, place))
