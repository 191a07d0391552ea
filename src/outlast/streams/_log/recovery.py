"""Reading what an earlier process left of a stream.

It makes nothing, removes nothing, needs no room, and reads by pieces. The only byte it changes is a torn tail, which it cuts off,
and of a `meta` whose update a crash cut short the second slot. So a second start finds the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from outlast.extend import NO_ROOM
from outlast.streams._errors import DamagedError
from outlast.streams._format.frames import FrameError, salt_of
from outlast.streams._format.names import (
    INDEX_SUFFIX,
    META_NAME,
    SEGMENT_SUFFIX,
    parse_index_name,
    parse_segment_name,
    segment_name,
)
from outlast.streams._format.scan import batches, is_torn_tail, next_batch
from outlast.streams._format.segments import read_header
from outlast.streams._log import meta_file
from outlast.streams._log.folders import UNNAMED
from outlast.streams._log.pieces import reader
from outlast.streams._log.tail import Tail, write_again
from outlast.streams._log.view import Segment, View
from outlast.streams._model import NUMBER_MAX
from outlast.streams._producers import Producers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from outlast.streams._format.batches import Batch
    from outlast.streams._format.frames import ReadAt
    from outlast.streams._format.meta import Meta
    from outlast.streams._format.producers import ProducerState
    from outlast.streams._format.segments import SegmentHeader
    from outlast.streams._log.shared import Shared


_CANNOT_WRITE: Final = NO_ROOM | {errno.EROFS}
"""Of a full disk that copies on write, and of one that is read only. What it has can be read all the same."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A stream as it was found."""

    meta: Meta
    view: View
    tail: Tail
    producers: Producers
    doomed: list[str]
    refusal: Exception | None


@dataclass(slots=True)
class _File:
    """A segment as its file says."""

    first: int
    path: str
    size: int
    header: SegmentHeader | None
    header_end: int


def of_new(folder: Path, meta: Meta, shared: Shared, header_end: int, size: int, behind: int) -> Recovered:
    """Return a stream that was made just now, with a segment of `size` bytes: its header, and a batch up to `behind` or none."""
    path = f"{folder}/{segment_name(meta.oldest)}"
    tail = _tail(shared, meta, path, meta.oldest, size, meta.created_us)
    if size > header_end:
        tail.next = behind
        tail.index.add(meta.oldest, header_end, meta.created_us)
    segment = Segment(meta.oldest, path, size, behind, meta.created_us)
    view = View(meta.oldest, behind, (segment,), size, size, meta.is_closed)
    return Recovered(meta, view, tail, _producers(meta, ()), [], None)


def recover(folder: Path, shared: Shared) -> Recovered:
    """Return a stream as it is in its folder, all of it on disk. Raises as `Log.recover`.

    If it cannot be put there, the stream ends where it surely is, and has a refusal.
    """
    meta = _meta(folder, shared)
    names = shared.files.names(folder)
    firsts = sorted(first for name in names if (first := parse_segment_name(name)) is not None)
    if not firsts:
        raise DamagedError(meta.name, META_NAME, meta.oldest, "no segment is in the folder, and one always is")
    # Trimmed, and not yet removed when the process ended.
    gone = sum(following <= meta.oldest for following in firsts[1:])
    doomed = [f"{folder}/{segment_name(first)}" for first in firsts[:gone]]
    doomed += [f"{folder}/{name}" for name in names if _is_left_over(name, firsts)]
    files = [_file(shared, meta, f"{folder}/{segment_name(first)}", first) for first in firsts[gone:]]
    last = files[-1]
    scan = _Scan(shared, meta, files)
    tail = _tail(shared, meta, last.path, last.first, last.size, 0 if last.header is None else last.header.created_us)
    descriptor = shared.files.open(last.path, os.O_RDONLY)
    try:
        read = reader(shared.files, descriptor)
        scan.run(read, tail)
        try:
            if scan.is_torn:
                _cut(tail)
            if scan.durable_to < tail.size:
                # It may only have been in memory, and be lost in spite of having been served.
                write_again(shared.files, tail.path, scan.durable_to, tail.size, unless=_CANNOT_WRITE)
            shared.files.sync_folder(folder)
        except OSError as error:
            scan.refusal = error
            scan.limit(read, tail)
    finally:
        shared.files.close(descriptor)
    segments = [*_closed(files, shared), Segment(last.first, last.path, tail.size, tail.next, tail.newest_us)]
    if (position := max(tail.next, meta.oldest)) > tail.next and scan.refusal is None:
        reason = f"its records end at {tail.next}, and all below {meta.oldest} were trimmed: those between are lost"
        shared.report(DamagedError(meta.name, segment_name(last.first), tail.next, reason, meta.oldest))
        tail.is_ended = True
    meta = replace(meta, is_closed=meta.is_closed or scan.is_closed)
    view = View(meta.oldest, position, tuple(segments), tail.size, sum(each.end for each in segments), meta.is_closed)
    return Recovered(meta, view, tail, scan.producers, doomed, scan.refusal)


