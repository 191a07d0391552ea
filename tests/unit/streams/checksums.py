"""Batches whose checksum is a chosen one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def record_with_checksum_0(batch_of: Callable[[bytes], bytes]) -> bytes:
    """The four bytes with which the checksum of a batch is 0: it is linear in them, so 32 equations with 32 unknowns."""

    def crc(record: int) -> int:
        return int(struct.unpack_from("<I", batch_of(struct.pack("<I", record)), 4)[0])

    base = crc(0)
    rows: list[tuple[int, int]] = []
    for bit in range(32):
        value, chosen = crc(1 << bit) ^ base, 1 << bit
        for pivot, sources in rows:
            if value ^ pivot < value:
                value, chosen = value ^ pivot, chosen ^ sources
        rows.append((value, chosen))
        rows.sort(reverse=True)
    wanted, record = base, 0
    for pivot, sources in rows:
        if wanted ^ pivot < wanted:
            wanted, record = wanted ^ pivot, record ^ sources
    assert wanted == 0
    return struct.pack("<I", record)
