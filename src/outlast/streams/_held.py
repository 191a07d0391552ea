"""One incarnation of a stream, as the store holds it: whoever deletes a stream and makes it again gets another."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast import Fault, Kind, Scope, Unavailable
from outlast.streams._commit import Lane
from outlast.streams._consumers import Consumers
from outlast.streams._errors import LimitError, StreamNotFoundError, closed_error
from outlast.streams._reading import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from outlast.streams._consumers import OpenedFiles
    from outlast.streams._format.meta import Meta
    from outlast.streams._log import Log
    from outlast.streams._model import Appended, Chunk, Entry, StreamOptions
    from outlast.streams._volume import Volume

T = TypeVar("T")

FOLLOWERS_MAX: Final = 10_000
RETRY_S: Final = 1.0


class Followers:
    """Those who wait at the tail of any stream of one store, and whether they are to end."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.count = 0
        self.ending: Callable[[], Exception] | None = None


def check_quota(name: str, options: StreamOptions, size: int, has: int = 0, waiting: int = 0) -> None:
    """Raise `LimitError` unless so many bytes may be added."""
    quota = options.quota_bytes
    if quota is not None and has + waiting + size > quota:
        text = (
            f"{size} bytes do not fit into its quota: it has {has}, {waiting} wait to be stored, "
            f"and the limit is {quota}; trim it, or raise quota_bytes"
        )
        raise LimitError(name, text)


class Held:
    """A stream: its queue, its log once that is recovered, and those who wait at its tail. On the event loop's thread only."""

    def __init__(self, volume: Volume, folder: Path, meta: Meta) -> None:
        self.volume = volume
        self.name = meta.name
        self.id = meta.id
        """64 bits that no other stream ever has."""
        self.folder = folder
        self.options = meta.options
        self.created_us = meta.created_us
        self._labels = meta.labels
        self.lane = Lane(meta.name, sync_every_s=meta.options.sync_every_s, on_stored=self.changed)
        self.recovering: asyncio.Task[None] | None = None
        self.gone = False
        """Whether it was deleted, or is being deleted."""
        self.deleting: asyncio.Task[None] | None = None
        self.consumers = Consumers(self)
        self._log: Log | None = None
        self.recovered_tail = 0
        """The tail as it was found: what an earlier process knew of later positions is of records that are lost."""
        self._followers: set[asyncio.Future[None]] = set()
        self._reads: dict[tuple[int, int], asyncio.Task[Chunk]] = {}

    def __repr__(self) -> str:
        return f"<stream {self.name!r} {self.id:016x}>"

    @property
    def log(self) -> Log:
        """Its log. Raises `StreamNotFoundError` once it was deleted."""
        self.check_there()
        assert self._log is not None  # noqa: S101 - nobody gets a stream before it is recovered
        return self._log

    @property
    def known_log(self) -> Log | None:
        """Its log if it is recovered."""
        return self._log

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels; known before it is recovered."""
        return self._labels if self._log is None else self._log.meta.labels

    # The stream as its consumers see it.

    @property
    def cursor_files(self) -> OpenedFiles:
        """The files of cursors on its volume."""
        return self.volume.cursor_files

    @property
    def oldest(self) -> int:
        """The oldest position that can be read."""
        return self.log.view.oldest

    @property
    def tail(self) -> int:
        """The position that the next record gets."""
        return self.log.view.tail

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self.log.view.closed

    async def load(self, read: Callable[[], T]) -> T:
        """Call what reads files of the stream, in a thread for reading. Raises `Unavailable` for its `OSError`."""
        self.check_there()
        return await self.volume.read(self, read)

    async def store(self, write: Callable[[], T]) -> T:
        """Call what writes a little in the folder of the stream, in the thread that writes there, also when the disk is low.

        Raises `Unavailable` for its `OSError`.
        """
        self.check_there()
        return await self.volume.store(self, write)

    async def fetch(self, position: int, bytes_max: int) -> Chunk:
        """Return records from `position` on, none at the tail."""
        return await fetch(self, position, bytes_max, 0.0)

    def recovered(self, log: Log) -> None:
        """Take the log."""
        self._log = self.lane.log = log
        self.recovered_tail = log.view.tail

    def check_there(self) -> None:
        """Raise `StreamNotFoundError` once it was deleted."""
        if self.gone:
            raise self.not_found()

    def not_found(self) -> StreamNotFoundError:
        """Return the error for whoever uses it although it was deleted."""
        return StreamNotFoundError(self.name, "it was deleted; a stream of this name that was made since is another one")

    def check_open(self, size: int) -> None:
        """Raise unless so many bytes may be added."""
        log = self._log
        if self.gone or log is None:
            raise self.not_found()
        view = log.view
        if view.closed:
            raise closed_error(self.name, view.tail)
        check_quota(self.name, self.options, size, view.size_bytes, self.lane.size_bytes)

    def answered(self, entry: Entry) -> Appended | None:
        """Return what was answered for an append that is stored already; None if it is to be stored. The disk is not asked.

        Raises `FencedError`, and `StreamClosedError` when nothing can be added.
        """
        log = self._log
        if self.gone or log is None:
            return None
        known = None if entry.producer is None else log.known(entry.producer)
        if known is None and log.view.closed:
            raise closed_error(self.name, log.view.tail)
        return known

    # Those who wait at the tail.

    def changed(self) -> None:
        """Wake everyone who waits at the tail: there is more, or there never will be."""
        followers = self._followers
        if followers:
            self._followers = set()
            for future in followers:
                if not future.done():
                    future.set_result(None)

    async def share(self, key: tuple[int, int], read: Coroutine[Any, Any, Chunk]) -> Chunk:
        """Return what a read returns, for all who were woken at once and want the same: there may be thousands."""
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.get_running_loop().create_task(read)
            task.add_done_callback(partial(self._was_read, key))
        else:
            read.close()
        return await asyncio.shield(task)

    def _was_read(self, key: tuple[int, int], task: asyncio.Task[Chunk]) -> None:
        self._reads.pop(key, None)
        if not task.cancelled():
            # It was raised to those who still wait for it.
            task.exception()

    async def follow(self, timeout_s: float) -> None:
        """Return at the next change, or after so many seconds. Raises `Unavailable` if too many wait in this store already."""
        store = self.volume.followers
        if store.count >= store.limit:
            reason = f"{store.count} readers wait at the tail of streams (limit {store.limit})"
            fault = Fault(
                Kind.OVERLOADED,
                "followers full",
                reason,
                store.name,
                Scope.CALL,
                RETRY_S,
                "read with fewer, or raise followers_max",
            )
            raise Unavailable(store.name, fault, 0.0, RETRY_S)
        if store.ending is not None:
            raise store.ending()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._followers.add(future)
        store.count += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if timeout_s == float("inf") else timeout_s):
                    await future
        finally:
            store.count -= 1
            self._followers.discard(future)
        if store.ending is not None:
            raise store.ending()
