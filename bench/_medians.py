"""The median of ratios, and the interval that it lies in."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR = 0.05
"""The share of intervals that may miss the true median."""


def median_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the ratios and the ends of its 95 % interval, by rank: of fewer than six, the least and the largest.

    How many of n lie below the true median is binomial with 1/2, whatever their distribution. On a machine that others use single
    ones are several times too large or too small, and a mean is theirs.
    """
    found = sorted(ratios)
    count, below, likely = len(found), 0, 0.5 ** len(found)
    while (likely := likely + math.comb(count, below + 1) * 0.5**count) <= ERROR / 2:
        below += 1
    return statistics.median(found), found[below], found[-1 - below]
