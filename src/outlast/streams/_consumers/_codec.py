"""Events as bytes: one frame each (`_format.frames`), of kind CURSOR, salted with the id of the stream. Pure.

The body of a frame, little-endian:

    0    kind         u8: of the event
    1    name bytes   u8
    2    durable to   u32: this much of the file was on disk before the frame was written
    6    number       u64
    14   name         of the consumer, in UTF-8
    ..   runs         12 bytes each: first position u64, how many u32

A file is nothing but such frames; the salt keeps cursors that were copied or left behind from moving those of another stream.
A place that does not read is damage if some frame knows that it was on disk, and otherwise a torn tail: what follows it was not
acknowledged, since frames that were never synced may outlive a power cut in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from outlast.streams._consumers._cursor import Event, EventKind
from outlast.streams._consumers._runs import Run
from outlast.streams._format.frames import (
    MAGIC,
    PREFIX_BYTES,
    FrameError,
    FrameKind,
    decode_frame,
    encode_frame,
    frame_length,
    salt_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME_BYTES_MAX: Final = 200
_BODY: Final = Struct("<BBIQ")
_RUN: Final = Struct("<QI")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a file of cursors."""

    events: list[Event]
    """Those before the first place that does not read."""
    end: int
    """That place, or the end of the file."""
    durable_to: int
    """All up to here was once on disk: if `end` is below, bytes were changed or cut off."""


def encode(events: Iterable[Event], stream_id: int, durable_to: int | None = None) -> bytes:
    """Return the frames of events. `durable_to` None: they are a whole file, which gets its name when it is on disk."""
    bodies = [(event, event.consumer.encode()) for event in events]
    if durable_to is None:
        runs = sum(len(event.runs) for event, _ in bodies)
        durable_to = len(bodies) * (PREFIX_BYTES + _BODY.size) + sum(len(name) for _, name in bodies) + runs * _RUN.size
    salt = salt_of(stream_id, 0)
    return b"".join(encode_frame(FrameKind.CURSOR, _body(event, name, durable_to), salt=salt) for event, name in bodies)


def parse(data: bytes, stream_id: int) -> Parsed:
    """Read a file. Raises `NewerFormatError`."""
    salt = salt_of(stream_id, 0)
    events: list[Event] = []
    at = durable_to = 0
    is_whole, end = True, 0
    while 0 <= at < len(data):
        try:
            length = frame_length(data[at : at + PREFIX_BYTES], FrameKind.CURSOR)
            body = decode_frame(data[at : at + length], FrameKind.CURSOR, salt=salt)
        except FrameError:
            is_whole = False
            at = data.find(MAGIC, at + 1)
            continue
        event, known = _event(body)
        durable_to = max(durable_to, known)
        at += length
        if is_whole:
            events.append(event)
            end = at
    return Parsed(events, end, durable_to)


def _body(event: Event, name: bytes, durable_to: int) -> bytes:
    front = _BODY.pack(event.kind.value, len(name), durable_to, event.number)
    return b"".join([front, name, *(_RUN.pack(run.first, run.end - run.first) for run in event.runs)])


def _event(body: bytes) -> tuple[Event, int]:
    kind, name_bytes, durable_to, number = _BODY.unpack_from(body)
    runs_at = _BODY.size + name_bytes
    runs = tuple(Run(first, first + count) for first, count in _RUN.iter_unpack(body[runs_at:]))
    return Event(EventKind(kind), body[_BODY.size : runs_at].decode(), runs, number), durable_to
