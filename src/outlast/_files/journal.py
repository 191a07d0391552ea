"""A bounded file of records that outlives the process, for what is finished while its store is away.

Format 1 is one line of header and then records, readable with a pager where the records are text:

    outlast journal 1 jobs 2
    <length: 8 hex digits> <CRC-32 of the record: 8 hex digits> <the record><newline>

The header names the format of the file, whose journal it is, and the version of its records. It is written with the first
record, so an empty journal is an empty file, and emptying one needs no room. A file without a header is of format 0: lines of
eight hex digits (CRC-32 of the rest), a space, the record; the first `append` or `keep_only` rewrites it.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from outlast._core.faults import ConfigurationError, Fault, Kind, OutlastError, Scope
from outlast._files.append import AppendFile, Sync

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Sequence

T = TypeVar("T")

FORMAT: Final = 1
RECORDS_MAX: Final = 10_000
BYTES_MAX: Final = 64 * 1024 * 1024
_HEADER: Final = re.compile(rb"outlast journal (\d{1,9})(?: ([a-z0-9._-]+) (\d{1,9}))?[^\n]*\n")
_HEADER_BYTES_MAX: Final = 256
_FRAME: Final = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ")
_OLD_LINE: Final = re.compile(rb"([0-9a-f]{8}) ([^\n]*)\n")
_NAME: Final = re.compile(r"[a-z0-9._-]{1,40}")


class JournalFullError(OutlastError):
    """The records do not fit within the bounds of the journal."""

    def __init__(self, message: str) -> None:
        hint = "make room in what the journal is kept for, or give it higher limits"
        super().__init__(message, Fault(Kind.EXHAUSTED, "journal full", message, scope=Scope.CALL, hint=hint))


class NewerFormatError(ConfigurationError):
    """A file, or a table, has the format of a later version of Outlast. It is left as it is."""


class Found(NamedTuple, Generic[T]):
    """The content of a journal's bytes."""

    records: list[T]
    damaged: list[bytes]
    """Stretches that do not read and are no torn tail, in their order."""
    torn: bytes
    """The beginning of an append that a crash cut short."""


