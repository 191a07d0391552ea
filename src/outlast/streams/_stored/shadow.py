"""A file system that is only looked at: reading passes, and whatever would change something does nothing and says that it did.

So the engine recovers a stream in memory, torn tail and all, beside the process that holds the folder, and no byte changes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.extend import FileSystem, Room

    StrPath = str | os.PathLike[str]
    Buffer = bytes | bytearray | memoryview

_CHANGING: Final = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_ACCMODE


class ShadowFiles:
    """The files of another file system, to look at. A `FileSystem`, for any thread."""

    __slots__ = ("_files",)

    def __init__(self, files: FileSystem) -> None:
        self._files = files

    def open(self, path: StrPath, flags: int, mode: int = 0o600, /) -> int:
        """Open it for reading, and make none."""
        return self._files.open(path, (flags & ~_CHANGING) | os.O_RDONLY, mode)

    def close(self, descriptor: int, /) -> None:
        """Close it."""
        self._files.close(descriptor)

    def write(self, descriptor: int, pieces: Sequence[Buffer], /) -> int:
        """Write nothing."""
        del descriptor
        return sum(map(len, pieces))

    def write_at(self, descriptor: int, data: Buffer, at: int, /) -> int:
        """Write nothing."""
        del descriptor, at
        return len(data)

    def read_at(self, descriptor: int, size: int, at: int, /) -> bytes:
        """Return at most `size` bytes."""
        return self._files.read_at(descriptor, size, at)

    def size(self, descriptor: int, /) -> int:
        """Return the size of the file."""
        return self._files.size(descriptor)

    def mode(self, descriptor: int, /) -> int:
        """Return the permissions of the file."""
        return self._files.mode(descriptor)

    def truncate(self, descriptor: int, size: int, /) -> None:
        """Cut nothing."""

    def allocate(self, descriptor: int, size: int, /) -> None:
        """Take no room."""

    def sync(self, descriptor: int, /) -> None:
        """Sync nothing."""

    def sync_data(self, descriptor: int, /) -> None:
        """Sync nothing."""

    def rename(self, source: StrPath, target: StrPath, /) -> None:
        """Rename nothing."""

    def unlink(self, path: StrPath, /) -> None:
        """Remove nothing."""

    def mkdir(self, path: StrPath, mode: int = 0o700, /) -> None:
        """Make nothing."""

    def rmdir(self, path: StrPath, /) -> None:
        """Remove nothing."""

    def names(self, folder: StrPath, /) -> list[str]:
        """Return the names in the folder."""
        return self._files.names(folder)

    def sync_folder(self, folder: StrPath, /) -> None:
        """Sync nothing."""

    def lock(self, descriptor: int, /) -> None:
        """Hold nothing."""

    def room(self, path: StrPath, /) -> Room:
        """Return the room on the disk of `path`."""
        return self._files.room(path)
