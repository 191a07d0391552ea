"""Events as bytes. Pure.

A file of cursors is a header and then events, each a frame of the same shape, little-endian:

    at   bytes
    0    4      magic: "OCur"
    4    4      length of the frame
    8    4      CRC-32C of the frame without these four bytes
    12   1      kind of the event; 0 is the header
    13   1      length of the name
    14   8      number; of the header, the version of the format
    22   name   the consumer, in UTF-8; of the header, the id of the stream
    ...  12     each run: first position (8), how many (4)

The header says whose cursors they are, so a file that was copied or left behind moves the cursors of no other stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

import google_crc32c

from outlast.streams._consumers._cursor import Event, EventKind
from outlast.streams._consumers._runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT: Final = 1
MAGIC: Final = b"OCur"
NAME_BYTES_MAX: Final = 200
_HEADER: Final = 0
_FRONT: Final = Struct("<4sII")
_BODY: Final = Struct("<BBQ")
_RUN: Final = Struct("<QI")
_SMALLEST: Final = _FRONT.size + _BODY.size
LENGTH_MAX: Final = _SMALLEST + NAME_BYTES_MAX + 65_536 * _RUN.size
"""No event has more runs than records may be open, or set aside."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a file of cursors."""

    version: int | None
    """None: the header does not read. If it is above `FORMAT`, nothing else was read."""
    identity: str
    events: list[Event]
    end: int
    """The place where the last frame that reads ends: what is behind it is a torn tail."""
    damaged_at: int | None
    """The first place that does not read although a later frame does."""


def header(identity: str) -> bytes:
    """Return the first frame of a file."""
    return _frame(_HEADER, FORMAT, identity, ())


def encode(events: Iterable[Event]) -> bytes:
    """Return the frames of events."""
    return b"".join(_frame(event.kind.value, event.number, event.consumer, event.runs) for event in events)


def parse(data: bytes) -> Parsed:
    """Read a file. What is damaged in the middle is left out, and what follows is read."""
    version: int | None = None
    identity, events, end, damaged_at = "", list[Event](), 0, None
    at = 0
    while at < len(data):
        length = _length(data, at)
        if not length:
            at = data.find(MAGIC, at + 1)
            if at < 0:
                break
            continue
        if at > end and damaged_at is None:
            damaged_at = end
        kind, number, name, runs = _read(data, at, length)
        at = end = at + length
        if kind == _HEADER:
            version, identity = number, name
            if version > FORMAT:
                break
        else:
            events.append(Event(EventKind(kind), name, runs, number))
    return Parsed(version, identity, events, end, damaged_at)


def _frame(kind: int, number: int, name: str, runs: Iterable[Run]) -> bytes:
    text = name.encode()
    body = b"".join([_BODY.pack(kind, len(text), number), text, *(_RUN.pack(run.first, run.end - run.first) for run in runs)])
    length = _FRONT.size + len(body)
    return _FRONT.pack(MAGIC, length, _checksum(length, body)) + body


def _checksum(length: int, body: bytes) -> int:
    return google_crc32c.extend(google_crc32c.value(_FRONT.pack(MAGIC, length, 0)[:8]), body)


def _length(data: bytes, at: int) -> int:
    """Return the length of the frame at a place; 0 if there is none that reads."""
    if len(data) - at < _SMALLEST:
        return 0
    magic, length, checksum = _FRONT.unpack_from(data, at)
    if magic != MAGIC or not _SMALLEST <= length <= min(LENGTH_MAX, len(data) - at):
        return 0
    return length if _checksum(length, data[at + _FRONT.size : at + length]) == checksum else 0


def _read(data: bytes, at: int, length: int) -> tuple[int, int, str, tuple[Run, ...]]:
    kind, name_bytes, number = _BODY.unpack_from(data, at + _FRONT.size)
    runs_at = at + _SMALLEST + name_bytes
    name = data[at + _SMALLEST : runs_at].decode()
    runs = tuple(Run(first, first + count) for first, count in _RUN.iter_unpack(data[runs_at : at + length]))
    return kind, number, name, runs
