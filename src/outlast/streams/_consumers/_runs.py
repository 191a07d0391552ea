"""Sets of positions as runs of neighbours, which is how they are stored and shown."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Run(NamedTuple):
    """Neighbouring positions: `first` to `end` - 1."""

    first: int
    end: int


def runs_of(positions: Iterable[int]) -> list[Run]:
    """Return the runs of positions that come in any order, and perhaps twice."""
    found: list[Run] = []
    for position in sorted(set(positions)):
        if found and found[-1].end == position:
            found[-1] = Run(found[-1].first, position + 1)
        else:
            found.append(Run(position, position + 1))
    return found


class RunSet:
    """A set of positions that costs as much as it has runs."""

    __slots__ = ("_ends", "_firsts", "size")

    def __init__(self) -> None:
        # Both sorted: run i is _firsts[i] to _ends[i] - 1, and no two touch.
        self._firsts: list[int] = []
        self._ends: list[int] = []
        self.size = 0
        """The number of positions."""

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[Run]:
        return iter([Run(first, end) for first, end in zip(self._firsts, self._ends, strict=True)])

    def __contains__(self, position: int) -> bool:
        at = bisect_right(self._firsts, position) - 1
        return at >= 0 and position < self._ends[at]

    def within(self, run: Run) -> list[Run]:
        """Return the runs of what is both in this set and in `run`."""
        low = bisect_right(self._ends, run.first)
        high = bisect_left(self._firsts, run.end)
        return [Run(max(run.first, self._firsts[at]), min(run.end, self._ends[at])) for at in range(low, high)]

    def add(self, run: Run) -> None:
        """Put the positions of `run` in."""
        # Every run that overlaps or touches the new one becomes a part of it.
        low = bisect_left(self._ends, run.first)
        high = bisect_right(self._firsts, run.end)
        first = min(run.first, self._firsts[low]) if low < high else run.first
        end = max(run.end, self._ends[high - 1]) if low < high else run.end
        self._replace(low, high, [Run(first, end)])

    def discard(self, run: Run) -> None:
        """Take the positions of `run` out; those that are not in change nothing."""
        low = bisect_right(self._ends, run.first)
        high = bisect_left(self._firsts, run.end)
        if low >= high:
            return
        before = Run(self._firsts[low], run.first)
        behind = Run(run.end, self._ends[high - 1])
        self._replace(low, high, [rest for rest in (before, behind) if rest.first < rest.end])

    def _replace(self, low: int, high: int, runs: list[Run]) -> None:
        self.size -= sum(self._ends[low:high]) - sum(self._firsts[low:high])
        self._firsts[low:high] = [run.first for run in runs]
        self._ends[low:high] = [run.end for run in runs]
        self.size += sum(run.end - run.first for run in runs)
