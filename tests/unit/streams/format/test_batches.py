"""Batches of a segment: they come back, they are found behind damage, and no cut or flipped bit makes a wrong record."""

from __future__ import annotations

import struct
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.extend import NewerFormatError
from outlast.streams._format.batches import Batch, Stored, batch_bytes, encode_batch
from outlast.streams._format.frames import MAGIC, FrameError, extend, salt_of
from outlast.streams._format.scan import batches, is_torn_tail, next_batch
from outlast.streams._model import NUMBER_MAX, Entry, Producer

SALT = salt_of(7, 0)
BEGIN = 100
"""The offset of the first batch: behind a header, which is not looked at here."""

records = st.lists(st.binary(max_size=40), max_size=5)
producers = st.none() | st.builds(Producer, st.text(max_size=5), st.integers(0, NUMBER_MAX), st.integers(0, NUMBER_MAX))
entries = st.builds(
    lambda texts, producer, headers: Entry(texts, [text[:3] for text in texts] if headers else None, producer),
    records,
    producers,
    st.booleans(),
)


def segment(groups: list[list[Entry]], *, synced: bool = True, first: int = 0, salt: int = SALT) -> tuple[bytes, list[int]]:
    """The bytes of a segment from `BEGIN` on, each group a batch, and where each batch begins; the last number is the end."""
    data, places = b"", [BEGIN]
    for group in groups:
        at = places[-1]
        encoded = encode_batch(group, salt=salt, offset=at, durable_to=at if synced else BEGIN, first=first, time_us=5)
        assert encoded.size == sum(map(len, encoded.pieces))
        data += b"".join(encoded.pieces)
        first = encoded.next
        places.append(at + encoded.size)
    return data, places


