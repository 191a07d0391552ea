"""The things that the streams of one volume have in common: the file system, what is open, and who says that there is room."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar

from outlast.extend import LOCAL_FILES, Descriptors
from outlast.streams._log.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.extend import FileSystem
    from outlast.streams._errors import StreamError
    from outlast.streams._format.index import Index
    from outlast.streams._log.reading import Opened
    from outlast.streams._log.tail import Tail

P = ParamSpec("P")
T = TypeVar("T")

READERS_MAX: Final = 112
WRITERS_MAX: Final = 112
"""With those that are open for the length of one call a volume stays below 256 descriptors."""
HINTS_MAX: Final = 10_000
INDEX_ENTRIES_MAX: Final = 200_000
"""An entry takes some 80 bytes in memory, and stands for 64 KiB: the indexes of 12 GiB."""
OPENED_BYTES_MAX: Final = 16 << 20
"""Or the one batch that was opened last, which may have twice that."""


class Space(Protocol):
    """The guard of the room on a disk: `outlast.disk.Disk` is one. Any thread may call it."""

    def admit(self, size: int, /) -> None:
        """Return if `size` bytes more may be written; else raise an `OSError` that says why not."""
        ...

    def cleaning(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that makes room, and once more with the reserve given back when the disk has no room for it."""
        ...


class NoGuard:
    """Lets everything in: the space of a disk that nobody watches."""

    __slots__ = ()

    def admit(self, size: int, /) -> None:
        """Let it in."""

    def cleaning(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function."""
        return function(*args, **kwargs)


class Shared:
    """One for each volume. `report` is told, in any thread, of damage that was found and kept nobody from reading."""

    def __init__(
        self,
        *,
        disk: Space | None = None,
        files: FileSystem = LOCAL_FILES,
        report: Callable[[StreamError], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,
        readers_max: int = READERS_MAX,
        writers_max: int = WRITERS_MAX,
    ) -> None:
        """`note` is told of what is worth a line at INFO: a torn tail that was cut."""
        self.files = files
        self.disk: Space = disk or NoGuard()
        self.report = report
        self.note = note
        self.hints: Recent[tuple[str, int], tuple[int, int]] = Recent(HINTS_MAX)
        """By path and position where a reader stopped: the offset and the first position of the batch to go on with."""
        self.indexes: Recent[str, Index] = Recent(INDEX_ENTRIES_MAX)
        self.opened: Recent[tuple[str, int], Opened] = Recent(OPENED_BYTES_MAX)
        self.readers: Descriptors[str, int] = Descriptors(readers_max, self._open_reader, files.close)
        self.writers: Descriptors[Tail, tuple[Tail, int]] = Descriptors(writers_max, _open_writer, _close_writer)

    def _open_reader(self, path: str) -> int:
        return self.files.open(path, os.O_RDONLY)


def _open_writer(tail: Tail) -> tuple[Tail, int]:
    return tail, tail.open()


def _close_writer(opened: tuple[Tail, int]) -> None:
    tail, descriptor = opened
    tail.let_go(descriptor)
