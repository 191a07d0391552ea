"""What a stream must hold: the simplest thing that an engine can be compared with, a list in memory."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast.streams._errors import FencedError, PositionMismatchError, SequenceError, StreamClosedError, StreamError
from outlast.streams._model import Appended, Entry, Producer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REMEMBERED: Final = 8
"""Appends of a producer whose positions a late retry is told."""


class Violation(AssertionError):  # noqa: N818 - what is found, not an error of the simulation
    """The engine has broken a promise."""


class State(enum.Enum):
    REFUSED = "refused"
    """Never to be read, now or later. What was lost while that was allowed is the same from then on."""
    MAYBE = "maybe"
    """The answer was "unknown", or none came: the next start decides."""
    STORED = "stored"


@dataclass(slots=True, eq=False)
class Sent:
    """One append, with all the attempts at it."""

    records: list[bytes]
    headers: list[bytes] | None
    producer: Producer | None
    at: int | None = None
    closes: bool = False
    state: State = State.REFUSED
    first: int = -1

    @property
    def next(self) -> int:
        return self.first + len(self.records)

    def entry(self) -> Entry:
        return Entry(self.records, self.headers, self.producer, self.at, self.closes)


@dataclass(slots=True)
class Known:
    """A producer as the log has it."""

    epoch: int
    sequence: int
    appends: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


class Model:
    """The stream as it must be. `durable` is the position below which nothing may be lost by a power cut."""

    def __init__(self, start: int = 0, labels: dict[str, str] | None = None) -> None:
        self.start = start
        self.log: list[Sent] = []
        """What is stored, in order, trimmed or not."""
        self.sent: dict[bytes, Sent] = {}
        """By its first record, each of which is different."""
        self.closing: list[Sent] = []
        """Those without a record: they close the stream, and do nothing else."""
        self.oldest = self.tail = self.durable = start
        self.oldest_maybe: set[int] = set()
        self.labels = labels or {}
        self.labels_maybe: list[dict[str, str]] = []
        self.is_closed = False
        self.is_closed_maybe = False
        self.is_closed_durable = False
        """Whether a power cut cannot open it again."""
        self.shaky: tuple[int, int] = (0, 0)
        """Positions that a failed sync was to put on disk, in a stream that syncs each interval."""
        self.holes: set[int] = set()
        """Positions that were lost so."""
        self.producers: dict[str, Known] = {}

    # What the log is to answer.

    def expect(self, group: Sequence[Sent]) -> list[Appended | type[StreamError]]:
        """Return the answers to one call, as if it was stored; change nothing."""
        known = {name: Known(each.epoch, each.sequence, list(each.appends)) for name, each in self.producers.items()}
        position, answers, is_closed = self.tail, list[Appended | type[StreamError]](), self.is_closed
        for sent in group:
            answer = self._expect_one(sent, position, known)
            if is_closed and answer is not FencedError and not (isinstance(answer, Appended) and answer.duplicate):
                answer = StreamClosedError
            answers.append(answer)
            if isinstance(answer, Appended) and not answer.duplicate:
                if sent.producer is not None:
                    _take(known, sent.producer, answer)
                position, is_closed = answer.next, sent.closes
        return answers

    def _expect_one(self, sent: Sent, position: int, known: dict[str, Known]) -> Appended | type[StreamError]:
        if sent.producer is not None and (answer := _expect_of(known.get(sent.producer.id), sent.producer)) is not None:
            return answer
        if sent.at is not None and sent.at != position:
            return PositionMismatchError
        return Appended(position, position + len(sent.records))

    # What has happened.

    def answered(self, group: Sequence[Sent], answers: Sequence[Appended | StreamError]) -> None:
        """Compare the answers, and take what is stored now."""
        wanted = self.expect(group)
        for sent, answer, want in zip(group, answers, wanted, strict=True):
            if isinstance(want, Appended):
                _demand(answer == want, f"an append was answered {answer!r}, not {want!r}")
                if not want.duplicate:
                    self._store(sent, want.first)
            else:
                _demand(isinstance(answer, want), f"an append was answered {answer!r}, not by {want.__name__}")
        if self.log and any(isinstance(want, Appended) and not want.duplicate for want in wanted):
            # Their places are taken.
            self._settle_the_rest()

    def unknown(self, group: Sequence[Sent]) -> None:
        """Nobody said whether they are stored."""
        for sent, want in zip(group, self.expect(group), strict=True):
            if isinstance(want, Appended) and not want.duplicate:
                sent.state = State.MAYBE

    def synced(self, *, in_doubt: bool = False) -> None:
        """A sync has worked: all is on disk. What an earlier one has failed for only if it is that which was asked for again."""
        self.durable, self.is_closed_durable = self.tail, self.is_closed
        if in_doubt:
            self.shaky = (0, 0)

    def sync_failed(self) -> None:
        self.shaky = (min(self.durable, self.shaky[0]) if self.shaky[1] else self.durable, max(self.tail, self.shaky[1]))

    def trimmed(self, before: int) -> None:
        if before > self.oldest:
            self.oldest = before
            self.oldest_maybe.clear()

    def labelled(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.labels_maybe.clear()

    # What is found.

    def found_labels(self, labels: dict[str, str], *, power_cut: bool) -> None:
        """Compare the labels that the start after a crash has found."""
        _demand(labels == self.labels or labels in self.labels_maybe, f"the labels are {labels}, not {self.labels}")
        self.labels_maybe = [] if power_cut or not self.labels_maybe else [*self.labels_maybe, self.labels]
        self.labels = labels

    def found(
        self,
        oldest: int,
        tail: int,
        is_closed: bool,  # noqa: FBT001 - as the view has it
        records: dict[int, Any],
        producers: Mapping[str, tuple[int, int]],
        *,
        power_cut: bool,
    ) -> None:
        """Compare what the start after a crash has found, and go on from there."""
        _demand(oldest == self.oldest or oldest in self.oldest_maybe, f"the oldest position is {oldest}, not {self.oldest}")
        if power_cut:
            self.oldest_maybe.clear()
        elif self.oldest_maybe:
            # A sync of it has failed, so what is read may not be what is on the disk.
            self.oldest_maybe |= {self.oldest, oldest}
        self.oldest = oldest
        least = self.durable if power_cut else self.tail
        _demand(tail >= max(least, oldest), f"the tail is {tail}: acknowledged records up to {least} are lost")
        if tail < self.tail:
            # Acknowledged before a sync, and lost with the power: never to be seen again.
            self._lose([sent for sent in self.log if sent.next > tail])
            _demand((self.log[-1].next if self.log else self.start) == tail, "half of an append is stored")
            self._go_on_at(tail)
        position = self.tail
        while position < tail:
            sent = self.sent.get(records[position][0])
            _demand(sent is not None and sent.state is State.MAYBE, f"what was refused is stored at {position}")
            assert sent is not None
            self._store(sent, position)
            _demand(self.tail <= tail, f"half of an append is stored at {position}")
            position = self.tail
        self._found_closed(producers, is_closed=is_closed, power_cut=power_cut)
        self._settle_the_rest()
        self.check(records, is_whole=True)
        self.durable, self.is_closed_durable = self.tail, self.is_closed
        if power_cut:
            self.holes |= {position for position, found in records.items() if isinstance(found, Exception)}
            self.shaky = (0, 0)
        elif self.shaky[1]:
            # It may be readable from memory only, and nobody can know.
            self.durable, self.is_closed_durable = min(tail, self.shaky[0]), False

    def _found_closed(self, producers: Mapping[str, tuple[int, int]], *, is_closed: bool, power_cut: bool) -> None:
        """Compare whether it is closed; its records are compared."""
        if is_closed and not self.is_closed:
            # By an append without records whose answer was "unknown": that of which the producer is known, or any.
            maybe = [sent for sent in self.closing if sent.state is State.MAYBE]
            maybe.sort(key=lambda sent: sent.producer is None)
            stored = next((sent for sent in maybe if _is_known(sent.producer, producers)), None)
            if stored is not None:
                self._store(stored, self.tail)
        elif self.is_closed and not is_closed and power_cut and not self.is_closed_durable:
            # Acknowledged before a sync, and lost with the power.
            self._lose([sent for sent in self.log if sent.closes])
            self._go_on_at(self.tail)
        _demand(is_closed == self.is_closed or self.is_closed_maybe, f"closed is {is_closed}")
        # As with the oldest position.
        self.is_closed_maybe = not power_cut and self.is_closed_maybe
        self.is_closed = is_closed

    def check(self, records: dict[int, Any], *, is_whole: bool) -> None:
        """Compare what was read: by position the record and its headers, or an error."""
        for sent in self.log:
            if sent.next <= self.oldest:
                continue
            for index, record in enumerate(sent.records):
                position = sent.first + index
                if position < self.oldest or (position not in records and not is_whole):
                    continue
                _demand(position in records, f"position {position} was not read")
                found = records[position]
                if isinstance(found, Exception):
                    allowed = position in self.holes or self.shaky[0] <= position < self.shaky[1]
                    _demand(allowed, f"position {position} cannot be read: {found!r}")
                    continue
                wanted = (record, b"" if sent.headers is None else sent.headers[index])
                _demand(found == wanted, f"position {position} has {found!r:.60}, not {wanted!r:.60}")

    def _store(self, sent: Sent, first: int) -> None:
        sent.state, sent.first = State.STORED, first
        self.log.append(sent)
        self.tail, self.is_closed = sent.next, sent.closes
        if sent.producer is not None:
            _take(self.producers, sent.producer, Appended(first, sent.next))

    def _settle_the_rest(self) -> None:
        for sent in (*self.sent.values(), *self.closing):
            if sent.state is State.MAYBE:
                sent.state = State.REFUSED

    def _lose(self, lost: list[Sent]) -> None:
        for sent in lost:
            sent.state = State.REFUSED
            self.is_closed = self.is_closed and not sent.closes
        self.log = [sent for sent in self.log if sent.state is not State.REFUSED]

    def _go_on_at(self, tail: int) -> None:
        self.tail = tail
        self.producers.clear()
        for sent in self.log:
            if sent.producer is not None:
                _take(self.producers, sent.producer, Appended(sent.first, sent.next))


def _is_known(producer: Producer | None, producers: Mapping[str, tuple[int, int]]) -> bool:
    return producer is None or producers.get(producer.id) == (producer.epoch, producer.sequence)


def _expect_of(state: Known | None, producer: Producer) -> Appended | type[StreamError] | None:
    """Return what a producer is answered; None if its append is new."""
    if state is None or producer.epoch > state.epoch:
        return SequenceError if producer.sequence else None
    if producer.epoch < state.epoch:
        return FencedError
    behind = state.sequence - producer.sequence
    if behind < 0:
        return None if behind == -1 else SequenceError
    place = state.appends[-1 - behind] if behind < len(state.appends) else (-1, -1)
    return Appended(*place, duplicate=True)


def _take(known: dict[str, Known], producer: Producer, answer: Appended) -> None:
    state = known.get(producer.id)
    kept = state.appends[1 - REMEMBERED :] if state is not None and state.epoch == producer.epoch else []
    known[producer.id] = Known(producer.epoch, producer.sequence, [*kept, (answer.first, answer.next)])


def _demand(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise Violation(otherwise)
