"""The descriptor that the bytes go to, which may be full for a while, or have no reader."""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, Final

from outlast._files.room import NO_ROOM

if TYPE_CHECKING:
    from collections.abc import Callable

PASSING: Final = NO_ROOM | {errno.EIO}
"""Errors of a disk that may pass."""


class Output:
    """Writes everything to one descriptor. A full disk costs the bytes that do not fit, with a count, and never ends the program.

    Raises `BrokenPipeError` when nobody reads any more. A reader that is slow makes `write` wait, as in any pipe.
    """

    def __init__(self, fd: int, say: Callable[[str], None]) -> None:
        self._fd = fd
        self._say = say
        self._torn = False
        self._lost_now = 0
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        """Write `data`. One line is said when bytes are lost, and one, with their number, when writing goes on."""
        if not data:
            return
        view = memoryview(data)
        written = 0
        try:
            if self._torn:
                os.write(self._fd, b"\n")
                self._torn = False
            while written < len(data):
                written += self._write(view[written:])
        except OSError as error:
            if error.errno not in PASSING:
                raise
            if written:
                self._torn = data[written - 1] != ord("\n")
            if not self._lost_now:
                self._say(f"writing failed: {error.strerror}; what does not fit is dropped and counted, reading goes on")
            self._lost_now += len(data) - written
            self.lost_bytes += len(data) - written
            return
        if self._lost_now:
            self._say(f"writing again; {self._lost_now} bytes were dropped")
            self._lost_now = 0

    def _write(self, view: memoryview) -> int:
        try:
            return os.write(self._fd, view)
        except BlockingIOError:
            # Somebody set the descriptor non-blocking: wait for room.
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll()
            return 0
