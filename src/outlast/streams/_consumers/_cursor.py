"""The place of one consumer: the state that outlives a restart, and the events that change it. Pure.

Every position of the stream has one standing:

    standing   set by                                            stored as               after a restart
    NEW        (nothing yet: it is at or above `next`)           `next`                  NEW
    OPEN       DELIVERED, PUT_BACK                               a count of deliveries   OPEN: in line again, with its count
    DONE       ACKNOWLEDGED                                      being below `next`      DONE
    SET_ASIDE  SET_ASIDE, after too many deliveries, or damage   a run                   SET_ASIDE
    (gone)     GONE: it was trimmed, or retention took it        being below `next`      DONE, and counted in `skipped`

Only what is open or set aside costs memory, so an acknowledgement makes the state smaller and is never refused for its size: the
bound is on what may be open (`OPEN_MAX`), and it is held where records are handed out.

An event that does not fit the standing of a position leaves it as it is. So the events of several tasks may be stored in
another order than they were decided in, and an event that damage took out of the middle costs a delivery more, never a record.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, assert_never

from outlast.streams._consumers._runs import Run, RunSet, runs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_MAX: Final = 16_384
"""Records of one consumer that may be delivered and not acknowledged. At the bound nothing new is handed out."""
SET_ASIDE_MAX: Final = 10_000
"""Runs of records that one consumer may have set aside. At the bound further ones stay in line and are delivered again."""


class Standing(enum.Enum):
    """The place of one record in the work of a consumer."""

    NEW = "new"
    OPEN = "open"
    DONE = "done"
    SET_ASIDE = "set aside"


class EventKind(enum.Enum):
    """The kinds of events, with the byte that each is stored as: never use a number for another kind."""

    BEGUN = 1
    """The consumer begins at position `number`; whatever was known of one with its name is forgotten."""
    DELIVERED = 2
    """The records of `runs` are handed out once more: OPEN, with one more delivery."""
    ACKNOWLEDGED = 3
    """OPEN or SET_ASIDE becomes DONE."""
    SET_ASIDE = 4
    """OPEN or NEW becomes SET_ASIDE."""
    PUT_BACK = 5
    """SET_ASIDE becomes OPEN, without a delivery."""
    GONE = 6
    """Everything below position `number` is gone: what was not DONE is skipped."""
    LOST = 7
    """The stream ends at `number`, below `next`: a power cut took records that were not on disk. Their positions come again."""
    STANDS = 8
    """The records of `runs` are OPEN with `number` deliveries: a part of a snapshot."""
    SKIPPED = 9
    """`number` records were skipped so far: a part of a snapshot."""
    ASIDE = 10
    """The records of `runs` are SET_ASIDE: a part of a snapshot."""
    DELETED = 11
    """There is no consumer of this name any more."""


RunKind: TypeAlias = Literal[
    EventKind.DELIVERED,
    EventKind.ACKNOWLEDGED,
    EventKind.SET_ASIDE,
    EventKind.PUT_BACK,
    EventKind.STANDS,
    EventKind.ASIDE,
]
"""Those that are carried out run by run."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one consumer."""

    kind: EventKind
    consumer: str
    runs: tuple[Run, ...] = ()
    number: int = 0


