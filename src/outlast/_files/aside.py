"""A bounded file for what nothing else would take: kept for people, never read again by the program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast._files.append import AppendFile, Sync

if TYPE_CHECKING:
    from pathlib import Path

BYTES_MAX: Final = 8 * 1024 * 1024


class Aside:
    """Keep lines in a file that is made when there is something to keep, and opened again for each: it can be moved away.

    At the bound, and when the disk does not take it, a line is lost, counted, and said so. Its method blocks for a disk write:
    call it from a thread, one at a time.
    """

    def __init__(self, path: Path, *, bytes_max: int = BYTES_MAX) -> None:
        """Do nothing yet. The file has at most `bytes_max` bytes."""
        self.path = path
        self.bytes_max = bytes_max
        self.kept = self.lost = 0

    def put(self, data: bytes) -> str:
        """Keep whole lines; they are on disk when this returns. Return where they are now, for people. Never raises."""
        try:
            with AppendFile.open(self.path, sync=Sync.EACH) as file:
                file.cut_line()
                if file.size + len(data) <= self.bytes_max:
                    file.append(data)
                    self.kept += 1
                    return f"is kept in {self.path}"
        except OSError as error:
            self.lost += 1
            return f"is lost: {self.path} could not be written ({error.strerror})"
        self.lost += 1
        return f"is lost: {self.path} is full ({self.bytes_max} bytes); move it away"
