"""Spools: the pieces of transactions that are still in progress, kept until their commit in memory or in nameless files."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from outlast import Fault, Kind, OutlastError, Scope
from outlast.extend import AppendFile, Sync

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_BYTES_MAX: Final = 64 << 20
FILE_BYTES_MAX: Final = 16 << 30
FILES_MAX: Final = 256
"""Each takes a file descriptor, of which a process has 1024 by default. A server streams as many as it has busy sessions."""
BUFFER_BYTES: Final = 256 << 10
_length: Final = struct.Struct(">I")
_LENGTH_BYTES: Final = 4


class SpoolFullError(OutlastError):
    """The streamed transactions in progress need more room than they may have.

    Nothing is lost: they are not committed, and the server sends them again. Give them more room, or connect with streaming
    off, so that the server keeps them on its own disk until they are committed.
    """

    def __init__(self, xid: int, what: str, seen: int, limit: int) -> None:
        """`what` is what there is too much of, bytes or files; `seen` of them are held, `limit` may be."""
        reason = f"kept a piece of the streamed transaction {xid}: {seen} {what} are held, the limit is {limit}"
        hint = "give the spool more room, or connect with streaming off"
        super().__init__(reason, Fault(Kind.EXHAUSTED, "spool full", reason, scope=Scope.CALL, hint=hint))
        self.xid = xid
        self.what = what
        self.seen = seen
        self.limit = limit


class Spool(Protocol):
    """Keeps records by transaction, in the order they came, until they are read or discarded. For one thread at a time."""

    @property
    def bytes_held(self) -> int:
        """The bytes that are kept."""
        ...

    def append(self, xid: int, record: bytes) -> None:
        """Keep one more record. Raises `SpoolFullError`; OSError where there are files. The record is then not kept."""
        ...

    def records(self, xid: int) -> Iterator[bytes]:
        """Yield all records of the transaction, in memory that does not grow with their number; none when it is not known."""
        ...

    def discard(self, xid: int) -> None:
        """Forget the transaction and give its room back; nothing happens when it is not known."""
        ...

    def close(self) -> None:
        """Forget all of them."""
        ...


class MemorySpool:
    """Keeps the records in memory, `bytes_max` of them at most: for tests, and for streams that are known to be small."""

    def __init__(self, bytes_max: int | None = MEMORY_BYTES_MAX) -> None:
        """`bytes_max` counts the records' bytes; None is no limit."""
        self.bytes_max = bytes_max
        self.bytes_held = 0
        self._records: dict[int, list[bytes]] = {}

    def append(self, xid: int, record: bytes) -> None:
        """Keep one more record."""
        if self.bytes_max is not None and self.bytes_held + len(record) > self.bytes_max:
            raise SpoolFullError(xid, "bytes", self.bytes_held, self.bytes_max)
        self._records.setdefault(xid, []).append(record)
        self.bytes_held += len(record)

    def records(self, xid: int) -> Iterator[bytes]:
        """Yield all records of the transaction."""
        yield from self._records.get(xid, ())

    def discard(self, xid: int) -> None:
        """Forget the transaction."""
        self.bytes_held -= sum(map(len, self._records.pop(xid, ())))

    def close(self) -> None:
        """Forget all of them."""
        self._records.clear()
        self.bytes_held = 0


@dataclass(slots=True)
class _File:
    file: AppendFile
    buffer: bytearray = field(default_factory=bytearray)


class FileSpool:
    """Keeps the records in one file a transaction, in `directory`, and 256 KiB of one transaction in memory.

    The files have no name, so that nothing is left behind however the process ends. They hold rows: choose a directory on a
    disk that may hold them. Reads and writes block, for as long as the page cache takes. Raises `OSError`, as `tempfile` and
    `os.write` do, when the directory or the disk has no room.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        bytes_max: int | None = FILE_BYTES_MAX,
        files_max: int = FILES_MAX,
    ) -> None:
        """Without a directory the system's for temporary files is used, which may be memory (tmpfs)."""
        self.directory = directory
        self.bytes_max = bytes_max
        self.files_max = files_max
        self.bytes_held = 0
        self._files: dict[int, _File] = {}
        self._buffered: int | None = None
        """The transaction that has something in its buffer."""

    def append(self, xid: int, record: bytes) -> None:
        """Keep one more record."""
        needed = _LENGTH_BYTES + len(record)
        if self.bytes_max is not None and self.bytes_held + needed > self.bytes_max:
            raise SpoolFullError(xid, "bytes", self.bytes_held, self.bytes_max)
        if self._buffered not in {None, xid}:
            self._flush()
        file = self._files.get(xid) or self._open(xid)
        if len(file.buffer) + needed > BUFFER_BYTES:
            self._flush()
        self._buffered = xid
        file.buffer += _length.pack(len(record))
        file.buffer += record
        self.bytes_held += needed

    def records(self, xid: int) -> Iterator[bytes]:
        """Yield all records of the transaction. It must not be discarded or added to before the last has been taken."""
        file = self._files.get(xid)
        if file is None:
            return
        self._flush()
        os.lseek(file.file.descriptor, 0, os.SEEK_SET)
        with io.BufferedReader(io.FileIO(os.dup(file.file.descriptor)), BUFFER_BYTES) as reader:
            left = file.file.size
            while left:
                (length,) = _length.unpack(reader.read(_LENGTH_BYTES))
                yield reader.read(length)
                left -= _LENGTH_BYTES + length

    def discard(self, xid: int) -> None:
        """Forget the transaction and close its file."""
        file = self._files.pop(xid, None)
        if file is None:
            return
        if self._buffered == xid:
            self._buffered = None
        self.bytes_held -= file.file.size + len(file.buffer)
        file.file.close()

    def close(self) -> None:
        """Forget all of them and close their files."""
        for xid in list(self._files):
            self.discard(xid)

    def _open(self, xid: int) -> _File:
        if len(self._files) >= self.files_max:
            raise SpoolFullError(xid, "files", len(self._files), self.files_max)
        with tempfile.TemporaryFile(dir=self.directory, buffering=0) as nameless:
            file = self._files[xid] = _File(
                AppendFile.adopt(os.dup(nameless.fileno()), f"spool of transaction {xid}", Sync.NEVER)
            )
        return file

    def _flush(self) -> None:
        """Write what is in the buffer; it stays there when that fails."""
        if self._buffered is None:
            return
        file = self._files[self._buffered]
        file.file.append(file.buffer)
        file.buffer.clear()
        self._buffered = None