class File:
    """Bytes that begin at `BEGIN`, and how they were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.calls: list[tuple[int, int]] = []

    def __call__(self, at: int, size: int) -> bytes:
        self.calls.append((at, size))
        assert at >= BEGIN
        return self.data[at - BEGIN : at - BEGIN + size]

    @property
    def end(self) -> int:
        return BEGIN + len(self.data)

    def walk(self, *, ahead: int = 1 << 20, end: int | None = None) -> tuple[list[Batch], FrameError | None]:
        """The batches from the beginning, and the error at the first place that is none."""
        found = []
        try:
            for batch in batches(self, salt=SALT, begin=BEGIN, end=self.end if end is None else end, position=0, ahead=ahead):
                found.append(batch)  # noqa: PERF402  those before an error count
        except FrameError as error:
            return found, error
        return found, None


@given(st.lists(st.lists(entries, min_size=1, max_size=4), max_size=4), st.sampled_from([50, 90, 200, 1 << 20]))
@settings(max_examples=60)
def test_what_was_appended_comes_back_however_much_is_read_at_once(groups: list[list[Entry]], ahead: int) -> None:
    data, places = segment(groups)
    found, error = File(data).walk(ahead=ahead)
    assert error is None
    assert [batch.offset for batch in found] + [BEGIN + len(data)] == places
    tail = 0
    for group, batch in zip(groups, found, strict=True):
        assert batch.records() == [record for entry in group for record in entry.records]
        firsts = [tail, *accumulate((len(entry.records) for entry in group), initial=tail)][1:]
        expected = [Stored(e.producer, at, at + len(e.records)) for e, at in zip(group, firsts, strict=False) if e.producer]
        assert batch.stored() == expected
        if any(entry.headers is not None for entry in group):
            assert batch.headers() == [text for entry in group for text in entry.headers or [b""] * len(entry.records)]
        else:
            assert batch.headers() is None
        assert batch.length == batch_bytes(group)
        assert (batch.first, batch.time_us) == (tail, 5)
        tail = batch.next


def test_a_part_of_a_batch_is_cut_out_of_it() -> None:
    texts = [bytes([65 + each]) * each for each in range(6)]
    data, _ = segment([[Entry(texts, [text.lower() for text in texts])]])
    [[batch], _] = File(data).walk()
    assert (batch.records(2, 4), batch.records(4), batch.records(6)) == (texts[2:4], texts[4:], [])
    assert batch.headers(3) == [b"ddd", b"eeee", b"fffff"]


@pytest.mark.parametrize("size", [0, 1, 7])
def test_texts_of_one_length_are_cut_out_as_others_are(size: int) -> None:
    texts = [bytes([65 + each]) * size for each in range(12)]
    data, _ = segment([[Entry(texts, [text.lower() for text in texts])]])
    [[batch], _] = File(data).walk()
    assert (batch.records(), batch.records(3), batch.records(2, 11), batch.records(12)) == (texts, texts[3:], texts[2:11], [])
    assert batch.headers(0, 5) == [text.lower() for text in texts[:5]]


def test_a_large_batch_is_read_once_and_in_one_piece() -> None:
    data, places = segment([[Entry([b"x" * 10])], [Entry([b"y" * 5000])], [Entry([b"z" * 10])]])
    file = File(data)
    found, _ = file.walk(ahead=256)
    assert [batch.record_count for batch in found] == [1, 1, 1]
    assert (places[1] + 8, places[2] - places[1] - 8) in file.calls
    assert len(file.calls) == 3


def small() -> tuple[list[list[Entry]], bytes, list[int]]:
    groups = [
        [Entry([b"first", b""], None, Producer("p", 1, 0))],
        [Entry([b"second"], [b'{"a":"b"}']), Entry([b"third"])],
        [Entry([MAGIC * 3])],
        [Entry([b"last"], None, Producer("q", 0, 0))],
    ]
    return groups, *segment(groups)


def test_each_cut_is_a_torn_tail_and_no_wrong_record() -> None:
    _, data, places = small()
    whole, _ = File(data).walk()
    for size in range(len(data)):
        file = File(data[:size])
        found, error = file.walk()
        assert found == whole[: len(found)]
        if BEGIN + size in places:
            assert error is None
        else:
            assert error is not None
            assert error.offset == max(place for place in places if place <= BEGIN + size)
            assert is_torn_tail(file, salt=SALT, begin=error.offset, end=file.end, position=error.position)


def test_a_cut_is_found_by_who_knows_where_the_data_ends() -> None:
    _, data, places = small()
    found, error = File(data[: places[2] - BEGIN]).walk(end=places[-1])
    assert len(found) == 2
    assert error is not None
    assert (error.offset, error.position) == (places[2], found[-1].next)


def test_each_flipped_bit_is_found_and_what_is_behind_it_is_read() -> None:
    _, data, places = small()
    whole, _ = File(data).walk()
    for bit in range(len(data) * 8):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        file = File(bytes(wrong))
        hit = max(number for number, place in enumerate(places) if place <= BEGIN + bit // 8)
        found, error = file.walk()
        assert found == whole[:hit]
        assert error is not None
        assert (error.offset, error.position) == (places[hit], whole[hit].first)
        behind = next_batch(file, salt=SALT, begin=error.offset + 1, end=file.end, position=error.position)
        is_last = hit == len(whole) - 1
        assert behind == (None if is_last else whole[hit + 1])
        # Damage of the very last batch cannot be told from a torn write.
        assert is_torn_tail(file, salt=SALT, begin=error.offset, end=file.end, position=error.position) == is_last


def test_batches_that_were_never_synced_are_cut_from_the_first_gap_on() -> None:
    groups, _, _ = small()
    data, places = segment(groups, synced=False)
    torn = data[: places[1] - BEGIN] + bytes(places[2] - places[1]) + data[places[2] - BEGIN :]
    file = File(torn)
    _, error = file.walk()
    assert error is not None
    assert error.offset == places[1]
    assert is_torn_tail(file, salt=SALT, begin=error.offset, end=file.end, position=error.position)


def test_a_stored_copy_of_batches_is_not_taken_for_batches() -> None:
    own, _ = segment([[Entry([b"a"])], [Entry([b"b"])]])
    other, _ = segment([[Entry([b"c"])]], salt=salt_of(8, 0))
    # A segment with the bytes of segments as its records; then the batch that holds them is torn.
    data, places = segment([[Entry([b"a"])], [Entry([b"b", own, other])]])
    wrong = bytearray(data)
    wrong[places[1] - BEGIN + 20] ^= 1
    file = File(bytes(wrong))
    assert next_batch(file, salt=SALT, begin=places[1], end=file.end, position=1) is None
    assert is_torn_tail(file, salt=SALT, begin=places[1], end=file.end, position=1)


def test_batches_before_the_expected_position_are_no_sign_of_damage() -> None:
    data, places = segment([[Entry([b"a"])], [Entry([b"b"])]])
    file = File(data)
    assert next_batch(file, salt=SALT, begin=BEGIN + 1, end=file.end, position=1) is not None
    assert next_batch(file, salt=SALT, begin=BEGIN + 1, end=file.end, position=2) is None
    assert places[-1] == file.end


@pytest.mark.parametrize("ahead", [64, 100, 1000])
def test_a_batch_is_found_wherever_it_lies_in_what_is_read_at_once(ahead: int) -> None:
    for gap in range(130):
        encoded = encode_batch([Entry([b"x" * 20])], salt=SALT, offset=BEGIN + gap, durable_to=BEGIN, first=3, time_us=0)
        file = File(MAGIC * (gap // 4) + bytes(gap % 4) + b"".join(encoded.pieces))
        found = next_batch(file, salt=SALT, begin=BEGIN, end=file.end, position=0, ahead=ahead)
        assert found is not None
        assert found.offset == BEGIN + gap


def test_a_batch_that_does_not_go_on_from_the_last_position_is_damage() -> None:
    first, places = segment([[Entry([b"a"])]])
    encoded = encode_batch([Entry([b"b"])], salt=SALT, offset=places[1], durable_to=0, first=5, time_us=0)
    found, error = File(first + b"".join(encoded.pieces)).walk()
    assert len(found) == 1
    assert error is not None
    assert "position 5 where 1 belongs" in error.reason


def test_a_whole_batch_of_a_newer_format_is_refused() -> None:
    data, _ = segment([[Entry([b"a"])]])
    checked = bytearray(data[8:])
    checked[5] = 3
    newer = MAGIC + struct.pack("<I", extend(SALT, bytes(checked))) + bytes(checked)
    with pytest.raises(NewerFormatError):
        File(newer).walk()
    with pytest.raises(NewerFormatError):
        next_batch(File(newer), salt=SALT, begin=BEGIN, end=BEGIN + len(newer), position=0)
