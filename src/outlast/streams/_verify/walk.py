"""Reading one segment from end to end: which of its batches are whole, and what lies between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outlast.streams._format.frames import FrameError, salt_of
from outlast.streams._format.index import IndexBuilder
from outlast.streams._format.names import segment_name
from outlast.streams._format.scan import batches, is_torn_tail, next_batch
from outlast.streams._format.segments import read_header
from outlast.streams._producers import Producers

if TYPE_CHECKING:
    from outlast.streams._format.batches import Batch
    from outlast.streams._format.frames import ReadAt
    from outlast.streams._format.index import Index
    from outlast.streams._format.meta import Meta
    from outlast.streams._format.producers import ProducerState
    from outlast.streams._format.segments import Previous, SegmentHeader


@dataclass(slots=True)
class Run:
    """Batches that lie and count one behind the other: offsets `begin` to `end`, positions `first` to `next`."""

    begin: int
    end: int
    first: int
    next: int
    created_us: int
    """No record before it is younger."""
    newest_us: int
    """No record up to its end is."""
    states: tuple[ProducerState, ...]
    """The producers before it."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no batch. A batch that closes the stream may be all it has, without a record."""
        return self.end == self.begin


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes between batches that are no batch, or the bytes that a cut took away. The records `first` to `next` - 1 are lost."""

    begin: int
    end: int
    first: int
    next: int
    reason: str


@dataclass(slots=True)
class Part:
    """One segment as its file says."""

    first: int
    path: str
    size: int
    header: SegmentHeader | None
    header_end: int
    fault: str
    """The damage of the header; empty if it is whole."""
    is_foreign: bool = False
    """Whether it is whole, and says that the file has the wrong name or lies in the wrong folder."""
    runs: list[Run] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    torn_at: int | None = None
    """The offset at which a torn tail begins."""
    index: Index | None = None
    """The index as it should be."""

    @property
    def name(self) -> str:
        """Its file."""
        return segment_name(self.first)


def read_part(read: ReadAt, path: str, size: int, first: int, stream_id: int) -> Part:
    """Return a segment with its header, and nothing of its batches yet. Raises `OSError`, `NewerFormatError`."""
    try:
        header, end = read_header(read)
    except FrameError as error:
        return Part(first, path, size, None, 0, error.reason)
    if (header.first, header.meta.id) == (first, stream_id):
        return Part(first, path, size, header, end, "")
    fault = f"it is that of position {header.first} of stream {header.meta.id:016x}"
    return Part(first, path, size, None, 0, fault, is_foreign=True)


class Walk:
    """Reads the segments of one stream in order. `producers` are those at the place where it has come to."""

    __slots__ = ("_meta", "is_closed", "newest_us", "producers", "records")

    def __init__(self, meta: Meta) -> None:
        """Begin before the first segment."""
        self._meta = meta
        self.producers = self._known(())
        self.newest_us = 0
        self.records = 0
        self.is_closed = meta.is_closed

    def read(self, read: ReadAt, part: Part, declared: Previous | None, following: int | None) -> None:
        """Find the runs and holes of a segment, up to the end of its file: a header may say too little after half a repair.

        `declared` is what the next header says of its end, None where that is not known; `following` the first position of the
        next segment, None for the last. Raises `OSError`, `NewerFormatError`.
        """
        salt = salt_of(self._meta.id, part.first)
        builder = IndexBuilder()
        offset, position = self._begin(read, part, salt, following)
        while True:
            run = Run(offset, offset, position, position, self.newest_us, self.newest_us, self.producers.states())
            part.runs.append(run)
            error = self._follow(read, part, run, builder, salt, following, declared)
            offset, position = run.end, run.next
            if declared is not None and offset >= declared.size and position >= declared.tail:
                # What follows was refused once.
                break
            if error is None:
                if declared is not None and position < declared.tail:
                    part.holes.append(Hole(offset, declared.size, position, declared.tail, _cut(part, declared)))
                break
            may_be_torn = following is None and part.header is not None and not part.holes
            if may_be_torn and is_torn_tail(read, salt=salt, begin=offset, end=part.size, position=position):
                part.torn_at = offset
                break
            found = _next(read, salt, offset + 1, part.size, position, following)
            if found is None:
                behind = following if declared is None else declared.tail
                reason = error.reason if declared is None or part.size >= declared.size else _cut(part, declared)
                part.holes.append(Hole(offset, part.size, position, max(position, behind or 0), reason))
                break
            part.holes.append(Hole(offset, found.offset, position, found.first, error.reason))
            offset, position = found.offset, found.first
        if declared is not None:
            part.index = builder.build(part.first, declared.tail, declared.size)

    def _begin(self, read: ReadAt, part: Part, salt: int, following: int | None) -> tuple[int, int]:
        """Return the offset and the position at which the batches of a segment begin."""
        if part.header is not None:
            self.producers = self._known(part.header.producers)
            return part.header_end, part.first
        found = _next(read, salt, 0, part.size, part.first, following)
        if found is None:
            return part.size, part.first
        if found.first > part.first:
            part.holes.append(Hole(0, found.offset, part.first, found.first, "no batch behind its header is whole"))
        return found.offset, found.first

    def _follow(
        self,
        read: ReadAt,
        part: Part,
        run: Run,
        builder: IndexBuilder,
        salt: int,
        following: int | None,
        declared: Previous | None,
    ) -> FrameError | None:
        """Read batches as far as they go on from each other, and return why they do not, or None at the end."""
        try:
            for batch in batches(read, salt=salt, begin=run.begin, end=part.size, position=run.first):
                is_within = declared is not None and batch.end <= declared.size and batch.next <= declared.tail
                if following is not None and batch.first >= following and not is_within:
                    # It was refused, or a repair that was cut short has copied it already. One without a record may close the
                    # segment, though.
                    return None
                self.producers.replay(batch)
                builder.add(batch.first, batch.offset, batch.time_us)
                self.newest_us = run.newest_us = max(run.newest_us, batch.time_us)
                self.records += batch.record_count
                self.is_closed = self.is_closed or batch.closes
                run.end, run.next = batch.end, batch.next
        except FrameError as error:
            return error
        return None

    def _known(self, states: tuple[ProducerState, ...]) -> Producers:
        options = self._meta.options
        return Producers(
            self._meta.name, producers_max=options.producers_max, idle_us=round(options.producer_idle_s * 1e6), states=states
        )


def _next(read: ReadAt, salt: int, begin: int, end: int, position: int, following: int | None) -> Batch | None:
    """Return the next whole batch, if it is one of this segment: what is as far as the next segment was refused or copied."""
    found = next_batch(read, salt=salt, begin=begin, end=end, position=position)
    return None if found is not None and following is not None and found.first >= following else found


def _cut(part: Part, declared: Previous) -> str:
    return f"the file was cut: it has {part.size} bytes of {declared.size}"
