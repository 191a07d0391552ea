"""The folder of a stream: how it comes to be, and how it goes. A crash at any moment leaves a stream, or what is no stream."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast.extend import TornFileError, pieces_behind
from outlast.streams._format.names import GONE_NAME, META_NAME
from outlast.streams._log import meta_file
from outlast.streams._log.pieces import cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.extend import FileSystem
    from outlast.streams._format.meta import Meta

NEW_NAME: Final = "new"
"""`meta` of a stream whose creation was never acknowledged: what is left of its folder goes, now or at the next start."""

UNNAMED: Final = ".new"
"""Behind the name of a file that is not whole yet."""


def create(folder: Path, meta: Meta, segment: str, content: Sequence[bytes], files: FileSystem) -> None:
    """Make the folder of a stream with the file of its first segment, durably.

    Raises `OSError`, and then it is no stream, now or after a crash; `TornFileError` when that is not known.
    """
    files.mkdir(folder)
    is_named = False
    try:
        meta_file.write_new(f"{folder}/{NEW_NAME}", meta, files)
        # While a segment may be found, so must be what says that it is no stream's.
        files.sync_folder(folder)
        make_file(f"{folder}/{segment}", content, files)
        # A `meta` is never found without a segment: that is damage.
        files.sync_folder(folder)
        files.sync_folder(folder.parent)
        files.rename(f"{folder}/{NEW_NAME}", f"{folder}/{META_NAME}")
        is_named = True
        files.sync_folder(folder)
    except BaseException as error:
        _take_back(folder, error, files, is_named=is_named)
        raise


def _take_back(folder: Path, error: BaseException, files: FileSystem, *, is_named: bool) -> None:
    """Leave nothing of a stream that could not be made. What has not got its name needs no descriptor for that."""
    try:
        if is_named:
            files.rename(f"{folder}/{META_NAME}", f"{folder}/{NEW_NAME}")
            files.sync_folder(folder)
    except OSError as second:
        number = error.errno if isinstance(error, OSError) else second.errno
        reason = f"{cause(error)}; and it cannot be taken back ({second.strerror}): it may be found at the next start"
        raise TornFileError(number, reason, os.fspath(folder)) from error
    # What is left is no stream, and the next start removes it.
    with contextlib.suppress(OSError):
        remove(folder, files)


def make_segment(path: str, header: bytes, files: FileSystem) -> None:
    """Make the file of a segment with its header, durably. Raises `OSError`; then it is there with all of its header, or not.

    A file of that name has no records: it is replaced, and until then it stays.
    """
    make_file(path, (header,), files)
    files.sync_folder(Path(path).parent)


def make_file(path: str, content: Sequence[bytes], files: FileSystem) -> None:
    """Make a file, or replace it. Under its name there is never a part of it; the name is durable once the folder is synced.

    Raises `OSError`.
    """
    new = f"{path}{UNNAMED}"
    unlink(new, files)
    descriptor = files.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            written, size = 0, sum(map(len, content))
            while written < size:
                written += files.write(descriptor, pieces_behind(content, written))
            files.sync_data(descriptor)
        finally:
            files.close(descriptor)
        files.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            unlink(new, files)
        raise


def mark_gone(folder: Path, files: FileSystem) -> None:
    """Delete a stream, durably. Raises `OSError`, and then it is still there; `TornFileError` when that is not known."""
    meta, gone = f"{folder}/{META_NAME}", f"{folder}/{GONE_NAME}"
    with contextlib.suppress(FileNotFoundError):
        # Not found: an earlier attempt has come so far.
        files.rename(meta, gone)
    try:
        files.sync_folder(folder)
    except OSError as error:
        try:
            files.rename(gone, meta)
            files.sync_folder(folder)
        except OSError as second:
            reason = f"{cause(error)}; and it cannot be taken back ({second.strerror}): it may be gone at the next start"
            raise TornFileError(error.errno, reason, os.fspath(folder)) from error
        raise


def remove(folder: Path, files: FileSystem) -> None:
    """Remove what is left of a stream that is deleted or was never made; may be called again. Raises `OSError`."""
    names = files.names(folder)
    if META_NAME in names:
        msg = f"{folder} is that of a stream: it has a file {META_NAME!r}"
        raise ValueError(msg)
    for name in sorted(names):
        if name not in {GONE_NAME, NEW_NAME}:
            files.unlink(f"{folder}/{name}")
    # While a segment may still be found, so must be what says that it is no stream's.
    files.sync_folder(folder)
    for name in (GONE_NAME, NEW_NAME):
        unlink(f"{folder}/{name}", files)
    files.rmdir(folder)


def unlink(path: str, files: FileSystem) -> None:
    """Take the name of a file away, if it has one. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        files.unlink(path)
