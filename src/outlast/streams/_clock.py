"""The time that is written beside records, and the one by which they grow old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GAP_US: Final = 86_400_000_000
"""A store that was away for longer than a day may have met a clock that jumped: nobody can tell."""


class Clock:
    """Wall time as it was at `begin`, plus what a monotonic clock has counted since.

    So a clock that is set while the process runs changes no record's time and no record's age. Any thread may ask.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` returns seconds since 1970."""
        self._wall = wall
        self.begin(lambda: 0.0)

    def begin(self, monotonic: Callable[[], float]) -> None:
        """Take the wall time of now. `monotonic` returns seconds."""
        self._monotonic = monotonic
        self._offset_us = int((self._wall() - monotonic()) * 1e6)
        self._behind_us = 0

    def now_us(self) -> int:
        """Return the time for a record that is stored now, in microseconds since 1970."""
        return int(self._monotonic() * 1e6) + self._offset_us

    def age_now_us(self) -> int:
        """Return the time against which records are old."""
        return self.now_us() - self._behind_us

    def seen(self, last_us: int) -> float | None:
        """Compare with the last time at which the store was in use; return the seconds between, if that is worth a line.

        After more than a day, whether it was away or the clock jumped, records grow old from that time on, and no faster than
        the process does: none is given up early. Back in time nothing is old, which is as safe.
        """
        gap_us = self.now_us() - last_us
        if gap_us > GAP_US:
            self._behind_us = max(self._behind_us, gap_us)
        return gap_us / 1e6 if abs(gap_us) > GAP_US else None
