"""The file of `--log`: whole lines, unbuffered, rotated by size and age, never more than its share of the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from typing import TYPE_CHECKING, Final

from outlast._core.faults import ConfigurationError
from outlast._core.quantities import size_text
from outlast._files.append import AppendFile, Sync
from outlast._files.room import NO_ROOM, room
from outlast._programs.guard.rotation import Files, Limits, plan
from outlast.logs._places import BATCH_BYTES

if TYPE_CHECKING:
    from pathlib import Path

_TICK_S: Final = 1.0
_LOOK_S: Final = 10.0
"""The directory is read again this often: somebody else may have removed a rotated file."""


class LogFile:
    """A `LogPlace` (see `logs/_places.py`). One process writes one log: the file is locked while it is open.

    Rotated files are `NAME.000001`, `NAME.000002`, …: numbers, because clocks step. A write that the disk refuses
    half-way is taken back to the end of its last whole line with `ftruncate`, so that the file ends with a whole line at
    every moment but during the write itself. Nothing is synced: after a power cut the last seconds may be missing.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        """Open the file; raises ConfigurationError when that can never work, and nothing when the disk is only full."""
        self.path = path
        self.batch_bytes = BATCH_BYTES
        self.resumes = True
        self.tick_s: float | None = _TICK_S
        self.cap_bytes = 0
        self.paused = False
        self.rotations = 0
        self.removed = 0
        self._limits = limits
        self._file: AppendFile | None = None
        self._opened_at = 0.0
        self._inside = False
        self._continues = False
        """Whether an unfinished last line is ours, and its rest the next thing to be written."""
        self._rotated: list[tuple[str, int]] = []
        self._looked_at = float("-inf")
        self._pattern = re.compile(re.escape(path.name) + r"\.(\d{6,})")
        try:
            self._open()
        except OSError as error:
            if error.errno not in _MAY_PASS:
                reason = "another process writes it" if isinstance(error, BlockingIOError) else error.strerror or str(error)
                raise ConfigurationError(f"cannot log to {path}: {reason}") from error

    @property
    def size_bytes(self) -> int:
        """Of the written file and the rotated ones."""
        return (self._file.size if self._file else 0) + sum(size for _, size in self._rotated)

    def _open(self) -> AppendFile:
        file = AppendFile.open(self.path, sync=Sync.NEVER, mode=0o640)
        self.close()
        self._file = file
        self._inside = file.size > 0 and file.read(file.size - 1, 1) != b"\n"
        # A file that was there before is at least as old as its last change.
        age_s = max(0.0, time.time() - os.fstat(file.descriptor).st_mtime) if file.size else 0.0
        self._opened_at = time.monotonic() - age_s
        return file

    def begin(self) -> None:
        """Do nothing: the file was opened by `__init__`, so that one that can never be written is refused at once."""

    def has_room(self, timeout_s: float) -> bool:
        """Return True: only `write` can know, and raises where there is no room."""
        del timeout_s
        return True

    def write(self, data: bytes) -> int:
        """Write whole lines as far as there is room; raises OSError when there is none for even one."""
        file = self._maintain()
        if self.paused:
            allowed = size_text(self.cap_bytes)
            raise OSError(errno.ENOSPC, f"the disk is nearly full and allows this log {allowed}")
        if self._inside and not self._continues:
            file.append(b"\n")
            self._inside = False

        def keep(written: int) -> int:
            # Whole lines: the rest comes again, and a reader never sees half a line, unless it is one that had begun before.
            return data.rfind(b"\n", 0, written) + 1 or written * self._inside

        written = file.append(data, keep=keep)
        self._inside = data[written - 1 : written] != b"\n"
        self._continues = self._inside
        return written

    def tick(self) -> None:
        """Rotate by age, give way on a disk that fills up, find out that the file was moved."""
        self._maintain()

    def _maintain(self) -> AppendFile:
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._look()
        file = self._file or self._open()
        files = Files(file.size, now - self._opened_at, tuple(self._rotated), room(self.path.parent).available_bytes)
        due = plan(files, self._limits, paused=self.paused)
        self.cap_bytes, self.paused = due.cap_bytes, due.pause
        for name in due.remove:
            # What cannot be removed is found again at the next look.
            with contextlib.suppress(OSError):
                (self.path.parent / name).unlink()
            self.removed += 1
            self._rotated = [kept for kept in self._rotated if kept[0] != name]
        # A line that has only begun is finished in the same file, unless there is no end of it.
        if due.rotate and (not self._continues or file.size >= 2 * self._limits.size_bytes_max):
            return self._rotate(file.size)
        return file

    def _rotate(self, size: int) -> AppendFile:
        last = max((int(name.rpartition(".")[2]) for name, _ in self._rotated), default=0)
        name = f"{self.path.name}.{last + 1:06d}"
        self.path.rename(self.path.parent / name)
        self._rotated.append((name, size))
        self.rotations += 1
        self._continues = False
        # When the new file cannot be made, the lines wait; the next look finds that there is no file of this name.
        self._looked_at = float("-inf")
        return self._open()

    def _look(self) -> None:
        """Read the directory; when the file has been moved or removed, let go of it."""
        found: list[tuple[int, str, int]] = []
        with os.scandir(self.path.parent) as entries:
            for entry in entries:
                match = self._pattern.fullmatch(entry.name)
                if match:
                    with contextlib.suppress(OSError):
                        found.append((int(match[1]), entry.name, entry.stat(follow_symlinks=False).st_size))
        self._rotated = [(name, size) for _, name, size in sorted(found)]
        if self._file is not None:
            try:
                there, ours = self.path.stat(), os.fstat(self._file.descriptor)
                moved = (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
            except FileNotFoundError:
                moved = True
            if moved:
                self._open()

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


_MAY_PASS: Final = NO_ROOM | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
