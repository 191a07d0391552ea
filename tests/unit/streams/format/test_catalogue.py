"""Metas, headers of segments, indexes, headers of records, names: they come back, and no damage goes unseen."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.extend import NewerFormatError
from outlast.streams._format.frames import (
    SEGMENT_BYTES_MAX,
    UNSALTED,
    FrameError,
    FrameKind,
    checksum,
    encode_frame,
    mark,
    salt_of,
)
from outlast.streams._format.index import STEP_BYTES, Index, IndexBuilder, decode_index, encode_index
from outlast.streams._format.meta import META_BYTES, SLOT_BYTES, Meta, decode_slots, encode_meta
from outlast.streams._format.names import (
    folder_name,
    index_name,
    parse_folder_name,
    parse_index_name,
    parse_segment_name,
    segment_name,
)
from outlast.streams._format.producers import ProducerState
from outlast.streams._format.record_headers import decode_headers, encode_headers
from outlast.streams._format.segments import Previous, SegmentHeader, encode_header, read_header
from outlast.streams._model import NAME_BYTES_MAX, NUMBER_MAX, Retention, StreamOptions

META = Meta(
    id=(1 << 64) - 1,
    name="orders/ü",
    created_us=1,
    options=StreamOptions(sync_every_s=0.5, retention=Retention(age_s=9.5, when_low=True), quota_bytes=1 << 40),
    oldest=17,
    is_closed=True,
    number=3,
)
OLDER = dataclasses.replace(META, oldest=16, number=2)


def flips(data: bytes, step: int = 1) -> list[bytes]:
    wrong = []
    for bit in range(0, len(data) * 8, step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        wrong.append(bytes(changed))
    return wrong


def test_a_meta_comes_back_from_both_slots() -> None:
    slots = decode_slots(encode_meta(META) * 2)
    assert (slots.meta, slots.is_healthy) == (META, True)


def test_the_longest_name_fits() -> None:
    meta = dataclasses.replace(META, name='"' * NAME_BYTES_MAX, created_us=NUMBER_MAX, oldest=NUMBER_MAX, number=NUMBER_MAX)
    assert decode_slots(encode_meta(meta) * 2).meta == meta
    with pytest.raises(ValueError, match="at most 4080 fit"):
        encode_meta(dataclasses.replace(meta, name="x" * SLOT_BYTES))


def test_each_flipped_bit_of_a_meta_is_found_and_the_other_slot_holds() -> None:
    slot = encode_meta(META)
    # Every bit of the texts, and some of the blanks behind them.
    used = len(slot.rstrip(b" "))
    for wrong in [*flips(slot[:used]), *(slot[:used] + blanks for blanks in flips(slot[used:], step=999))]:
        bad = wrong.ljust(SLOT_BYTES)
        for data, number in ((bad + slot, 0), (slot + bad, 1)):
            slots = decode_slots(data)
            assert slots.meta == META
            assert [bool(fault) for fault in slots.faults] == [number == 0, number == 1]


@pytest.mark.parametrize("size", [0, 1, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 1, META_BYTES - 1, META_BYTES + 1])
def test_a_meta_of_another_size_is_found(size: int) -> None:
    data = (encode_meta(META) * 3)[:size]
    if size < SLOT_BYTES:
        with pytest.raises(FrameError, match="neither slot"):
            decode_slots(data)
    else:
        slots = decode_slots(data)
        assert slots.meta == META
        assert slots.faults[1]


@pytest.mark.parametrize(
    ("first", "second", "meta", "faulty"),
    [
        (META, OLDER, META, 1),
        (OLDER, META, META, 0),
        (None, OLDER, OLDER, 0),
        (META, None, META, 1),
    ],
)
def test_the_newer_whole_slot_holds(first: Meta | None, second: Meta | None, meta: Meta, faulty: int) -> None:
    data = b"".join(bytes(SLOT_BYTES) if each is None else encode_meta(each) for each in (first, second))
    slots = decode_slots(data)
    assert slots.meta == meta
    assert [bool(fault) for fault in slots.faults] == [faulty == 0, faulty == 1]


def test_an_option_of_later_is_ignored_and_a_newer_format_refused() -> None:
    body = json.loads(encode_meta(META)[16:])
    body["options"]["of_later"] = body["of_later"] = 1
    slot = encode_frame(FrameKind.META, json.dumps(body).encode().ljust(SLOT_BYTES - 16))
    assert decode_slots(slot * 2).meta == META
    newer = bytearray(encode_frame(FrameKind.META, b" " * (SLOT_BYTES - 16)))
    newer[13] = 9
    newer[:8] = mark(checksum(bytes(newer[8:]), UNSALTED))
    with pytest.raises(NewerFormatError):
        decode_slots(bytes(newer) * 2)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"id":"zz","options":{"retention":{}}}', b"null", b"nothing"])
def test_a_whole_slot_that_describes_nothing_is_damage(body: bytes) -> None:
    with pytest.raises(FrameError, match="neither slot of it is whole"):
        decode_slots(encode_frame(FrameKind.META, body.ljust(SLOT_BYTES - 16)) * 2)


numbers = st.integers(0, NUMBER_MAX)
states = st.builds(
    lambda name, epoch, sequence, time_us, firsts: ProducerState(
        name, epoch, sequence, time_us, tuple((first, first + count) for first, count in firsts)
    ),
    st.text(max_size=8),
    numbers,
    numbers,
    numbers,
    st.lists(st.tuples(numbers, st.integers(0, 1 << 16)), max_size=8),
)


@given(st.lists(states, max_size=4), st.none() | st.builds(Previous, numbers, numbers, numbers), numbers)
def test_the_header_of_a_segment_comes_back(found: list[ProducerState], previous: Previous | None, first: int) -> None:
    header = SegmentHeader(META, first, 5, previous, tuple(found))
    data = encode_header(header)
    assert read_header(lambda at, size: (data + b"batches")[at : at + size]) == (header, len(data))


def test_the_size_of_a_header_does_not_depend_on_the_segment_before_and_can_be_chosen() -> None:
    header = SegmentHeader(META, 7, 5, None, (ProducerState("p", 1, 2, 3, ((4, 5),)),))
    data = encode_header(header)
    longest = dataclasses.replace(header, previous=Previous(NUMBER_MAX, SEGMENT_BYTES_MAX, NUMBER_MAX))
    assert len(encode_header(longest)) == len(data)
    assert len(encode_header(header, 1000)) == 1000
    assert read_header(lambda at, size: encode_header(header, 1000)[at : at + size]) == (header, 1000)
    assert encode_header(header, 100) == data


def test_a_long_header_is_read_whole() -> None:
    state = ProducerState("p" * 256, 1, 2, 3, ((4, 5),) * 8)
    header = SegmentHeader(META, 0, 5, None, (state,) * 1000)
    data = encode_header(header)
    assert len(data) > 1 << 16
    assert read_header(lambda at, size: data[at : at + size]) == (header, len(data))


def test_each_flipped_bit_and_each_cut_of_a_header_is_found() -> None:
    data = encode_header(SegmentHeader(META, 0, 5, Previous(0, 1, 2), (ProducerState("p", 1, 2, 3, ((4, 5),)),)))
    for wrong in [*flips(data, step=3), *(data[:size] for size in range(len(data)))]:
        with pytest.raises(FrameError):
            read_header(lambda at, size, wrong=wrong: wrong[at : at + size])


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff\xff", b"\x02\0\0\0{}", b"\x02\0\0\0{}x"])
def test_a_whole_header_that_describes_nothing_is_damage(body: bytes) -> None:
    data = encode_frame(FrameKind.SEGMENT, body)
    with pytest.raises(FrameError, match="the header of a segment is none"):
        read_header(lambda at, size: data[at : at + size])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3 * STEP_BYTES)), min_size=1, max_size=30), st.data())
def test_an_index_finds_the_batch_to_begin_at(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    builder, position, offset, places = IndexBuilder(), 10, 500, []
    for count, size in sizes:
        builder.add(position, offset, offset)
        places.append((position, offset))
        position, offset = position + count, offset + size
    index = decode_index(encode_index(builder.build(10, position, offset), salt_of(1, 10)), salt_of(1, 10))
    assert (index.first, index.tail, index.size, index.time_us) == (10, position, offset, places[-1][1])
    wanted = data.draw(st.integers(10, position - 1))
    at, begin = index.find(wanted)
    assert (begin, at) in places
    holder = max(place for place in places if place[0] <= wanted)
    assert begin <= holder[0]
    assert holder[1] - at < STEP_BYTES or holder[1] == at
    with pytest.raises(FrameError):
        index.find(9)


def test_each_flipped_bit_and_each_cut_of_an_index_is_found() -> None:
    builder = IndexBuilder()
    builder.add(0, 50, 1)
    builder.add(9, 50 + STEP_BYTES, 2)
    data = encode_index(builder.build(0, 20, 2 * STEP_BYTES), salt_of(1, 0))
    for wrong in [*flips(data), *(data[:size] for size in range(len(data)))]:
        with pytest.raises(FrameError):
            decode_index(wrong, salt_of(1, 0))
    with pytest.raises(FrameError, match="the index is none"):
        decode_index(encode_frame(FrameKind.INDEX, b"too short", salt=salt_of(1, 0)), salt_of(1, 0))


@pytest.mark.parametrize(("position", "offset"), [(9, 500), (21, 500), (15, 900)])
def test_an_index_with_an_entry_outside_its_segment_is_none(position: int, offset: int) -> None:
    index = Index(10, 20, 900, 1, (10, position), (100, offset))
    with pytest.raises(FrameError, match="an entry of the index lies outside its segment"):
        decode_index(encode_index(index, UNSALTED), UNSALTED)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=4))
def test_headers_of_a_record_come_back_in_order(headers: dict[str, str]) -> None:
    again = decode_headers(encode_headers(headers))
    assert list(again.items()) == list(headers.items())


def test_headers_that_are_no_texts_are_refused() -> None:
    assert encode_headers({}) == b""
    for wrong in ({"a": 1}, {1: "a"}, {"a": None}, {"\ud800": "a"}):
        with pytest.raises(ValueError, match=r"headers are texts|surrogates not allowed"):
            encode_headers(wrong)  # type: ignore[arg-type]


def test_names_are_fixed_in_length_and_come_back() -> None:
    assert folder_name(255) == "00000000000000ff"
    assert (segment_name(42), index_name(42)) == (f"{42:020d}.log", f"{42:020d}.idx")
    assert parse_folder_name(folder_name(255)) == 255
    assert parse_segment_name(segment_name(NUMBER_MAX)) == NUMBER_MAX
    assert parse_index_name(index_name(0)) == 0


@pytest.mark.parametrize(
    "name", ["", "meta", "1.log", "0" * 20, "0" * 20 + ".idx", "0" * 20 + ".log.new", "٠" * 20 + ".log", "+" + "0" * 19 + ".log"]
)
def test_other_files_are_no_segments(name: str) -> None:
    assert parse_segment_name(name) is None


@pytest.mark.parametrize("name", ["", "00000000000000FF", "0" * 15, "0" * 17, "0x00000000000000", "000000000000000g"])
def test_other_folders_are_no_streams(name: str) -> None:
    assert parse_folder_name(name) is None
