"""One consumer's decisions, against a model that keeps a word for each record."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outlast.streams._consumers import _state
from outlast.streams._consumers._codec import encode, parse
from outlast.streams._consumers._cursor import OPEN_MAX, Cursor, Event, EventKind, Standing
from outlast.streams._consumers._file import _replay as replay
from outlast.streams._consumers._file import whole
from outlast.streams._consumers._runs import Run
from outlast.streams._consumers._state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

LEASE_S = 30.0


def state(start: int = 0, deliveries_max: int = 3) -> State:
    return State(Cursor("billing", start), LEASE_S, deliveries_max)


def acknowledge(consumer: State, *positions: int) -> None:
    consumer.apply(consumer.acknowledgement(positions))


def again(consumer: State) -> State:
    """The consumer as a later process finds it."""
    found = replay(parse(encode(whole([consumer.cursor]), 7), 7).events)
    return State(found["billing"], LEASE_S, consumer.deliveries_max)


def test_a_record_has_one_standing_after_another() -> None:
    consumer = state()
    consumer.deliver([0, 1, 2], now=0.0)
    assert [consumer.cursor.standing(position) for position in range(4)] == [Standing.OPEN] * 3 + [Standing.NEW]
    acknowledge(consumer, 1)
    assert consumer.cursor.standing(1) is Standing.DONE
    for now in (30.0, 60.0):
        consumer.settle(0, now)
        consumer.deliver(consumer.in_line(10), now)
    consumer.settle(0, 90.0)
    assert consumer.too_often(10) == Event(EventKind.SET_ASIDE, "billing", (Run(0, 1), Run(2, 3)))
    assert [consumer.cursor.standing(position) for position in range(3)] == [
        Standing.SET_ASIDE,
        Standing.DONE,
        Standing.SET_ASIDE,
    ]
    assert consumer.cursor.remaining(tail=3) == 0


def test_a_lease_ends_by_the_time_that_it_is_given_and_by_nothing_else() -> None:
    consumer = state()
    consumer.deliver([0], now=0.0)
    consumer.deliver([1], now=10.0)
    consumer.settle(0, 29.9)
    assert consumer.in_line(10) == []
    assert consumer.leases.ends_at == 30.0
    consumer.settle(0, 30.0)
    assert consumer.in_line(10) == [0]
    assert consumer.renew([0, 1], now=35.0) == [1], "the first may be with somebody else by now"
    consumer.settle(0, 64.9)
    assert consumer.in_line(10) == [0]
    consumer.settle(0, 65.0)
    assert consumer.in_line(10) == [0, 1]


def test_what_is_released_is_in_line_at_once_and_what_is_not_leased_stays_as_it_is() -> None:
    consumer = state()
    consumer.deliver([0, 1], now=0.0)
    acknowledge(consumer, 1)
    consumer.release([0, 1, 2])
    assert consumer.in_line(10) == [0]


def test_what_was_never_handed_out_cannot_be_acknowledged() -> None:
    consumer = state()
    consumer.deliver([0, 1], now=0.0)
    for position in (2, -1):
        with pytest.raises(ValueError, match=f"position {position} cannot be acknowledged: only 0 to 1 were handed out"):
            consumer.acknowledgement([0, position])
    acknowledge(consumer, 0)
    acknowledge(consumer, 0)
    assert consumer.cursor.open == {1: 1}


def test_an_acknowledgement_holds_after_the_lease_and_of_what_is_set_aside() -> None:
    consumer = state(deliveries_max=1)
    consumer.deliver([0, 1], now=0.0)
    consumer.settle(0, 30.0)
    acknowledge(consumer, 0)
    consumer.too_often(10)
    acknowledge(consumer, 1)
    assert consumer.cursor.set_aside.size == 0
    assert [consumer.cursor.standing(position) for position in (0, 1)] == [Standing.DONE] * 2


def test_records_that_are_gone_are_skipped_and_counted_once() -> None:
    consumer = state(deliveries_max=1)
    consumer.deliver([0, 1, 2], now=0.0)
    acknowledge(consumer, 0)
    consumer.settle(0, 30.0)
    consumer.too_often(1)
    assert consumer.settle(5, 31.0) == Event(EventKind.GONE, "billing", number=5)
    assert consumer.settle(5, 32.0) is None
    assert (consumer.cursor.next, consumer.cursor.skipped) == (5, 4), "1 set aside, 1 in line, 2 never seen"
    assert consumer.in_line(10) == []


def test_a_trim_of_what_is_done_is_no_news() -> None:
    consumer = state()
    consumer.deliver([0, 1], now=0.0)
    acknowledge(consumer, 0, 1)
    assert consumer.settle(2, 1.0) is None


def test_positions_that_a_power_cut_took_from_the_stream_are_new_again() -> None:
    consumer = state()
    consumer.deliver([0, 1, 2, 3], now=0.0)
    acknowledge(consumer, 1)
    consumer.cursor.apply(Event(EventKind.SET_ASIDE, "billing", (Run(3, 4),)))
    consumer.cursor.apply(Event(EventKind.LOST, "billing", number=1))
    later = again(consumer)
    assert (later.cursor.open, later.cursor.next, later.cursor.set_aside.size) == ({0: 1}, 1, 0)


def test_records_that_do_not_read_are_set_aside_as_one_run_however_many_they_are() -> None:
    consumer = state()
    consumer.deliver([0], now=0.0)
    consumer.damaged(Run(1, 60_001))
    assert consumer.cursor.next == 60_001
    assert list(consumer.cursor.set_aside) == [Run(1, 60_001)]
    consumer.release([0])
    consumer.damaged(Run(0, 1))
    assert list(consumer.cursor.set_aside) == [Run(0, 60_001)]
    assert consumer.in_line(10) == []


def test_at_the_bound_of_what_is_set_aside_records_stay_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "SET_ASIDE_MAX", 2)
    consumer = state(deliveries_max=1)
    consumer.deliver(range(8), now=0.0)
    acknowledge(consumer, 1, 3, 5)
    consumer.settle(0, 30.0)
    consumer.too_often(10)
    assert list(consumer.cursor.set_aside) == [Run(0, 1), Run(2, 3)]
    assert consumer.too_often(10) is None
    assert consumer.in_line(10) == [4, 6, 7]


def test_a_delivery_that_follows_nothing_is_refused() -> None:
    cursor = Cursor("billing", 0)
    with pytest.raises(ValueError, match="does not follow 0"):
        cursor.apply(Event(EventKind.DELIVERED, "billing", (Run(OPEN_MAX + 1, OPEN_MAX + 2),)))


def test_an_event_that_was_lost_costs_a_delivery_and_no_record() -> None:
    cursor = Cursor("billing", 0)
    cursor.apply(Event(EventKind.DELIVERED, "billing", (Run(2, 4),)))
    assert cursor.open == {0: 0, 1: 0, 2: 1, 3: 1}


class Model(RuleBasedStateMachine):
    """Any order of events. The model: for each position a word, its deliveries, and whose it is until when."""

    @initialize(start=st.integers(0, 3), deliveries_max=st.integers(1, 3))
    def begin(self, start: int, deliveries_max: int) -> None:
        self.consumer = state(start, deliveries_max)
        self.next = start
        self.now = 0.0
        self.oldest = 0
        self.tail = start
        self.words: dict[int, str] = {}
        self.counts: Counter[int] = Counter()
        self.until: dict[int, float] = {}
        self.skipped = 0

    def in_words(self, word: str) -> list[int]:
        return sorted(position for position, found in self.words.items() if found == word)

    def line(self) -> list[int]:
        return [position for position in self.in_words("open") if position not in self.until]

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        self.tail += count

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 4))
    def fetch(self, count: int) -> None:
        self.settle(count)
        assert self.consumer.in_line(count) == self.line()[:count]
        positions = self.line()[:count] or list(range(self.next, min(self.tail, self.next + count)))
        if positions:
            self.consumer.deliver(positions, self.now)
        self.next = max([self.next, *(position + 1 for position in positions)])
        for position in positions:
            self.words[position] = "open"
            self.counts[position] += 1
            self.until[position] = self.now + LEASE_S

    def settle(self, count: int = 1) -> None:
        self.consumer.settle(self.oldest, self.now)
        while self.consumer.too_often(count):
            pass
        for position in range(self.oldest):
            if self.words.pop(position, "done" if position < self.next else "new") != "done":
                self.skipped += 1
            self.until.pop(position, None)
            self.words[position] = "done"
        self.next = max(self.next, self.oldest)
        self.until = {position: until for position, until in self.until.items() if until > self.now}
        while over := [position for position in self.line()[:count] if self.counts[position] >= self.consumer.deliveries_max]:
            self.words.update(dict.fromkeys(over, "aside"))

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        positions = data.draw(st.lists(st.integers(0, self.next - 1), max_size=4)) if self.next else []
        acknowledge(self.consumer, *positions)
        self.set(positions, "done")

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        positions = data.draw(st.lists(st.integers(0, self.next + 1), max_size=4))
        self.consumer.release(positions)
        for position in positions:
            self.until.pop(position, None)

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        positions = data.draw(st.lists(st.integers(0, self.next - 1), max_size=4)) if self.next else []
        self.consumer.apply(self.consumer.putting_back(positions))
        found = [position for position in positions if self.words.get(position) == "aside"]
        self.set(found, "open")
        for position in found:
            self.counts[position] = 0

    @rule(count=st.integers(0, 3))
    def trim(self, count: int) -> None:
        self.oldest = min(self.tail, self.oldest + count)

    @rule()
    def restart(self) -> None:
        self.consumer = again(self.consumer)
        self.until.clear()

    def set(self, positions: Iterable[int], word: str) -> None:
        for position in positions:
            self.words[position] = word
            self.until.pop(position, None)

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        cursor = self.consumer.cursor
        assert cursor.next == self.next
        assert {position: count for position, count in cursor.open.items() if self.words.get(position) != "open"} == {}
        assert sorted(cursor.open) == self.in_words("open")
        assert [cursor.open[position] for position in sorted(cursor.open)] == [self.counts[p] for p in self.in_words("open")]
        assert [position for run in cursor.set_aside for position in range(*run)] == self.in_words("aside")
        assert cursor.skipped == self.skipped
        leases = self.consumer.leases
        held = {position for position in cursor.open if leases.is_held(position)}
        assert held == set(self.until)
        assert leases.line == set(cursor.open) - held
        assert leases.ends_at == (min(self.until.values()) if self.until else None)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=25)
