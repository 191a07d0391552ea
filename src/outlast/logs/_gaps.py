"""Output that was dropped for want of room: how much it was, and how few lines report it."""

from __future__ import annotations

from dataclasses import dataclass

from outlast._core.quantities import amount


@dataclass(frozen=True, slots=True)
class Gap:
    """Output that was dropped during one slow spell of a place, because there was no room for it."""

    lines: int
    size: int
    """Bytes."""
    lasted_s: float
    by_rank: tuple[tuple[int, int], ...] = ()
    """(rank, lines), lowest rank first, where lines have ranks."""
    why: str = ""
    """The error that the place reported, if any; otherwise it was only slow."""

    def tell(self) -> str:
        """Return how much it was, as half a sentence."""
        return f"{amount(self.lines, 'line')} ({amount(self.size, 'byte')}) dropped within {self.lasted_s:.1f} s"


@dataclass(slots=True)
class Patience:
    """Whether the program is held up until a place has caught up: a burst is no reason to lose lines, a slow place is one.

    Holding begins when half of the backlog waits. A place that then takes a quarter of it within `hold_s` is quick, and
    may hold again at once; one that does not is slow, and may not for `rest_s`. So a slow place, or one that takes nothing,
    holds the program up for at most `hold_s` in `hold_s + rest_s` seconds.
    """

    hold_s: float = 0.25
    rest_s: float = 10.0
    _since: float | None = None
    _rests_until: float = float("-inf")

    def holds(self, size: int, bytes_max: int, now: float) -> bool:
        """Return whether to wait, with `size` bytes waiting of `bytes_max`."""
        if self._since is None:
            if size > bytes_max // 2 and now >= self._rests_until:
                self._since = now
        elif size <= bytes_max // 4:
            self._since = None
        elif now - self._since >= self.hold_s:
            self._since, self._rests_until = None, now + self.rest_s
        return self._since is not None


@dataclass(slots=True)
class GapBook:
    """Reports what was dropped in few lines: the first gap at once, then sums at intervals that grow from `first_s` to `cap_s`.

    After `cap_s` without a gap it begins again. No gap is left out of the sums.
    """

    first_s: float = 5.0
    cap_s: float = 900.0
    _interval_s: float = 0.0
    _told_at: float = 0.0
    _count: int = 0
    _lines: int = 0
    _size: int = 0
    _lasted_s: float = 0.0

    def add(self, gap: Gap) -> None:
        """Take in a gap that has ended."""
        self._count += 1
        self._lines += gap.lines
        self._size += gap.size
        self._lasted_s += gap.lasted_s

    def tell(self, now: float, *, last: bool = False) -> str | None:
        """Return the line that is due; with `last`, whatever has not been told yet."""
        since_s = now - self._told_at
        if self._count and (last or not self._interval_s or since_s >= self._interval_s):
            text = Gap(self._lines, self._size, self._lasted_s).tell()
            if self._count > 1:
                text = f"{text}, at {self._count:,} places"
            self._count = self._lines = self._size = 0
            self._lasted_s = 0.0
            self._told_at = now
            self._interval_s = min(self.cap_s, max(self.first_s, 2 * self._interval_s))
            return text
        if not self._count and since_s >= self.cap_s:
            self._interval_s = 0.0
        return None
