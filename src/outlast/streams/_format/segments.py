"""The header of a segment: one frame at its start, written and synced before the file is used.

Nothing is ever written to a segment that has a successor. So what is known at its end stands in the header of the next: where
its data ends, and the position there. Behind the prefix: bytes of the JSON u32, the JSON, the producers (`producers`).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast.streams._format.frames import PREFIX_BYTES, FrameError, FrameKind, encode_frame, read_frame
from outlast.streams._format.meta import Meta, describe, parse_description, version_of
from outlast.streams._format.producers import ProducerState, decode_producers, encode_producers

if TYPE_CHECKING:
    from outlast.streams._format.frames import ReadAt

_LENGTH: Final = struct.Struct("<I")
_PREVIOUS_BYTES: Final = len('{"first":,"size":,"tail":}') + 16 + 10 + 16 + 22
"""Of the longest `previous`, and some more: numbers elsewhere may be longer in a header that is made again."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The segment before: its first position, where its data ends (what follows is no data), and the position there."""

    first: int
    size: int
    tail: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first frame of a segment. `meta` is as it was when the segment was made, `previous` None for a stream's first."""

    meta: Meta
    first: int
    created_us: int
    previous: Previous | None = None
    producers: tuple[ProducerState, ...] = ()


def encode_header(header: SegmentHeader, length: int | None = None) -> bytes:
    """Return the frame: of that length, if it fits, and otherwise of one that does not depend on `previous`.

    So a repair can say something else of the segment before, and no batch has to move. It is unsalted, so that a folder that
    lost its name can be told. Raises `ValueError` when it is too long.
    """
    before = header.previous
    described = {
        "stream": describe(header.meta),
        "first": header.first,
        "created_us": header.created_us,
        "previous": None if before is None else {"first": before.first, "size": before.size, "tail": before.tail},
    }
    text = _dump(described)
    producers = encode_producers(header.producers)
    room = len(text) - len(_dump(described["previous"])) + _PREVIOUS_BYTES
    if length is not None and len(text) <= (exact := length - PREFIX_BYTES - _LENGTH.size - len(producers)):
        room = exact
    body = _LENGTH.pack(room) + text.ljust(room) + producers
    return encode_frame(FrameKind.SEGMENT, body, version=version_of(header.meta))


def _dump(described: object) -> bytes:
    return json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()


def read_header(read: ReadAt) -> tuple[SegmentHeader, int]:
    """Return the header of a segment, and the offset behind it. Raises `FrameError`, `NewerFormatError`, what `read` raises."""
    body, length = read_frame(read, FrameKind.SEGMENT)
    try:
        (size,) = _LENGTH.unpack_from(body)
        described = json.loads(body[_LENGTH.size : _LENGTH.size + size])
        before = described["previous"]
        header = SegmentHeader(
            parse_description(described["stream"]),
            int(described["first"]),
            int(described["created_us"]),
            None if before is None else Previous(int(before["first"]), int(before["size"]), int(before["tail"])),
            tuple(decode_producers(body, _LENGTH.size + size)),
        )
    except (KeyError, TypeError, ValueError, struct.error) as error:
        reason = f"the header of a segment is none: {error}"
        raise FrameError(reason) from error
    return header, length
