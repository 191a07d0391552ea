"""A set of things in the order of a rank that may change: the first of them, in logarithmic time."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

STALE_MIN: Final = 64
"""The heap is laid out again when it has this many entries more than twice the things in it: a cost spread over changes."""


class Ranked(Generic[T]):
    """Things by rank, the lowest first, equals by who came to that rank first. A thing stands in it once.

    Every change pushes an entry and leaves the old one where it is: an entry counts while its number is the thing's last.
    Nothing is left behind when it is empty.
    """

    __slots__ = ("_entries", "_heap", "_numbers")

    def __init__(self) -> None:
        self._entries: dict[T, int] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, thing: T, rank: float) -> None:
        """Add `thing`, or change its rank."""
        number = self._entries[thing] = next(self._numbers)
        heappush(self._heap, (rank, number, thing))
        if len(self._heap) > 2 * len(self._entries) + STALE_MIN:
            self._tidy()

    def discard(self, thing: T) -> None:
        """Take `thing` out, if it is in."""
        self._entries.pop(thing, None)
        if not self._entries:
            self._heap.clear()
        elif len(self._heap) > 2 * len(self._entries) + STALE_MIN:
            self._tidy()

    def first(self) -> T | None:
        """Return the thing of the lowest rank; None when there is none."""
        heap, entries = self._heap, self._entries
        while heap:
            _, number, thing = heap[0]
            if entries.get(thing) == number:
                return thing
            heappop(heap)
        return None

    def first_rank(self) -> float | None:
        """Return the lowest rank; None when there is none."""
        return None if self.first() is None else self._heap[0][0]

    def _tidy(self) -> None:
        self._heap = [entry for entry in self._heap if self._entries.get(entry[2]) == entry[1]]
        heapify(self._heap)
