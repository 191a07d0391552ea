"""Keep what was folded, compressed and bounded, so that nothing is lost for good.

A spool is a directory of files `folded-<time>-<number>.log.gz`, each the folded records of a stretch, in order, one after
the other with newlines between. Every `flush` makes what was added so far readable with `zcat`, though the process be
killed. The oldest files are deleted when all together exceed `bytes_max`. A spool never raises and never waits for space:
on a full disk what does not fit is dropped with a count, and tried again later.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from typing import TYPE_CHECKING, Final

from outlast._core.backoff import INITIAL, Backoff, Jitter
from outlast._files.append import AppendFile, Sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEGMENTS: Final = 16
"""The bound is shared by this many files: one sixteenth is lost at a time."""

AGAIN: Final = Backoff(base_s=5.0, cap_s=300.0, jitter=Jitter.NONE)
"""After an error it is tried again, first after 5 s, then after twice as long, at most five minutes."""

GZIP: Final = 31
"""The window of zlib that writes gzip's header and trailer."""


class FoldSpool:
    """Appends folded records to files in `folder`, of at most `bytes_max` bytes together.

    `say` is told in one line when it cannot write, and in one when it can again. Call `flush` now and then, and `close`.
    """

    def __init__(self, folder: Path, bytes_max: int, say: Callable[[str], None], now: float, stamp: str) -> None:
        """`stamp` makes the file names of this run unique and sortable."""
        self._folder = folder
        self._bytes_max = bytes_max
        self._say = say
        self._now = now
        self._stamp = stamp
        self._number = 0
        self._file: AppendFile | None = None
        self._packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
        self._dirty = 0
        self._rng = random.Random()
        self._trouble = INITIAL
        self._again_at: float | None = None
        self.kept = 0
        """Records that are in the files, or were until their file was the oldest."""
        self.dropped = 0
        """Records that could not be written."""
        self.deleted_files = 0

    def add(self, records: list[bytes]) -> None:
        """Append records."""
        if self._again_at is not None and self._now < self._again_at:
            self.dropped += len(records)
            return
        try:
            file = self._file or self._open()
            file.append(self._packer.compress(b"\n".join(records) + b"\n"))
            self._dirty += len(records)
            if file.size >= self._bytes_max // SEGMENTS:
                self._finish(file)
        except OSError as error:
            self.dropped += len(records)
            self._fail(error)

    def flush(self, now: float) -> None:
        """Make what was added readable; also tells the time."""
        self._now = now
        if self._file is None or not self._dirty:
            return
        try:
            self._file.append(self._packer.flush(zlib.Z_FULL_FLUSH))
        except OSError as error:
            self._fail(error)
            return
        self._settle()

    def close(self) -> None:
        """Finish the file at hand."""
        if self._file is None:
            return
        try:
            self._finish(self._file)
        except OSError as error:
            self._fail(error)

    def _open(self) -> AppendFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._folder / f"folded-{self._stamp}-{self._number:06}.log.gz"
        self._file = file = AppendFile.open(name, sync=Sync.NEVER, lock=False, mode=0o640)
        self._number += 1
        self._packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
        self._delete_oldest(name.name)
        return file

    def _finish(self, file: AppendFile) -> None:
        file.append(self._packer.flush(zlib.Z_FINISH))
        self._settle()
        file.close()
        self._file = None

    def _settle(self) -> None:
        """Count what was added as kept: it is written, and readable."""
        self.kept += self._dirty
        self._dirty = 0
        if self._again_at is not None:
            self._say(f"spool {self._folder}: writing again; {self.dropped} folded records are missing from it")
            self._again_at = None
            self._trouble = INITIAL

    def _fail(self, error: OSError) -> None:
        self.dropped += self._dirty
        self._dirty = 0
        if self._again_at is None:
            self._say(f"spool {self._folder}: {error.strerror or error}; folded records are only counted until it can be written")
        self._trouble, again_s = AGAIN.next_always(self._trouble, self._now, self._rng)
        self._again_at = self._now + again_s
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _delete_oldest(self, newest: str) -> None:
        """Keep within the bound, with room for the file just begun. Files of earlier runs count, others do not."""
        files = sorted(path for path in self._folder.glob("folded-*.log.gz") if path.name != newest)
        sizes = [path.stat().st_size for path in files]
        room = self._bytes_max - self._bytes_max // SEGMENTS
        total = sum(sizes)
        for path, size in zip(files, sizes, strict=True):
            if total <= room:
                break
            path.unlink()
            total -= size
            self.deleted_files += 1
