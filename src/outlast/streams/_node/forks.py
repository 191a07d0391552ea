"""Forks: a stream that begins at a position of another one, and shows what that one has below it as its own.

A fork keeps only what is added to it. Its labels say whose fork it is, by the id of the source: so the forks of a stream are
found again after a start, and no count of them can be wrong. A stream that has forks is deleted by a label: nobody sees it any
more, its name is taken, and its records are there for its forks. It goes with the last of them, and so does its own source.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast import OutlastError
from outlast.streams._errors import BeyondTailError, LimitError, StreamNotFoundError, TrimmedError
from outlast.streams._model import Chunk
from outlast.streams._node import protocol
from outlast.streams._node.answers import RefusalError, bad_request, refusal
from outlast.streams._node.requests import PREFIX, stream_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served, ServedStreams
    from outlast.streams._stream import Stream
    from outlast.streams._streams import Streams

FORKED_FROM: Final = "forked-from"
"""The label of a fork with the id of its source."""
OFFSET: Final = "fork-offset"
SUB_OFFSET: Final = "fork-sub-offset"
LABELS: Final = (FORKED_FROM, OFFSET, SUB_OFFSET)
"""By these a fork is the one that is asked for again."""
KEPT: Final = (*LABELS, "ttl", "expires-at")
"""The labels that a hidden stream keeps besides its media type. Whoever made it in the process may have given it more."""
DELETED: Final = "deleted"
"""The label of a stream that was deleted while it had forks."""
DEPTH_MAX: Final = 32
"""Forks of forks: a read may have to ask each of them."""
BEGINNING: Final = frozenset({protocol.START, "0000000000000000_0000000000000000"})
"""Offsets that stand for the beginning of any stream. The second is the first offset of the protocol's own server, which clients
know by heart."""
PIECE_BYTES: Final = 1
logger = logging.getLogger("outlast.streams")


class GoneError(RefusalError):
    """The stream was deleted, and its forks still have its records."""

    def __init__(self, name: str) -> None:
        detail = f"the stream {name!r} was deleted; its forks keep its records, and its name, until the last of them is deleted"
        super().__init__(refusal(410, "deleted", detail))


@dataclass(frozen=True, slots=True)
class Wish:
    """A fork as it is asked for. `offset` None: at the tail of the source."""

    source: str
    offset: int | None
    sub_offset: int


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork to be made. `piece` is what it takes over of the record at `start`."""

    source: Served
    labels: Mapping[str, str]
    start: int
    piece: tuple[bytes, ...]


def wish_of(request: Request) -> Wish | None:
    """Return the fork that a PUT asks for; None if it asks for none. Raises `RefusalError`."""
    path = request.headers.get(protocol.FORKED_FROM)
    offset, sub_offset = request.headers.get(protocol.FORK_OFFSET), request.headers.get(protocol.FORK_SUB_OFFSET)
    if path is None:
        if offset is not None or sub_offset is not None:
            raise bad_request("fork", "a fork names its source: Stream-Forked-From is missing")
        return None
    if not path.startswith(PREFIX):
        raise bad_request("fork", f"Stream-Forked-From is the path of a stream of this node, {PREFIX.decode()} and its name")
    position = None if offset is None else _position(offset.decode("latin-1"))
    number = 0 if sub_offset is None else protocol.parse_number(sub_offset)
    if number is None:
        raise bad_request("fork", "Stream-Fork-Sub-Offset is a number: digits, no sign, no leading zero, at most 2^53-1")
    return Wish(stream_name(path[len(PREFIX) :]), position, number)


def _position(text: str) -> int:
    position = 0 if text in BEGINNING else protocol.parse_offset(text)
    if position is None:
        raise bad_request("fork", "Stream-Fork-Offset is an offset that this node has written")
    return position


# Reading.


def start_of(labels: Mapping[str, str], *, is_json: bool) -> int:
    """Return the position at which the records of a fork itself begin."""
    offset, sub_offset = (protocol.parse_number(labels.get(key, "").encode()) or 0 for key in (OFFSET, SUB_OFFSET))
    return offset + sub_offset if is_json else offset


def oldest_of(fork: Served) -> int:
    """Return the oldest position that can be read of a fork, or of any stream."""
    oldest = fork.stream.oldest
    if fork.source is None or oldest > fork.start:
        return oldest
    try:
        return min(oldest, oldest_of(fork.source))
    except StreamNotFoundError:
        # Deleted beside the node, in spite of its forks.
        return oldest


