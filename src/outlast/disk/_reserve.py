"""Room that is kept back on a disk, for cleaning up once it is full: a file whose blocks are allocated, and given back."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from outlast.extend import FileSystem

NAME: Final = ".outlast-reserve"
SHARE: Final = 64
"""A sixty-fourth of the disk: of 64 MiB one, which is some hundred times what a deletion in SQLite or in a journal needs."""
BYTES_MIN: Final = 256 << 10
BYTES_MAX: Final = 16 << 20
"""To clean up, some journals and databases write all they keep once more: a service with larger ones asks for more."""


def reserve_bytes(total: int) -> int:
    """Return the size of the reserve that fits a disk of `total` bytes."""
    return min(BYTES_MAX, max(BYTES_MIN, total // SHARE))


class Reserve:
    """The reserve of one folder. Its methods block for the disk, and any thread may call them."""

    def __init__(self, folder: Path, files: FileSystem) -> None:
        self._path = folder / NAME
        self._files = files
        # Held over the calls: of two that give it back or make it one comes first.
        self._lock = threading.Lock()
        self.held_bytes = 0
        """Its size as far as is known; read it from any thread."""

    def find(self) -> None:
        """Note what an earlier process has left. Raises `OSError`."""
        with self._lock, contextlib.suppress(FileNotFoundError), self._opened(os.O_RDWR) as descriptor:
            self.held_bytes = self._files.size(descriptor)

    def make(self, size: int) -> None:
        """Allocate it; if that fails nothing is kept, and the `OSError` is raised."""
        with self._lock, self._opened(os.O_RDWR | os.O_CREAT) as descriptor:
            try:
                self._files.allocate(descriptor, size)
            except OSError:
                self._files.truncate(descriptor, 0)
                self.held_bytes = 0
                raise
            self.held_bytes = self._files.size(descriptor)

    def release(self) -> bool:
        """Let the disk have its room; return whether there was some."""
        with self._lock, contextlib.suppress(OSError), self._opened(os.O_RDWR) as descriptor:
            # To cut needs no room, and frees it at once; to unlink does not while somebody has it open.
            had = self._files.size(descriptor) > 0
            self._files.truncate(descriptor, 0)
            self.held_bytes = 0
            return had
        return False

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Generator[int]:
        # No link is followed: what it leads to is nobody's reserve.
        descriptor = self._files.open(self._path, flags | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            self._files.close(descriptor)
