"""Reading a stream, in any thread, while it grows: from the files alone, by a view that does not change underway.

No byte is handed out that the checksum of its frame does not cover. Indexes, and where a reader stopped last time, are hints: a
wrong one costs time, and never a record.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Final

from outlast.streams._errors import DamagedError
from outlast.streams._format.frames import FrameError, salt_of
from outlast.streams._format.names import segment_name
from outlast.streams._format.scan import batches, next_batch
from outlast.streams._format.segments import read_header
from outlast.streams._log.indexes import index_of
from outlast.streams._log.pieces import reader
from outlast.streams._log.view import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.streams._format.batches import Batch
    from outlast.streams._format.frames import ReadAt
    from outlast.streams._log.shared import Shared
    from outlast.streams._log.tail import Tail
    from outlast.streams._log.view import Segment, View

AHEAD_BYTES: Final = 1 << 18
"""A longer batch is read in one piece. The allocator keeps pieces of this size; those of a MiB go back to the system."""
KEPT_BYTES_MIN: Final = 1 << 14
"""A shorter batch is read again."""
RECORD_BYTES: Final = 64
"""Of a record in memory beside its data, about."""


class Opened:
    """The records of one batch. One that is long is kept for whoever reads on in it."""

    __slots__ = ("_ends", "end", "first", "headers", "offset", "records", "size", "time_us")

    def __init__(self, batch: Batch) -> None:
        """Raise `FrameError` when its lengths do not add up."""
        self.first = batch.first
        self.offset = batch.offset
        self.end = batch.end
        self.time_us = batch.time_us
        self.records = batch.records()
        self.headers = batch.headers()
        self.size = sum(map(len, self.records)) + sum(map(len, self.headers or ()))
        """The bytes of the records and their headers."""
        self._ends: list[int] | None = None
        """Of each record the bytes up to its end: made when the batch is parted."""

    @property
    def next(self) -> int:
        """The position behind the last."""
        return self.first + len(self.records)

    def fitting(self, begin: int, bytes_max: int) -> tuple[int, int]:
        """Return how far one comes from a record on with so many bytes, one record at least, and how many bytes those are."""
        if self._ends is None:
            sizes = map(len, self.records)
            self._ends = list(accumulate(sizes if self.headers is None else map(add, sizes, map(len, self.headers))))
        before = self._ends[begin - 1] if begin else 0
        end = max(begin + 1, bisect_right(self._ends, before + bytes_max))
        return end, self._ends[end - 1] - before


class Collected:
    """The records of one read, from `position` on, which moves with each."""

    __slots__ = ("_bytes_max", "_first", "_headers", "_records", "_times", "position", "room")

    def __init__(self, position: int, bytes_max: int) -> None:
        """Begin with none."""
        self.position = self._first = position
        self.room = self._bytes_max = bytes_max
        self._records: list[bytes] = []
        self._times: list[int] = []
        self._headers: list[bytes] | None = None

    def take(self, opened: Opened) -> None:
        """Add the records of a batch if they fit. Only a first batch is parted; of it, one record fits in any case."""
        begin = self.position - opened.first
        end, size = len(opened.records), opened.size
        if begin or size > self.room:
            if self._records:
                self.room = 0
                return
            end, size = opened.fitting(begin, self.room)
        if opened.headers is not None and self._headers is None:
            self._headers = [b""] * len(self._records)
        if self._headers is not None:
            self._headers += [b""] * (end - begin) if opened.headers is None else opened.headers[begin:end]
        self._records += opened.records if end - begin == len(opened.records) else opened.records[begin:end]
        self._times += [opened.time_us] * (end - begin)
        self.room -= size
        self.position = opened.first + end

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self._records

    def chunk(self) -> Chunk:
        """Return them."""
        return Chunk(self._first, self.position, self._records, self._times, self._headers)


class Reader:
    """Reads the segments of one stream. Any thread may call it; what it remembers is shared by the streams of the volume."""

    __slots__ = ("_id", "_name", "_shared")

    def __init__(self, shared: Shared, name: str, stream_id: int) -> None:
        """Open nothing yet."""
        self._shared = shared
        self._name = name
        self._id = stream_id

    def read(self, view: View, tail: Tail, position: int, bytes_max: int) -> Chunk:
        """Return records of one segment from a position on that the view has: at least one.

        Raises `DamagedError`, which says where to go on, and `OSError`: `FileNotFoundError` when the segment is gone.
        """
        place = view.place_of(position)
        segment = view.segments[place]
        if position >= (behind := view.next_of(place)):
            after = view.segments[place + 1].first
            raise self._damaged(segment, position, f"its records end at {behind}, and the next segment begins at {after}", after)
        if position < segment.first:
            raise self._damaged(segment, position, "the segment before it is missing", segment.first)
        collected = Collected(position, bytes_max)
        if (kept := self._shared.opened.pop((segment.path, position))) is not None:
            if not self._take(segment, kept, collected):
                return collected.chunk()
            self._shared.hints.put((segment.path, collected.position), (kept.end, kept.next))
        if collected.position < behind:
            with self._shared.readers.use(segment.path) as descriptor:
                self._collect(reader(self._shared.files, descriptor), view, place, tail, collected)
        return collected.chunk()

    def _collect(self, read: ReadAt, view: View, place: int, tail: Tail, collected: Collected) -> None:
        segment, end, behind = view.segments[place], view.end_of(place), view.next_of(place)
        salt = salt_of(self._id, segment.first)
        begins = self._begins(read, view, place, tail, collected.position)
        offset, expected = begin = next(begins)
        ahead = max(1 << 16, min(AHEAD_BYTES, collected.room + (1 << 14)))
        while collected.position < behind:
            reason = f"its data ends at position {expected}, and its records at {behind}"
            try:
                for batch in batches(read, salt=salt, begin=offset, end=end, position=expected, ahead=ahead):
                    if batch.first >= behind:
                        # Refused once and not cut off: where the data ends could not be read in the next segment.
                        break
                    offset, expected = batch.end, batch.next
                    if batch.next > collected.position and not self._take(segment, Opened(batch), collected):
                        return
            except FrameError as error:
                reason = error.reason
                if (offset, expected) == begin and (other := next(begins, None)) is not None:
                    # A hint has led here, and it may be the hint that is wrong.
                    offset, expected = begin = other
                    continue
            if not collected.is_empty:
                return
            found = next_batch(read, salt=salt, begin=min(offset + 1, end), end=end, position=expected)
            if found is None or found.first > collected.position:
                raise self._damaged(segment, collected.position, reason, behind if found is None else min(found.first, behind))
            offset, expected = found.offset, found.first

    def _take(self, segment: Segment, opened: Opened, collected: Collected) -> bool:
        """Add a batch, remember where to go on, and return whether there is room for more."""
        collected.take(opened)
        key = (segment.path, collected.position)
        if collected.position == opened.next:
            if collected.room > 0:
                return True
            self._shared.hints.put(key, (opened.end, opened.next))
        else:
            self._shared.hints.put(key, (opened.offset, opened.first))
            if opened.size >= KEPT_BYTES_MIN:
                self._shared.opened.put(key, opened, opened.size + RECORD_BYTES * len(opened.records))
        return False

    def _begins(self, read: ReadAt, view: View, place: int, tail: Tail, position: int) -> Iterator[tuple[int, int]]:
        """Yield offsets from where on the position is found, with the position expected there: the best first."""
        segment = view.segments[place]
        if (hint := self._shared.hints.get((segment.path, position))) is not None:
            yield hint
        index = None
        if segment.first == tail.first:
            index = tail.index.build(segment.first, view.tail, view.end)
        elif place < len(view.segments) - 1 and position > segment.first:
            index = index_of(self._shared, self._name, self._id, segment, read)
        # Of the last segment of a view that is out of date already there is none.
        if index is not None and index.positions and index.positions[0] <= position:
            yield index.find(position)
        try:
            header, offset = read_header(read)
            reason = f"it is that of position {header.first} of stream {header.meta.id:016x}"
            if (header.first, header.meta.id) == (segment.first, self._id):
                reason = ""
        except FrameError as error:
            reason, offset = error.reason, 0
        if reason:
            self._shared.report(self._damaged(segment, segment.first, f"its header: {reason}", segment.first))
        yield offset, segment.first

    def _damaged(self, segment: Segment, position: int, reason: str, following: int) -> DamagedError:
        return DamagedError(self._name, segment_name(segment.first), position, reason, following)
