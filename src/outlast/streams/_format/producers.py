"""The state of producers as the header of a segment holds it.

Each producer: bytes of the id u16, appends u8, epoch u64, last sequence u64, time u64 (microseconds since 1970), the id, and
for each append that is remembered its first position u64 and its records u32, the last append last.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FIXED: Final = struct.Struct("<HBQQQ")
_APPEND: Final = struct.Struct("<QI")
APPENDS_MAX: Final = 8
"""Appends of one producer whose positions are remembered: a client may have so many in flight and send them all again."""
PRODUCER_ID_BYTES_MAX: Final = 256
PRODUCERS_MAX: Final = 65_536
"""Of one stream: their states must fit in one frame, 65,536 * (27 + 256 + 8 * 12) bytes are 23.7 MiB."""


@dataclass(frozen=True, slots=True)
class ProducerState:
    """The newest epoch of one producer, the last sequence of it, and (first, next) of its last appends, the last one last."""

    id: str
    epoch: int
    sequence: int
    time_us: int
    appends: tuple[tuple[int, int], ...]


def encode_producers(states: Sequence[ProducerState]) -> bytes:
    """Return states as they are stored."""
    pieces: list[bytes] = []
    for state in states:
        name = state.id.encode()
        pieces.extend((_FIXED.pack(len(name), len(state.appends), state.epoch, state.sequence, state.time_us), name))
        pieces.extend(_APPEND.pack(first, behind - first) for first, behind in state.appends)
    return b"".join(pieces)


def decode_producers(data: bytes, at: int) -> Iterator[ProducerState]:
    """Yield the states that `data` holds from `at` to its end."""
    while at < len(data):
        size, appends, epoch, sequence, time_us = _FIXED.unpack_from(data, at)
        at += _FIXED.size + size
        name = data[at - size : at].decode()
        behind = at + appends * _APPEND.size
        positions = tuple((first, first + count) for first, count in _APPEND.iter_unpack(data[at:behind]))
        at = behind
        yield ProducerState(name, epoch, sequence, time_us, positions)
