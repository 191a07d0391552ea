"""The ramp over which the waiters of a dependency that is back are let go: short, but not all at once."""

from __future__ import annotations

from typing import Final

SPACING_S: Final = 0.010
"""Ten milliseconds between two waiters: a hundred a second is less than any server notices."""
RAMP_S_MAX: Final = 2.0
"""However many wait, the last one is let go after this long."""


def length_s(waiters: int) -> float:
    """Return the length of the ramp for this many waiters: min(2 s, 10 ms × waiters)."""
    return min(RAMP_S_MAX, SPACING_S * waiters)


def due(waiters: int, elapsed_s: float) -> int:
    """Return how many of `waiters` may have been let go once the ramp has run for `elapsed_s` seconds.

    They are evenly spaced, the first after one spacing: with 100 waiters ten in any 100 ms, with 1,000
    waiters fifty.
    """
    if waiters <= 0 or elapsed_s <= 0:
        return 0
    total_s = length_s(waiters)
    if elapsed_s >= total_s:
        return waiters
    # The tiny addition keeps k × spacing, computed in floats, from counting as just before k.
    return min(waiters, int(elapsed_s / total_s * waiters + 1e-9))


def next_at_s(waiters: int, released: int) -> float:
    """Return the seconds from the start of the ramp until the next waiter after `released` may go."""
    return length_s(waiters) * (released + 1) / waiters if waiters else 0.0
