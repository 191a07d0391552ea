"""A folder as the commands that only look see it: its files, beside the process that may write them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from outlast import OutlastError
from outlast._cli.streams import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outlast.streams import Chunk, Report, StoredStream

POLL_S: Final = 0.25
"""The wait between two looks at a stream in which nothing is new."""


class FolderStreams:
    """The streams in a folder."""

    def __init__(self, path: Path) -> None:
        """Read their names. Raises `OSError`."""
        from outlast.streams import StoredStreams

        self._stored = StoredStreams(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stored.close()

    @property
    def unknown(self) -> list[tuple[str, str]]:
        """Paths that belong to no stream that is known, and why."""
        return [(str(path), reason) for path, reason in self._stored.unknown]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each stream in values of JSON, with an `error` where it cannot be read."""
        for name in self._stored.names():
            try:
                yield shown.of_stream(self._stored.open(name))
            except (OutlastError, OSError) as error:
                yield {"name": name, "error": shown.reason_of(error)}

    def open(self, name: str) -> FolderStream:
        """Return a stream."""
        return FolderStream(self._stored.open(name))

    def consumers(self, name: str | None) -> list[dict[str, Any]]:
        """Return the consumers of a stream, or of all, in values of JSON."""
        names = self._stored.names() if name is None else [name]
        return [shown.of_consumer(each, found) for each in names for found in self._stored.open(each).consumers()]


class FolderStream:
    """A stream in a folder."""

    def __init__(self, stored: StoredStream) -> None:
        """Show `stored`."""
        self._stored = stored

    @property
    def oldest(self) -> int:
        """The oldest position that can be read."""
        return self._stored.oldest

    @property
    def tail(self) -> int:
        """The position that the next record will get."""
        return self._stored.tail

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self._stored.is_closed

    def read(self, position: int) -> Chunk:
        """Return records from a position on; none at the tail."""
        return self._stored.read(position)

    def wait(self, position: int) -> None:
        """Wait a little if there is nothing new at a position, and look again."""
        if position == self.tail:
            time.sleep(POLL_S)
        self._stored.refresh()


def reports(path: Path, *, repair: bool) -> list[Report]:
    """Return what a check of the folder has found."""
    from outlast.streams import verify

    return [verify(path, repair=repair)]
