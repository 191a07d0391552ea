"""Whole reads and whole writes at an offset, made of calls that may do less than they are asked to; and their errors in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlast.extend import FileSystem
    from outlast.streams._format.frames import ReadAt


def reader(files: FileSystem, descriptor: int) -> ReadAt:
    """Return a function (offset, size) -> bytes, which returns fewer only where the file ends."""

    def read(at: int, size: int) -> bytes:
        data = files.read_at(descriptor, size, at)
        if len(data) == size or not data:
            return data
        pieces = [data]
        missing = size - len(data)
        while missing and (data := files.read_at(descriptor, missing, at + size - missing)):
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    return read


def write_whole(files: FileSystem, descriptor: int, data: bytes, at: int) -> None:
    """Write all of it in place, on a descriptor without O_APPEND. Raises `OSError`; a part may stand there then."""
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += files.write_at(descriptor, view[written:], at + written)


def cause(error: BaseException) -> str:
    """Return an error as a part of the message of another one, which names the path and the code itself."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
