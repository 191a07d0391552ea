"""The engine of one stream: what it has acknowledged is in its files, and what it has refused is not.

Every method may block for the disk. Writers come one at a time (a lock sees to that). Readers never meet that lock: they look at
`view`, which is replaced whole, and read the files.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from outlast.extend import TornFileError
from outlast.streams._errors import (
    BeyondTailError,
    DamagedError,
    FencedError,
    OutcomeUnknownError,
    PositionMismatchError,
    StreamError,
    StreamNotFoundError,
    TrimmedError,
    closed_error,
)
from outlast.streams._format.batches import batch_bytes, encode_batch
from outlast.streams._format.frames import SEGMENT_BYTES_MAX, salt_of
from outlast.streams._format.meta import META_BYTES, encode_meta
from outlast.streams._format.names import segment_name
from outlast.streams._format.segments import Previous, SegmentHeader, encode_header
from outlast.streams._log import folders, meta_file, recovery
from outlast.streams._log.indexes import index_path, store
from outlast.streams._log.reading import Reader
from outlast.streams._log.tail import ChangedFileError, Tail
from outlast.streams._log.view import Chunk, Segment, View
from outlast.streams._model import Appended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from outlast.streams._format.meta import Meta
    from outlast.streams._log.recovery import Recovered
    from outlast.streams._log.shared import Shared
    from outlast.streams._model import Entry, Producer

T = TypeVar("T")

READ_BYTES: int = 1 << 20
LEFT_BYTES_MAX: int = 1 << 16
"""Trimmed records that may stay in the last segment, if there are no others in it: to end it takes a new file and three syncs."""


class Log:
    """One stream on one disk. `create` or `recover` makes it."""

    __slots__ = ("_doomed", "_lock", "_reader", "_refusal", "_shared", "_tail", "folder", "meta", "producers", "view")

    def __init__(self, folder: Path, shared: Shared, found: Recovered) -> None:
        """Take over what was found in the folder."""
        self.folder = folder
        self._shared = shared
        self._take_over(found)
        self._reader = Reader(shared, found.meta.name, found.meta.id)
        # Held by whoever changes the stream, also while the disk is written to. A reader never takes it.
        self._lock = threading.Lock()

    def _take_over(self, found: Recovered) -> None:
        self.meta = found.meta
        self.producers = found.producers
        self._tail = found.tail
        self._doomed = found.doomed
        """Paths of trimmed segments that could not be removed yet."""
        self._refusal = found.refusal
        """Why nothing can be added: what was found could not be synced, or is damaged so that its end is not known."""
        self.view = found.view

    @classmethod
    def create(cls, folder: Path, meta: Meta, shared: Shared, first: Entry | None = None) -> Log:
        """Make the folder of a new stream with its first records; all of it is on disk when this returns.

        Raises `OSError`, and then there is no such stream; `OutcomeUnknownError` when that is not known; `ValueError` for a name
        that is too long for `meta`, and for positions beyond the last one.
        """
        header = encode_header(SegmentHeader(meta, meta.oldest, meta.created_us))
        pieces, size, behind = [header], len(header), meta.oldest
        if first is not None:
            batch = encode_batch(
                [first], salt=salt_of(meta.id, behind), offset=size, durable_to=size, first=behind, time_us=meta.created_us
            )
            pieces += batch.pieces
            size, behind = size + batch.size, batch.next
        shared.disk.admit(size + META_BYTES)
        try:
            folders.create(folder, meta, segment_name(meta.oldest), pieces, shared.files)
        except TornFileError as error:
            raise OutcomeUnknownError(meta.name, f"whether it was created is not known: {error}") from error
        return cls(folder, shared, recovery.of_new(folder, meta, shared, len(header), size, behind))

    @classmethod
    def recover(cls, folder: Path, shared: Shared) -> Log:
        """Read what an earlier process left, and sync it before any of it is served.

        Nothing is made and nothing is removed; a torn tail is cut off. A second time finds the same. Raises `OSError`,
        `DamagedError` when `meta` cannot be read or no segment is there, and `NewerFormatError`.
        """
        return cls(folder, shared, recovery.recover(folder, shared))

    def append(self, entries: Sequence[Entry], now_us: int) -> list[Appended | StreamError]:
        """Store appends in one frame, in order, and return for each its positions, or why it was refused alone.

        With `sync_every_s` 0 they are on disk. Raises `OSError`, and then none of them is stored and none ever will be;
        `OutcomeUnknownError` when that is not known; `DamagedError` when nothing can be added; `ValueError` when they do not fit
        in one frame.
        """
        with self._lock:
            self._check_may_write()
            # The times of a log never go back, so that what they decide is decided again when it is read.
            now_us = max(now_us, self._tail.newest_us)
            while (answers := self._try_append(entries, now_us)) is None:
                self._roll(now_us)
            return answers

    def known(self, producer: Producer) -> Appended | None:
        """Return what was answered for an append that is stored already, None for any other; for any thread.

        None too while nothing can be added: then what was found of it may not be on disk. Raises `FencedError`.
        """
        return None if self._refusal is not None else self.producers.known(producer)

    def sync(self) -> None:
        """Return when all that was appended is on disk. Raises `OSError`."""
        with self._lock:
            self._check_may_write()
            self._tail.sync()

    def read(self, position: int, bytes_max: int = READ_BYTES) -> Chunk:
        """Return records from a position on, for any thread: at least one, and none at the tail.

        They have at most `bytes_max` bytes, or there is one. Raises `TrimmedError`, `BeyondTailError`, `DamagedError` (read on at
        its `next`), `StreamNotFoundError` once it is deleted, and `OSError`.
        """
        while True:
            view, tail = self.view, self._tail
            if not view.segments:
                raise StreamNotFoundError(self.meta.name, "it was deleted")
            if position < view.oldest:
                raise TrimmedError(self.meta.name, position, view.oldest, view.tail)
            if position > view.tail:
                raise BeyondTailError(self.meta.name, position, view.oldest, view.tail)
            if position == view.tail:
                return Chunk(position, position, [], [], None)
            try:
                return self._reader.read(view, tail, position, bytes_max)
            except FileNotFoundError as error:
                # It may have been trimmed, or deleted, since we looked: then the new view says so.
                if self.view is view:
                    place = view.place_of(position)
                    segment, following = segment_name(view.segments[place].first), view.next_of(place)
                    raise DamagedError(self.meta.name, segment, position, "the file is missing", following) from error

    def trim(self, before: int) -> None:
        """Forget all records below a position, durably, and remove the segments that have no others.

        Needs no room on the disk. Below the oldest position it does nothing. Raises `BeyondTailError`, `OSError`, and then
        nothing was forgotten, and `OutcomeUnknownError`.
        """
        with self._lock:
            self._check_is_there()
            self._trim(before)

    def roll(self, now_us: int) -> None:
        """Go on in a new segment, if this one has records: so that they can be let go of. Raises `OSError`; nothing is lost."""
        with self._lock:
            self._check_is_there()
            if self.view.tail > self._tail.first and not self.meta.is_closed and self._refusal is None:
                self._roll(now_us)

    def drop(self, segments: int) -> None:
        """Forget that many of the oldest segments, but never the last. Raises as `trim`."""
        with self._lock:
            self._check_is_there()
            self._trim(self.view.segments[min(segments, len(self.view.segments) - 1)].first)

    def close(self) -> None:
        """Add nothing from now on, durably. Raises `OSError`, and then it is still open; `OutcomeUnknownError`."""
        with self._lock:
            self._check_may_write()
            self._tail.sync()
            if not self.meta.is_closed:
                self._update(replace(self.meta, is_closed=True, number=self.meta.number + 1))
                self.view = replace(self.view, closed=True)

    def label(self, labels: Mapping[str, str]) -> None:
        """Replace its labels, durably. Needs no room on the disk.

        Raises `OSError`, and then they are the old ones; `OutcomeUnknownError`; `ValueError` when they are too long for `meta`.
        """
        with self._lock:
            self._check_is_there()
            meta = replace(self.meta, labels=dict(labels), number=self.meta.number + 1)
            encode_meta(meta)
            # It may be closed by a batch that is not on disk yet, and must not be found so without that batch.
            self._shared.disk.cleaning(self._tail.sync)
            self._update(meta)

    def delete(self) -> None:
        """Delete the stream, durably. Raises `OSError`, and then it is still there; `OutcomeUnknownError`."""
        with self._lock:
            if self.view.segments:
                self._or_unknown("was deleted", self._shared.disk.cleaning, folders.mark_gone, self.folder, self._shared.files)
                segments = self.view.segments
                self.view = replace(self.view, segments=(), size_bytes=0)
                # It is deleted. What cannot be removed now is removed at the next start.
                with contextlib.suppress(OSError):
                    self._shared.disk.cleaning(folders.remove, self.folder, self._shared.files)
                self._let_go(segments)

    def release(self) -> None:
        """Close the descriptors. They are opened again when they are needed."""
        with self._lock:
            self._let_go(self.view.segments)

    def _let_go(self, segments: tuple[Segment, ...]) -> None:
        self._shared.writers.forget(self._tail)
        for segment in segments:
            self._shared.readers.forget(segment.path)

    def _check_is_there(self) -> None:
        if not self.view.segments:
            raise StreamNotFoundError(self.meta.name, "it was deleted")

    def _check_may_write(self) -> None:
        self._check_is_there()
        if isinstance(self._refusal, OSError):
            self._take_over(recovery.recover(self.folder, self._shared))
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)

    def _try_append(self, entries: Sequence[Entry], now_us: int) -> list[Appended | StreamError] | None:
        """Store appends in this segment; None if they belong in a new one, whose header must not know of them yet."""
        taken: list[Entry] = []
        is_stored = False
        try:
            answers = self._decide(entries, taken, now_us)
            is_stored = not taken or self._store(taken, now_us)
        finally:
            if is_stored:
                self.producers.commit()
            else:
                self.producers.roll_back()
        return answers if is_stored else None

    def _decide(self, entries: Sequence[Entry], taken: list[Entry], now_us: int) -> list[Appended | StreamError]:
        """Answer each append as if those before it were stored, and collect those that are to be."""
        answers: list[Appended | StreamError] = []
        position, is_closed = self.view.tail, self.meta.is_closed
        for entry in entries:
            behind = position + len(entry.records)
            try:
                answer = self.producers.check(entry.producer, now_us) if entry.producer is not None else None
            except StreamError as error:
                is_told = isinstance(error, FencedError) or not is_closed
                answers.append(error if is_told else closed_error(self.meta.name, position))
                continue
            if answer is not None:
                answers.append(answer)
            elif is_closed:
                answers.append(closed_error(self.meta.name, position))
            elif entry.at is not None and entry.at != position:
                answers.append(PositionMismatchError(self.meta.name, entry.at, position))
            else:
                if entry.producer is not None:
                    self.producers.stage(entry.producer, position, behind, now_us)
                answers.append(Appended(position, behind))
                taken.append(entry)
                position, is_closed = behind, entry.closes
        return answers

    def _store(self, entries: Sequence[Entry], now_us: int) -> bool:
        """Write one frame; return False if it belongs in a new segment."""
        view, tail = self.view, self._tail
        offset = tail.size
        size = batch_bytes(entries)
        if tail.is_ended or (offset + size > self._segment_bytes_max and view.tail > tail.first):
            return False
        self._shared.disk.admit(size)
        batch = encode_batch(entries, salt=tail.salt, offset=offset, durable_to=tail.synced, first=view.tail, time_us=now_us)
        try:
            tail.write(batch.pieces, batch.size, sync=not self.meta.options.sync_every_s)
        except ChangedFileError as error:
            self._shared.report(DamagedError(self.meta.name, segment_name(tail.first), view.tail, str(error), view.tail))
            return False
        except TornFileError as error:
            raise OutcomeUnknownError(self.meta.name, f"whether the append is stored is not known: {error}") from error
        tail.next = batch.next
        tail.newest_us = max(tail.newest_us, now_us)
        tail.index.add(view.tail, offset, now_us)
        closes = entries[-1].closes
        if closes:
            # `meta` is not written: the batch says it, and so does each header behind it.
            self.meta = replace(self.meta, is_closed=True)
        self.view = View(view.oldest, batch.next, view.segments, tail.size, view.size_bytes + batch.size, closed=closes)
        return True

    @property
    def _segment_bytes_max(self) -> int:
        return min(self.meta.options.segment_bytes, SEGMENT_BYTES_MAX)

    def _roll(self, now_us: int, *, frees: bool = False) -> None:
        """Go on in a new segment. Raises `OSError`; the next append tries again. `frees`: to make room, so it is not refused."""
        view, old = self.view, self._tail
        old.sync()
        newest_us = max(now_us, old.newest_us)
        header = encode_header(SegmentHeader(self.meta, view.tail, newest_us, self._previous(), self.producers.states()))
        if not frees:
            self._shared.disk.admit(len(header))
        path = f"{self.folder}/{segment_name(view.tail)}"
        if old.first < view.tail:
            # Its name gets durable with that of the new segment.
            store(self._shared, old.path, old.index.build(old.first, old.next, view.end), old.salt)
        # From here on the new file may be found by the next start, which then takes this one to be at its end.
        old.end()
        folders.make_segment(path, header, self._shared.files)
        self._go_on(path, len(header), newest_us)

    def _previous(self) -> Previous | None:
        view, old = self.view, self._tail
        if old.first < view.tail:
            return Previous(old.first, view.end, old.next)
        # It has no records, and the new file takes its place.
        before = view.segments[-2] if len(view.segments) > 1 else None
        return None if before is None else Previous(before.first, before.end, before.next)

    def _go_on(self, path: str, size: int, newest_us: int) -> None:
        view, old = self.view, self._tail
        fresh = Tail(self._shared, path, first=view.tail, salt=salt_of(self.meta.id, view.tail), size=size, newest_us=newest_us)
        before = view.segments[:-1]
        freed = 0
        if old.first < view.tail:
            before = (*before, Segment(old.first, old.path, view.end, old.next, old.newest_us))
        else:
            # It had no records, and the new file has taken its place.
            freed = view.end
            self._shared.readers.forget(path)
        segments = (*before, Segment(view.tail, path, size, view.tail, newest_us))
        self._tail = fresh
        self.view = replace(view, segments=segments, end=size, size_bytes=view.size_bytes + size - freed)

    def _trim(self, before: int) -> None:
        view = self.view
        if before > view.tail:
            raise BeyondTailError(self.meta.name, before, view.oldest, view.tail)
        if before > view.oldest:
            # Else a power cut could take records of an interval stream that the oldest position is already above.
            self._shared.disk.cleaning(self._tail.sync)
            is_whole = before == view.tail > self._tail.first
            if is_whole and view.end > LEFT_BYTES_MAX and self._refusal is None:
                self._roll_to_free()
            self._update(replace(self.meta, oldest=before, number=self.meta.number + 1))
            view = self.view
            kept = view.place_of(before)
            doomed, segments = view.segments[:kept], view.segments[kept:]
            freed = sum(segment.end for segment in doomed)
            # Readers are told before anything is removed.
            self.view = replace(view, oldest=before, segments=segments, size_bytes=view.size_bytes - freed)
            self._doomed += [segment.path for segment in doomed]
        self._remove_doomed()

    def _roll_to_free(self) -> None:
        # Without room for a new file the trimmed records stay where they are, until the next roll-over.
        with contextlib.suppress(OSError):
            self._shared.disk.cleaning(partial(self._roll, self._tail.newest_us, frees=True))

    def _remove_doomed(self) -> None:
        """Remove what was trimmed. What cannot be removed is tried again at the next trim."""
        left: list[str] = []
        for path in self._doomed:
            try:
                for each in (path, index_path(path)):
                    self._shared.disk.cleaning(folders.unlink, each, self._shared.files)
            except OSError:
                left.append(path)
            # Its room comes back once nobody has it open.
            self._shared.readers.forget(path)
            self._shared.indexes.pop(path)
        self._doomed = left

    def _update(self, meta: Meta) -> None:
        self._or_unknown(
            "was changed", self._shared.disk.cleaning, meta_file.update, self.folder, self.meta, meta, self._shared.files
        )
        self.meta = meta

    def _or_unknown(self, what: str, act: Callable[..., T], *args: object) -> T:
        try:
            return act(*args)
        except TornFileError as error:
            raise OutcomeUnknownError(self.meta.name, f"whether it {what} is not known: {error}") from error
