"""A file that is only added to: what is appended is in it whole, or not at all.

Three facts shape this module. Near the end of a disk `os.write` writes a part and fails at the next call, so a torn tail is the
normal case. A buffered file writes what it had refused once there is room again, so the descriptor is unbuffered. After a failed
`fsync` the kernel has forgotten what it could not write, and the next `fsync` succeeds without it.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from outlast._core.faults import Fault, Kind, Scope, attach

if TYPE_CHECKING:
    from collections.abc import Callable

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

    __slots__ = ("_descriptor", "_sync", "_synced", "is_torn", "path", "size")

    def __init__(self, descriptor: int, path: str | os.PathLike[str], sync: Sync) -> None:
        """Take over a descriptor. `path` is for messages, and for `replace`."""
        self._descriptor = descriptor
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        self.path = Path(path)
        self.size: int = os.fstat(descriptor).st_size
        self._synced: int = self.size
        self.is_torn = False
        """Whether bytes of a failed append may stand behind `size`. A writer of segments goes on in a new file."""
        self._sync = sync

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, sync: Sync, lock: bool = True, mode: int = 0o600) -> AppendFile:
        """Open or make a regular file and, with `lock`, hold it alone: a second writer's attempt raises `BlockingIOError`.

        What an earlier process wrote and never synced can be read and still be lost, so it is synced here, and so is the name,
        unless nothing ever is. Raises `OSError`.
        """
        # O_NONBLOCK: to open a pipe that nobody reads would wait forever. Regular files ignore it.
        opened = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, opened, mode)
        try:
            _check_is_regular(descriptor, path)
            if lock:
                _hold(descriptor, path)
            if sync is not Sync.NEVER:
                os.fsync(descriptor)
                sync_directory(Path(path).parent)
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor, path, sync)

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

    def append(self, data: bytes | bytearray, *, keep: Callable[[int], int] | None = None) -> int:
        """Write `data` behind the end, and return how many bytes of it are in the file: all of them.

        When the disk refuses a part, none of it stays and the `OSError` is raised: `TornFileError` where even that failed. With
        `keep`, which is told how many bytes were written, that many of them stay and are returned, and the error is raised only
        if there are none.
        """
        descriptor, written = self.descriptor, 0
        if self.is_torn:
            self._cut_torn()
        try:
            with memoryview(data) as view:
                while written < len(view):
                    written += os.write(descriptor, view[written:])
            if self._sync is Sync.EACH:
                os.fdatasync(descriptor)
        except BaseException as error:
            partly = keep is not None and isinstance(error, OSError) and written < len(data)
            written = keep(written) if keep is not None and partly else 0
            self.size += written
            if not written:
                self._take_back(error)
                raise
            # What is kept counts, also if the rest cannot be cut off now: the next append tries to.
            with contextlib.suppress(TornFileError):
                self._take_back(error)
        else:
            self.size += written
        if self._sync is Sync.EACH:
            self._synced = self.size
        return written

    def read(self, at: int, size: int) -> bytes:
        """Return up to `size` bytes from `at` on: fewer only where the file ends."""
        data = bytearray()
        while len(data) < size and (more := os.pread(self.descriptor, min(size - len(data), READ_BYTES), at + len(data))):
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
            os.fdatasync(self.descriptor)
        except OSError as error:
            self.size = self._synced
            try:
                self._take_back(error)
            finally:
                self.close()
            raise
        self._synced = self.size

    def cut(self, size: int) -> None:
        """Shorten the file to `size` bytes; this needs no room on the disk. Raises `OSError`."""
        os.ftruncate(self.descriptor, size)
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
        fresh = AppendFile.open(temporary, sync=self._sync, mode=stat.S_IMODE(os.fstat(self.descriptor).st_mode))
        try:
            # A crash may have left one.
            fresh.cut(0)
            fresh.append(data)
            fresh.sync()
            temporary.rename(self.path)
        except BaseException:
            fresh.close()
            temporary.unlink(missing_ok=True)
            raise
        self.close()
        self._descriptor = fresh.detach()
        self.size = self._synced = fresh.size
        self.is_torn = False
        sync_directory(self.path.parent)

    def close(self) -> None:
        """Close the file and release its lock. What was not synced stays as it is. Does nothing the second time."""
        if self._descriptor >= 0:
            os.close(self.detach())

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close from now on, and keep the file open."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

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
        self.is_torn = True
        # Somebody else may have emptied a file that is not locked against it: never make it longer.
        os.ftruncate(self.descriptor, min(self.size, os.fstat(self.descriptor).st_size))
        if self._sync is not Sync.NEVER:
            os.fsync(self.descriptor)
        self.is_torn = False


def sync_directory(path: Path) -> None:
    """Make a new name in the directory durable: the sync of a file does not do that. Raises `OSError`."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _hold(descriptor: int, path: str | os.PathLike[str]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        attach(error, Fault(Kind.CONTENDED, "file in use", f"another process writes to {os.fspath(path)}", scope=Scope.CALL))
        raise


def _check_is_regular(descriptor: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
