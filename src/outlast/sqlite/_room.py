"""The room for the file and its log: too little is said before the disk is full, and a full disk is told from one large call."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind
from outlast.extend import NO_ROOM, Levels, attach, room, size_text
from outlast.sqlite._faults import LOW_SPACE

if TYPE_CHECKING:
    from pathlib import Path

SHARE: Final = 0.01
LEAST_BYTES: Final = 2 << 20
MOST_BYTES: Final = 512 << 20
"""Writing stops below 1 % of the disk, between 2 MiB and 512 MiB, and goes on at one and a half of that. The least is what a
log holds before SQLite moves it into the file: 1,000 pages of 4 KiB, half of them."""
TRIAL_BYTES: Final = 64 << 10
"""Written to see whether a disk takes anything at all: more than a small transaction appends to the log."""


def levels_for(total_bytes: int) -> Levels:
    """Return the levels that fit a disk of this size."""
    enter = int(min(MOST_BYTES, max(LEAST_BYTES, total_bytes * SHARE)))
    return Levels(enter, enter + enter // 2)


class LowRoom:
    """Whether there is too little room to write. In the writer's thread only."""

    def __init__(self, folder: Path, levels: Levels | None) -> None:
        self._folder = folder
        self._levels = levels
        self._is_low = False

    def check(self, source: str) -> None:
        """Return if there is room; raise an `OSError` that carries the fault if it is low. It costs one statvfs."""
        seen = room(self._folder)
        levels = self._levels or levels_for(seen.total_bytes)
        self._is_low = levels.is_low(seen.available_bytes, was_low=self._is_low)
        if not self._is_low:
            return
        text = (
            f"{size_text(seen.available_bytes)} of {size_text(seen.total_bytes)} available in {self._folder}; "
            f"writing stops below {size_text(levels.enter)} and goes on at {size_text(levels.leave)}"
        )
        error = OSError(errno.ENOSPC, text, str(self._folder))
        attach(error, Fault(Kind.EXHAUSTED, LOW_SPACE, text, source, hint="make room; writing goes on by itself"))
        raise error


def takes_anything(folder: Path) -> bool:
    """Return whether the disk of `folder` takes a small file and syncs it. It blocks; nothing stays."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in NO_ROOM
    return True
