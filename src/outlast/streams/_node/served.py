"""Streams as the node serves them: one `Served` for each incarnation of a stream, kept by its name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast.streams._errors import StreamNotFoundError
from outlast.streams._node import forks, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.streams._model import Chunk
    from outlast.streams._stream import Stream
    from outlast.streams._streams import Streams

SWEEP_MIN: Final = 1024
"""Streams in the map before it is looked at for those that are gone."""


class Served:
    """One incarnation of a stream, as it is served. On the event loop's thread only."""

    __slots__ = (
        "content_type",
        "content_value",
        "depth",
        "expires_at",
        "expires_text",
        "id",
        "is_deleted",
        "is_json",
        "is_text",
        "knows_seq",
        "labels",
        "last_seq",
        "lock",
        "media_type",
        "name",
        "readers",
        "source",
        "start",
        "stream",
        "ttl_s",
        "used_at",
    )

    def __init__(self, stream: Stream, labels: Mapping[str, str], now: float, source: Served | None = None) -> None:
        self.stream = stream
        self.name = stream.name
        self.id = stream.id
        self.labels = labels
        self.content_type = labels.get("content-type", protocol.OCTETS)
        self.content_value = self.content_type.encode("latin-1", "replace")
        self.media_type = protocol.parse_content_type(self.content_type) or protocol.OCTETS
        self.is_json = self.media_type == protocol.JSON
        self.is_text = self.is_json or self.media_type.startswith("text/")
        self.ttl_s = protocol.parse_number(labels.get("ttl", "").encode())
        self.expires_text: str | None = labels.get("expires-at")
        self.expires_at: float | None = None if self.expires_text is None else protocol.parse_instant(self.expires_text)
        self.source = source
        """The stream that it is a fork of, for what is below `start`."""
        self.start = 0 if source is None else forks.start_of(labels, is_json=self.is_json)
        self.depth: int = 0 if source is None else source.depth + 1
        self.is_deleted = forks.DELETED in labels
        """Whether it was deleted, and is there for its forks alone."""
        self.used_at = now
        """The time of the last read or append, on the clock of the event loop."""
        self.readers = 0
        """Those who wait for records: a stream that somebody reads is not idle."""
        self.lock = asyncio.Lock()
        """Held from looking at `last_seq` to the end of an append that has one: they are stored in the order of their checks."""
        self.last_seq: bytes | None = None
        """The highest `Stream-Seq`; None: not known yet, or none came."""
        self.knows_seq = stream.tail == stream.oldest
        """Whether `last_seq` is known: of a stream that has records it is not, until the last one was looked at."""

    @property
    def oldest(self) -> int:
        """The oldest position that can be read. Raises `StreamNotFoundError`, as all of these, once the stream was deleted."""
        return self.stream.oldest if self.source is None else forks.oldest_of(self)

    @property
    def tail(self) -> int:
        """The position that the next record will get."""
        return self.stream.tail

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self.stream.is_closed

    async def fetch(self, position: int, bytes_max: int, wait_s: float = 0.0) -> Chunk:
        """Return records from `position` on, as `Stream.fetch` does. Raises `GoneError` once it was deleted and has forks."""
        if self.source is None or position >= self.start:
            chunk = await self.stream.fetch(position, bytes_max=bytes_max, wait_s=wait_s, until=self._is_ending)
        else:
            chunk = await forks.stitched(self, position, bytes_max)
        if self.is_deleted or (not len(chunk) and self._is_ending()):
            raise forks.GoneError(self.name)
        return chunk

    def _is_ending(self) -> bool:
        return forks.DELETED in self.stream.labels

    def touch(self, now: float) -> None:
        """Begin the TTL again: it was read, or appended to."""
        self.used_at = now

    def enter(self) -> None:
        """Count a reader who waits."""
        self.readers += 1

    def leave(self, now: float) -> None:
        """Count one less; the TTL begins again."""
        self.readers -= 1
        self.used_at = now

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        if self.is_deleted:
            return True
        try:
            _ = self.stream.tail
        except StreamNotFoundError:
            return True
        return False

    def is_expired(self, now: float, wall: float) -> bool:
        """Return whether it is over: idle for its TTL at `now`, or at its instant by the wall clock."""
        if self.ttl_s is not None and now - self.used_at >= self.ttl_s and not self.readers:
            return True
        return self.expires_at is not None and wall >= self.expires_at


class ServedStreams:
    """Those that were asked for. There are never many more than there are streams: the ones that are gone are swept out."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.forks: Final = forks.Forks(streams, self)
        self._by_name: dict[str, Served] = {}
        self.mortal: Final[dict[str, Served]] = {}
        """Those of them that have a TTL or an instant at which they end."""
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._by_name)

    def known(self) -> list[Served]:
        """Return all of them."""
        return list(self._by_name.values())

    async def get(self, name: str, now: float) -> Served:
        """Return the stream of that name as it is now. Raises as `Streams.open`."""
        served = self._by_name.get(name)
        if served is not None and not served.is_gone:
            return served
        stream = await self._streams.open(name)
        return self.add(stream, now, await self.forks.source_of(stream.labels, now))

    def add(self, stream: Stream, now: float, source: Served | None = None) -> Served:
        """Return how a stream is served; there is one such for each incarnation."""
        served = self._by_name.get(stream.name)
        if served is None or served.id != stream.id:
            served = self._by_name[stream.name] = Served(stream, stream.labels, now, source)
            self.mortal.pop(stream.name, None)
            if served.ttl_s is not None or served.expires_at is not None:
                self.mortal[stream.name] = served
            if len(self._by_name) > self._sweep_at:
                self._sweep()
        return served

    def forget(self, served: Served) -> None:
        """Let go of one that was deleted."""
        if self._by_name.get(served.name) is served:
            del self._by_name[served.name]
            self.mortal.pop(served.name, None)

    def _sweep(self) -> None:
        for served in self.known():
            if served.is_gone:
                self.forget(served)
        self._sweep_at = max(SWEEP_MIN, 2 * len(self._by_name))
