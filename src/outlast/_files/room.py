"""The room that a disk has for this process, and levels at which it is too little.

*Available* is not *free*: of an ext4 disk 5 % are kept for root, so nothing is available while some is free. And it is no
promise: inside a quota a disk shows the room of all, and the write that fails is the only one to know. So whoever watches a
disk looks at both: `room` before it is full, and `NO_ROOM` in what a write raises.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Codes by which a disk refuses to take more: it is full, a quota is used up, the file may not grow. Room may come back."""


@dataclass(frozen=True, slots=True)
class Room:
    """Room on one disk."""

    available_bytes: int
    """Bytes that this user may still write."""
    available_inodes: int | None
    """Files that this user may still make; None where the file system does not count them (btrfs)."""
    total_bytes: int
    """Bytes of the whole disk, with those that are kept for root."""
    total_inodes: int | None = None
    """Files that the whole disk can hold; None where it does not count them, or the number is not known."""


def room(path: str | os.PathLike[str]) -> Room:
    """Return the room on the disk of `path`, which must exist. Raises `OSError`; blocks for as long as a dead mount does."""
    disk = os.statvfs(path)
    inodes = disk.f_favail if disk.f_files else None
    return Room(disk.f_bavail * disk.f_frsize, inodes, disk.f_blocks * disk.f_frsize, disk.f_files or None)


@dataclass(frozen=True, slots=True)
class Levels:
    """Two levels of room, so that nothing flaps: it is too little below `enter`, and enough again at `leave`.

    Between them it stays what it was. Raises `ValueError` unless `leave` is above `enter`.
    """

    enter: int
    leave: int

    def __post_init__(self) -> None:
        if not 0 <= self.enter < self.leave:
            raise ValueError(f"the level to leave at must be above that to enter at, not {self.leave} and {self.enter}")

    def is_low(self, available: int, *, was_low: bool) -> bool:
        """Return whether `available` is too little; `was_low` is the last answer, False after a start.

        Decided from the level alone: after a restart nothing waits for an edge that has passed.
        """
        return available < (self.leave if was_low else self.enter)
