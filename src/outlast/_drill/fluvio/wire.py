"""The talk between the producers of the fluvio drill and an arm: what every way of it has, and the one of our own.

That is one request and one answer on a Unix socket. `http_wire.py` has the one of arms that are servers already.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of an arm."""

    what: Answer
    body: bytes
    """The record that was read; the text of a refusal."""
    position: int = 0
    """The position of a record that was stored."""
    last: bool = False
    """Whether nothing more comes on this connection."""


class Answers(Protocol):
    """Reads the answers that come on one connection."""

    def feed(self, data: bytes) -> Reply | None:
        """Take what was received; return an answer once it is there."""
        ...


class Talk(Protocol):
    """Clients reach an arm by this, and speak with it. A client has one request under way."""

    @classmethod
    def new_address(cls, folder: Path) -> str:
        """Return an address for an arm that is about to start, which may keep its socket in that folder."""
        ...

    @classmethod
    def to(cls, address: str) -> Self:
        """Return the talk with the arm at that address."""
        ...

    def greet(self) -> bool:
        """Do what comes before all clients; return whether the arm was ready for it. Raises OSError if nobody listens."""
        ...

    def dial(self) -> socket.socket:
        """Connect. Raises OSError."""
        ...

    def request(self, what: Request, record: bytes, position: int) -> bytes:
        """Return what to send to have that record stored, or the one at that position returned."""
        ...

    def answers(self) -> Answers:
        """Return what reads the answers of a new connection."""
        ...


class FrameTalk:
    """The talk in frames, with an arm whose server is `arms/log_server.py`."""

    def __init__(self, path: str) -> None:
        """Talk with the arm that listens on the socket `path`."""
        self._path = path

    @classmethod
    def new_address(cls, folder: Path) -> str:
        """Return the path of a socket in the folder."""
        return str(folder / "socket")

    @classmethod
    def to(cls, address: str) -> Self:
        """Return the talk with the arm at that path."""
        return cls(address)

    def greet(self) -> bool:
        """Return True: who listens is ready."""
        return True

    def dial(self) -> socket.socket:
        """Connect. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def request(self, what: Request, record: bytes, position: int) -> bytes:
        """Return one frame."""
        return message(what, record if what is Request.APPEND else POSITION.pack(position))

    def answers(self) -> Answers:
        """Return what reads the frames of a new connection."""
        return _Frames()


class _Frames:
    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Reply | None:
        self._data += data
        if len(self._data) < HEAD.size:
            return None
        what, size = HEAD.unpack_from(self._data)
        if len(self._data) < HEAD.size + size:
            return None
        body = bytes(self._data[HEAD.size : HEAD.size + size])
        del self._data[: HEAD.size + size]
        position = POSITION.unpack(body)[0] if what == Answer.DONE and size == POSITION.size else 0
        return Reply(Answer(what), body, position)


def message(what: int, body: bytes) -> bytes:
    """Return one request or answer as it is sent in frames."""
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
