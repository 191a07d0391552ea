"""The leases of one consumer: who may work on which record, and until when. Pure, and given the time. None outlives a restart.

A lease is one fetch: its records belong to whoever fetched them until `lease_s` has passed on the monotonic clock, so a wall
clock that jumps ends none. All leases of a consumer last for the same time, so they end in the order in which they were taken.
"""

from __future__ import annotations

from heapq import nsmallest
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Leases:
    """The open records of one consumer: each is either leased or in line."""

    __slots__ = ("_held", "_leases", "_numbers", "lease_s", "line")

    def __init__(self, lease_s: float, line: Iterable[int]) -> None:
        """All of `line` is in line: leases of an earlier process mean nothing."""
        self.lease_s = lease_s
        self.line: set[int] = set(line)
        """Open records that nobody works on."""
        self._numbers = count()
        self._held: dict[int, int] = {}
        # By number, which is also the order in which they end; one without records is not kept.
        self._leases: dict[int, tuple[float, set[int]]] = {}

    @property
    def ends_at(self) -> float | None:
        """The time at which the first lease ends."""
        return next(iter(self._leases.values()))[0] if self._leases else None

    def is_held(self, position: int) -> bool:
        """Return whether somebody works on it."""
        return position in self._held

    def first(self, count_max: int) -> list[int]:
        """Return the lowest positions in line."""
        return nsmallest(count_max, self.line)

    def take(self, positions: Iterable[int], now: float) -> None:
        """Lease records that are open, whoever held them: from now on it is whoever asked last."""
        number, taken = next(self._numbers), set(positions)
        for position in taken:
            self.drop(position)
            self._held[position] = number
        if taken:
            self._leases[number] = (now + self.lease_s, taken)

    def drop(self, position: int) -> None:
        """Forget a record that is not open any more."""
        self.line.discard(position)
        if (number := self._held.pop(position, None)) is not None:
            held = self._leases[number][1]
            held.discard(position)
            if not held:
                del self._leases[number]

    def put_in_line(self, position: int) -> None:
        """Let the next fetch have an open record."""
        self.drop(position)
        self.line.add(position)

    def end(self, now: float) -> None:
        """Put the records of all leases in line that have ended by now."""
        while self._leases:
            number, (until, positions) = next(iter(self._leases.items()))
            if until > now:
                return
            del self._leases[number]
            for position in positions:
                del self._held[position]
            self.line |= positions
