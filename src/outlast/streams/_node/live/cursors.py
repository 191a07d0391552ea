"""Cursors: numbers in the addresses of reads that wait, by which a cache never answers with the same thing twice.

Pure. Time is cut into intervals of 20 s, counted from 9 October 2024, and the cursor is the number of the present one. A client
that comes with a cursor which is not behind gets a later one, so its next address is new.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from outlast.streams._node.protocol import parse_number

if TYPE_CHECKING:
    import random

EPOCH_S: Final = 1_728_432_000.0
"""2024-10-09T00:00:00Z, in seconds since 1970: 20,005 days of 86,400 s."""
INTERVAL_S: Final = 20.0
JITTER_S_MAX: Final = 3600.0
"""The most by which a cursor is put ahead of one that is not behind; the protocol says 1 to 3,600 s."""
CURSOR_MAX: Final = 10**12
"""The largest cursor that is looked at: 600,000 years of intervals. A larger one is none of ours."""


def parse_cursor(text: str | None) -> int | None:
    """Return the cursor that a client sends back; None for none, or for what no server of the protocol has sent."""
    if text is None or not text.isascii():
        return None
    number = parse_number(text.encode())
    return number if number is not None and number <= CURSOR_MAX else None


def next_cursor(wall_s: float, seen: int | None, rng: random.Random) -> int:
    """Return the cursor of an answer at `wall_s` seconds since 1970, to a client that has `seen` one: always a later one."""
    interval = max(0, math.floor((wall_s - EPOCH_S) / INTERVAL_S))
    if seen is None or seen < interval:
        return interval
    return seen + max(1, round(rng.uniform(1.0, JITTER_S_MAX) / INTERVAL_S))
