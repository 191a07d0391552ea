"""The frame around everything that is stored: a magic that is never 0, a CRC-32C over all else, a length, a kind, a version.

    0   magic    4 bytes: A9 4F 4C 53
    4   crc      u32: CRC-32C of all other bytes of the frame, behind those of its salt
    8   length   u32: of the whole frame
    12  kind     u8
    13  version  u8: the least version of the format that knows what the frame says, 1 or 2
    14  flags    u16

Numbers are little-endian. The salt of a batch or an index is the stream's id and the first position of the segment, each u64:
bytes of another segment, which a file system may show after a crash or a user may have stored as a record, are no frames here.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final, cast

import google_crc32c

from outlast.extend import NewerFormatError
from outlast.streams._model import APPEND_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    ReadAt: TypeAlias = Callable[[int, int], bytes]
    """Called with (offset, size); returns those bytes of a file: fewer only where the file ends."""

MAGIC: Final = b"\xa9OLS"
VERSION: Final = 2
"""The newest format that is read."""
FIRST_VERSION: Final = 1
"""That of a frame which says nothing that this format did not know: an older version of outlast reads it."""
PREFIX_BYTES: Final = 16
CHECKED_FROM: Final = 8
"""The bytes of a frame from here on are checked in one piece; those before are the magic, which is known, and the CRC."""
FRAME_BYTES_MAX: Final = APPEND_BYTES_MAX + (1 << 20)
"""A longer one is damage. It is above what one append may take, so that several small ones fit beside it."""
SEGMENT_BYTES_MAX: Final = 1 << 30
"""Offsets are u32, and a segment that is just below its limit takes one more frame."""

# The package has no types.
extend: Final = cast("Callable[[int, bytes], int]", google_crc32c.extend)  # pyright: ignore[reportUnknownMemberType]
"""Returns a CRC-32C that goes on with more bytes."""
UNSALTED: Final = extend(0, MAGIC)

_PREFIX: Final = struct.Struct("<4sIIBBH")
_CHECKED: Final = struct.Struct("<IBBH")
_MARK: Final = struct.Struct("<4sI")
_SALT: Final = struct.Struct("<QQ4s")


class FrameKind(enum.IntEnum):
    """The kinds of frames."""

    SEGMENT = 1
    BATCH = 2
    INDEX = 3
    META = 4
    CURSOR = 5


class FrameError(Exception):
    """Bytes at `offset` are no whole frame. `position` is that of the record that was expected there, where one was."""

    def __init__(self, reason: str, offset: int = 0, position: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.offset, self.position = reason, offset, position


def salt_of(stream_id: int, first: int) -> int:
    """Return the CRC-32C of the salt of one segment and the magic: the CRC of its frames goes on from there."""
    return extend(0, _SALT.pack(stream_id, first, MAGIC))


def checksum(checked: bytes, salt: int) -> int:
    """Return the CRC-32C of a frame, from its bytes from `CHECKED_FROM` on."""
    return extend(salt, checked)


def mark(crc: int) -> bytes:
    """Return the first bytes of a frame, up to `CHECKED_FROM`."""
    return _MARK.pack(MAGIC, crc)


def encode_frame(kind: FrameKind, body: bytes, *, salt: int = UNSALTED, version: int = FIRST_VERSION) -> bytes:
    """Return a frame around `body`. Raises `ValueError` for one that is too long."""
    length = PREFIX_BYTES + len(body)
    if length > FRAME_BYTES_MAX:
        msg = f"a frame of kind {kind.name} would have {length} bytes; at most {FRAME_BYTES_MAX} are allowed"
        raise ValueError(msg)
    checked = _CHECKED.pack(length, kind, version, 0) + body
    return mark(checksum(checked, salt)) + checked


def frame_length(prefix: bytes, kind: FrameKind) -> int:
    """Return the length that the prefix of a frame names, unchecked. Raises `FrameError`."""
    if len(prefix) < PREFIX_BYTES:
        reason = f"{len(prefix)} bytes are too few for a frame"
        raise FrameError(reason)
    magic, _, length, found, _, _ = _PREFIX.unpack_from(prefix)
    if magic != MAGIC:
        reason = "no frame begins here"
        raise FrameError(reason)
    if not PREFIX_BYTES <= length <= FRAME_BYTES_MAX:
        reason = f"a frame cannot have {length} bytes"
        raise FrameError(reason)
    if found != kind:
        reason = f"a frame of kind {found} where {kind.value} ({kind.name}) belongs"
        raise FrameError(reason)
    return int(length)


def decode_frame(data: bytes, kind: FrameKind, *, salt: int = UNSALTED) -> bytes:
    """Return the body of the frame that `data` begins with; what follows it is ignored.

    Raises `FrameError` when it is cut, damaged or of another kind, and `NewerFormatError` when it is whole and newer.
    """
    length = frame_length(data, kind)
    if len(data) < length:
        reason = f"a frame of {length} bytes is cut after {len(data)}"
        raise FrameError(reason)
    _, crc, _, _, version, _ = _PREFIX.unpack_from(data)
    if checksum(data[CHECKED_FROM:length], salt) != crc:
        reason = "the checksum is wrong"
        raise FrameError(reason)
    check_version(version)
    return data[PREFIX_BYTES:length]


def check_version(version: int) -> None:
    """Raise `NewerFormatError` for a frame that is whole, so by intent, and of a newer format."""
    if version > VERSION:
        msg = (
            f"the streams are stored in format {version}, and this version of outlast reads up to {VERSION}; nothing "
            "was changed: use the newer version"
        )
        raise NewerFormatError(msg)
    if version < 1:
        reason = "format 0 does not exist"
        raise FrameError(reason)


def read_frame(read: ReadAt, kind: FrameKind, *, salt: int = UNSALTED, ahead: int = 1 << 16) -> tuple[bytes, int]:
    """Return the body of the frame at the start of a file, and its length. Raises as `decode_frame`, and what `read` raises."""
    data = read(0, ahead)
    length = frame_length(data, kind)
    if length > len(data):
        data += read(len(data), length - len(data))
    return decode_frame(data, kind, salt=salt), length
