"""Streams as they lie in a folder, to look at beside the process that serves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from outlast.extend import LOCAL_FILES
from outlast.streams._catalogue import look_over
from outlast.streams._consumers import load
from outlast.streams._errors import DamagedError, StreamNotFoundError, TrimmedError
from outlast.streams._format.frames import FrameError, salt_of
from outlast.streams._format.names import META_NAME, parse_segment_name
from outlast.streams._format.scan import batches
from outlast.streams._log import Log, Shared, read_meta
from outlast.streams._log.pieces import reader
from outlast.streams._model import Chunk
from outlast.streams._stored.shadow import ShadowFiles

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from outlast.extend import FileSystem
    from outlast.streams._format.meta import Meta
    from outlast.streams._log import View
    from outlast.streams._model import StreamOptions

STREAMS_NAME: Final = "streams"
ATTEMPTS_MAX: Final = 5
"""Looks at a stream whose segments are removed at the same time, one after another, before that is an error."""
READ_BYTES: Final = 1 << 20


class StoredConsumer(NamedTuple):
    """A consumer as its cursor says. `lag` counts what is not acknowledged, `open` included and `set_aside` not."""

    name: str
    next: int
    lag: int
    open: int
    set_aside: tuple[range, ...]
    skipped: int


class StoredStreams:
    """The streams in a folder, to look at while another process serves them, or none does.

    Nothing is locked, made, cut or synced. What is seen is what is in the files: the last records may not be on disk yet, and
    are taken back if they cannot be. Everything blocks for the disk. For one thread at a time.
    """

    def __init__(self, path: str | os.PathLike[str], *, files: FileSystem = LOCAL_FILES) -> None:
        """Read the names of the streams. Raises `OSError`: `FileNotFoundError` when there is no such folder."""
        self.path = Path(path)
        self._shared = Shared(files=ShadowFiles(files))
        # Not there: a folder in which no stream was ever made.
        files.names(self.path)
        found = look_over(self.path / STREAMS_NAME, self._shared.files)
        self._folders = {meta.name: (folder, meta) for folder, meta in found.streams}
        self.unknown = [(folder, reason) for folder, reason in found.unknown]
        """Folders of which nobody can say which stream they hold, and why."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """Return the names of all streams, in their order."""
        return sorted(self._folders)

    def open(self, name: str) -> StoredStream:
        """Return a stream. Raises `StreamNotFoundError`, `DamagedError`, `outlast.extend.NewerFormatError` and `OSError`."""
        if name not in self._folders:
            unknown = f", and {len(self.unknown)} folders there belong to no stream that is known" if self.unknown else ""
            raise StreamNotFoundError(name, f"there is no such stream among the {len(self._folders)} in {self.path}{unknown}")
        return StoredStream(*self._folders[name], self._shared)

    def close(self) -> None:
        """Let go of the files."""
        self._shared.readers.close()


class StoredStream:
    """One stream, as it was when it was last looked at: at the beginning, or by `refresh`."""

    def __init__(self, folder: Path, meta: Meta, shared: Shared) -> None:
        """Look at it. Get one from `StoredStreams.open`."""
        self._folder = folder
        self._shared = shared
        self._meta = meta
        self._log = self._looked()

    @property
    def name(self) -> str:
        """Its name."""
        return self._meta.name

    @property
    def id(self) -> str:
        """16 hexadecimal digits: the name of its folder."""
        return self._folder.name

    @property
    def options(self) -> StreamOptions:
        """The way it is kept."""
        return self._meta.options

    @property
    def oldest(self) -> int:
        """The oldest position that can be read."""
        return self._view.oldest

    @property
    def tail(self) -> int:
        """The position that the next record will get."""
        return self._view.tail

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes on the disk."""
        return self._view.size_bytes

    @property
    def segments(self) -> int:
        """The number of its segments."""
        return len(self._view.segments)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self._view.closed

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels: texts for whoever serves it."""
        return MappingProxyType(dict(self._meta.labels))

    @property
    def _view(self) -> View:
        return self._log.view

    def read(self, position: int, bytes_max: int = READ_BYTES) -> Chunk:
        """Return records from a position on, at least one; none at the tail.

        Raises `TrimmedError`, `BeyondTailError`, `DamagedError` (which says where to go on), `OSError`.
        """
        try:
            found = self._log.read(position, bytes_max)
        except DamagedError:
            # The file of a segment that is trimmed at this moment is missing.
            self.refresh()
            if position < self.oldest:
                raise TrimmedError(self.name, position, self.oldest, self.tail) from None
            raise
        return Chunk(found.first, found.next, found.records, found.times_us, found.headers)

    def refresh(self) -> None:
        """Look again. Raises as `open`; `StreamNotFoundError` once it was deleted, though another has its name by now."""
        last = self._view.segments[-1]
        try:
            newest = max(
                first for name in self._shared.files.names(self._folder) if (first := parse_segment_name(name)) is not None
            )
            meta = read_meta(self._folder, self._shared.files)
        except (FileNotFoundError, ValueError):
            raise StreamNotFoundError(self.name, "it was deleted") from None
        if newest != last.first or meta.oldest != self._meta.oldest:
            self._shared.readers.forget(last.path)
            self._meta = meta
            self._log = self._looked()
        else:
            self._meta = meta
            self._log.view = self._grown(last.first, last.path)

    def consumers(self) -> list[StoredConsumer]:
        """Return its consumers, in the order of their names. Raises `DamagedError`, `NewerFormatError`, `OSError`."""
        cursors = load(self._folder, self.name, int(self.id, 16), self._shared.files)
        return [
            StoredConsumer(
                name,
                cursor.next,
                cursor.remaining(self.tail),
                len(cursor.open),
                tuple(range(run.first, run.end) for run in cursor.set_aside),
                cursor.skipped,
            )
            for name, cursor in sorted(cursors.items())
        ]

    def _looked(self) -> Log:
        attempts = ATTEMPTS_MAX
        while True:
            attempts -= 1
            try:
                return Log.recover(self._folder, self._shared)
            except FileNotFoundError:
                # A segment was trimmed away since the names were read; or the stream was deleted.
                if META_NAME not in self._names():
                    raise StreamNotFoundError(self.name, "it was deleted") from None
                if not attempts:
                    raise

    def _names(self) -> list[str]:
        try:
            return self._shared.files.names(self._folder)
        except FileNotFoundError:
            return []

    def _grown(self, first: int, path: str) -> View:
        """Return the view with what the last segment has more by now. A frame that is not whole is not there yet."""
        view = self._view
        files = self._shared.files
        tail, end, closed = view.tail, view.end, view.closed or self._meta.is_closed
        with self._shared.readers.use(path) as descriptor:
            read = reader(files, descriptor)
            size = files.size(descriptor)
            try:
                for batch in batches(read, salt=salt_of(int(self.id, 16), first), begin=end, end=size, position=tail):
                    tail, end, closed = batch.next, batch.end, closed or batch.closes
            except FrameError:
                pass
        return replace(view, tail=tail, end=end, size_bytes=view.size_bytes + end - view.end, closed=closed)
