"""Mending one stream, so that all that is whole can be read, and all that is lost is said in the headers of segments.

A crash at any moment leaves a stream of which nothing more is lost, and the next repair goes on. So a file is replaced only by a
whole and synced one; bytes that are copied stay where they were; and the new segments behind a damaged place are made last to
first, since with the first of them the data before it ends there.
"""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from outlast.streams._consumers._codec import encode, parse
from outlast.streams._format.batches import BATCH_BYTES
from outlast.streams._format.frames import CHECKED_FROM, checksum, mark, salt_of
from outlast.streams._format.index import encode_index
from outlast.streams._format.meta import SLOT_BYTES, encode_meta
from outlast.streams._format.names import CONSUMERS_NAME, META_NAME, index_name, segment_name
from outlast.streams._format.scan import batches
from outlast.streams._format.segments import Previous, SegmentHeader, encode_header
from outlast.streams._log.folders import make_file, unlink
from outlast.streams._log.meta_file import write_new
from outlast.streams._log.pieces import reader, write_whole
from outlast.streams._verify.walk import Run

if TYPE_CHECKING:
    from outlast.extend import FileSystem
    from outlast.streams._format.batches import Batch
    from outlast.streams._verify.survey import Survey
    from outlast.streams._verify.walk import Part

COPY_BYTES: Final = 1 << 20
_PLACE: Final = struct.Struct("<II")
_PLACE_AT: Final = 16 - CHECKED_FROM
_RECORD_BYTES_MIN: Final = 4
"""A record takes 4 bytes of a batch at least, its length: so many bytes cannot have held more records than a quarter of them."""


def damaged_name(first: int, offset: int) -> str:
    """Return the name of the file for damaged bytes of a segment, which began at an offset of it. Nothing reads it."""
    return f"{first:020d}.{offset}.damaged"


