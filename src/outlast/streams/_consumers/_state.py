"""One consumer's decisions: what to hand out, what to set aside, what an acknowledgement means. Pure, and given the time.

A decision is an event. `deliver` and the like carry theirs out at once, since nobody else may take the same records meanwhile;
an acknowledgement is carried out by `apply` when it is on disk, and not if it could not be stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.streams._consumers._cursor import OPEN_MAX, SET_ASIDE_MAX, Cursor, Event, EventKind
from outlast.streams._consumers._leases import Leases
from outlast.streams._consumers._runs import Run, runs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class State:
    """A cursor and its leases."""

    __slots__ = ("_oldest", "cursor", "deliveries_max", "leases")

    def __init__(self, cursor: Cursor, lease_s: float, deliveries_max: int) -> None:
        self.cursor = cursor
        self.deliveries_max = deliveries_max
        self.leases = Leases(lease_s, cursor.open)
        self._oldest = 0

    @property
    def room(self) -> int:
        """The number of new records that may be handed out before some are acknowledged."""
        return max(0, OPEN_MAX - len(self.cursor.open))

    def settle(self, oldest: int, now: float) -> Event | None:
        """Take note of the time, and of the oldest record that the stream still has: the event, if that is news."""
        self.leases.end(now)
        known, self._oldest = self._oldest, max(self._oldest, oldest)
        if oldest <= known or not (oldest > self.cursor.next or self._holds_below(oldest)):
            return None
        event = Event(EventKind.GONE, self.cursor.name, number=oldest)
        self.apply(event)
        return event

    def too_often(self, count_max: int) -> Event | None:
        """Set aside those of the first `count_max` records in line that were delivered often enough: the event, if any."""
        often = [p for p in self.leases.first(count_max) if self.cursor.open[p] >= self.deliveries_max]
        # At the bound they stay in line: nothing is dropped to make room for news.
        runs = runs_of(often)[: max(0, SET_ASIDE_MAX - len(self.cursor.set_aside))]
        if not runs:
            return None
        event = Event(EventKind.SET_ASIDE, self.cursor.name, tuple(runs))
        self.apply(event)
        return event

    def in_line(self, count_max: int) -> list[int]:
        """Return open records that nobody works on, the lowest first."""
        return self.leases.first(count_max)

    def deliver(self, positions: Sequence[int], now: float) -> Event:
        """Hand out records that are in line, or the next ones of the stream."""
        event = Event(EventKind.DELIVERED, self.cursor.name, tuple(runs_of(positions)))
        self.cursor.apply(event)
        self.leases.take(positions, now)
        return event

    def damaged(self, run: Run) -> Event:
        """Set aside records that cannot be read, in line or next, so that those behind them can be handed out."""
        event = Event(EventKind.SET_ASIDE, self.cursor.name, (run,))
        self.apply(event)
        return event

    def acknowledgement(self, positions: Iterable[int]) -> Event:
        """Return the event, which changes nothing yet. Raises ValueError for a record that was never handed out."""
        return self._about(EventKind.ACKNOWLEDGED, positions, "acknowledged")

    def putting_back(self, positions: Iterable[int]) -> Event:
        """Return the event of those that are set aside. Raises ValueError for a record that was never handed out."""
        return self._about(EventKind.PUT_BACK, (p for p in positions if p in self.cursor.set_aside or p < 0), "put back")

    def release(self, positions: Iterable[int]) -> None:
        """Put records in line whose lease has not ended."""
        for position in positions:
            if self.leases.is_held(position):
                self.leases.put_in_line(position)

    def renew(self, positions: Iterable[int], now: float) -> list[int]:
        """Begin the leases of these records again, and return those that are not in line by now, nor done."""
        held = [position for position in positions if self.leases.is_held(position)]
        self.leases.take(held, now)
        return held

    def apply(self, event: Event) -> None:
        """Carry out an event that was stored, or is stored whatever happens."""
        before = self._open_of(event)
        self.cursor.apply(event)
        after = self._open_of(event)
        for position in before - after:
            self.leases.drop(position)
        for position in after - before:
            self.leases.put_in_line(position)

    def _open_of(self, event: Event) -> set[int]:
        match event.kind:
            case EventKind.GONE:
                runs: tuple[Run, ...] = (Run(0, event.number),)
            case _:
                runs = event.runs
        return {position for run in runs for position in self.cursor.open_within(run)}

    def _holds_below(self, oldest: int) -> bool:
        return bool(self.cursor.set_aside.within(Run(0, oldest))) or any(position < oldest for position in self.cursor.open)

    def _about(self, kind: EventKind, positions: Iterable[int], what: str) -> Event:
        runs = runs_of(positions)
        if runs and (runs[0].first < 0 or runs[-1].end > self.cursor.next):
            wrong = runs[0].first if runs[0].first < 0 else runs[-1].end - 1
            known = f"only 0 to {self.cursor.next - 1} were handed out"
            raise ValueError(f"consumer {self.cursor.name!r}: position {wrong} cannot be {what}: {known}")
        return Event(kind, self.cursor.name, tuple(runs))