def _is_left_over(name: str, firsts: list[int]) -> bool:
    """Return whether a file is what a crash left: a segment or an index without its name yet, or the index of no segment."""
    if (of := parse_index_name(name)) is not None:
        return of not in firsts
    return name.endswith((f"{SEGMENT_SUFFIX}{UNNAMED}", f"{INDEX_SUFFIX}{UNNAMED}"))


def _meta(folder: Path, shared: Shared) -> Meta:
    slots = meta_file.read_slots(folder, shared.files)
    meta = slots.meta
    if not slots.is_healthy:
        # A crash has cut an update short, or a slot was damaged: the other one holds, and is written in both places.
        faults = "; ".join(f"slot {number}: {fault}" for number, fault in enumerate(slots.faults) if fault)
        shared.note(f"stream {meta.name!r}: {folder}/{META_NAME} is written again from its other slot: {faults}")
        with contextlib.suppress(OSError):
            meta_file.write_slots(f"{folder}/{META_NAME}", meta, shared.files)
    return meta


def _file(shared: Shared, meta: Meta, path: str, first: int) -> _File:
    files = shared.files
    descriptor = files.open(path, os.O_RDONLY)
    try:
        size = files.size(descriptor)
        try:
            header, end = read_header(reader(files, descriptor))
            reason = f"it is that of position {header.first} of stream {header.meta.id:016x}"
            if (header.first, header.meta.id) == (first, meta.id):
                return _File(first, path, size, header, end)
        except FrameError as error:
            reason = error.reason
    finally:
        files.close(descriptor)
    shared.report(DamagedError(meta.name, segment_name(first), first, f"its header: {reason}", first))
    return _File(first, path, size, None, 0)


def _closed(files: list[_File], shared: Shared) -> list[Segment]:
    """Return the segments that have a successor, whose header says where they end."""
    segments: list[Segment] = []
    # Of a segment whose successor does not say it, nobody knows that its records are old.
    newest_us = NUMBER_MAX
    for each, after in reversed(list(pairwise(files))):
        end, behind = each.size, after.first
        if after.header is not None:
            newest_us = after.header.created_us
            if (before := after.header.previous) is not None and before.first == each.first:
                end, behind = before.size, before.tail
            elif before is not None:
                missing = DamagedError(
                    after.header.meta.name, segment_name(before.first), before.first, "the file is missing", after.first
                )
                shared.report(missing)
        segments.append(Segment(each.first, each.path, end, behind, newest_us))
    return segments[::-1]


def _cut(tail: Tail) -> None:
    try:
        tail.cut()
    except OSError:
        # Garbage stays behind the end, and nothing is written behind garbage.
        tail.is_ended = True


