"""Sources of bytes: a descriptor until its end, or a file that is followed through its rotations."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES: Final = 1 << 17
"""Read at a time: enough to be worth the shapes of a whole chunk, and little enough to stay in a cache with them."""

KEPT_BYTES: Final = 4 << 20
"""More than a chunk with its shapes."""

PIPE_BYTES: Final = 1 << 20
"""The largest pipe that Linux grants to anybody by default (`/proc/sys/fs/pipe-max-size`)."""


def keep_buffers() -> None:
    """Let malloc use the buffers of a chunk again for the next one, where that is glibc's; otherwise nothing happens.

    It starts by giving back to the kernel whatever is larger than 128 KiB: 40,000 page faults for a million lines, a tenth of the
    time. From the first larger block that is freed it learns to keep blocks of that size, see M_MMAP_THRESHOLD in mallopt(3).
    """
    bytes(KEPT_BYTES)


class Source(Protocol):
    """Bytes that can be read without blocking once the descriptor is ready."""

    waits_for: int | None
    """The descriptor to be polled before `read`; None: `read` never blocks."""
    ends: bool
    """Whether no bytes mean that it is over."""

    def read(self) -> bytes:
        """Return the bytes there are; none at the end."""
        ...

    def close(self) -> None:
        """Close it, if it is ours to close."""
        ...


class Descriptor:
    """Reads a pipe, a socket, a terminal or a file until it ends."""

    ends = True

    def __init__(self, fd: int) -> None:
        """The descriptor stays the caller's. A pipe is made to hold more, so that a burst does not stop its producer."""
        self.waits_for: int | None = fd
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def read(self) -> bytes:
        """Read what there is, at most `READ_BYTES`."""
        return os.read(self.waits_for if self.waits_for is not None else -1, READ_BYTES)

    def close(self) -> None:
        """Leave the descriptor open: it is the caller's."""


class Followed:
    """Reads a file from its beginning and goes on as it grows, is truncated, or is replaced by another of its name."""

    ends = False
    waits_for: int | None = None

    def __init__(self, path: Path) -> None:
        """Open `path`; raises `OSError` if it is not there."""
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._replaced = False

    def read(self) -> bytes:
        """Return what was appended; the file that replaced it, if any, begins after its end."""
        data = os.read(self._fd, READ_BYTES)
        if data:
            return data
        if self._replaced:
            # Nothing was appended to the old one since it was seen to be replaced.
            self._replaced = False
            fresh = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            os.close(self._fd)
            self._fd = fresh
            return os.read(self._fd, READ_BYTES)
        return self._look() or b""

    def _look(self) -> bytes | None:
        here = os.fstat(self._fd)
        if here.st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            return os.read(self._fd, READ_BYTES)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return None
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            self._replaced = True
            return self.read()
        return None

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