class Journal(Generic[T]):
    """Records in a file and in memory, in the order they came; a record counts once it is written *and* synced.

    Its methods block for the disk: call them from one thread, which does nothing else (`OwnThread`). One process holds the
    file, by a lock that ends with it. At the bounds `append` raises `JournalFullError`.

    `name` says whose journal it is: another's file is refused. `version` counts the changes of what `encode` returns; a file of
    a newer one is refused, and `decode` must read all earlier ones. It raises `ValueError` for what it cannot read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        *,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        version: int = 1,
        records_max: int = RECORDS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """Do nothing yet; `open` opens the file. `name` has letters, digits, `.`, `_` and `-`, at most 40."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"a journal is named by 1 to 40 of a-z, 0-9, '.', '_' and '-', not {name!r}")
        self.path = Path(path)
        self.name = name
        self.version = version
        self.records_max = records_max
        self.bytes_max = bytes_max
        self.records: list[T] = []
        self.damaged: list[bytes] = []
        """What could not be read when it was opened, torn tail apart; it stays in the file until the next `keep_only`."""
        self.torn_bytes = 0
        """Bytes of an unfinished append that were cut off when it was opened."""
        self._encode = encode
        self._decode = decode
        self._header = b"outlast journal %d %s %d\n" % (FORMAT, name.encode(), version)
        self._is_current = True
        """Whether more records may follow what is in the file as it is."""
        self._file: AppendFile | None = None

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self._opened().size

    def open(self) -> None:
        """Open or make the file, lock it, and read what an earlier process left. Only a torn tail is changed in it.

        Raises `NewerFormatError`, and `ConfigurationError` when it cannot be opened, is held by another process, or is no journal
        of this name.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = AppendFile.open(self.path, sync=Sync.EACH)
        except BlockingIOError as error:
            msg = f"the journal {self.path} is held by another process; give each process a path of its own"
            raise ConfigurationError(msg) from error
        except OSError as error:
            msg = f"cannot open the journal {self.path}: {error.strerror}; give another path, or the right to write there"
            raise ConfigurationError(msg) from error
        try:
            self._read(self._file)
        except BaseException:
            self.close()
            raise

    def append(self, records: Sequence[T]) -> None:
        """Add records; they are on disk when this returns. All of them or none.

        Raises `JournalFullError`, and `OSError` of the disk (`TornFileError` when it is not known whether they are in the file).
        """
        file = self._opened()
        data = b"".join(self._framed(record) for record in records)
        if not self._is_current:
            self._rewrite(self.records, self.damaged)
        size = file.size or len(self._header)
        if len(self.records) + len(records) > self.records_max or size + len(data) > self.bytes_max:
            msg = (
                f"the journal {self.path} is full: {len(self.records)} of {self.records_max} records, "
                f"{file.size} of {self.bytes_max} bytes; {len(records)} records of {len(data)} bytes do not fit"
            )
            raise JournalFullError(msg)
        if records:
            file.append(data if file.size else self._header + data)
            self.records.extend(records)

    def fitting(self, records: Sequence[T]) -> tuple[list[T], list[T]]:
        """Return those that there is room for, and the others."""
        fit: list[T] = []
        left: list[T] = []
        size = self._opened().size or len(self._header)
        for record in records:
            record_size = len(self._framed(record))
            has_room = len(self.records) + len(fit) < self.records_max and size + record_size <= self.bytes_max
            (fit if has_room else left).append(record)
            size += record_size if has_room else 0
        return fit, left

    def drop(self, count: int) -> None:
        """Forget the first `count` records. After a crash they may be there again: what is done with them must bear repeating."""
        self.keep_only(range(count, len(self.records)))

    def keep_only(self, places: Collection[int]) -> None:
        """Forget all records but those at these places, which stay in their order. Raises `OSError`; then none is forgotten."""
        remaining = [record for place, record in enumerate(self.records) if place in places]
        if len(remaining) < len(self.records) or self.damaged or not self._is_current:
            self._rewrite(remaining, [])
        self.records = remaining
        self.damaged = []

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> AppendFile:
        if self._file is None:
            msg = f"the journal {self.path} is not open"
            raise RuntimeError(msg)
        return self._file

    def _framed(self, record: T) -> bytes:
        return framed(self._encode(record))

    def _rewrite(self, records: list[T], damaged: list[bytes]) -> None:
        file = self._opened()
        if records or damaged:
            file.replace(self._header + b"".join([*damaged, *map(self._framed, records)]))
        else:
            file.cut(0)
        self._is_current = True

    def _read(self, file: AppendFile) -> None:
        data = file.read(0, _HEADER_BYTES_MAX)
        header = self._checked(data)
        data += file.read(len(data), file.size)
        found = read(data, len(header), self._decode)
        self.records, self.damaged, self.torn_bytes = found.records, found.damaged, len(found.torn)
        if found.torn:
            file.cut(len(data) - len(found.torn))
        self._is_current = header == self._header[: len(data)]

    def _checked(self, data: bytes) -> bytes:
        """Return the header of the file; empty where it has none."""
        match = _HEADER.match(data)
        if match is None:
            return b""
        found, name, version = int(match[1]), match[2], int(match[3] or 0)
        if found <= FORMAT and name != self.name.encode():
            msg = f"the file {self.path} is the journal of {(name or b'?').decode()!r}, not of {self.name!r}; give another path"
            raise ConfigurationError(msg)
        for what, number, limit in (("format", found, FORMAT), ("records of version", version, self.version)):
            if number > limit:
                msg = (
                    f"the journal {self.path} was written in {what} {number}, this version of Outlast reads up to {limit}: "
                    "run the version that wrote it until the journal is empty, or give another path"
                )
                raise NewerFormatError(msg)
        return match[0]


def framed(payload: bytes) -> bytes:
    """Return one record as it stands in the file."""
    return b"%08x %08x %s\n" % (len(payload), zlib.crc32(payload), payload)


def read(data: bytes, start: int, decode: Callable[[bytes], T]) -> Found[T]:
    """Read the records from `start` on, where the header ends; 0 stands for a file without one, with lines of format 0.

    What does not read is damage when a whole record comes behind it, or when it is complete itself. Otherwise it is a torn tail.
    """
    records: list[T] = []
    damaged: list[bytes] = []
    at = start
    more = True
    while at < len(data):
        if (whole := _whole(data, at, old=not start)) is None:
            after = more and _next_whole(data, at, old=not start)
            # Looked for once: of a large file of somebody else's every line would be searched to its end.
            more = bool(after)
            after = after or _end_of_damage(data, at)
            if not after:
                break
            damaged.append(data[at:after])
        else:
            payload, after = whole
            try:
                records.append(decode(payload))
            except ValueError:
                damaged.append(data[at:after])
        at = after
    return Found(records, damaged, data[at:])


def _whole(data: bytes, at: int, *, old: bool) -> tuple[bytes, int] | None:
    """Return the record that begins here and where it ends; None if none does."""
    if frame := _FRAME.match(data, at):
        end = frame.end() + int(frame[1], 16)
        if end < len(data) and zlib.crc32(payload := data[frame.end() : end]) == int(frame[2], 16):
            return payload, end + 1
    if old and (line := _OLD_LINE.match(data, at)) and zlib.crc32(line[2]) == int(line[1], 16):
        return line[2], line.end()
    return None


def _next_whole(data: bytes, at: int, *, old: bool) -> int:
    """Return where the next whole record begins; 0 if there is none. Each stands at the beginning of a line."""
    while at := data.find(b"\n", at) + 1:
        if _whole(data, at, old=old):
            return at
    return 0


def _end_of_damage(data: bytes, at: int) -> int:
    """Return where a damaged record or line ends behind which there is no whole record; 0 if it is a torn tail."""
    if frame := _FRAME.match(data, at):
        end = frame.end() + int(frame[1], 16)
        return end + 1 if data[end : end + 1] == b"\n" else 0
    return data.find(b"\n", at) + 1
