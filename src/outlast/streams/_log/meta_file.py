"""The file `meta` of a stream: read, and changed in place, which needs no room on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from outlast.extend import TornFileError
from outlast.streams._errors import DamagedError
from outlast.streams._format.frames import FrameError
from outlast.streams._format.meta import META_BYTES, SLOT_BYTES, decode_slots, encode_meta
from outlast.streams._format.names import META_NAME, parse_folder_name
from outlast.streams._log.pieces import cause, reader, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.extend import FileSystem
    from outlast.streams._format.meta import Meta, Slots

SLOTS: Final = (0, 1)


def read_meta(folder: Path, files: FileSystem) -> Meta:
    """Return a stream's entry in the catalogue.

    Raises `OSError` (`FileNotFoundError` where there is none), `DamagedError` and `NewerFormatError`.
    """
    return read_slots(folder, files).meta


def read_slots(folder: Path, files: FileSystem) -> Slots:
    """Return both slots as they are. Raises as `read_meta`."""
    descriptor = files.open(f"{folder}/{META_NAME}", os.O_RDONLY)
    try:
        # One byte more than there should be: a file that is too long is noticed.
        data = reader(files, descriptor)(0, META_BYTES + 1)
    finally:
        files.close(descriptor)
    try:
        slots = decode_slots(data)
    except FrameError as error:
        raise DamagedError(folder.name, META_NAME, 0, error.reason) from None
    if slots.meta.id != parse_folder_name(folder.name):
        raise DamagedError(
            slots.meta.name, META_NAME, 0, f"it is that of stream {slots.meta.id:016x}, in the folder {folder.name}"
        )
    return slots


def write_new(path: str, meta: Meta, files: FileSystem) -> None:
    """Make the file with both slots; its content is on disk when this returns. Raises `OSError`, `ValueError`: too long."""
    slot = encode_meta(meta)
    descriptor = files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        write_whole(files, descriptor, slot + slot, 0)
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def update(folder: Path, old: Meta, new: Meta, files: FileSystem) -> None:
    """Replace the entry, durably. Raises `OSError`, and then it is the old one; `TornFileError` when that is not known."""
    path, slot = f"{folder}/{META_NAME}", 0
    try:
        for slot in SLOTS:
            write_slot(path, slot, new, files)
    except OSError as error:
        try:
            # First the one that failed: as long as that is in doubt, the other one is all there is.
            for each in reversed(SLOTS[: slot + 1]):
                write_slot(path, each, old, files)
        except OSError as second:
            reason = f"{cause(error)}; and it cannot be taken back ({second.strerror}): either may be found at the next start"
            raise TornFileError(error.errno, reason, path) from error
        raise


def write_slots(path: str, meta: Meta, files: FileSystem) -> None:
    """Write both slots in place, the second when the first is on disk: a crash at any moment leaves a whole one."""
    for slot in SLOTS:
        write_slot(path, slot, meta, files)


def write_slot(path: str, slot: int, meta: Meta, files: FileSystem) -> None:
    """Write one slot in place; it is on disk when this returns. Raises `OSError`."""
    # A fresh descriptor each time: one whose sync has failed once must not be asked again.
    descriptor = files.open(path, os.O_WRONLY)
    try:
        write_whole(files, descriptor, encode_meta(meta), slot * SLOT_BYTES)
        files.sync_data(descriptor)
    finally:
        files.close(descriptor)
