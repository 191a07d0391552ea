"""The file that a stream grows in: what is appended is in it whole, or not at all.

Near the end of a disk a write takes a part and the next one fails. After a failed sync the kernel has forgotten what it could not
write, and the next sync of the same descriptor succeeds without it. So what failed is cut off through a fresh descriptor, and
after a failed sync, or where the cut fails as well, this file is left as it is and the stream goes on in a new one.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from outlast.extend import TornFileError, pieces_behind
from outlast.streams._format.index import IndexBuilder
from outlast.streams._log.pieces import cause, reader, write_whole

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from outlast.extend import FileSystem
    from outlast.streams._log.shared import Shared

PIECE_BYTES: Final = 1 << 20


class ChangedFileError(OSError):
    """The file has another size than this process left it with. Nothing was added to it, and nothing will be."""


class Tail:
    """The last segment of a stream. One thread at a time writes.

    `size` is where its last whole frame ends, `next` the position there, `synced` up to where it is known to be on disk.
    """

    __slots__ = ("_shared", "first", "index", "is_ended", "newest_us", "next", "path", "salt", "size", "synced")

    def __init__(self, shared: Shared, path: str, *, first: int, salt: int, size: int, newest_us: int) -> None:
        """Take over a file that is there; nothing is opened before the first write."""
        self._shared = shared
        self.path = path
        self.first = self.next = first
        self.salt = salt
        self.size = self.synced = size
        self.newest_us = newest_us
        self.index = IndexBuilder()
        self.is_ended = False
        """Whether nothing is written behind `size` any more. It is never taken back: what stands there may not be trusted."""

    def write(self, pieces: Sequence[bytes], size: int, *, sync: bool) -> None:
        """Add `size` bytes; with `sync` they are on disk when this returns.

        Raises `OSError`, and then nothing of them stays; `TornFileError` when that is not known.
        """
        files, written, is_written = self._shared.files, 0, False
        try:
            with self._shared.writers.use(self) as (_, descriptor):
                while written < size:
                    written += files.write(descriptor, pieces_behind(pieces, written))
                is_written = True
                if sync:
                    files.sync_data(descriptor)
        except BaseException as error:
            if is_written:
                # Of this descriptor no sync says anything any more, and of the file none that came before the cut.
                self.end()
            if written:
                self._take_back(error)
            raise
        self.size += size
        if sync:
            self.synced = self.size

    def sync(self) -> None:
        """Return when all of it is on disk. Raises `OSError`; then nobody knows what is, and nothing more is written to it."""
        if self.synced == self.size:
            return
        if self.is_ended:
            write_again(self._shared.files, self.path, self.synced, self.size)
        else:
            try:
                with self._shared.writers.use(self) as (_, descriptor):
                    self._shared.files.sync_data(descriptor)
            except OSError:
                self.end()
                raise
        self.synced = self.size

    def end(self) -> None:
        """Write nothing behind `size` from now on, and let the descriptor go."""
        self.is_ended = True
        self._shared.writers.forget(self)

    def open(self) -> int:
        """Return a descriptor that adds to the file. Raises `OSError`."""
        files = self._shared.files
        descriptor = files.open(self.path, os.O_WRONLY | os.O_APPEND)
        found = files.size(descriptor)
        if found == self.size:
            return descriptor
        files.close(descriptor)
        self.is_ended = True
        reason = f"the file has {found} bytes, and was left with {self.size}"
        raise ChangedFileError(errno.ESTALE, reason, self.path)

    def let_go(self, descriptor: int) -> None:
        """Close a descriptor. What was written by it is synced before: a later one would not be told of a failure."""
        files = self._shared.files
        try:
            if (size := self.size) > self.synced and not self.is_ended:
                files.sync_data(descriptor)
                self.synced = size
        except OSError:
            self.is_ended = True
        finally:
            files.close(descriptor)

    def cut(self) -> None:
        """Shorten the file to `size`, durably, through a fresh descriptor; this needs no room. Raises `OSError`."""
        files = self._shared.files
        descriptor = files.open(self.path, os.O_WRONLY)
        try:
            # Never make it longer: whoever emptied it must be noticed by the check of its size.
            if files.size(descriptor) > self.size:
                files.truncate(descriptor, self.size)
            files.sync(descriptor)
        finally:
            files.close(descriptor)

    def _take_back(self, error: BaseException) -> None:
        try:
            self.cut()
        except OSError as second:
            self.end()
            number = error.errno if isinstance(error, OSError) else second.errno
            reason = f"{cause(error)}; and it cannot be cut back to {self.size} bytes ({second.strerror}): it may be in it"
            raise TornFileError(number, reason, self.path) from error


def write_again(files: FileSystem, path: str, begin: int, end: int, *, unless: Collection[int] = ()) -> None:
    """Put a part of a file on disk although a sync of it may have failed before. Raises `OSError`.

    The kernel may hold what it could not write for written, also when a later process asks. So the same bytes are written again
    in their place, and synced by a descriptor that knows of no failure. They are read from memory; if the kernel has dropped them
    there, their frames are damaged, and readers are told so. Where the write fails by one of the codes `unless`, they are only
    synced.
    """
    descriptor = -1
    try:
        descriptor = files.open(path, os.O_RDWR)
        read, at = reader(files, descriptor), begin
        while at < end and (data := read(at, min(PIECE_BYTES, end - at))):
            write_whole(files, descriptor, data, at)
            at += len(data)
    except OSError as error:
        if error.errno not in unless:
            if descriptor >= 0:
                files.close(descriptor)
            raise
    if descriptor < 0:
        descriptor = files.open(path, os.O_RDONLY)
    try:
        files.sync(descriptor)
    finally:
        files.close(descriptor)
