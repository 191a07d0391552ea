"""Names of folders and files. A stream's own name is never a part of a path."""

from __future__ import annotations

import re
from typing import Final

META_NAME: Final = "meta"
GONE_NAME: Final = "gone"
"""`meta` of a stream that was deleted: what is left of its folder goes, now or at the next start."""
CONSUMERS_NAME: Final = "consumers"
SEGMENT_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".idx"

_FOLDER: Final = re.compile(r"[0-9a-f]{16}")
_FILE: Final = re.compile(r"([0-9]{20})(\.log|\.idx)")


def folder_name(stream_id: int) -> str:
    """Return the name of the folder of one incarnation of a stream: its id in 16 hex digits."""
    return f"{stream_id:016x}"


def parse_folder_name(name: str) -> int | None:
    """Return the id that a folder is named by, or None when it is no stream's."""
    return int(name, 16) if _FOLDER.fullmatch(name) else None


def segment_name(first: int) -> str:
    """Return the file name of the segment that begins at a position."""
    return f"{first:020d}{SEGMENT_SUFFIX}"


def index_name(first: int) -> str:
    """Return the file name of the index of that segment."""
    return f"{first:020d}{INDEX_SUFFIX}"


def parse_segment_name(name: str) -> int | None:
    """Return the first position of the segment of that file name, or None when it is no segment's."""
    return _parse(name, SEGMENT_SUFFIX)


def parse_index_name(name: str) -> int | None:
    """Return the first position of the segment whose index has that file name, or None when it is no index's."""
    return _parse(name, INDEX_SUFFIX)


def _parse(name: str, suffix: str) -> int | None:
    found = _FILE.fullmatch(name)
    return int(found[1]) if found and found[2] == suffix else None
