"""Finding frames in a segment: in order, and behind a place that is none; and whether that place is a torn tail or damage."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from outlast.streams._format.batches import BATCH_BYTES, decode_batch
from outlast.streams._format.frames import MAGIC, FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.streams._format.batches import Batch
    from outlast.streams._format.frames import ReadAt

AHEAD_BYTES: Final = 1 << 18
"""Memory of this size is used again by the allocator; a MiB is given back each time, and reads cost twice as much."""


def batches(
    read: ReadAt, *, salt: int, begin: int, end: int, position: int | None = None, ahead: int = AHEAD_BYTES
) -> Iterator[Batch]:
    """Yield the batches of a segment from offset `begin` to `end`, in order.

    `position` is that of the first record expected at `begin`; None takes what the first batch says. At most `ahead` bytes are
    read at once, and a longer batch in one piece. Raises `FrameError`, with offset and position, at the first that is not
    whole or does not go on where the one before ended; `NewerFormatError`; and what `read` raises.
    """
    data, base, at = b"", begin, 0
    while (offset := base + at) < end:
        if len(data) - at < BATCH_BYTES:
            data, base, at = read(offset, min(ahead, end - offset)), offset, 0
        try:
            batch = decode_batch(data, at, offset, end=end, salt=salt, read=read)
        except FrameError as error:
            raise FrameError(error.reason, offset, position or 0) from None
        at += batch.length
        if position is not None and batch.first != position:
            reason = f"a batch of position {batch.first} where {position} belongs"
            raise FrameError(reason, offset, position)
        position = batch.next
        yield batch


def next_batch(read: ReadAt, *, salt: int, begin: int, end: int, position: int, ahead: int = AHEAD_BYTES) -> Batch | None:
    """Return the first whole batch that begins at or behind offset `begin` and has no position below `position`, or None.

    Every byte is tried, since the length of what is damaged cannot be trusted.
    """
    offset = begin
    while offset + BATCH_BYTES <= end:
        data = read(offset, min(ahead, end - offset))
        at = data.find(MAGIC)
        while 0 <= at <= len(data) - BATCH_BYTES:
            with contextlib.suppress(FrameError):
                found = decode_batch(data, at, offset + at, end=end, salt=salt, read=read)
                if found.first >= position:
                    return found
            at = data.find(MAGIC, at + 1)
        # A batch may begin in the last bytes, and the magic be cut by the end of what was read.
        moved = len(data) - BATCH_BYTES + 1
        if moved <= 0:
            return None
        offset += moved
    return None


def is_torn_tail(read: ReadAt, *, salt: int, begin: int, end: int, position: int) -> bool:
    """Return whether the place at `begin`, where no whole batch begins, is what a crash leaves at the end of a file.

    It is when nothing behind it was written after it had been known durable: then none of it was ever acknowledged as on disk.
    Otherwise it is damage, and must not be cut off.
    """
    offset = begin
    while (batch := next_batch(read, salt=salt, begin=offset, end=end, position=position)) is not None:
        if batch.durable_to > begin:
            return False
        offset = batch.end
    return True
