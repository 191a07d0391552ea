"""Producers of one stream: new, duplicate or refused; the same after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outlast.streams._errors import FencedError, LimitError, SequenceError
from outlast.streams._format.batches import encode_batch
from outlast.streams._format.frames import UNSALTED
from outlast.streams._format.producers import APPENDS_MAX, decode_producers, encode_producers
from outlast.streams._format.scan import batches
from outlast.streams._model import NUMBER_MAX, Appended, Entry, Producer
from outlast.streams._producers import FORGOTTEN, Producers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outlast.streams._format.producers import ProducerState

Stored: TypeAlias = "dict[str, dict[tuple[int, int], tuple[int, int]]]"
"""Positions of appends by epoch and sequence, by producer."""

IDLE_US = 100
PLACES = 3


def fresh(states: Iterable[ProducerState] = ()) -> Producers:
    return Producers("orders", producers_max=PLACES, idle_us=IDLE_US, states=states)


def store(producers: Producers, producer: Producer, first: int, behind: int, now_us: int = 0) -> None:
    assert producers.check(producer, now_us) is None
    producers.stage(producer, first, behind, now_us)
    producers.commit()


def answer(producers: Producers, producer: Producer, now_us: int) -> object:
    """What it says, as a value that can be compared."""
    try:
        return producers.check(producer, now_us)
    except (FencedError, LimitError, SequenceError) as error:
        return type(error), str(error)


def test_a_retry_is_a_duplicate_with_the_positions_of_the_first() -> None:
    producers = fresh()
    store(producers, Producer("p", 0, 0), 10, 12)
    assert producers.check(Producer("p", 0, 0), 0) == Appended(10, 12, duplicate=True)
    assert producers.check(Producer("p", 0, 1), 0) is None


def test_a_retry_of_long_ago_is_a_duplicate_without_positions() -> None:
    producers = fresh()
    for sequence in range(APPENDS_MAX + 1):
        store(producers, Producer("p", 0, sequence), sequence, sequence + 1)
    assert producers.check(Producer("p", 0, 1), 0) == Appended(1, 2, duplicate=True)
    assert producers.check(Producer("p", 0, 0), 0) == Appended(FORGOTTEN, FORGOTTEN, duplicate=True)


def test_a_gap_is_refused_and_says_what_is_next() -> None:
    producers = fresh()
    store(producers, Producer("p", 0, 0), 0, 1)
    with pytest.raises(SequenceError, match="sent sequence 2, and 1 is the next") as caught:
        producers.check(Producer("p", 0, 2), 0)
    assert caught.value.expected == 1


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_new_epoch_and_an_unknown_producer_begin_at_zero(epoch: int) -> None:
    producers = fresh()
    if epoch:
        store(producers, Producer("p", 0, 0), 0, 1)
    with pytest.raises(SequenceError) as caught:
        producers.check(Producer("p", epoch, 1), 0)
    assert caught.value.expected == 0
    assert producers.check(Producer("p", epoch, 0), 0) is None


def test_a_new_epoch_fences_the_old_one_and_forgets_its_appends() -> None:
    producers = fresh()
    store(producers, Producer("p", 0, 0), 0, 1)
    store(producers, Producer("p", 7, 0), 1, 2)
    with pytest.raises(FencedError, match="epoch 0, and epoch 7 has begun"):
        producers.check(Producer("p", 0, 1), 0)
    with pytest.raises(FencedError):
        producers.check(Producer("p", 0, 0), 0)
    assert producers.check(Producer("p", 7, 0), 0) == Appended(1, 2, duplicate=True)
    assert [state.appends for state in producers.states()] == [((1, 2),)]


def test_a_retry_beside_its_first_attempt_in_one_batch_has_its_positions() -> None:
    producers = fresh()
    producers.stage(Producer("p", 0, 0), 5, 6, 0)
    assert producers.check(Producer("p", 0, 0), 0) == Appended(5, 6, duplicate=True)
    producers.roll_back()
    assert producers.check(Producer("p", 0, 0), 0) is None


def test_when_all_places_are_taken_only_one_that_was_idle_goes() -> None:
    producers = fresh()
    for number, name in enumerate("cab"):
        store(producers, Producer(name, 0, 0), number, number + 1, now_us=number)
    with pytest.raises(LimitError, match="'new' is new, and there are 3 already"):
        producers.check(Producer("new", 0, 0), IDLE_US - 1)
    store(producers, Producer("new", 0, 0), 3, 4, now_us=IDLE_US)
    assert {state.id for state in producers.states()} == {"a", "b", "new"}
    with pytest.raises(SequenceError):
        producers.check(Producer("c", 0, 1), IDLE_US)


def test_a_batch_that_is_not_stored_brings_back_whom_it_made_forget() -> None:
    producers = fresh()
    for name in "abc":
        store(producers, Producer(name, 0, 0), 0, 1)
    before = set(producers.states())
    producers.stage(Producer("d", 0, 0), 3, 4, IDLE_US)
    producers.stage(Producer("d", 0, 1), 4, 5, IDLE_US)
    producers.stage(Producer("a", 0, 0), 5, 6, IDLE_US)
    producers.roll_back()
    assert set(producers.states()) == before


def test_an_append_that_is_not_stored_keeps_nobody_s_place() -> None:
    producers = fresh()
    for name in "abc":
        store(producers, Producer(name, 0, 0), 0, 1)
    for name in "abc":
        producers.stage(Producer(name, 0, 1), 3, 4, IDLE_US)
    with pytest.raises(LimitError):
        producers.check(Producer("d", 0, 0), IDLE_US)
    producers.roll_back()
    assert producers.check(Producer("d", 0, 0), IDLE_US) is None


def test_the_largest_numbers_survive_a_restart() -> None:
    producers = fresh()
    store(producers, Producer("p", NUMBER_MAX, 0), NUMBER_MAX - 1, NUMBER_MAX)
    [state] = decode_producers(encode_producers(producers.states()), 0)
    assert (state.epoch, state.appends) == (NUMBER_MAX, ((NUMBER_MAX - 1, NUMBER_MAX),))


class Model(RuleBasedStateMachine):
    """Against a list of all that was stored; and a second one, that is made again from a snapshot and the batches since."""

    @initialize()
    def begin(self) -> None:
        self.producers, self.now_us, self.tail = fresh(), 0, 0
        self.stored: Stored = {}
        self.last_us: dict[str, int] = {}
        self.snapshot, self.log = b"", b""

    @rule(
        appends=st.lists(
            st.tuples(st.sampled_from("abcde"), st.integers(0, 2), st.integers(0, 4), st.integers(1, 2)), min_size=1, max_size=4
        ),
        wait_us=st.sampled_from([0, 1, IDLE_US]),
        works=st.booleans(),
    )
    def append(self, appends: list[tuple[str, int, int, int]], wait_us: int, *, works: bool) -> None:
        self.now_us += wait_us
        tail, entries, new = self.tail, [], []
        stored = {name: dict(all_of) for name, all_of in self.stored.items()}
        last_us = dict(self.last_us)
        for name, epoch, sequence, count in appends:
            producer = Producer(name, epoch, sequence)
            expected = self.expect(producer, stored, last_us)
            found = answer(self.producers, producer, self.now_us)
            assert (found[0] if isinstance(found, tuple) else found) == expected
            if expected is not None:
                continue
            if name not in stored and len(stored) == PLACES:
                gone = min(stored, key=lambda each: (last_us[each], each))
                del stored[gone], last_us[gone]
            self.producers.stage(producer, tail, tail + count, self.now_us)
            newest = max((known[0] for known in stored.get(name, ())), default=epoch)
            if newest < epoch:
                stored[name].clear()
            stored.setdefault(name, {})[epoch, sequence] = (tail, tail + count)
            last_us[name] = self.now_us
            entries.append(Entry([b"x"] * count, None, producer))
            new.append((tail, tail + count))
            tail += count
        if not works:
            self.producers.roll_back()
            return
        self.producers.commit()
        self.stored, self.last_us = stored, last_us
        if entries:
            encoded = encode_batch(
                entries, salt=UNSALTED, offset=len(self.log), durable_to=0, first=self.tail, time_us=self.now_us
            )
            self.log += b"".join(encoded.pieces)
        self.tail = tail

    def expect(self, producer: Producer, stored: Stored, last_us: dict[str, int]) -> object:
        mine = stored.get(producer.id)
        if mine is None:
            if producer.sequence:
                return SequenceError
            full = len(stored) == PLACES and all(self.now_us - each < IDLE_US for each in last_us.values())
            return LimitError if full else None
        newest = max(epoch for epoch, _ in mine)
        if producer.epoch < newest:
            return FencedError
        if producer.epoch > newest:
            return SequenceError if producer.sequence else None
        if (known := mine.get((producer.epoch, producer.sequence))) is not None:
            return Appended(*known, duplicate=True)
        return None if producer.sequence == len(mine) else SequenceError

    @rule()
    def roll_over(self) -> None:
        self.snapshot, self.log = encode_producers(self.producers.states()), b""

    @invariant()
    def answers_are_the_same_after_a_restart(self) -> None:
        again = fresh(decode_producers(self.snapshot, 0))
        for batch in batches(lambda at, size: self.log[at : at + size], salt=UNSALTED, begin=0, end=len(self.log)):
            again.replay(batch)
        assert set(again.states()) == set(self.producers.states())
        for name in "abcdef":
            for epoch in (0, 2):
                for sequence in (0, 1, 3):
                    producer = Producer(name, epoch, sequence)
                    assert answer(again, producer, self.now_us) == answer(self.producers, producer, self.now_us)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
