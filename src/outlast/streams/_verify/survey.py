"""Looking at one stream: its `meta`, its segments one by one and as a chain, its indexes. Nothing is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from outlast.extend import NewerFormatError
from outlast.streams._consumers._codec import parse
from outlast.streams._format.frames import FRAME_BYTES_MAX, FrameError, salt_of
from outlast.streams._format.index import decode_index
from outlast.streams._format.meta import META_BYTES, OLDER, Meta, decode_slots
from outlast.streams._format.names import (
    CONSUMERS_NAME,
    META_NAME,
    index_name,
    parse_index_name,
    parse_segment_name,
    segment_name,
)
from outlast.streams._log.pieces import reader
from outlast.streams._verify.report import Finding
from outlast.streams._verify.walk import Walk, read_part

if TYPE_CHECKING:
    from outlast.extend import FileSystem
    from outlast.streams._format.producers import ProducerState
    from outlast.streams._format.segments import Previous
    from outlast.streams._verify.walk import Part

REFUSED: Final = "Nothing of this stream is changed"


@dataclass(slots=True)
class Survey:
    """One stream as it was found."""

    id: int
    folder: str
    meta: Meta
    """The entry that holds, or the one to restore."""
    has_meta: bool = False
    """Whether `meta` is there and at least one slot of it is whole."""
    faults: tuple[str, str] = ("", "")
    """The damage of its slots."""
    is_changed: bool = False
    """Whether `meta` is another than it was found: it has a new name, or a batch has closed the stream."""
    parts: list[Part] = field(default_factory=list)
    wrong_indexes: list[int] = field(default_factory=list)
    """First positions, of indexes that are to be removed, and made again where their segment is whole."""
    findings: list[Finding] = field(default_factory=list)
    cursors: bytes | None = None
    """The file of cursors, if it is damaged."""
    records: int = 0
    states: tuple[ProducerState, ...] = ()
    """The producers at the tail."""
    is_beyond_repair: bool = False
    """Whether something was found that must be seen to before a byte is changed."""

    def find(self, segment: str, position: int, what: str, repair: str, *, following: int | None = None) -> None:
        """Add a finding; `following` is the position behind the records that are lost."""
        end = position if following is None else following
        self.findings.append(Finding(self.meta.name, self.folder.rpartition("/")[2], segment, position, end, what, repair))


class Surveyor:
    """Looks at one stream."""

    __slots__ = ("_files", "_is_running", "_names", "_survey")

    def __init__(self, folder: str, stream_id: int, files: FileSystem, *, is_running: bool) -> None:
        """Read the names in the folder. Raises `OSError`."""
        self._files = files
        self._is_running = is_running
        self._names = files.names(folder)
        self._survey = Survey(stream_id, folder, Meta(stream_id, "", 0))

    def look(self) -> Survey:
        """Return all that there is to find. What cannot be read, or is of a newer format, is a finding too."""
        survey = self._survey
        try:
            self._look()
        except NewerFormatError as error:
            self._refuse(str(error))
        except FileNotFoundError:
            if not self._is_running:
                raise
        except OSError as error:
            self._refuse(f"it cannot be read: {error.strerror or error}")
        if survey.is_beyond_repair:
            survey.findings = [replace(finding, repair="") for finding in survey.findings]
        return survey

    def _refuse(self, reason: str) -> None:
        survey = self._survey
        survey.is_beyond_repair = True
        survey.find(META_NAME, survey.meta.oldest, f"{reason}. {REFUSED}", "")

    def _look(self) -> None:
        survey = self._survey
        found = self._read_meta()
        firsts = sorted(first for name in self._names if (first := parse_segment_name(name)) is not None)
        parts = [self._read_part(first) for first in firsts]
        if found is None:
            self._restore(parts)
            if not parts:
                return
        # Trimmed, and not removed yet: no part of the stream any more.
        gone = sum(part.first <= survey.meta.oldest for part in parts[1:])
        survey.parts = parts[gone:]
        if not survey.parts:
            survey.is_beyond_repair = True
            what = "no segment is in the folder, and one always is: which positions were used is not known. Delete the stream"
            survey.find(META_NAME, survey.meta.oldest, what, "")
            return
        if foreign := [part for part in survey.parts if part.is_foreign]:
            # It may be healthy, at its right place. Nobody but a person can tell which name is wrong.
            survey.is_beyond_repair = True
            for part in foreign:
                survey.find(part.name, part.first, f"{part.fault}: rename it, or remove it if that is a copy. {REFUSED}", "")
            return
        self._walk(survey.parts)
        self._check_ends(survey.parts)
        self._check_indexes(survey.parts, set(firsts))
        self._check_cursors()

    def _read_meta(self) -> Meta | None:
        survey = self._survey
        if META_NAME not in self._names:
            return None
        data = self._read_whole(META_NAME, META_BYTES + 1)
        try:
            slots = decode_slots(data)
        except FrameError as error:
            survey.find(META_NAME, 0, error.reason, "it is restored from the headers of segments")
            return None
        if slots.meta.id != survey.id:
            survey.find(META_NAME, 0, f"it is that of stream {slots.meta.id:016x}", "it is restored from the headers of segments")
            return None
        survey.meta, survey.has_meta, survey.faults = slots.meta, True, slots.faults
        for number, fault in enumerate(slots.faults, start=1):
            # A crash came between the two writes of an update, and the next start mends it: no damage.
            if fault and (number, fault) != (2, OLDER):
                survey.find(META_NAME, slots.meta.oldest, f"slot {number}: {fault}", "both slots are written again")
        return slots.meta

    def _restore(self, parts: list[Part]) -> None:
        """Take the entry from the newest header that is whole. What was trimmed in the first segment may be back."""
        survey = self._survey
        if not parts:
            survey.is_beyond_repair = True
            if self._names:
                survey.find(META_NAME, 0, "neither it nor a segment can be read, so the folder holds no record: remove it", "")
            return
        headers = [part.header for part in parts if part.header is not None]
        oldest = parts[0].first
        if headers:
            last = headers[-1].meta
            survey.meta = replace(last, oldest=max(oldest, last.oldest), number=last.number + 1)
        else:
            survey.meta = Meta(survey.id, f"found {survey.id:016x}", 0, oldest=oldest)
        if META_NAME not in self._names:
            name = repr(survey.meta.name)
            what = "there is no meta, so nothing says which stream this is"
            survey.find(META_NAME, survey.meta.oldest, what, f"it is adopted as {name}")

    def _walk(self, parts: list[Part]) -> None:
        survey = self._survey
        walk = Walk(survey.meta)
        for number, part in enumerate(parts):
            after = parts[number + 1] if number + 1 < len(parts) else None
            declared = _declared(part, after)
            descriptor = self._files.open(part.path, os.O_RDONLY)
            try:
                walk.read(reader(self._files, descriptor), part, declared, None if after is None else after.first)
            finally:
                self._files.close(descriptor)
            self._report(part, is_last=after is None)
        survey.records, survey.states = walk.records, walk.producers.states()
        if walk.is_closed and not survey.meta.is_closed:
            survey.meta, survey.is_changed = replace(survey.meta, is_closed=True), True

    def _report(self, part: Part, *, is_last: bool) -> None:
        survey = self._survey
        if part.fault:
            survey.find(part.name, part.first, f"its header: {part.fault}", "it is written again with a new header")
        for hole in part.holes:
            what = f"{hole.reason}, at offset {hole.begin}"
            survey.find(
                part.name, hole.first, what, "the stream goes on behind it, and the bytes are set aside", following=hole.next
            )
        if part.torn_at is not None and not self._is_running:
            size, position = part.size - part.torn_at, part.runs[-1].next
            survey.find(part.name, position, f"{size} bytes are what a crash left of an append", "they are cut off")
        if is_last and part.header is None and all(run.is_empty for run in part.runs):
            what = "neither its header nor any batch is whole, so where its records ended is not known"
            survey.find(part.name, part.first, what, "the stream goes on at a position that it cannot have reached")

    def _check_ends(self, parts: list[Part]) -> None:
        survey, first, last = self._survey, parts[0], parts[-1]
        for part, after in pairwise(parts):
            run = part.runs[-1]
            before = None if after.header is None else after.header.previous
            if before is not None and before.first == part.first:
                is_wrong, reached = (before.size, before.tail) != (run.end, run.next), after.first
            else:
                # Nothing says that records are missing in between, so it is said here.
                is_wrong, reached = after.header is not None, max(run.next, *(hole.next for hole in part.holes), 0)
            if (is_wrong and not part.fault and not part.holes) or reached < after.first:
                what = f"the segment before it is not the one that its header names: {before}"
                if after.header is None:
                    what = f"no segment is there for the records from {reached} on"
                survey.find(after.name, reached, what, "its header is written again", following=after.first)
        oldest = survey.meta.oldest
        if first.first > oldest:
            what = f"the oldest position is to be {oldest}, and no segment before this one is there"
            survey.find(first.name, oldest, what, "the oldest position is set to its first", following=first.first)
        if (tail := last.runs[-1].next) < oldest:
            what = f"its records end at {tail}, and all below {oldest} were trimmed"
            survey.find(last.name, tail, what, "the stream goes on at the oldest position")

    def _check_indexes(self, parts: list[Part], firsts: set[int]) -> None:
        survey = self._survey
        known = {part.first: part for part in parts}
        for first in sorted(first for name in self._names if (first := parse_index_name(name)) is not None):
            part = known.get(first)
            if part is None and (first in firsts or first < survey.meta.oldest):
                # Of what was trimmed; a power cut brings back the name of a file that was removed.
                continue
            reason = "it is of no segment" if part is None else self._index_fault(part)
            if reason:
                survey.wrong_indexes.append(first)
                survey.find(index_name(first), first, reason, "it is made again" if part is not None else "it is removed")

    def _index_fault(self, part: Part) -> str:
        try:
            index = decode_index(self._read_whole(index_name(part.first), FRAME_BYTES_MAX), salt_of(self._survey.id, part.first))
        except FrameError as error:
            return error.reason
        if part.index is None:
            return ""
        is_same = (index.first, index.tail, index.size) == (part.index.first, part.index.tail, part.index.size)
        # Of a damaged segment it may know more than can still be read.
        if is_same and (part.holes or index == part.index):
            return ""
        return "it does not fit its segment"

    def _check_cursors(self) -> None:
        if CONSUMERS_NAME not in self._names:
            return
        data = self._read_whole(CONSUMERS_NAME)
        found = parse(data, self._survey.id)
        if found.end < found.durable_to or (data and not found.end):
            self._survey.cursors = data
            what = f"the cursors do not read from offset {found.end} on, or are those of another stream"
            act = "the bytes are set aside, and what was acknowledged since is delivered again"
            self._survey.find(CONSUMERS_NAME, self._survey.meta.oldest, what, act)

    def _read_part(self, first: int) -> Part:
        path = f"{self._survey.folder}/{segment_name(first)}"
        descriptor = self._files.open(path, os.O_RDONLY)
        try:
            return read_part(reader(self._files, descriptor), path, self._files.size(descriptor), first, self._survey.id)
        finally:
            self._files.close(descriptor)

    def _read_whole(self, name: str, size: int | None = None) -> bytes:
        descriptor = self._files.open(f"{self._survey.folder}/{name}", os.O_RDONLY)
        try:
            found = self._files.size(descriptor)
            return reader(self._files, descriptor)(0, found if size is None else min(size, found))
        finally:
            self._files.close(descriptor)


def _declared(part: Part, after: Part | None) -> Previous | None:
    """Return what the next header says of the end of a segment."""
    if after is None or after.header is None or (before := after.header.previous) is None or before.first != part.first:
        return None
    return before
