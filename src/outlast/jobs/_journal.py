"""A bounded file of outcomes that could not be recorded, because the database was away when they came about.

The file is a sequence of lines: eight hex digits (CRC-32 of the rest of the line), a space, one JSON object, a newline. A
crash can leave a torn last line: it is cut off when the file is opened, with a count. Another line that does not read was
written by somebody else, or damaged: it costs none of those behind it, and is given to whoever opens the file. An entry
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
from outlast.jobs._model import JobState, Outcome

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from typing import Any

ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 64 * 1024 * 1024
_PREFIX: Final = 9

Entry = tuple[str, Outcome]
"""The worker process that ran the job (its uuid), and the outcome."""


STATES: Final = frozenset(state.value for state in JobState)


def line(fields: dict[str, Any]) -> bytes:
    """One line of the file, with its checksum."""
    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def encode(worker: str, outcome: Outcome) -> bytes:
    """One entry as a line of the journal."""
    return line({"worker": worker, **asdict(outcome)})


def decode(data: bytes) -> tuple[list[Entry], list[bytes], int]:
    """The entries of a file, its whole lines that do not read, and where the last entry ends: the file is cut off there."""
    entries: list[Entry] = []
    foreign: list[bytes] = []
    good = at = 0
    while (end := data.find(b"\n", at)) >= 0:
        text = data[at:end]
        at = end + 1
        entry = _entry(text)
        if entry is None:
            foreign.append(text)
        else:
            entries.append(entry)
            good = at
    return entries, foreign, good


def _entry(text: bytes) -> Entry | None:
    try:
        if int(text[: _PREFIX - 1], 16) != zlib.crc32(text[_PREFIX:]):
            return None
        fields = json.loads(text[_PREFIX:])
        worker = fields.pop("worker")
        if "result" in fields:
            # Before there was `result_json` the value itself was kept, also one that the database then refused.
            result = fields.pop("result")
            fields["result_json"] = None if result is None else json.dumps(result)
        outcome = Outcome(**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return (worker, outcome) if _is_plain(worker, outcome) else None


def _is_plain(worker: object, outcome: Outcome) -> bool:
    """Whether the fields are of their types: a line that checks may still be of another version."""
    wanted = (
        (worker, str),
        (outcome.id, int),
        (outcome.attempt, int),
        (outcome.result_json, str | None),
        (outcome.delay_s, int | float),
        (outcome.give_back, bool),
    )
    is_fault = outcome.fault is None or isinstance(outcome.fault, dict)  # pyright: ignore[reportUnnecessaryIsInstance] # of a file
    return is_fault and outcome.state in STATES and all(isinstance(value, kind) for value, kind in wanted)


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
        self.foreign: list[bytes] = []
        """Whole lines that did not read when it was opened; the next `drop` takes them out of the file."""
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
        self.entries, self.foreign, self._size = decode(data)
        self.torn_bytes = len(data) - (data.rfind(b"\n") + 1)
        if self._size < len(data):
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
        append_whole(file, data, self._size)
        self._size += len(data)
        self.entries.extend(entries)

    def fitting(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Those that there is room for, and the others."""
        fit: list[Entry] = []
        left: list[Entry] = []
        size = self._size
        for entry in entries:
            entry_size = len(encode(*entry))
            has_room = len(self.entries) + len(fit) < self.entries_max and size + entry_size <= self.bytes_max
            (fit if has_room else left).append(entry)
            size += entry_size if has_room else 0
        return fit, left

    def drop(self, count: int) -> None:
        """Forget the first `count` entries: they are recorded. Repeating them after a crash does no harm."""
        self.keep_only(range(count, len(self.entries)))

    def keep_only(self, places: Collection[int]) -> None:
        """Forget all entries but those at these places, which stay in their order."""
        remaining = [entry for place, entry in enumerate(self.entries) if place in places]
        if len(remaining) < len(self.entries) or self.foreign:
            self._rewrite(b"".join(encode(worker, outcome) for worker, outcome in remaining))
        self.foreign = []
        self.entries = remaining

    def _rewrite(self, data: bytes) -> None:
        file = self._opened()
        if data:
            # Never in place: a crash in the middle would lose entries. The new file is locked before it gets the name.
            temporary = self.path.with_name(f"{self.path.name}.new")
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


def append_whole(file: int, data: bytes, size: int) -> None:
    """Write `data` to the end of a file of `size` bytes: all of it is on disk when this returns.

    Raises `OSError`, and then none of it is in the file.
    """
    try:
        written = 0
        while written < len(data):
            # Near the end of a disk a write is short before it fails.
            written += os.write(file, data[written:])
        os.fdatasync(file)
    except OSError:
        os.ftruncate(file, size)
        os.lseek(file, size, os.SEEK_SET)
        raise
