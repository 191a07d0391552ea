"""The stream, as its consumers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from outlast.streams._consumers._file import OpenedFiles
    from outlast.streams._model import Chunk, StreamOptions

T = TypeVar("T")


class Cleaning(Protocol):
    """Calls a function that needs a little room, also on a full disk: `outlast.disk.Disk.cleaning` is one."""

    def __call__(self, function: Callable[[], T], /) -> T:
        """Return what the function returns; any thread may call it."""
        ...


class Host(Protocol):
    """One incarnation of a stream. Once it is deleted `oldest` and all below raise `StreamNotFoundError`."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int: ...
    @property
    def folder(self) -> Path: ...
    @property
    def options(self) -> StreamOptions: ...
    @property
    def cursor_files(self) -> OpenedFiles: ...
    @property
    def recovered_tail(self) -> int: ...
    @property
    def oldest(self) -> int: ...
    @property
    def tail(self) -> int: ...
    @property
    def is_closed(self) -> bool: ...

    async def load(self, read: Callable[[], T], /) -> T:
        """Call a function that reads files of the stream, in a thread for reading. Raises `Unavailable` for its `OSError`."""
        ...

    async def fetch(self, position: int, bytes_max: int, /) -> Chunk:
        """Return records from `position` on; raises as `Stream.fetch`."""
        ...

    async def follow(self, timeout_s: float, /) -> None:
        """Return when something was appended, or the stream closed, or after so many seconds."""
        ...

    async def store(self, write: Callable[[], T], /) -> T:
        """Call a function that writes a little on the volume of the stream, in its thread, also when the disk is low.

        Raises `Unavailable` for the `OSError` of a disk that is full or gone.
        """
        ...
