"""The state of one stream as readers see it: values that are replaced whole, so that nobody needs a lock to look."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter

from outlast.streams._model import Chunk as Chunk  # noqa: PLC0414 - whoever reads finds it beside the view

_FIRST = attrgetter("first")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a stream. Of the last segment only `first` and `path` say something: it grows."""

    first: int
    """The position of its first record, by which it is named."""
    path: str
    end: int
    """The offset behind its last good frame. What stands behind it was refused once, and is no part of the stream."""
    next: int
    """The position behind its last record: below the `first` of the next segment where records were lost."""
    newest_us: int
    """No record in it is younger than this."""


@dataclass(frozen=True, slots=True)
class View:
    """One state of a stream."""

    oldest: int
    """The oldest position that can be read."""
    tail: int
    """The position that the next record gets. All below it are stored, and on disk in a stream that syncs each append."""
    segments: tuple[Segment, ...]
    """In order; empty once the stream is deleted."""
    end: int
    """The offset behind the last frame of the last segment."""
    size_bytes: int
    """Bytes of all segments."""
    closed: bool

    def place_of(self, position: int) -> int:
        """Return the index of the segment in which the record of that position is, or would be."""
        return max(0, bisect_right(self.segments, position, key=_FIRST) - 1)

    def end_of(self, place: int) -> int:
        """Return the offset behind the last frame of a segment."""
        return self.end if place == len(self.segments) - 1 else self.segments[place].end

    def next_of(self, place: int) -> int:
        """Return the position behind the last record of a segment."""
        return self.tail if place == len(self.segments) - 1 else self.segments[place].next
