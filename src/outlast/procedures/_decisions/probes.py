"""Probes: failing keys whose backoff has passed, one attempt each, at most ten a second in all, in the order in which they asked.

A key that is asked for ten thousand times a second has one place in the line, as one that is asked for once a minute. Those at
the head get a *turn*, which the next submission of the key takes. A key for which nobody asks any more loses its place.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

PROBES_PER_S: Final = 10
TURNS_SHARE: Final = 0.8
"""Turns come at 0.8 of the rate of probes. So one that comes for its turn finds the second's probes used up only now and then,
though others have kept turns for later. It keeps its turn then."""
KEPT_S: Final = 60.0
"""A place in the line, and a turn, are kept for so long after the key was last asked for."""
TOLD_S_MAX: Final = 30.0
"""Nobody is told to come back later than this, so that whoever obeys keeps its place."""
LINE_MAX: Final = 50_000


class Probes:
    """Grants probes. `asked` returns 0.0 for "yes, now", or the seconds after which it is worth asking again."""

    def __init__(self, per_s: int = PROBES_PER_S, line_max: int = LINE_MAX) -> None:
        """Raise `ValueError` for a rate at which no key would ever be tried."""
        if per_s < 1 or line_max < 1:
            raise ValueError(f"at least 1 probe a second and 1 place in the line are needed, not {per_s} and {line_max}")
        self.granted = 0
        self._line: OrderedDict[Hashable, _Place] = OrderedDict()
        """Those who wait for a turn, in their order."""
        self._turns: OrderedDict[Hashable, _Place] = OrderedDict()
        """Those who have one."""
        self._line_max = line_max
        self._tickets = 0
        self._called = 0
        """How many were called, or have left the line: at most the ticket of a place less this are before it."""
        self._spacing_s = 1.0 / (per_s * TURNS_SHARE)
        self._next_turn_at = -inf
        self._used: deque[float] = deque(maxlen=per_s)
        """The times of the newest probes: as many as a second may have."""

    def __len__(self) -> int:
        return len(self._line) + len(self._turns)

    def asked(self, now: float, key: Hashable) -> float:
        """Ask for a probe of this key. 0.0: it is granted, and the key has no place any more."""
        place = self._turns.get(key) or self._line.get(key)
        if place is None:
            if len(self._line) >= self._line_max and not self._drop_the_gone(now):
                return TOLD_S_MAX
            self._tickets += 1
            place = self._line[key] = _Place(self._tickets)
        place.asked_at = now
        if now >= self._next_turn_at:
            self._call(now)
        if key in self._turns:
            used = self._used
            if len(used) < (used.maxlen or 0) or now - used[0] >= 1.0:
                del self._turns[key]
                self.used(now)
                return 0.0
            return used[0] + 1.0 - now
        ahead = max(0, place.ticket - self._called - 1)
        return min(TOLD_S_MAX, max(0.0, self._next_turn_at - now) + (ahead + 1) * self._spacing_s)

    def used(self, now: float) -> None:
        """Count a probe: one that was granted, or one that nobody asked for."""
        self._used.append(now)
        self.granted += 1

    def leave(self, key: Hashable) -> None:
        """Take a key out of the line: it is no longer failing."""
        if self._line.pop(key, None) is not None:
            self._called += 1
        self._turns.pop(key, None)

    def clear(self) -> None:
        """Forget the whole line."""
        self._called = self._tickets
        self._line.clear()
        self._turns.clear()

    def _call(self, now: float) -> None:
        """Call those whose turn has come since the last time. Turns that nobody waited for are kept for a second."""
        at = max(self._next_turn_at, now - 1.0)
        while self._line and at <= now:
            key, place = self._line.popitem(last=False)
            self._called += 1
            if place.asked_at >= now - KEPT_S:
                self._turns[key] = place
                at += self._spacing_s
        self._next_turn_at = at
        while self._turns and next(iter(self._turns.values())).asked_at < now - KEPT_S:
            self._turns.popitem(last=False)

    def _drop_the_gone(self, now: float) -> bool:
        """Make room in a full line; return whether there is some. Only the head is looked at: those behind came later."""
        dropped = False
        while self._line and next(iter(self._line.values())).asked_at < now - KEPT_S:
            self._line.popitem(last=False)
            self._called += 1
            dropped = True
        return dropped


class _Place:
    __slots__ = ("asked_at", "ticket")

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.asked_at = 0.0
