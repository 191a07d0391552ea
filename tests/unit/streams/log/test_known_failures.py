"""Ways in which other logs broke: a sentinel checksum, an index against its data, answers that a restart changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checksums import record_with_checksum_0
from log_rig import ID, Rig, one

from outlast.streams._format.batches import encode_batch
from outlast.streams._format.frames import salt_of
from outlast.streams._format.index import Index, encode_index
from outlast.streams._model import Appended, Entry, Producer, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_batch_whose_checksum_is_0_is_there_after_a_restart_and_zeros_behind_it_are_cut() -> None:
    rig = Rig()
    rig.log.append([one(b"first")], 1)
    path = rig.log.view.segments[-1].path
    offset = rig.log.view.end

    def batch_of(record: bytes) -> bytes:
        encoded = encode_batch([one(record)], salt=salt_of(ID, 0), offset=offset, durable_to=offset, first=1, time_us=2)
        return b"".join(encoded.pieces)

    record = record_with_checksum_0(batch_of)
    rig.log.append([one(record)], 2)
    whole = rig.files.read(path)
    assert whole[offset : offset + 8] == b"\xa9OLS" + bytes(4)
    rig.files.put(path, whole + bytes(4096))
    rig.recover()
    assert rig.records() == [b"first", record]
    assert rig.files.read(path) == whole
    assert rig.log.append([one(b"next")], 3) == [Appended(2, 3)]
    rig.crash()
    assert rig.records() == [b"first", record, b"next"]


def index_behind_the_end() -> bytes:
    return encode_index(Index(0, 10, 5000, 1, (0, 4), (300, 900_000)), salt_of(ID, 0))


def index_that_fits_and_is_wrong(rig: Rig) -> bytes:
    segment = rig.log.view.segments[0]
    return encode_index(Index(0, segment.next, segment.end, 1, (0, 1), (301, 5000)), salt_of(ID, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda rig: index_behind_the_end(),
        index_that_fits_and_is_wrong,
        lambda rig: b"",
        lambda rig: None,
    ],
    ids=["behind the end", "fits and is wrong", "empty", "missing"],
)
def test_an_index_that_is_not_of_its_segment_changes_no_record(make: Callable[[Rig], bytes | None]) -> None:
    rig = Rig(StreamOptions(segment_bytes=4096))
    for number in range(60):
        rig.log.append([one(b"%d" % number * 40)], number)
    everything = [b"%d" % number * 40 for number in range(60)]
    path = rig.log.view.segments[0].path.replace(".log", ".idx")
    data = make(rig)
    if data is None:
        rig.files.unlink(path)
    else:
        rig.files.put(path, data)
    for position in (1, 0, 5, 30):
        rig.crash()
        assert rig.log.read(position, 1).records == [everything[position]]
        assert rig.records() == everything
    assert rig.log.append([one()], 60) == [Appended(60, 61)]


def test_an_index_without_a_segment_is_no_segment() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    rig.files.put(rig.folder / f"{5000:020d}.idx", b"whatever")
    rig.crash()
    assert rig.records() == [b"a"]
    assert rig.log.view.tail == 1


@pytest.mark.parametrize("is_trimmed", [False, True])
@pytest.mark.parametrize("restart", [Rig.crash, Rig.power_cut])
def test_a_retry_has_the_same_answer_before_and_after_a_restart(restart: Callable[[Rig], None], *, is_trimmed: bool) -> None:
    rig = Rig()
    entry = Entry([b"a", b"b"], None, Producer("p", 0, 0))
    rig.log.append([entry], 1)
    if is_trimmed:
        rig.log.trim(2)
    before = rig.log.append([entry], 2)
    restart(rig)
    assert rig.log.append([entry], 3) == before == [Appended(0, 2, duplicate=True)]
    assert rig.records() == ([] if is_trimmed else [b"a", b"b"])
    assert rig.log.append([one(b"c", producer=Producer("p", 0, 1))], 4) == [Appended(2, 3)]


def test_data_and_its_producer_are_there_together_or_not_at_all() -> None:
    """Every place at which a power cut can tear an append: its retry is stored once in the end."""
    size = None
    kept = set()
    for cut in range(200):
        rig = Rig()
        rig.log.append([one(b"before", producer=Producer("p", 0, 0))], 1)
        begin = rig.log.view.end
        rig.log.append([one(b"torn", producer=Producer("p", 0, 1))], 2)
        path = rig.log.view.segments[-1].path
        whole = rig.files.read(path)
        size = len(whole) - begin
        rig.files.put(path, whole[: begin + cut])
        rig.crash()
        is_there = rig.log.view.tail == 2
        kept.add(is_there)
        assert rig.log.append([one(b"torn", producer=Producer("p", 0, 1))], 3) == [Appended(1, 2, duplicate=is_there)]
        assert rig.log.append([one(b"c", producer=Producer("p", 0, 2))], 4) == [Appended(2, 3)]
        rig.crash()
        assert rig.records() == [b"before", b"torn", b"c"]
        if cut > size:
            break
    assert kept == {False, True}
