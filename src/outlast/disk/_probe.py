"""The proof that a disk can be written again: as much room as the disk lacked, a write and a sync."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.extend import FileSystem

NAME: Final = ".outlast-probe"
BYTES: Final = 4096
"""Written and synced: one block."""
TRIES: Final = 3
"""Attempts to make the file: another process that uses the folder may be at it too."""
UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Codes of a disk that cannot allocate: there the room is proved by writing all of it."""


def write_probe(folder: Path, files: FileSystem, room_bytes: int) -> None:
    """Prove that `room_bytes` more fit, and that what is written reaches the disk. Raises `OSError`; nothing stays.

    The room is asked for as well as a block written, because a disk within a quota shows the room of all: at the border a
    block would fit, and the next append would not.
    """
    path = folder / NAME
    descriptor = _opened(path, files)
    try:
        _fill(descriptor, files, room_bytes)
        files.sync(descriptor)
    finally:
        # Closed first: what somebody has open keeps its room. What the close says, a late EDQUOT of NFS for one, counts.
        try:
            files.close(descriptor)
        finally:
            with contextlib.suppress(FileNotFoundError):
                files.unlink(path)


def _opened(path: Path, files: FileSystem) -> int:
    """Make the file; one that a process has left which died, or that somebody has put there, goes first."""
    for _ in range(TRIES):
        try:
            return files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                files.unlink(path)
    raise BlockingIOError(errno.EAGAIN, "other processes prove this disk again and again", os.fspath(path))


def _fill(descriptor: int, files: FileSystem, room_bytes: int) -> None:
    block = bytes(BYTES)
    try:
        files.allocate(descriptor, room_bytes)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        blocks = max(1, room_bytes // BYTES)
    else:
        blocks = 1
    for _ in range(blocks):
        _write(descriptor, files, block)


def _write(descriptor: int, files: FileSystem, block: bytes) -> None:
    written = 0
    while written < len(block):
        # A short write is how a disk that runs full begins to refuse; the next one says why.
        written += files.write(descriptor, [block[written:]])