class Cursor:
    """One consumer's place. For one thread at a time; nothing here waits."""

    __slots__ = ("name", "next", "open", "set_aside", "skipped")

    def __init__(self, name: str, start: int) -> None:
        self.name = name
        self.next: int = start
        """Everything from here on was never handed out."""
        self.open: dict[int, int] = {}
        """Each record that was handed out, or put back, and not acknowledged, with the number of its deliveries."""
        self.set_aside = RunSet()
        self.skipped: int = 0
        """Records that were gone before they were acknowledged."""

    def standing(self, position: int) -> Standing:
        """Return the standing of a position of the stream."""
        if position >= self.next:
            return Standing.NEW
        if position in self.open:
            return Standing.OPEN
        return Standing.SET_ASIDE if position in self.set_aside else Standing.DONE

    def remaining(self, tail: int) -> int:
        """Return how many records are not done and not set aside, of a stream that ends at `tail`."""
        return max(0, tail - self.next) + len(self.open)

    def open_within(self, run: Run) -> list[int]:
        """Return the open records of a run, at the cost of the shorter of the two."""
        if run.end - run.first <= len(self.open):
            return [position for position in range(*run) if position in self.open]
        return [position for position in self.open if run.first <= position < run.end]

    def apply(self, event: Event) -> None:
        """Carry out an event of this consumer, except DELETED, which is the business of whoever keeps the consumers."""
        match event.kind:
            case EventKind.BEGUN:
                self.next, self.skipped = event.number, 0
                self.open.clear()
                self.set_aside = RunSet()
            case EventKind.GONE:
                self._drop_below(event.number)
            case EventKind.LOST:
                self._drop_from(event.number)
            case EventKind.SKIPPED:
                self.skipped = event.number
            case EventKind.DELETED:
                pass
            case _:
                for run in event.runs:
                    self._apply_to(run, event.kind, event.number)

    def _apply_to(self, run: Run, kind: RunKind, count: int) -> None:
        match kind:
            case EventKind.DELIVERED:
                self._deliver(run)
            case EventKind.ACKNOWLEDGED:
                self._close(run)
                self.set_aside.discard(run)
            case EventKind.SET_ASIDE:
                self._put_aside(run)
            case EventKind.PUT_BACK:
                for found in self.set_aside.within(run):
                    self.open.update((position, 0) for position in range(*found))
                self.set_aside.discard(run)
            case EventKind.STANDS:
                self.open.update((position, count) for position in range(*run))
            case EventKind.ASIDE:
                self.set_aside.add(run)
            case _:
                assert_never(kind)

    def snapshot(self) -> Iterator[Event]:
        """Yield the events that make this state out of nothing."""
        yield Event(EventKind.BEGUN, self.name, number=self.next)
        if self.skipped:
            yield Event(EventKind.SKIPPED, self.name, number=self.skipped)
        by_count: dict[int, list[int]] = {}
        for position, count in self.open.items():
            by_count.setdefault(count, []).append(position)
        for count, positions in sorted(by_count.items()):
            yield Event(EventKind.STANDS, self.name, tuple(runs_of(positions)), count)
        if len(self.set_aside):
            yield Event(EventKind.ASIDE, self.name, tuple(self.set_aside))

    def _deliver(self, run: Run) -> None:
        # An event that was lost may have moved `next`: what it handed out is in line without a count.
        self._reach(run.first)
        for position in range(run.first, min(run.end, self.next)):
            if (count := self.open.get(position)) is not None:
                self.open[position] = count + 1
        for position in range(max(run.first, self.next), run.end):
            self.open[position] = 1
        self.next = max(self.next, run.end)

    def _reach(self, position: int) -> None:
        if position > self.next:
            if position - self.next > OPEN_MAX:
                msg = f"a delivery at {position} does not follow {self.next}, the next of consumer {self.name!r}"
                raise ValueError(msg)
            self.open.update((missed, 0) for missed in range(self.next, position))
            self.next = position

    def _put_aside(self, run: Run) -> None:
        for position in self.open_within(run):
            del self.open[position]
            self.set_aside.add(Run(position, position + 1))
        if run.end > self.next:
            self._reach(run.first)
            self.set_aside.add(Run(max(run.first, self.next), run.end))
            self.next = run.end

    def _close(self, run: Run) -> None:
        for position in self.open_within(run):
            del self.open[position]

    def _drop_below(self, oldest: int) -> None:
        before = len(self.open) + self.set_aside.size
        self._close(Run(0, oldest))
        self.set_aside.discard(Run(0, oldest))
        self.skipped += before - len(self.open) - self.set_aside.size + max(0, oldest - self.next)
        self.next = max(self.next, oldest)

    def _drop_from(self, tail: int) -> None:
        if tail < self.next:
            self._close(Run(tail, self.next))
            self.set_aside.discard(Run(tail, self.next))
            self.next = tail
