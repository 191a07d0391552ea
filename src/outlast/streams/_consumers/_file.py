"""The file `consumers` of a stream: cursors that outlive the process, and with a sync the machine.

Appended to, one write for all events that have come meanwhile. Written again as a whole when it has grown, and when a write has
failed: then what is in it is no longer known, and what is in memory is. Crash cases, with what is found after each:

1. In the middle of an append: the old state, and a torn tail that is left out. The first write of a process replaces the file in
   any case: what it has read may be in memory only, and no sync would put that on disk if one has failed before.
2. Between append and sync: with or without the events, which were not acknowledged yet. Deliveries are never synced: a power cut
   may forget some of them, and a record is then delivered more often than its limit says.
3. A sync fails: the file is cut back through a descriptor of its own (`AppendFile`), the acknowledgement is refused, and is not
   there after a crash. If it cannot be cut, the answer is "unknown".
4. While it is replaced: the old file or the new one, which say the same, since what is new is appended afterwards. A temporary
   `consumers.new` may stay behind; the next replacement empties it first.
5. After the rename, before the sync of the folder, or when that fails: a power cut may bring the old file back, so nothing is
   acknowledged in the new one until the folder is on disk.

Assumed of the disk: what was synced stays as it is; a rename is seen whole or not at all. A byte that has changed is found by the
CRC-32C of its frame, a cut by what later frames, or the frames of a replaced file, knew to be on disk. Then nothing is guessed:
the consumers of this stream are refused. In the last append alone a changed byte looks like a torn write.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.extend import AppendFile, Descriptors, Sync, TornFileError
from outlast.streams._consumers._codec import encode, parse
from outlast.streams._consumers._cursor import Cursor, EventKind
from outlast.streams._errors import DamagedError, OutcomeUnknownError
from outlast.streams._format.names import CONSUMERS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from outlast.extend import FileSystem
    from outlast.streams._consumers._cursor import Event
    from outlast.streams._consumers._port import Cleaning

COMPACT_BYTES: Final = 256 * 1024
"""No file is written again before it is as large as this: some 2,000 pairs of fetch and acknowledgement."""
READ_BYTES: Final = 1 << 20
OPENED_MAX: Final = 24
"""Files of cursors that are open on one volume: with what the logs of its streams have open there are fewer than 256."""


def load(folder: Path, stream: str, stream_id: int, files: FileSystem) -> dict[str, Cursor]:
    """Read the cursors of a stream. Writes nothing, and needs no lock.

    Raises `DamagedError`; `NewerFormatError` for a file of a later version; `OSError`.
    """
    data = _read(folder / CONSUMERS_NAME, files)
    found = parse(data, stream_id)
    if found.end < found.durable_to or (data and not found.end):
        reason = "the cursors do not read, or are those of another stream"
        raise DamagedError(stream, CONSUMERS_NAME, found.end, reason)
    return _replay(found.events)


class OpenedFiles:
    """The files of cursors on one volume, a few of them open, however many streams have consumers. For any thread."""

    def __init__(self, files: FileSystem, cleaning: Cleaning, opened_max: int = OPENED_MAX) -> None:
        """`cleaning` calls a function, and once more with the disk's reserve given back if there is no room."""
        self.files = files
        self.cleaning = cleaning
        self._descriptors: Descriptors[Path, AppendFile] = Descriptors(opened_max, self._open, AppendFile.close)
        self.use = self._descriptors.use
        self.forget = self._descriptors.forget

    @property
    def open_count(self) -> int:
        """The number of files that are open."""
        return self._descriptors.open_count

    def _open(self, path: Path) -> AppendFile:
        # The volume is locked as a whole. To open it syncs what an earlier process wrote.
        return AppendFile.open(path, sync=Sync.ASKED, lock=False, files=self.files)


class CursorFile:
    """The cursors of one stream on the disk. For one thread at a time; every method blocks for the disk."""

    def __init__(self, folder: Path, stream: str, stream_id: int, opened: OpenedFiles) -> None:
        """Do nothing yet."""
        self.path = folder / CONSUMERS_NAME
        self._stream = stream
        self._id = stream_id
        self._opened = opened
        self._size = self._whole_bytes = self._durable_to = 0
        self._is_known = False

    @property
    def wants_whole(self) -> bool:
        """Whether the next write has to bring everything: the file is not known to say what is in memory, or has grown."""
        return not self._is_known or self._size > max(COMPACT_BYTES, 2 * self._whole_bytes)

    def load(self) -> dict[str, Cursor]:
        """Read the cursors; this writes nothing. Raises as the function of this name."""
        return load(self.path.parent, self._stream, self._id, self._opened.files)

    def write(self, whole: Sequence[Event] | None, events: Sequence[Event], *, sync: bool) -> None:
        """Append events, with `whole` to a new file that holds nothing else; with `sync` return when they are on disk.

        Raises `OSError`: none of `events` is in the file. Raises `OutcomeUnknownError`: they may be. After either, the next
        write has to bring everything.
        """
        known, self._is_known = self._is_known, False
        try:
            with self._opened.use(self.path) as file:
                if whole is not None:
                    data = encode(whole, self._id)
                    self._opened.cleaning(partial(file.replace, data))
                    self._whole_bytes = self._durable_to = len(data)
                elif not known:
                    raise RuntimeError("a file of cursors that is not known was to be appended to")
                self._append(file, events, sync=sync)
                self._size = file.size
        except (OSError, OutcomeUnknownError):
            self.close()
            raise
        self._is_known = True

    def _append(self, file: AppendFile, events: Sequence[Event], *, sync: bool) -> None:
        try:
            if events:
                self._opened.cleaning(partial(file.append, encode(events, self._id, self._durable_to)))
            if sync:
                file.sync()
                self._durable_to = file.size
        except TornFileError as error:
            raise OutcomeUnknownError(self._stream, f"cursors were written and cannot be taken back: {error}") from error

    def close(self) -> None:
        """Let the file go. The next write brings everything."""
        self._opened.forget(self.path)
        self._is_known = False


def whole(cursors: Iterable[Cursor]) -> list[Event]:
    """Return the events that make all these cursors."""
    return [event for cursor in cursors for event in cursor.snapshot()]


def _read(path: Path, files: FileSystem) -> bytes:
    try:
        descriptor = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        data = bytearray()
        while more := files.read_at(descriptor, READ_BYTES, len(data)):
            data += more
        return bytes(data)
    finally:
        files.close(descriptor)


def _replay(events: Iterable[Event]) -> dict[str, Cursor]:
    cursors: dict[str, Cursor] = {}
    for event in events:
        if event.kind is EventKind.DELETED:
            cursors.pop(event.consumer, None)
        else:
            # The first event of a consumer says where it begins.
            cursors.setdefault(event.consumer, Cursor(event.consumer, 0)).apply(event)
    return cursors
