"""The talk between the producers of the fluvio drill and each of its arms: one request, one answer, on a Unix socket."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

RECORD_BYTES: Final = 1024
"""Each record begins with its id in 16 hexadecimal digits, and holds no line feed."""
HEAD: Final = struct.Struct("!BI")
"""A request or an answer: what it is, and the length of what follows."""
POSITION: Final = struct.Struct("!Q")
_FILLER: Final = b"." * (RECORD_BYTES - 16)


class Request(IntEnum):
    """The two things a client asks for: store this record; return the record at this position."""

    APPEND = 1
    READ = 2


class Answer(IntEnum):
    """The answers: it is stored (with its position) or here it is; it is not; nobody knows whether it is stored."""

    DONE = 1
    REFUSED = 2
    UNKNOWN = 3


def message(what: int, body: bytes) -> bytes:
    """Return one request or answer as it is sent."""
    return HEAD.pack(what, len(body)) + body


def record(number: int) -> bytes:
    """Return the record of that id."""
    return b"%016x" % number + _FILLER


def id_of(data: bytes) -> int | None:
    """Return the id of a record; None if it is not a whole one."""
    if len(data) != RECORD_BYTES or not data.endswith(_FILLER):
        return None
    try:
        return int(data[:16], 16)
    except ValueError:
        return None
