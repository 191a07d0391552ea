"""The file `consumers` of a stream: cursors that outlive the process, and with a sync the machine.

Appended to, one write for all events that have come meanwhile, and written again as a whole when it has grown, or when a write
has failed: then what is in it is no longer known, and what is in memory is. Crash cases, with what is found after each:

1. In the middle of an append: the old state, and a torn tail that is left out; the next write replaces the file.
2. Between append and sync: with or without the events; they were not acknowledged yet. Deliveries are never synced: a power cut may
   forget some of them, and a record is then delivered once more than its limit says.
3. A sync fails: the file is cut back through a descriptor of its own (`AppendFile`), the acknowledgement is refused, and is not
   there after a crash. If it cannot be cut, the answer is "unknown".
4. While it is replaced: the old file or the new one, which say the same, since what is new is appended afterwards. A temporary
   `consumers.new` may stay behind; the next replacement empties it first.
5. After the rename, before the sync of the folder, or when that fails: a power cut may bring the old file back, so nothing is
   acknowledged in the new one until the folder is on disk.

Assumed of the disk: what was synced stays as it is; a rename is seen whole or not at all. A byte that changes is found by its frame's
CRC-32C. In the middle of the file it is damage, nothing is guessed, and the consumers of this stream are refused; at the end it
cannot be told from a torn write.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from outlast.extend import AppendFile, NewerFormatError, Sync, TornFileError
from outlast.streams._consumers._codec import FORMAT, encode, header, parse
from outlast.streams._consumers._cursor import Cursor, Event, EventKind
from outlast.streams._errors import DamagedError, OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from outlast.extend import FileSystem

NAME: Final = "consumers"
COMPACT_BYTES: Final = 256 * 1024
"""A file is never written again before it is as large as this: some 2,800 pairs of fetch and acknowledgement."""
READ_BYTES: Final = 1 << 20


class CursorFile:
    """The cursors of one stream on the disk. For one thread at a time; every method blocks for the disk."""

    def __init__(self, folder: Path, stream: str, identity: str, files: FileSystem) -> None:
        """Do nothing yet. `identity` is the incarnation of the stream."""
        self.path = folder / NAME
        self._stream = stream
        self._identity = identity
        self._files = files
        self._file: AppendFile | None = None
        self._whole_bytes = 0
        self.is_known = False
        """Whether the file says what is in memory, so that it may be appended to."""

    @property
    def wants_whole(self) -> bool:
        """Whether the next write has to begin with everything. May be read by any thread."""
        size = self._file.size if self._file else 0
        return not self.is_known or size > max(COMPACT_BYTES, 2 * self._whole_bytes)

    def load(self) -> dict[str, Cursor]:
        """Read the cursors; this writes nothing.

        Raises `DamagedError`; `NewerFormatError` for a file of a later version; `OSError`.
        """
        data = self._read()
        found = parse(data)
        if found.version is not None and found.version > FORMAT:
            msg = f"{self.path} has format {found.version}, and this version of Outlast reads up to {FORMAT}: use a later one"
            raise NewerFormatError(msg)
        if found.damaged_at is not None or (found.version is None and found.end):
            raise self._damaged(found.damaged_at or 0, "cursors do not read, and later ones do")
        if found.version is not None and found.identity != self._identity:
            raise self._damaged(0, f"it is of stream {found.identity}, and this one is {self._identity}")
        self._whole_bytes = found.end
        return _replay(found.events)

    def write(self, whole: Sequence[Event] | None, events: Iterable[Event], *, sync: bool) -> None:
        """Append events, with `whole` after the file was replaced by that; with `sync` return when they are on disk.

        Raises `OSError`: none of `events` is in the file. Raises `OutcomeUnknownError`: they may be. After either the file is not
        known any more, and `whole` has to be given.
        """
        known, self.is_known = self.is_known, False
        if whole is not None:
            self._replace(header(self._identity) + encode(whole))
        elif not known:
            raise RuntimeError("the file of cursors is not known: write the whole of it")
        data = encode(events)
        file = self._opened()
        try:
            if data:
                file.append(data)
            if sync:
                file.sync()
        except TornFileError as error:
            self.close()
            raise OutcomeUnknownError(self._stream, f"cursors were written and cannot be taken back: {error}") from error
        except OSError:
            self.close()
            raise
        self.is_known = True

    def close(self) -> None:
        """Close the file. The next write opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self.is_known = False

    def _opened(self) -> AppendFile:
        if self._file is None:
            # The volume is locked as a whole.
            self._file = AppendFile.open(self.path, sync=Sync.ASKED, lock=False, files=self._files)
        return self._file

    def _replace(self, data: bytes) -> None:
        self._opened().replace(data)
        self._whole_bytes = len(data)

    def _read(self) -> bytes:
        try:
            descriptor = self._files.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return b""
        try:
            data = bytearray()
            while more := self._files.read_at(descriptor, READ_BYTES, len(data)):
                data += more
            return bytes(data)
        finally:
            self._files.close(descriptor)

    def _damaged(self, at: int, reason: str) -> DamagedError:
        return DamagedError(self._stream, NAME, at, f"byte {at}: {reason}")


def _replay(events: Iterable[Event]) -> dict[str, Cursor]:
    cursors: dict[str, Cursor] = {}
    for event in events:
        if event.kind is EventKind.DELETED:
            cursors.pop(event.consumer, None)
        else:
            # The first event of a consumer says where it begins.
            cursors.setdefault(event.consumer, Cursor(event.consumer, 0)).apply(event)
    return cursors


def whole(cursors: Iterable[Cursor]) -> list[Event]:
    """Return the events that make all these cursors."""
    return [event for cursor in cursors for event in cursor.snapshot()]


