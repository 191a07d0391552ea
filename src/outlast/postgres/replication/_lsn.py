"""Positions in the write-ahead log: numbers inside, PostgreSQL's notation towards people and SQL."""

from __future__ import annotations

import re
from typing import Final

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
LSN_MAX: Final = 2**64 - 1


def parse_lsn(text: str) -> int:
    """Return the position that PostgreSQL writes as "16/B374D848". Raises `ValueError` for anything else."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no position in the write-ahead log; one is written like 16/B374D848")
    return int(found[1], 16) << 32 | int(found[2], 16)


def format_lsn(lsn: int) -> str:
    """Write a position as PostgreSQL does. Raises `ValueError` when it is negative or has more than 64 bits."""
    if not 0 <= lsn <= LSN_MAX:
        raise ValueError(f"{lsn} is no position in the write-ahead log: it has 64 bits")
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
