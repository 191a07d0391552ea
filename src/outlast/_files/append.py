"""A file that is only added to: what is appended is in it whole, or not at all.

Three facts shape this module. Near the end of a disk `os.write` writes a part and fails at the next call, so a torn tail is the
normal case. A buffered file writes what it had refused once there is room again, so the descriptor is unbuffered. After a failed
`fsync` the kernel has forgotten what it could not write, and the next `fsync` of that descriptor succeeds without it: so it is
never asked again, and the file is cut through a fresh one.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from outlast._core.faults import Fault, Kind, Scope, attach
from outlast._files.calls import LOCAL_FILES, pieces_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._files.calls import Buffer, FileSystem, StrPath

READ_BYTES: Final = 1 << 20


class Sync(enum.Enum):
    """The moment from which what was appended outlives a power cut."""

    EACH = "each"
    """From the return of `append` on."""
    ASKED = "asked"
    """From the return of `sync` on."""
    NEVER = "never"
    """Some time later, when the kernel writes it. It outlives the process at once."""


class TornFileError(OSError):
    """A failed append could not be taken back: what was refused may be in the file, whole or in part.

    `errno` is that of the failure that came first. The file takes nothing more until it could be cut; each `append` tries to.
    """


class AppendFile:
    """The end of a regular file that this process appends to. For one thread at a time; every method may block for the disk.

    `size` is where the last whole append ends. The descriptor has O_APPEND, so do not write to it with `os.pwrite`, which then
    ignores its offset on Linux.
    """

    __slots__ = ("_descriptor", "_files", "_is_held", "_is_spoiled", "_sync", "_synced", "is_torn", "path", "size")

    def __init__(self, descriptor: int, path: StrPath, sync: Sync, *, lock: bool, files: FileSystem) -> None:
        """Take over what `open` or `adopt` has opened."""
        self._descriptor = descriptor
        self._files = files
        self.path = Path(path)
        self.size: int = files.size(descriptor)
        self._synced: int = self.size
        self.is_torn = False
        """Whether bytes of a failed append may stand behind `size`. A writer of segments goes on in a new file."""
        self._sync = sync
        self._is_held = lock
        self._is_spoiled = False
        """Whether a sync of this descriptor has failed."""

    @classmethod
    def open(
        cls, path: StrPath, *, sync: Sync, lock: bool = True, mode: int = 0o600, files: FileSystem = LOCAL_FILES
    ) -> AppendFile:
        """Open or make a regular file and, with `lock`, hold it alone: a second writer's attempt raises `BlockingIOError`.

        What an earlier process wrote and never synced can be read and still be lost, so it is synced here, and so is the name,
        unless nothing ever is. Raises `OSError`.
        """
        descriptor = files.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
        try:
            if lock:
                _hold(descriptor, path, files)
            if sync is not Sync.NEVER:
                files.sync(descriptor)
                files.sync_folder(Path(path).parent)
            return cls(descriptor, path, sync, lock=lock, files=files)
        except OSError:
            files.close(descriptor)
            raise

    @classmethod
    def adopt(cls, descriptor: int, path: StrPath, sync: Sync) -> AppendFile:
        """Take over a descriptor of this process, of a file without a name for example. `path` is for messages."""
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        return cls(descriptor, path, sync, lock=False, files=LOCAL_FILES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Whoever forgets to close it must not keep the lock.
        self.close()

    @property
    def descriptor(self) -> int:
        """The descriptor, to read from with `os.pread`. Raises `OSError` (EBADF) once the file is closed."""
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "it is closed", os.fspath(self.path))
        return self._descriptor

    def append(self, data: Buffer, *more: Buffer, keep: Callable[[int], int] | None = None) -> int:
        """Write `data` and `more`, as bytes, behind the end in one call; return how many bytes are in the file: all of them.

        When the disk refuses a part, or cannot sync it, none of it stays and the `OSError` is raised: `TornFileError` where even
        that failed. With `keep`, which is told how many bytes were written, that many of them stay and are returned, and the
        error is raised only if there are none. When a sync fails that was to cover earlier appends too, `size` shows what is left
        of them and the file is closed, as by `sync`.
        """
        if self.is_torn:
            self._cut_torn()
        pieces, began, written = (data, *more), self.size, 0
        descriptor, wanted = self.descriptor, sum(map(len, pieces))
        try:
            while written < wanted:
                written += self._files.write(descriptor, pieces_behind(pieces, written))
            if self._sync is Sync.EACH:
                self._make_durable(self._files.sync_data, descriptor)
        except BaseException as error:
            partly = keep is not None and isinstance(error, OSError) and written < wanted
            self.size += keep(written) if keep is not None and partly else 0
            try:
                self._take_back(error)
            except TornFileError:
                # What is kept counts, also if the rest cannot be cut off now: the next append tries to. Not if it is not durable.
                if self._sync is Sync.EACH:
                    self.size = began
                if self.size <= began:
                    raise
            if self.size <= began:
                raise
            return self.size - began
        self.size += written
        if self._sync is Sync.EACH:
            self._synced = self.size
        return written

    def read(self, at: int, size: int) -> bytes:
        """Return up to `size` bytes from `at` on: fewer only where the file ends."""
        data = bytearray()
        while len(data) < size and (
            more := self._files.read_at(self.descriptor, min(size - len(data), READ_BYTES), at + len(data))
        ):
            data += more
        return bytes(data)

    def sync(self) -> None:
        """Return when all that was appended is on disk.

        If that fails, nobody knows what is. The file is cut back to what was on disk before and closed, so that nothing that
        was never synced can be read again: open it again to go on from there. Raises `OSError`.
        """
        if self._synced == self.size:
            return
        try:
            self._make_durable(self._files.sync_data, self.descriptor)
        except OSError as error:
            try:
                self._take_back(error)
            finally:
                self.close()
            raise
        self._synced = self.size

    def cut(self, size: int) -> None:
        """Shorten the file to `size` bytes; this needs no room on the disk. Raises `OSError`."""
        self._files.truncate(self.descriptor, size)
        self.size, self._synced = size, min(size, self._synced)

    def cut_line(self) -> int:
        """Cut off an unfinished last line, which a crash leaves, and return how many bytes it had. Raises `OSError`."""
        whole = size = self.size
        found = 0
        while whole and not found:
            begin = max(0, whole - READ_BYTES)
            found = self.read(begin, whole - begin).rfind(b"\n") + 1
            whole = begin + found
        if whole < size:
            self.cut(whole)
        return size - whole

    def replace(self, data: bytes) -> None:
        """Make `data` all that the file holds; after a crash at any moment it holds that or what it held before.

        Never in place, since a full disk would leave a part of both: it is a new file, locked before it gets the name. Raises
        `OSError`: the file is then as it was, or has been replaced and may be the old one again after a power cut.
        """
        temporary = self.path.with_name(f"{self.path.name}.new")
        fresh = AppendFile.open(temporary, sync=self._sync, mode=self._files.mode(self.descriptor), files=self._files)
        try:
            # A crash may have left one.
            fresh.cut(0)
            fresh.append(data)
            fresh.sync()
            self._files.rename(temporary, self.path)
        except BaseException:
            fresh.close()
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(temporary)
            raise
        self.close()
        self._descriptor = fresh.detach()
        self.size = self._synced = fresh.size
        self.is_torn = self._is_spoiled = False
        self._is_held = True
        self._files.sync_folder(self.path.parent)

    def close(self) -> None:
        """Close the file and release its lock. What was not synced stays as it is. Does nothing the second time."""
        if self._descriptor >= 0:
            self._files.close(self.detach())

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close from now on, and keep the file open."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def _make_durable(self, sync: Callable[[int], None], descriptor: int) -> None:
        try:
            sync(descriptor)
        except OSError:
            self._is_spoiled, self.size = True, self._synced
            raise

    def _take_back(self, error: BaseException) -> None:
        """Cut what a failed append or sync left, durably where appends are: what was refused never appears later."""
        try:
            self._cut_torn()
        except OSError as second:
            number = error.errno if isinstance(error, OSError) else second.errno
            reason = (
                f"{error}; and the file cannot be cut back to {self.size} bytes ({second.strerror}): it takes nothing until it is"
            )
            raise TornFileError(number, reason, os.fspath(self.path)) from error

    def _cut_torn(self) -> None:
        self.is_torn, before = True, self.size
        try:
            if self._is_spoiled or not self._is_cut():
                self._cut_through_another()
        finally:
            # Appends that were reported as done are gone with a failed sync: nobody goes on behind them unaware.
            if self.size < before:
                self.close()

    def _is_cut(self) -> bool:
        """Cut; return False if this descriptor could not sync it."""
        try:
            self._cut_through(self.descriptor)
        except OSError:
            if not self._is_spoiled:
                raise
        return not self._is_spoiled

    def _cut_through_another(self) -> None:
        fresh = self._files.open(self.path, os.O_RDWR | os.O_APPEND)
        try:
            # The old descriptor holds the lock until the cut is done, so nobody else writes meanwhile.
            self._cut_through(fresh)
            self.close()
            if self._is_held:
                self._files.lock(fresh)
        except BaseException:
            self._files.close(fresh)
            raise
        self._descriptor, self._is_spoiled = fresh, False

    def _cut_through(self, descriptor: int) -> None:
        # Somebody else may have emptied a file that is not locked against it: never make it longer.
        self._files.truncate(descriptor, min(self.size, self._files.size(descriptor)))
        if self._sync is not Sync.NEVER:
            self._make_durable(self._files.sync, descriptor)
            self._synced = self.size
        self.is_torn = False


def _hold(descriptor: int, path: StrPath, files: FileSystem) -> None:
    try:
        files.lock(descriptor)
    except BlockingIOError as error:
        attach(error, Fault(Kind.CONTENDED, "file in use", f"another process writes to {os.fspath(path)}", scope=Scope.CALL))
        raise
