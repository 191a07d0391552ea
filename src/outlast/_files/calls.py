"""The calls to the operating system on files that may fail, as one port: so that tests have a disk that fails on demand.

Names, flags and errors are those of `os`: whoever knows POSIX knows what each call promises, and what it does not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from outlast._files.room import Room, room

if TYPE_CHECKING:
    from collections.abc import Sequence

StrPath: TypeAlias = "str | os.PathLike[str]"
Buffer: TypeAlias = "bytes | bytearray | memoryview"

PIECES_MAX: Final = 1024
"""Pieces of one write: IOV_MAX of Linux and of macOS."""


class FileSystem(Protocol):
    """A file system. Any thread may call it; every call may block for the disk, and raises `OSError`.

    A descriptor belongs to the file system that opened it: that of a fake disk is no number of this process.
    """

    def open(self, path: StrPath, flags: int, mode: int = 0o600, /) -> int:
        """Open a regular file, closed in child processes; anything else is refused (EINVAL), a pipe without a wait."""
        ...

    def close(self, descriptor: int, /) -> None:
        """Close it, and with it its lock. The number may be another file's from then on, also when this raises."""
        ...

    def write(self, descriptor: int, pieces: Sequence[Buffer], /) -> int:
        """Write the pieces one behind another in one call, and return how many bytes were taken: 0 only if all are empty."""
        ...

    def write_at(self, descriptor: int, data: Buffer, at: int, /) -> int:
        """Write in place and return how many bytes were taken. On a descriptor with O_APPEND Linux would ignore `at`."""
        ...

    def read_at(self, descriptor: int, size: int, at: int, /) -> bytes:
        """Return at most `size` bytes: fewer where the file ends, or where the system wishes; none only at the end."""
        ...

    def size(self, descriptor: int, /) -> int:
        """Return the size of the file."""
        ...

    def mode(self, descriptor: int, /) -> int:
        """Return the permissions of the file."""
        ...

    def truncate(self, descriptor: int, size: int, /) -> None:
        """Cut the file, or lengthen it by zeros. To cut needs no room."""
        ...

    def allocate(self, descriptor: int, size: int, /) -> None:
        """Lengthen the file to `size` bytes that have their room on the disk from now on; a refusal may leave a part."""
        ...

    def sync(self, descriptor: int, /) -> None:
        """Return when the file is on disk. After a failure never sync this descriptor again: it would report success."""
        ...

    def sync_data(self, descriptor: int, /) -> None:
        """Return when all that a reader needs is on disk, the size too. After a failure never sync this descriptor again."""
        ...

    def rename(self, source: StrPath, target: StrPath, /) -> None:
        """Rename a file or a folder on the same disk; durable with `sync_folder` only."""
        ...

    def unlink(self, path: StrPath, /) -> None:
        """Take the name of a file away. Its room is free once nobody has it open, and on some disks later."""
        ...

    def mkdir(self, path: StrPath, mode: int = 0o700, /) -> None:
        """Make a folder; its name is durable once its parent is synced."""
        ...

    def rmdir(self, path: StrPath, /) -> None:
        """Remove an empty folder."""
        ...

    def names(self, folder: StrPath, /) -> list[str]:
        """Return the names in the folder, in no order."""
        ...

    def sync_folder(self, folder: StrPath, /) -> None:
        """Return when the names in the folder are on disk, and those taken away are gone: a file's sync does not do that."""
        ...

    def lock(self, descriptor: int, /) -> None:
        """Hold the file alone until the descriptor is closed; raises `BlockingIOError` if another descriptor does."""
        ...

    def room(self, path: StrPath, /) -> Room:
        """Return the room on the disk of `path`. A dead mount blocks this for as long as it is dead."""
        ...


class LocalFiles:
    """The file system of this machine."""

    __slots__ = ()

    def open(self, path: StrPath, flags: int, mode: int = 0o600, /) -> int:
        """Open a regular file."""
        # O_NONBLOCK: to open a pipe that nobody reads would wait forever. Regular files ignore it.
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        return descriptor

    def close(self, descriptor: int, /) -> None:
        """Close it."""
        os.close(descriptor)

    def write(self, descriptor: int, pieces: Sequence[Buffer], /) -> int:
        """Write the pieces one behind another, at most 1,024 of them."""
        return os.write(descriptor, pieces[0]) if len(pieces) == 1 else os.writev(descriptor, pieces[:PIECES_MAX])

    def write_at(self, descriptor: int, data: Buffer, at: int, /) -> int:
        """Write in place."""
        return os.pwrite(descriptor, data, at)

    def read_at(self, descriptor: int, size: int, at: int, /) -> bytes:
        """Return at most `size` bytes."""
        return os.pread(descriptor, size, at)

    def size(self, descriptor: int, /) -> int:
        """Return the size of the file."""
        return os.fstat(descriptor).st_size

    def mode(self, descriptor: int, /) -> int:
        """Return the permissions of the file."""
        return stat.S_IMODE(os.fstat(descriptor).st_mode)

    def truncate(self, descriptor: int, size: int, /) -> None:
        """Cut the file, or lengthen it by zeros."""
        os.ftruncate(descriptor, size)

    def allocate(self, descriptor: int, size: int, /) -> None:
        """Lengthen the file to `size` bytes that have their room."""
        os.posix_fallocate(descriptor, 0, size)

    def sync(self, descriptor: int, /) -> None:
        """Return when the file is on disk."""
        os.fsync(descriptor)

    def sync_data(self, descriptor: int, /) -> None:
        """Return when all that a reader needs is on disk."""
        os.fdatasync(descriptor)

    def rename(self, source: StrPath, target: StrPath, /) -> None:
        """Rename a file or a folder."""
        os.rename(source, target)  # noqa: PTH104 - the calls of `os`, as they are.

    def unlink(self, path: StrPath, /) -> None:
        """Take the name of a file away."""
        os.unlink(path)  # noqa: PTH108 - as above.

    def mkdir(self, path: StrPath, mode: int = 0o700, /) -> None:
        """Make a folder."""
        os.mkdir(path, mode)  # noqa: PTH102 - as above.

    def rmdir(self, path: StrPath, /) -> None:
        """Remove an empty folder."""
        os.rmdir(path)  # noqa: PTH106 - as above.

    def names(self, folder: StrPath, /) -> list[str]:
        """Return the names in the folder."""
        return os.listdir(folder)  # noqa: PTH208 - as above.

    def sync_folder(self, folder: StrPath, /) -> None:
        """Return when the names in the folder are on disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, descriptor: int, /) -> None:
        """Hold the file alone."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def room(self, path: StrPath, /) -> Room:
        """Return the room on the disk of `path`."""
        return room(path)


LOCAL_FILES: Final[FileSystem] = LocalFiles()
"""The files of this machine."""


def pieces_behind(pieces: Sequence[Buffer], written: int) -> Sequence[Buffer]:
    """Return what is left of the pieces of a write of which `written` bytes were taken, to be written next."""
    if not written:
        return pieces
    left: list[Buffer] = []
    for piece in pieces:
        if written < len(piece):
            left.append(memoryview(piece)[written:])
        written = max(0, written - len(piece))
    return left