class _Scan:
    """Finds the end of the last segment, and who has written."""

    __slots__ = ("_before", "_last", "_meta", "_shared", "durable_to", "is_closed", "is_torn", "producers", "refusal")

    def __init__(self, shared: Shared, meta: Meta, files: list[_File]) -> None:
        self._shared = shared
        self._meta = meta
        self._last = files[-1]
        self._before = files[:-1]
        self.producers = _producers(meta, () if self._last.header is None else self._last.header.producers)
        self.is_closed = self._last.header is not None and self._last.header.meta.is_closed
        """Whether a batch closes the stream: in this segment, or in one before it."""
        self.is_torn = False
        self.refusal: Exception | None = None
        """Why nothing can be appended."""
        self.durable_to = self._last.header_end
        """Up to here it was synced before the last batch was written."""

    def run(self, read: ReadAt, tail: Tail) -> None:
        """Read the batches of the file, and set the end of `tail`."""
        size, offset, position = self._last.size, self._last.header_end, self._last.first
        if self._last.header is None:
            tail.is_ended = True
            offset = self._start_without_header(read, tail.salt)
        while offset < size:
            try:
                for batch in batches(read, salt=tail.salt, begin=offset, end=size, position=position):
                    self._take(batch, tail)
                    offset, position = batch.end, batch.next
            except FrameError as error:
                if not tail.is_ended and is_torn_tail(read, salt=tail.salt, begin=offset, end=size, position=position):
                    self.is_torn = True
                    left = f"{size - offset} bytes at position {position} are what a crash left of an append: they are cut off"
                    self._shared.note(f"stream {self._meta.name!r}: {left} {tail.path}")
                    break
                # Nothing is cut off, and nothing is written behind damage.
                tail.is_ended = True
                if (found := next_batch(read, salt=tail.salt, begin=offset + 1, end=size, position=position)) is None:
                    break
                self._shared.report(self._damage(position, error.reason, found.first))
                offset, position = found.offset, found.first
        tail.size = tail.synced = offset
        tail.next = position

    def limit(self, read: ReadAt, tail: Tail) -> None:
        """Set the end of `tail` to what is on disk in any case, since the rest could not be synced."""
        offset, position, is_closed = self._last.header_end, self._last.first, False
        with contextlib.suppress(FrameError):
            for batch in batches(read, salt=tail.salt, begin=offset, end=self.durable_to, position=position):
                offset, position, is_closed = batch.end, batch.next, batch.closes
        # What a header says is on disk: it was written behind a sync.
        self.is_closed = is_closed or (self._last.header is not None and self._last.header.meta.is_closed)
        tail.size = tail.synced = offset
        tail.next = position

    def _take(self, batch: Batch, tail: Tail) -> None:
        self.producers.replay(batch)
        tail.index.add(batch.first, batch.offset, batch.time_us)
        tail.newest_us = max(tail.newest_us, batch.time_us)
        self.durable_to = batch.durable_to
        self.is_closed = self.is_closed or batch.closes

    def _start_without_header(self, read: ReadAt, salt: int) -> int:
        """Return where the first batch begins. Who has written is found in the segment before, or nothing more is taken."""
        first = self._last.first
        found = next_batch(read, salt=salt, begin=0, end=self._last.size, position=first)
        if found is None:
            self.refusal = self._damage(first, "neither its header nor any batch can be read, so its end is not known", first)
        elif self._before and (header := self._before[-1].header) is not None:
            self.producers = _producers(self._meta, header.producers)
            self._replay(self._before[-1])
        elif first > 0:
            self.refusal = self._damage(first, "its header cannot be read, so which producers had written is not known", first)
        return 0 if found is None else found.offset

    def _replay(self, file: _File) -> None:
        files = self._shared.files
        descriptor = files.open(file.path, os.O_RDONLY)
        try:
            salt = salt_of(self._meta.id, file.first)
            with contextlib.suppress(FrameError):
                for batch in batches(
                    reader(files, descriptor), salt=salt, begin=file.header_end, end=file.size, position=file.first
                ):
                    if batch.first >= self._last.first:
                        break
                    self.producers.replay(batch)
        finally:
            files.close(descriptor)

    def _damage(self, position: int, reason: str, following: int) -> DamagedError:
        return DamagedError(self._meta.name, segment_name(self._last.first), position, reason, following)


def _tail(shared: Shared, meta: Meta, path: str, first: int, size: int, newest_us: int) -> Tail:
    return Tail(shared, path, first=first, salt=salt_of(meta.id, first), size=size, newest_us=newest_us)


def _producers(meta: Meta, states: Iterable[ProducerState]) -> Producers:
    options = meta.options
    return Producers(meta.name, producers_max=options.producers_max, idle_us=round(options.producer_idle_s * 1e6), states=states)
