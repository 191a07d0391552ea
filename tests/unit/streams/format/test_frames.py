"""Frames: one checksum over all but itself, no value of it with a meaning of its own, and a version."""

from __future__ import annotations

import struct

import google_crc32c
import pytest
from checksums import record_with_checksum_0
from hypothesis import given
from hypothesis import strategies as st

from outlast.extend import NewerFormatError
from outlast.streams._format.batches import BATCH_BYTES, encode_batch
from outlast.streams._format.frames import (
    FRAME_BYTES_MAX,
    MAGIC,
    PREFIX_BYTES,
    UNSALTED,
    FrameError,
    FrameKind,
    decode_frame,
    encode_frame,
    frame_length,
    read_frame,
    salt_of,
)
from outlast.streams._format.scan import batches, is_torn_tail
from outlast.streams._model import APPEND_BYTES_MAX, NUMBER_MAX, Entry

SALT = salt_of(7, 0)


def sealed(kind: int, version: int, body: bytes = b"") -> bytes:
    """A frame with a right checksum, made here from the documentation."""
    behind = struct.pack("<IBBH", 16 + len(body), kind, version, 0) + body
    return MAGIC + struct.pack("<I", google_crc32c.value(MAGIC + behind)) + behind


@given(st.binary(max_size=300))
def test_a_frame_is_as_documented_and_comes_back(body: bytes) -> None:
    frame = encode_frame(FrameKind.META, body)
    assert frame == sealed(4, 1, body)
    assert decode_frame(frame + b"more", FrameKind.META) == body
    assert read_frame(lambda at, size: frame[at : at + size], FrameKind.META, ahead=16) == (body, len(frame))


def test_each_flipped_bit_and_each_cut_of_a_frame_is_found() -> None:
    frame = encode_frame(FrameKind.INDEX, b"some bytes", salt=SALT)
    for bit in range(len(frame) * 8):
        wrong = bytearray(frame)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            decode_frame(bytes(wrong), FrameKind.INDEX, salt=SALT)
    for size in range(len(frame)):
        with pytest.raises(FrameError):
            decode_frame(frame[:size], FrameKind.INDEX, salt=SALT)


def test_a_frame_of_another_segment_or_stream_is_none() -> None:
    frame = encode_frame(FrameKind.INDEX, b"some bytes", salt=SALT)
    for other in (salt_of(8, 0), salt_of(7, 1), UNSALTED):
        with pytest.raises(FrameError, match="checksum"):
            decode_frame(frame, FrameKind.INDEX, salt=other)


@pytest.mark.parametrize("version", [3, 255])
def test_a_whole_frame_of_a_newer_format_is_refused(version: int) -> None:
    with pytest.raises(NewerFormatError, match=f"format {version}, .*reads up to 2"):
        decode_frame(sealed(4, version, b"from later"), FrameKind.META)


def test_a_damaged_version_is_damage_and_not_a_newer_format() -> None:
    frame = bytearray(sealed(4, 1, b"body"))
    frame[13] = 2
    with pytest.raises(FrameError, match="checksum"):
        decode_frame(bytes(frame), FrameKind.META)
    with pytest.raises(FrameError, match="format 0"):
        decode_frame(sealed(4, 0), FrameKind.META)


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (b"", "0 bytes are too few"),
        (bytes(16), "no frame begins here"),
        (MAGIC + struct.pack("<IIBBH", 0, 15, 4, 1, 0), "cannot have 15 bytes"),
        (MAGIC + struct.pack("<IIBBH", 0, FRAME_BYTES_MAX + 1, 4, 1, 0), "cannot have 34603009 bytes"),
        (MAGIC + struct.pack("<IIBBH", 0, 16, 2, 1, 0), "of kind 2 where 4 "),
    ],
)
def test_a_prefix_that_is_none_says_why(prefix: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        frame_length(prefix, FrameKind.META)


def test_what_is_too_long_is_refused_before_it_is_written() -> None:
    with pytest.raises(ValueError, match="at most 34603008 are allowed"):
        encode_frame(FrameKind.SEGMENT, bytes(FRAME_BYTES_MAX - PREFIX_BYTES + 1))
    entries = [Entry([bytes(FRAME_BYTES_MAX // 2)])] * 2
    with pytest.raises(ValueError, match="a batch of 2 records would have 34603064 bytes; at most 34603008"):
        encode_batch(entries, salt=SALT, offset=0, durable_to=0, first=0, time_us=0)
    with pytest.raises(ValueError, match="would pass the last position"):
        encode_batch([Entry([b""])], salt=SALT, offset=0, durable_to=0, first=NUMBER_MAX, time_us=0)


def test_records_that_no_append_may_have_are_not_joined() -> None:
    with pytest.raises(OverflowError):
        Entry([bytes(APPEND_BYTES_MAX // 2)] * 1_000)


def batch_of(record: bytes) -> bytes:
    return b"".join(encode_batch([Entry([record])], salt=SALT, offset=0, durable_to=0, first=0, time_us=0).pieces)


def test_a_batch_whose_checksum_is_0_is_read() -> None:
    record = record_with_checksum_0(batch_of)
    data = batch_of(record)
    assert data[4:8] == bytes(4)
    [batch] = batches(lambda at, size: data[at : at + size], salt=SALT, begin=0, end=len(data), position=0)
    assert batch.records() == [record]


@pytest.mark.parametrize("salt", [SALT, 0, UNSALTED])
def test_zeros_are_no_batch_and_a_torn_tail(salt: int) -> None:
    data = bytes(4096)
    with pytest.raises(FrameError):
        list(batches(lambda at, size: data[at : at + size], salt=salt, begin=0, end=len(data)))
    assert is_torn_tail(lambda at, size: data[at : at + size], salt=salt, begin=0, end=len(data), position=0)
    with pytest.raises(FrameError):
        decode_frame(data, FrameKind.META, salt=salt)


def test_the_fixed_part_of_a_batch_has_its_documented_size() -> None:
    assert len(batch_of(b"")) == BATCH_BYTES + 4