class Mender:
    """Mends one stream as a survey found it. The streams must be held, so that nobody writes meanwhile."""

    __slots__ = ("_before", "_changed", "_files", "_folder", "_survey")

    def __init__(self, survey: Survey, files: FileSystem) -> None:
        """Do nothing yet."""
        self._survey = survey
        self._files = files
        self._folder = survey.folder
        self._before: Previous | None = None
        """The end of the segment that was looked at last, as the next header is to say it."""
        self._changed: set[int] = set()
        """First positions of the segments whose index is not theirs any more."""

    def mend(self) -> None:
        """Do what the findings say. Raises `OSError`; then it may have been done in part, and nothing more is lost."""
        survey = self._survey
        last = survey.parts[-1]
        if last.torn_at is not None:
            self._cut(last, last.torn_at)
        for part in survey.parts:
            self._mend(part, is_last=part is last)
        if self._before is not None and self._before.tail < survey.meta.oldest:
            newest_us = last.runs[-1].newest_us
            behind = Run(0, 0, survey.meta.oldest, survey.meta.oldest, newest_us, newest_us, survey.states)
            self._write(last, behind, self._header_of(behind, self._before))
        self._mend_indexes()
        if survey.cursors is not None:
            self._mend_cursors(survey.cursors)
        # Last of all: until then a folder without a meta is found by the next repair as well.
        self._mend_meta()

    def _cut(self, part: Part, size: int) -> None:
        descriptor = self._files.open(part.path, os.O_WRONLY)
        try:
            self._files.truncate(descriptor, size)
            self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)

    def _mend(self, part: Part, *, is_last: bool) -> None:
        """Mend one segment, whose predecessors are mended."""
        self._set_aside(part)
        header, own = self._own(part)
        if header is None:
            self._before = Previous(part.first, own.end, own.next)
        else:
            self._before = Previous(part.first, len(header) + own.end - own.begin, own.next)
        moved = [run for run in part.runs if run is not own and not run.is_empty]
        if is_last and part.header is None and header is not None and not moved and own.is_empty:
            moved = self._unreachable(part, own, header)
        headers: list[bytes] = []
        for run in moved:
            headers.append(self._header_of(run, self._before))
            self._before = Previous(run.first, len(headers[-1]) + run.end - run.begin, run.next)
        if part.holes or header is not None:
            self._changed.add(part.first)
        for run, its in reversed(list(zip(moved, headers, strict=True))):
            self._write(part, run, its)
        if header is not None:
            self._write(part, own, header)

    def _own(self, part: Part) -> tuple[bytes | None, Run]:
        """Return the run that belongs into the file of a segment, and the header to write, or None if it has the right one."""
        first = part.runs[0]
        if part.header is None:
            # Not where records before its first batch are lost: then it is a segment without any.
            own = first if first.first == part.first else replace(first, begin=0, end=0, first=part.first, next=part.first)
            return self._header_of(own, self._before, None if own.is_empty else own.begin), own
        if self._before is None or part.header.previous == self._before:
            return None, first
        return encode_header(replace(part.header, previous=self._before), part.header_end), first

    def _unreachable(self, part: Part, own: Run, header: bytes) -> list[Run]:
        """Return an empty run to go on with at a position that was given to nobody, where the last segment is unreadable."""
        if part.size < len(header) + BATCH_BYTES:
            return []
        position = part.first + part.size // _RECORD_BYTES_MIN
        return [replace(own, begin=0, end=0, first=position, next=position)]

    def _header_of(self, run: Run, before: Previous | None, length: int | None = None) -> bytes:
        return encode_header(SegmentHeader(self._survey.meta, run.first, run.created_us, before, run.states), length)

    def _set_aside(self, part: Part) -> None:
        """Keep the bytes that are no batch in files beside the segment."""
        places = [(hole.begin, min(hole.end, part.size)) for hole in part.holes if part.header is not None or hole.begin]
        if part.header is None:
            places.append((0, part.runs[0].begin))
        for begin, end in places:
            if begin < end:
                self._copy(part, begin, end, f"{self._folder}/{damaged_name(part.first, begin)}")

    def _copy(self, part: Part, begin: int, end: int, path: str) -> None:
        files = self._files
        unlink(path, files)
        source = files.open(part.path, os.O_RDONLY)
        try:
            target = files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                read = reader(files, source)
                for at in range(begin, end, COPY_BYTES):
                    write_whole(files, target, read(at, min(COPY_BYTES, end - at)), at - begin)
                files.sync(target)
            finally:
                files.close(target)
        finally:
            files.close(source)

    def _write(self, part: Part, run: Run, header: bytes) -> None:
        """Make the segment of a run of `part`, durably. It replaces a file of its name."""
        files, path = self._files, f"{self._folder}/{segment_name(run.first)}"
        self._changed.add(run.first)
        new = f"{path}.new"
        unlink(new, files)
        source = files.open(part.path, os.O_RDONLY)
        try:
            target = files.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                write_whole(files, target, header, 0)
                offset, salt = len(header), salt_of(self._survey.id, run.first)
                read, its_salt = reader(files, source), salt_of(self._survey.id, part.first)
                for batch in batches(read, salt=its_salt, begin=run.begin, end=run.end, position=run.first):
                    write_whole(files, target, _placed(batch, offset, salt), offset)
                    offset += batch.length
                files.sync(target)
            finally:
                files.close(target)
        finally:
            files.close(source)
        files.rename(new, path)
        files.sync_folder(self._folder)

    def _mend_indexes(self) -> None:
        """Remove the indexes that are wrong; those of segments that are as they were are made at once, the others when read."""
        # Where no header says where a segment ends, its index cannot be judged: a repair that was cut short may have left it.
        unsure = {part.first for part in self._survey.parts if part.index is None}
        wrong = unsure.union(self._changed, self._survey.wrong_indexes)
        for first in sorted(wrong):
            unlink(f"{self._folder}/{index_name(first)}", self._files)
        for part in self._survey.parts:
            if part.first in wrong and part.first not in self._changed and part.index is not None:
                data = encode_index(part.index, salt_of(self._survey.id, part.first))
                make_file(f"{self._folder}/{index_name(part.first)}", (data,), self._files)

    def _mend_cursors(self, data: bytes) -> None:
        """Keep the events before the first that does not read, and the file as it was beside it."""
        path = f"{self._folder}/{CONSUMERS_NAME}"
        make_file(f"{path}.damaged", (data,), self._files)
        make_file(path, (encode(parse(data, self._survey.id).events, self._survey.id),), self._files)
        self._files.sync_folder(self._folder)

    def _mend_meta(self) -> None:
        survey, files, path = self._survey, self._files, f"{self._folder}/{META_NAME}"
        oldest = max(survey.meta.oldest, survey.parts[0].first)
        meta = survey.meta
        if oldest > meta.oldest or survey.is_changed:
            meta = replace(meta, oldest=oldest, number=meta.number + 1)
        if not survey.has_meta:
            new = f"{path}.new"
            unlink(new, files)
            write_new(new, meta, files)
            files.rename(new, path)
            files.sync_folder(self._folder)
            return
        # The damaged slot first: a crash must not find both torn.
        slots = [number for number in (0, 1) if survey.faults[number]]
        if meta != survey.meta or survey.is_changed:
            slots += [number for number in (0, 1) if number not in slots]
        for number in slots:
            descriptor = files.open(path, os.O_WRONLY)
            try:
                write_whole(files, descriptor, encode_meta(meta), number * SLOT_BYTES)
                files.truncate(descriptor, 2 * SLOT_BYTES)
                files.sync(descriptor)
            finally:
                files.close(descriptor)


def _placed(batch: Batch, offset: int, salt: int) -> bytes:
    """Return the frame of a batch as it is at another place. It is on disk before anything can be written behind it."""
    place = _PLACE.pack(offset, offset)
    checked = b"".join((batch.checked[:_PLACE_AT], place, batch.checked[_PLACE_AT + len(place) :]))
    return mark(checksum(checked, salt)) + checked
