"""The batch frame: one group of appends as it is written by one `os.writev`. It is laid out in columns.

Python then pays for each batch, and hardly for each record. Behind the prefix (`frames`) follow

    16  offset      u32: of this frame in its file
    20  durable_to  u32: the offset up to which the file was known durable when this was written
    24  first       u64: the position of the first record
    32  time        u64: when it was stored, in microseconds since 1970
    40  records     u32
    44  producers   u32: how many appends name a producer
    48  lengths of the records         u32 each
        lengths of the headers         u32 each, only with flag 1
        producers                      its first record in the batch u32, records u32, epoch u64, sequence u64, size u16, id
        the records, joined
        the headers, joined, only with flag 1

Flag 2: nothing is ever added behind it. Only such a batch may have no record.
"""

from __future__ import annotations

import struct
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.streams._format.crc import combine
from outlast.streams._format.frames import (
    CHECKED_FROM,
    FIRST_VERSION,
    FRAME_BYTES_MAX,
    MAGIC,
    VERSION,
    FrameError,
    FrameKind,
    check_version,
    checksum,
    extend,
    mark,
)
from outlast.streams._model import NUMBER_MAX, Producer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outlast.streams._format.frames import ReadAt
    from outlast.streams._model import Entry

BATCH_BYTES: Final = 48
"""Of the fixed part."""
PRODUCER_BYTES: Final = 26
"""Of one producer, without its id."""
HAS_HEADERS: Final = 1
CLOSES: Final = 2
_EQUAL_FROM: Final = 8
"""From so many texts of one length on, `struct` cuts them apart in a third less time."""

_FIXED: Final = struct.Struct("<4sIIBBHIIQQII")
_CHECKED: Final = struct.Struct("<IBBHIIQQII")
_PRODUCER: Final = struct.Struct("<IIQQH")


class Encoded(NamedTuple):
    """A batch as it is to be written, in one go: `pieces` have `size` bytes; `firsts` are the positions its appends begin at."""

    pieces: tuple[bytes, ...]
    size: int
    firsts: tuple[int, ...]
    next: int


class Stored(NamedTuple):
    """One append of a batch that named its producer: it has the positions `first` to `next` - 1."""

    producer: Producer
    first: int
    next: int