async def stitched(fork: Served, position: int, bytes_max: int) -> Chunk:
    """Return records of a fork from a position on that lies below its own: those of its source, and its own behind them.

    Raises as `Stream.fetch`.
    """
    if position < (oldest := oldest_of(fork)):
        raise TrimmedError(fork.name, position, oldest, fork.stream.tail)
    assert fork.source is not None  # noqa: S101 - no other stream has anything below its own
    chunk = await _read(fork.source, position, bytes_max)
    chunk = chunk.part(position, fork.start)
    room = bytes_max - sum(map(len, chunk.records))
    if chunk.next < fork.start or room <= 0 or fork.stream.tail == fork.start:
        return chunk
    return _joined(chunk, await fork.stream.fetch(fork.start, bytes_max=room))


async def _read(served: Served, position: int, bytes_max: int) -> Chunk:
    if served.source is None or position >= served.start:
        return await served.stream.fetch(position, bytes_max=bytes_max)
    return await stitched(served, position, bytes_max)


def _joined(first: Chunk, second: Chunk) -> Chunk:
    headers = None
    if first.headers is not None or second.headers is not None:
        headers = [*(first.headers or [b""] * len(first)), *(second.headers or [b""] * len(second))]
    times = [*first.times_us, *second.times_us]
    return Chunk(first.first, second.next, [*first.records, *second.records], times, headers)


# Making, and deleting.


async def look_up(node: Node, wish: Wish, labels: Mapping[str, str], *, is_there: bool) -> Fork:
    """Return the fork that is asked for; `labels` are what it asks for itself, and `is_there` says that its name is taken.

    Raises `RefusalError`, `StreamNotFoundError`, `TrimmedError`, `BeyondTailError`, and as `Stream.fetch`.
    """
    try:
        source = await node.find(wish.source)
    except GoneError:
        if not is_there:
            raise _no_more(wish.source) from None
        source = await node.served.get(wish.source, node.now())
    if source.depth >= DEPTH_MAX:
        raise LimitError(wish.source, f"it is a fork of a fork, {source.depth} deep, and the limit is {DEPTH_MAX}")
    own = dict(labels)
    is_known = protocol.parse_content_type(source.content_type) is not None
    content_type = own.setdefault("content-type", source.content_type if is_known else source.media_type)
    if protocol.parse_content_type(content_type) != source.media_type:
        detail = f"a fork has the content type of its source, {source.media_type}, and {content_type!r} was asked for"
        raise RefusalError(refusal(409, "content type", detail))
    if "ttl" not in own and "expires-at" not in own:
        if source.ttl_s is not None:
            own["ttl"] = str(source.ttl_s)
        elif source.expires_at is not None and source.expires_text is not None:
            own["expires-at"] = source.expires_text
    oldest, tail = oldest_of(source), source.stream.tail
    offset = tail if wish.offset is None else wish.offset
    own |= {FORKED_FROM: source.id, OFFSET: str(offset), SUB_OFFSET: str(wish.sub_offset)}
    if is_there:
        return Fork(source, own, 0, ())
    if not oldest <= offset <= tail:
        raise (TrimmedError if offset < oldest else BeyondTailError)(wish.source, offset, oldest, tail)
    piece = await _piece(source, offset, wish.sub_offset)
    return Fork(source, own, start_of(own, is_json=source.is_json), piece)


async def _piece(source: Served, offset: int, sub_offset: int) -> tuple[bytes, ...]:
    """Return the part of the record at `offset` that a fork takes over. Raises `RefusalError`: the source has less."""
    tail = source.stream.tail
    if source.is_json:
        if offset + sub_offset > tail:
            raise _overshoots(sub_offset, tail - offset, "messages")
        return ()
    if not sub_offset:
        return ()
    record = b"" if offset == tail else (await _read(source, offset, PIECE_BYTES)).records[0]
    if sub_offset > len(record):
        raise _overshoots(sub_offset, len(record), "bytes")
    return (record[:sub_offset],)


