"""A bounded file of outcomes that could not be recorded, because the database was away when they came about.

The file is a sequence of lines: eight hex digits (CRC-32 of the rest of the line), a space, one JSON object, a newline. A
crash can leave a torn last line; whatever does not check is cut off when the file is opened, with a count. An entry
counts once it is written *and* synced. One process holds the file, by a lock that ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError
from outlast.jobs.model import Outcome

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 64 * 1024 * 1024
_PREFIX: Final = 9

Entry = tuple[str, Outcome]
"""The worker process that ran the job (its uuid), and the outcome."""


def encode(worker: str, outcome: Outcome) -> bytes:
    """One line of the journal."""
    body = json.dumps({"worker": worker, **asdict(outcome)}, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(data: bytes) -> tuple[list[Entry], int]:
    """The entries of a file, and how many of its bytes hold them: what follows is torn."""
    entries: list[Entry] = []
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        line = data[good:end]
        try:
            if int(line[: _PREFIX - 1], 16) != zlib.crc32(line[_PREFIX:]):
                break
            fields = json.loads(line[_PREFIX:])
            worker = fields.pop("worker")
            entries.append((worker, Outcome(**fields)))
        except (ValueError, TypeError, KeyError, AttributeError):
            break
        good = end + 1
    return entries, good


def _sync_directory(path: Path) -> None:
    """Make a new name durable: it is in the directory, not in the file."""
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class JournalFullError(Exception):
    """No room within the bounds of the journal."""


class Journal:
    """The file and its entries. Its methods block for a disk write: call them from one thread, which does nothing else.

    At its bounds `append` raises `JournalFullError`, and the queue acquires no more jobs.
    """

    def __init__(self, path: Path, *, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Name the file; `open` opens it."""
        self.path = path
        self.entries_max = entries_max
        self.bytes_max = bytes_max
        self.entries: list[Entry] = []
        self.torn_bytes = 0
        """Bytes that were cut off when it was opened."""
        self._size = 0
        self._file: int | None = None

    def open(self) -> None:
        """Open or make the file, lock it, and read what an earlier process left. Raises `ConfigurationError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _sync_directory(self.path.parent)
        except OSError as error:
            msg = f"cannot open the journal {self.path}: {error.strerror}; give another journal_path, or the right to write"
            raise ConfigurationError(msg) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            self._file = None
            msg = f"the journal {self.path} is held by another process; give each process its own journal_path"
            raise ConfigurationError(msg) from error
        data = b""
        while chunk := os.read(self._file, 1 << 20):
            data += chunk
        self.entries, self._size = decode(data)
        self.torn_bytes = len(data) - self._size
        if self.torn_bytes:
            os.ftruncate(self._file, self._size)
        os.lseek(self._file, self._size, os.SEEK_SET)

    def append(self, entries: list[Entry]) -> None:
        """Add entries; they are on disk when this returns. All of them or none: a failed write is cut off again.

        Raises `OSError` of the disk, and `JournalFullError`.
        """
        file = self._opened()
        data = b"".join(encode(worker, outcome) for worker, outcome in entries)
        if len(self.entries) + len(entries) > self.entries_max or self._size + len(data) > self.bytes_max:
            msg = (
                f"the journal {self.path} is full: {len(self.entries)} of {self.entries_max} entries, "
                f"{self._size} of {self.bytes_max} bytes"
            )
            raise JournalFullError(msg)
        try:
            written = 0
            while written < len(data):
                # Near the end of a disk a write is short before it fails.
                written += os.write(file, data[written:])
            os.fdatasync(file)
        except OSError:
            os.ftruncate(file, self._size)
            os.lseek(file, self._size, os.SEEK_SET)
            raise
        self._size += len(data)
        self.entries.extend(entries)

    def drop(self, count: int) -> None:
        """Forget the first `count` entries: they are recorded. Repeating them after a crash does no harm."""
        remaining = self.entries[count:]
        if not remaining:
            self._rewrite(b"")
        elif count:
            self._rewrite(b"".join(encode(worker, outcome) for worker, outcome in remaining))
        self.entries = remaining

    def _rewrite(self, data: bytes) -> None:
        file = self._opened()
        if data:
            # Never in place: a crash in the middle would lose entries. The new file is locked before it gets the name.
            temporary = self.path.with_suffix(".new")
            fresh = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                written = 0
                while written < len(data):
                    written += os.write(fresh, data[written:])
                os.fdatasync(fresh)
            except OSError:
                os.close(fresh)
                raise
            temporary.rename(self.path)
            _sync_directory(self.path.parent)
            os.close(file)
            self._file = fresh
        else:
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        self._size = len(data)

    def close(self) -> None:
        """Close the file and give up its lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            msg = f"the journal {self.path} is not open"
            raise RuntimeError(msg)
        return self._file
