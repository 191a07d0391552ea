"""The index of a segment that has a successor: the offset of a batch every 64 KiB. It is a hint, and is made again when wrong.

One frame, salted as the segment. Behind the prefix: first position u64, tail u64, size of the segment's data u64, time of the
last record u64, entries u32, 4 bytes 0, then the positions u64 each and the offsets u32 each.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from outlast.streams._format.frames import FrameError, FrameKind, decode_frame, encode_frame

STEP_BYTES: Final = 1 << 16
_FIXED: Final = struct.Struct("<QQQQII")


@dataclass(frozen=True, slots=True)
class Index:
    """Offsets of batches of one segment, by the position each begins with; the first batch is always one."""

    first: int
    tail: int
    size: int
    time_us: int
    positions: tuple[int, ...]
    offsets: tuple[int, ...]

    def find(self, position: int) -> tuple[int, int]:
        """Return the offset of a batch from where on `position` is found, and the position that batch begins with.

        Raises `FrameError` when it has no entry at or below `position`.
        """
        at = bisect_right(self.positions, position) - 1
        if at < 0:
            reason = f"the index has nothing for position {position}"
            raise FrameError(reason)
        return self.offsets[at], self.positions[at]


class IndexBuilder:
    """Collects the entries of an index while batches of a segment are written or read, from its first batch on."""

    __slots__ = ("_offsets", "_positions", "_time_us")

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._offsets: list[int] = []
        self._time_us = 0

    def add(self, first: int, offset: int, time_us: int) -> None:
        """Take note of the next batch."""
        self._time_us = time_us
        if not self._offsets or offset - self._offsets[-1] >= STEP_BYTES:
            self._positions.append(first)
            self._offsets.append(offset)

    def build(self, first: int, tail: int, size: int) -> Index:
        """Return the index of what was added, for a segment of `size` bytes of data with the positions `first` to `tail` - 1."""
        return Index(first, tail, size, self._time_us, tuple(self._positions), tuple(self._offsets))


def encode_index(index: Index, salt: int) -> bytes:
    """Return the file."""
    count = len(index.positions)
    fixed = _FIXED.pack(index.first, index.tail, index.size, index.time_us, count, 0)
    return encode_frame(FrameKind.INDEX, fixed + struct.pack(f"<{count}Q{count}I", *index.positions, *index.offsets), salt=salt)


def decode_index(data: bytes, salt: int) -> Index:
    """Return the index of a file. Raises `FrameError` unless it is whole, and `NewerFormatError`."""
    body = decode_frame(data, FrameKind.INDEX, salt=salt)
    try:
        first, tail, size, time_us, count, _ = _FIXED.unpack_from(body)
        numbers = struct.unpack(f"<{count}Q{count}I", body[_FIXED.size :])
    except struct.error as error:
        reason = f"the index is none: {error}"
        raise FrameError(reason) from error
    positions, offsets = numbers[:count], numbers[count:]
    if count and not (first <= min(positions) and max(positions) <= tail and max(offsets) < size):
        reason = f"an entry of the index lies outside its segment, positions {first} to {tail} in {size} bytes"
        raise FrameError(reason)
    return Index(first, tail, size, time_us, positions, offsets)
