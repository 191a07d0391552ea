"""The biggest consumers of a disk: what lies under a folder, summed up within a budget. It reads, and changes nothing."""

from __future__ import annotations

import heapq
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast.extend import clean, size_text

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_MAX: Final = 0.2
ENTRIES_MAX: Final = 50_000
NAMED_MAX: Final = 3
"""Consumers that are named: more would be no help in a line."""
MOST: Final = 0.8
"""A folder in which one entry takes so much is named by that entry."""
ELSEWHERE: Final = 0.1
"""The part of what is used from which on it is told that it lies outside of the folder."""
BLOCK: Final = 512
"""Bytes of a block as `stat` counts them, whatever the blocks of the disk are."""
PATH_LENGTH_MAX: Final = 100


class Budget:
    """A search may look at so many entries, and go on until `is_over` says so, which it is asked before each."""

    def __init__(self, entries: int, is_over: Callable[[], bool]) -> None:
        self._entries = entries
        self._is_over = is_over

    def take(self) -> bool:
        """Return whether one more entry may be looked at."""
        if self._entries <= 0 or self._is_over():
            return False
        self._entries -= 1
        return True


@dataclass(slots=True)
class Folder:
    """A folder, and the bytes that all in it take on the disk."""

    path: str
    parent: Folder | None = None
    size_bytes: int = 0
    folders: list[Folder] = field(default_factory=list["Folder"])
    files: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """The biggest of its files, `NAMED_MAX` of them."""

    def add(self, size_bytes: int) -> None:
        """Count bytes here and in all that it lies in."""
        at: Folder | None = self
        while at is not None:
            at.size_bytes += size_bytes
            at = at.parent

    def biggest(self) -> list[tuple[int, str]]:
        """Return what takes most in it, each named as closely as possible."""
        parts = [folder.narrowed() for folder in self.folders] + self.files
        return heapq.nlargest(NAMED_MAX, (part for part in parts if part[0]))

    def narrowed(self) -> tuple[int, str]:
        """Return the size and path of what takes most of it: its own, unless that is one of its entries."""
        at, most = self, MOST * self.size_bytes
        while (inside := max(at.folders, key=lambda one: one.size_bytes, default=None)) and inside.size_bytes >= most:
            at = inside
        file = max(at.files, default=(0, ""))
        return file if file[0] >= most else (at.size_bytes, at.path + "/")


def consumers(root: str, used_bytes: int, budget: Budget) -> str:
    """Return half a sentence about what takes the room of a disk, of which `used_bytes` are used; "" if it cannot be read.

    It goes level by level, so that a budget that runs out has seen the large folders. Other file systems, and what links lead
    to, are not entered; a file of several names counts once. Deleted files that somebody has open are in no folder.
    """
    try:
        device = os.stat(root).st_dev  # noqa: PTH116 - it is the same call, and this module counts entries by the thousand.
    except OSError:
        return ""
    top = Folder(root)
    complete = _walk(top, device, budget)
    # Within a quota the disk shows the room of all.
    used_bytes = max(used_bytes, top.size_bytes)
    named = ", ".join(f"{_short(path, root)} {size_text(size)}" for size, path in top.biggest())
    found = f"{size_text(top.size_bytes)} of the {size_text(used_bytes)} used were found in {root}"
    if not complete:
        found += " in time"
    elif used_bytes - top.size_bytes >= ELSEWHERE * used_bytes:
        found += ", the rest lies elsewhere, or was deleted and is open"
    return f"{found}: {named}" if named else found


def _walk(top: Folder, device: int, budget: Budget) -> bool:
    """Sum up what lies below; return whether all of it was seen."""
    complete, seen, waiting = True, set[int](), deque([top])
    while waiting:
        folder = waiting.popleft()
        size = 0
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    if not budget.take():
                        folder.add(size)
                        return False
                    size += _size(folder, entry, device, seen, waiting)
        except OSError:
            # It went away meanwhile, or is not ours to read.
            complete = False
        folder.add(size)
    return complete


def _size(folder: Folder, entry: os.DirEntry[str], device: int, seen: set[int], waiting: deque[Folder]) -> int:
    """Return the bytes that an entry takes by itself; queue it if it is a folder."""
    found = entry.stat(follow_symlinks=False)
    if found.st_dev != device or found.st_ino in seen:
        return 0
    size = found.st_blocks * BLOCK
    if stat.S_ISDIR(found.st_mode):
        inside = Folder(entry.path, folder)
        folder.folders.append(inside)
        waiting.append(inside)
        # It counts with what lies in it.
        inside.size_bytes += size
        return size
    if found.st_nlink > 1:
        seen.add(found.st_ino)
    place = (size, entry.path)
    if len(folder.files) < NAMED_MAX:
        heapq.heappush(folder.files, place)
    else:
        heapq.heappushpop(folder.files, place)
    return size


def _short(path: str, root: str) -> str:
    return clean(os.path.relpath(path, root) + ("/" if path.endswith("/") else ""), PATH_LENGTH_MAX)