class Batch(NamedTuple):
    """A batch frame that is whole. `checked` are its bytes from `CHECKED_FROM` on."""

    offset: int
    length: int
    flags: int
    durable_to: int
    first: int
    time_us: int
    record_count: int
    producer_count: int
    checked: bytes

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.length

    @property
    def next(self) -> int:
        """The position behind its last record."""
        return self.first + self.record_count

    @property
    def closes(self) -> bool:
        """Whether the stream is closed with its last record."""
        return bool(self.flags & CLOSES)

    def records(self, begin: int = 0, end: int | None = None) -> list[bytes]:
        """Return its records, or those from the one numbered `begin` within it to `end` - 1: only they are copied."""
        lengths = self._column(0)
        behind = len(self.checked)
        if self.flags & HAS_HEADERS:
            behind -= sum(self._column(1))
        return _cut(self.checked, behind, lengths, begin, end)

    def headers(self, begin: int = 0, end: int | None = None) -> list[bytes] | None:
        """Return the headers of its records as they are stored, or None when none has any."""
        if not self.flags & HAS_HEADERS:
            return None
        return _cut(self.checked, len(self.checked), self._column(1), begin, end)

    def stored(self) -> list[Stored]:
        """Return its appends that named a producer, in order."""
        return list(self._stored(self._producers_at()))

    def _column(self, number: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{self.record_count}I", self.checked, _BODY + 4 * self.record_count * number)

    def _producers_at(self) -> int:
        return _BODY + 4 * self.record_count * (1 + (self.flags & HAS_HEADERS))

    def _stored(self, at: int) -> Iterator[Stored]:
        for _ in range(self.producer_count):
            index, count, epoch, sequence, size = _PRODUCER.unpack_from(self.checked, at)
            at += PRODUCER_BYTES + size
            name = self.checked[at - size : at].decode()
            yield Stored(Producer(name, epoch, sequence), self.first + index, self.first + index + count)


_BODY: Final = BATCH_BYTES - CHECKED_FROM


def _cut(data: bytes, behind: int, lengths: tuple[int, ...], begin: int, end: int | None) -> list[bytes]:
    """Return the texts `begin` to `end` - 1 of those of `lengths`, which end before `behind`."""
    at = behind - sum(lengths[begin:] if begin else lengths)
    if len(lengths) >= _EQUAL_FROM and (length := lengths[0]) and lengths.count(length) == len(lengths):
        chosen = memoryview(data)[at : at + length * len(lengths[begin:end])]
        return [text for (text,) in struct.iter_unpack(f"{length}s", chosen)]
    texts: list[bytes] = []
    add = texts.append
    # A loop of our own: slices made by `map` and `accumulate` are no quicker.
    for length in lengths[begin:end]:
        add(data[at : at + length])
        at += length
    return texts


def decode_batch(data: bytes, at: int, offset: int, *, end: int, salt: int, read: ReadAt) -> Batch:
    """Return the batch that begins at `data[at]`, which is `offset` of a file whose data ends at `end`.

    A batch that `data` does not hold to its end is read by `read`, in one piece. Raises `FrameError` unless it is whole.
    """
    if len(data) - at < BATCH_BYTES:
        reason = f"{len(data) - at} bytes are too few for a batch"
        raise FrameError(reason, offset)
    magic, crc, length, kind, version, flags, own, durable_to, first, time_us, count, producers = _FIXED.unpack_from(data, at)
    if magic != MAGIC:
        reason = "no batch begins here"
        raise FrameError(reason, offset)
    if kind != FrameKind.BATCH or own != offset or not BATCH_BYTES <= length <= min(FRAME_BYTES_MAX, end - offset):
        reason = f"a batch cannot have kind {kind}, offset {own} and {length} bytes at {offset} of {end}"
        raise FrameError(reason, offset)
    if at + length <= len(data):
        checked = data[at + CHECKED_FROM : at + length]
    else:
        checked = read(offset + CHECKED_FROM, length - CHECKED_FROM)
        if len(checked) < length - CHECKED_FROM:
            reason = f"a batch of {length} bytes is cut after {len(checked) + CHECKED_FROM}"
            raise FrameError(reason, offset)
    if extend(salt, checked) != crc:
        reason = "the checksum of a batch is wrong"
        raise FrameError(reason, offset)
    check_version(version)
    return Batch(offset, length, flags, durable_to, first, time_us, count, producers, checked)


def batch_bytes(entries: Sequence[Entry]) -> int:
    """Return how many bytes the frame of these appends has."""
    size, count, has_headers = BATCH_BYTES, 0, False
    for entry in entries:
        count += len(entry.records)
        size += len(entry.lengths) + len(entry.payload)
        if entry.headers is not None:
            has_headers = True
            size += sum(map(len, entry.headers))
        if entry.producer is not None:
            size += PRODUCER_BYTES + len(entry.producer.id.encode())
    # Headers have a length for each record, also of the appends that have none.
    return size + 4 * count if has_headers else size


def encode_batch(entries: Sequence[Entry], *, salt: int, offset: int, durable_to: int, first: int, time_us: int) -> Encoded:
    """Return the frame of `entries`, to be written at `offset` of the segment of that salt; the first record gets `first`.

    One that closes the stream is the last of them. Raises `ValueError` for a frame that is too long and for positions beyond
    `NUMBER_MAX`.
    """
    firsts: list[int] = []
    producers: list[bytes] = []
    count, has_headers = 0, False
    for entry in entries:
        firsts.append(first + count)
        if (producer := entry.producer) is not None:
            name = producer.id.encode()
            fixed = _PRODUCER.pack(count, len(entry.records), producer.epoch, producer.sequence, len(name))
            producers.append(fixed + name)
        has_headers |= entry.headers is not None
        count += len(entry.records)
    if first + count > NUMBER_MAX:
        msg = f"an append of {count} records at position {first} would pass the last position, {NUMBER_MAX}"
        raise ValueError(msg)
    # Both are the entry's own where it is alone: nothing is copied.
    payload = b"".join([entry.payload for entry in entries])
    columns = b"".join([entry.lengths for entry in entries])
    joined = b""
    if has_headers:
        headers = list(chain.from_iterable(repeat(b"", len(e.records)) if e.headers is None else e.headers for e in entries))
        columns += struct.pack(f"<{count}I", *map(len, headers))
        joined = b"".join(headers)
    columns += b"".join(producers)
    size = BATCH_BYTES + len(columns) + len(payload) + len(joined)
    if size > FRAME_BYTES_MAX:
        msg = f"a batch of {count} records would have {size} bytes; at most {FRAME_BYTES_MAX} are allowed"
        raise ValueError(msg)
    flags, version = HAS_HEADERS if has_headers else 0, FIRST_VERSION
    if entries[-1].closes:
        # A version that did not know the flag would add records behind it: to that one it is a newer format.
        flags, version = flags | CLOSES, VERSION
    fixed = _CHECKED.pack(size, FrameKind.BATCH, version, flags, offset, durable_to, first, time_us, count, len(producers))
    head = fixed + columns
    crc, known = checksum(head, salt), entries[0].crc if len(entries) == 1 else None
    crc = extend(extend(crc, payload) if known is None else combine(crc, known, len(payload)), joined)
    pieces = (mark(crc) + head, payload, joined) if joined else (mark(crc) + head, payload)
    return Encoded(pieces, size, tuple(firsts), first + count)