class Forks:
    """The forks of the streams of a store, by the ids of their sources. On the event loop's thread only."""

    def __init__(self, streams: Streams, served: ServedStreams) -> None:
        """Know none yet."""
        self._streams = streams
        self._served = served
        self._names: dict[str, set[str]] = {}
        """Of each source the names of its forks. There may be one too many, of a fork that was not made in the end."""
        self._sources: dict[str, str] = {}
        """The names of the sources."""
        self._making: set[tuple[str, str]] = set()
        """Sources and names of the forks that are being made."""
        self._hidden: list[str] = []
        """Names of streams that are hidden although their last fork is gone, as far as that is known."""
        self._is_loaded = False

    def _load(self) -> None:
        """Take over the forks that were there at the start."""
        if not self._is_loaded:
            self._is_loaded = True
            every = self._streams.listed()
            for each in every:
                if (source := each.labels.get(FORKED_FROM)) is not None:
                    self._names.setdefault(source, set()).add(each.name)
            self._sources = {each.id: each.name for each in every if each.id in self._names}
            self._hidden = [each.name for each in every if DELETED in each.labels and each.id not in self._names]

    def has_any(self, source: str) -> bool:
        """Return whether the stream of that id has forks."""
        self._load()
        names = self._names.get(source)
        if names is None:
            return False
        for name in list(names):
            if (source, name) in self._making or (self._streams.labels(name) or {}).get(FORKED_FROM) == source:
                return True
            names.discard(name)
        del self._names[source]
        self._sources.pop(source, None)
        return False

    async def source_of(self, labels: Mapping[str, str], now: float) -> Served | None:
        """Return the source of a stream with these labels; None if it has none, or none any more."""
        if (source := labels.get(FORKED_FROM)) is None:
            return None
        self._load()
        try:
            served = await self._served.get(self._sources[source], now)
        except (KeyError, StreamNotFoundError):
            return None
        return served if served.id == source else None

    async def make(self, name: str, fork: Fork, create: Callable[[], Awaitable[Stream]]) -> Stream:
        """Make a fork, and return it. Meanwhile its source is not deleted.

        Raises `RefusalError` and `StreamNotFoundError` if that has begun, and what `create` raises: it may be there all the same,
        so whoever asks for the forks of a stream looks at each.
        """
        source = fork.source
        if source.is_deleted:
            raise _no_more(source.name)
        # Raises once it is gone: from here on to the call of `create` nothing else runs.
        _ = source.stream.tail
        self._sources[source.id] = source.name
        self._names.setdefault(source.id, set()).add(name)
        self._making.add((source.id, name))
        try:
            return await create()
        finally:
            self._making.discard((source.id, name))

    async def delete(self, served: Served) -> None:
        """Delete a stream, durably, or hide it while it has forks; and the sources that were there for it alone.

        Raises as `Stream.delete` and `Stream.label`.
        """
        if self.has_any(served.id) and not served.is_deleted:
            kept = {key: served.stream.labels[key] for key in KEPT if key in served.stream.labels}
            await served.stream.label({**kept, "content-type": served.media_type, DELETED: "true"})
            served.is_deleted = True
        if not self.has_any(served.id):
            await self._delete(served)
            source = served.source
            while source is not None and source.is_deleted and not self.has_any(source.id):
                try:
                    await self._delete(source)
                except OutlastError as error:
                    # The fork is deleted, which was asked for.
                    self._later(source.name, error)
                    return
                source = source.source

    async def _delete(self, served: Served) -> None:
        await served.stream.delete()
        self._served.forget(served)
        if served.source is not None and (names := self._names.get(served.source.id)) is not None:
            names.discard(served.name)

    async def settle(self, served: Served) -> None:
        """End the deletion of a stream that was hidden, if its last fork is gone. Raises `GoneError` or `StreamNotFoundError`."""
        if not self.has_any(served.id):
            try:
                await self.delete(served)
            except OutlastError as error:
                self._later(served.name, error)
            else:
                raise StreamNotFoundError(served.name, "it was deleted, and so were its forks")
        raise GoneError(served.name)

    async def clean_up(self, now: float) -> None:
        """End the deletions that were not ended: the process did, or the disk refused. What is refused again is left."""
        self._load()
        hidden, self._hidden = self._hidden, []
        for name in hidden:
            with contextlib.suppress(RefusalError, StreamNotFoundError):
                try:
                    served = await self._served.get(name, now)
                    if served.is_deleted:
                        await self.settle(served)
                except OutlastError as error:
                    if isinstance(error, StreamNotFoundError):
                        raise
                    self._later(name, error)

    def _later(self, name: str, error: OutlastError) -> None:
        logger.debug("streams: %r was deleted, and its records stay for now: %r", name, error)
        if name not in self._hidden:
            self._hidden.append(name)


def _no_more(source: str) -> RefusalError:
    return RefusalError(refusal(409, "deleted", f"the source {source!r} was deleted: no fork is made of it any more"))


def _overshoots(sub_offset: int, there: int, what: str) -> RefusalError:
    return bad_request("fork", f"Stream-Fork-Sub-Offset is {sub_offset}, and {there} {what} are there behind Stream-Fork-Offset")
