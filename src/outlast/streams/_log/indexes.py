"""The index of a segment that has a successor: read from its file, and made again where that is missing or wrong."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from outlast.streams._errors import DamagedError
from outlast.streams._format.frames import FRAME_BYTES_MAX, FrameError, salt_of
from outlast.streams._format.index import IndexBuilder, decode_index, encode_index
from outlast.streams._format.names import index_name
from outlast.streams._format.scan import batches, next_batch
from outlast.streams._format.segments import read_header
from outlast.streams._log.folders import make_file, unlink
from outlast.streams._log.pieces import reader

if TYPE_CHECKING:
    from outlast.extend import FileSystem
    from outlast.streams._format.frames import ReadAt
    from outlast.streams._format.index import Index
    from outlast.streams._log.shared import Shared
    from outlast.streams._log.view import Segment


def index_path(segment_path: str) -> str:
    """Return the path of the index of a segment."""
    return segment_path.removesuffix(".log") + ".idx"


def index_of(shared: Shared, name: str, stream_id: int, segment: Segment, read: ReadAt) -> Index:
    """Return the index of a segment that is not the last: only a hint. Raises `OSError`."""
    if (known := shared.indexes.get(segment.path)) is not None:
        return known
    salt = salt_of(stream_id, segment.first)
    try:
        index = _load(shared.files, segment, salt)
    except FileNotFoundError:
        index = rebuild(read, segment, salt)
        store(shared, segment.path, index, salt)
    except FrameError as error:
        shared.report(DamagedError(name, index_name(segment.first), segment.first, f"the index: {error.reason}", segment.first))
        index = rebuild(read, segment, salt)
        store(shared, segment.path, index, salt)
    shared.indexes.put(segment.path, index, 1 + len(index.positions))
    return index


def store(shared: Shared, segment_path: str, index: Index, salt: int) -> None:
    """Write the file of an index, whole or not at all. It is never needed: a failure is passed over."""
    path, data = index_path(segment_path), encode_index(index, salt)
    try:
        shared.disk.admit(len(data))
        make_file(path, (data,), shared.files)
    except OSError:
        # One that was made at a roll-over which then failed says where the segment ended then.
        with contextlib.suppress(OSError):
            unlink(path, shared.files)


def rebuild(read: ReadAt, segment: Segment, salt: int) -> Index:
    """Return the index of a segment, made from its batches. Raises `OSError`."""
    builder = IndexBuilder()
    try:
        offset = read_header(read)[1]
    except FrameError:
        offset = 0
    position = segment.first
    while True:
        try:
            for batch in batches(read, salt=salt, begin=offset, end=segment.end, position=position):
                builder.add(batch.first, batch.offset, batch.time_us)
                offset, position = batch.end, batch.next
            break
        except FrameError:
            found = next_batch(read, salt=salt, begin=offset + 1, end=segment.end, position=position)
            if found is None:
                break
            offset, position = found.offset, found.first
    return builder.build(segment.first, segment.next, segment.end)


def _load(files: FileSystem, segment: Segment, salt: int) -> Index:
    descriptor = files.open(index_path(segment.path), os.O_RDONLY)
    try:
        data = reader(files, descriptor)(0, min(files.size(descriptor), FRAME_BYTES_MAX))
    finally:
        files.close(descriptor)
    index = decode_index(data, salt)
    if index.first == segment.first and index.size < segment.end:
        # Made at a roll-over that failed. An earlier process then left it, and the segment grew.
        raise FileNotFoundError(errno.ENOENT, "its index is out of date", segment.path)
    if (index.first, index.tail, index.size) != (segment.first, segment.next, segment.end):
        reason = f"it is of the positions {index.first} to {index.tail} in {index.size} bytes"
        raise FrameError(reason)
    return index
