"""Readers get each record whole and in order, whatever is appended, trimmed or damaged meanwhile; never a wrong byte."""

from __future__ import annotations

import contextlib
import errno
import threading
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
from log_rig import ROOT, Rig, one

from fake_files import FakeFiles
from outlast.streams._errors import BeyondTailError, DamagedError, StreamNotFoundError, TrimmedError
from outlast.streams._format.meta import Meta
from outlast.streams._format.names import folder_name
from outlast.streams._log import Log, Shared
from outlast.streams._model import Appended, Entry, StreamOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    StrPath = str | os.PathLike[str]

SMALL: Final = StreamOptions(segment_bytes=600)


class Interrupted(FakeFiles):
    """Calls `before` before the next file is opened."""

    before: Callable[[], object] | None = None

    def open(self, path: StrPath, flags: int, mode: int = 0o600, /) -> int:
        act, self.before = self.before, None
        if act is not None:
            act()
        return super().open(path, flags, mode)


def numbered(count: int, options: StreamOptions = SMALL, size: int = 200, files: FakeFiles | None = None) -> Rig:
    rig = Rig(options, files=files)
    for number in range(count):
        rig.log.append([one(b"%04d" % number * (size // 4))], number)
    return rig


def test_a_chunk_has_as_many_records_as_fit_and_one_in_any_case() -> None:
    rig = Rig()
    rig.log.append([Entry([b"a" * 100] * 10)], 1)
    for number in range(5):
        rig.log.append([one(b"b" * 100)], 2 + number)
    chunk = rig.log.read(0, 350)
    assert (chunk.next, chunk.times_us) == (3, [1, 1, 1])
    assert rig.log.read(3, 1).records == [b"a" * 100]
    assert rig.log.read(4, 599).next == 9
    # A batch that does not fit behind others is left to the next read.
    assert rig.log.read(9, 250).next == 11
    assert rig.log.read(9, 1 << 20).next == 15
    assert rig.log.read(9, 1 << 20).times_us == [1, 2, 3, 4, 5, 6]
    assert rig.records() == [b"a" * 100] * 10 + [b"b" * 100] * 5


def test_headers_come_with_their_records() -> None:
    rig = Rig()
    rig.log.append([one(b"a"), Entry([b"b", b"c"], headers=[b"x", b"y"])], 1)
    rig.log.append([one(b"d")], 2)
    rig.log.append([Entry([b"e"], headers=[b"z" * 50])], 3)
    assert rig.log.read(0).headers == [b"", b"x", b"y", b"", b"z" * 50]
    assert rig.log.read(2, 2).headers == [b"y"]
    assert rig.log.read(3, 1).headers is None
    assert rig.log.read(3).headers == [b"", b"z" * 50]


def test_a_long_batch_is_read_once_by_whoever_reads_it_in_parts() -> None:
    rig = Rig()
    expected = [b"%05d" % number * 20 for number in range(2000)]
    rig.log.append([Entry(expected)], 1)
    rig.files.calls.clear()
    records, position = list[bytes](), 0
    while position < 2000:
        chunk = rig.log.read(position, 10_000)
        records += chunk.records
        position = chunk.next
    assert records == expected
    assert rig.files.calls["read_at"] < 10


@pytest.mark.parametrize("bytes_max", [1, 450, 1 << 20])
def test_every_position_can_be_read_from_also_after_a_start(bytes_max: int) -> None:
    rig = numbered(30, StreamOptions(segment_bytes=2500))
    for _ in range(2):
        for position in range(30):
            chunk = rig.log.read(position, bytes_max)
            assert chunk.records == [b"%04d" % number * 50 for number in range(position, chunk.next)]
        with pytest.raises(BeyondTailError):
            rig.log.read(31)
        rig.crash()


def test_a_position_is_found_by_the_index_in_a_segment_that_is_open_and_in_one_that_is_closed() -> None:
    rig = numbered(64, StreamOptions(segment_bytes=1 << 20), size=60_000)
    assert len(rig.segments()) == 4
    for position in (50, 63, 30, 3, 16):
        rig.shared = rig.new_shared()
        rig.log = Log.recover(rig.folder, rig.shared)
        rig.files.calls.clear()
        assert rig.log.read(position, 1).records == [b"%04d" % position * 15_000]
        # The index, then a piece or two of the segment; not all of its sixteen.
        assert rig.files.calls["read_at"] <= 5


@pytest.mark.parametrize("how", ["behind the end", "empty", "missing", "of another segment", "flipped"])
def test_a_wrong_index_is_made_again_and_no_record_is_missed(how: str) -> None:
    rig = numbered(64, StreamOptions(segment_bytes=1 << 20), size=60_000)
    path = f"{rig.folder}/{rig.segments()[1].removesuffix('.log')}.idx"
    whole = rig.files.read(path)
    match how:
        case "behind the end":
            segment = f"{rig.folder}/{rig.segments()[1]}"
            rig.files.put(segment, rig.files.read(segment)[:-1])
        case "empty":
            rig.files.put(path, b"")
        case "missing":
            rig.files.unlink(path)
        case "of another segment":
            rig.files.put(path, rig.files.read(f"{rig.folder}/{rig.segments()[0].removesuffix('.log')}.idx"))
        case _:
            rig.files.flip(path, 8 * len(whole) - 9)
    rig.crash()
    first, behind = rig.log.view.segments[1].first, rig.log.view.segments[2].first
    rig.log.read(behind - 2)
    missing = 1 if how == "behind the end" else 0
    records = [b"%04d" % number * 15_000 for number in range(64)]
    assert rig.records() == records[: behind - missing] + records[behind:]
    assert rig.log.read(first + 1, 1).records == [records[first + 1]]
    assert len(rig.reports) == (how in {"empty", "of another segment", "flipped"})
    assert rig.files.read(path) == whole
    # An index without a segment is nobody's.
    rig.files.put(f"{rig.folder}/{7777:020d}.idx", whole)
    rig.crash()
    assert rig.log.view.tail == 64


def test_the_index_of_a_segment_is_not_believed_against_the_segment() -> None:
    rig = numbered(64, StreamOptions(segment_bytes=1 << 20), size=60_000)
    segment = rig.log.view.segments[1]
    index = rig.log.read(segment.first + 3, 1) and rig.shared.indexes.get(segment.path)
    assert index is not None
    shifted = type(index)(
        index.first, index.tail, index.size, index.time_us, index.positions, tuple(offset + 1 for offset in index.offsets)
    )
    rig.shared.indexes.put(segment.path, shifted)
    for position in range(segment.first, segment.next):
        rig.shared.hints.put((segment.path, position), (12_345, position))
        assert rig.log.read(position, 1).records == [b"%04d" % position * 15_000]


def test_every_flipped_bit_of_a_closed_segment_is_found_and_no_wrong_byte_is_served() -> None:
    rig = numbered(9, StreamOptions(segment_bytes=1000), size=120)
    name = rig.segments()[1]
    path = f"{rig.folder}/{name}"
    whole = rig.files.read(path)
    first, behind = rig.log.view.segments[1].first, rig.log.view.segments[2].first
    records = [b"%04d" % number * 30 for number in range(9)]
    random = Random(5)
    for bit in sorted(random.sample(range(8 * len(whole)), 150)):
        rig.files.put(path, whole)
        rig.files.flip(path, bit)
        rig.shared = rig.new_shared()
        rig.reports.clear()
        rig.log = Log.recover(rig.folder, rig.shared)
        found, position = list[int](), 0
        lost = set[int]()
        while position < 9:
            # Below 0: another segment was named, or none to go on at; that is refused.
            try:
                chunk = rig.log.read(position, 1)
            except DamagedError as error:
                following = error.next if error.segment == name and error.next is not None else -1
                lost.update(range(position, following))
                position = following
            else:
                assert chunk.records == [records[position]]
                found.append(position)
                position = chunk.next
        assert lost or any(isinstance(report, DamagedError) and report.segment == name for report in rig.reports)
        assert all(first <= position < behind for position in lost)
        assert sorted([*found, *lost]) == list(range(9))


def test_an_error_in_one_segment_leaves_nothing_behind_in_the_reader_of_the_next() -> None:
    rig = numbered(6)
    view = rig.log.view
    cut = view.segments[1]
    rig.files.put(cut.path, rig.files.read(cut.path)[: cut.end - 30])
    for _ in range(2):
        last = view.segments[2].first - 1
        with pytest.raises(DamagedError) as caught:
            rig.log.read(last)
        assert (caught.value.position, caught.value.next) == (last, last + 1)
        assert rig.records(last + 1) == [b"%04d" % number * 50 for number in range(last + 1, 6)]


def test_a_reader_of_a_segment_that_is_trimmed_meanwhile_is_told_so() -> None:
    files = Interrupted()
    rig = numbered(6, files=files)
    rig.log.release()
    tail = rig.log.view.tail
    files.before = lambda: rig.log.trim(5)
    with pytest.raises(TrimmedError) as caught:
        rig.log.read(0)
    assert (caught.value.oldest, caught.value.tail) == (5, tail)
    assert rig.log.read(5).records == [b"0005" * 50]


def test_a_reader_of_a_stream_that_is_deleted_meanwhile_is_told_so() -> None:
    files = Interrupted()
    rig = numbered(6, files=files)
    rig.log.release()
    files.before = rig.log.delete
    with pytest.raises(StreamNotFoundError):
        rig.log.read(0)


def test_a_reader_whose_stream_rolls_over_meanwhile_goes_on() -> None:
    files = Interrupted()
    rig = numbered(2, StreamOptions(segment_bytes=2000), size=900, files=files)
    rig.log.release()
    files.before = lambda: rig.log.append([one(b"x" * 1500)], 9)
    assert rig.log.read(1, 1).records == [b"0001" * 225]
    assert rig.log.read(2).records == [b"x" * 1500]
    assert not rig.reports


def test_a_missing_segment_is_damage_and_what_is_behind_can_be_read() -> None:
    rig = numbered(6)
    gone = rig.log.view.segments[1]
    rig.log.release()
    rig.files.unlink(gone.path)
    for starts in range(2):
        with pytest.raises(DamagedError) as caught:
            rig.log.read(gone.first)
        assert caught.value.next == gone.next
        assert rig.records() == [b"%04d" % number * 50 for number in range(6) if not gone.first <= number < gone.next]
        assert sum("missing" in str(report) for report in rig.reports) == starts
        rig.crash()


def test_readers_do_not_wait_for_a_writer_that_hangs_and_see_nothing_of_it() -> None:
    rig = numbered(3, StreamOptions())
    answers: list[object] = []
    with rig.files.hang("sync_data") as hang:
        writer = threading.Thread(target=lambda: answers.extend(rig.log.append([one(b"x")], 9)))
        writer.start()
        assert hang.entered.wait(60)
        assert rig.log.view.tail == 3
        assert rig.records() == [b"%04d" % number * 50 for number in range(3)]
        assert rig.log.read(3).records == []
        with pytest.raises(BeyondTailError):
            rig.log.read(4)
    writer.join()
    assert answers == [Appended(3, 4)]
    assert rig.log.read(3).records == [b"x"]


def test_many_streams_have_few_descriptors() -> None:
    files = FakeFiles()
    files.make_folder(ROOT)
    shared = Shared(files=files, readers_max=3, writers_max=4)
    logs = [Log.create(ROOT / folder_name(number + 1), Meta(number + 1, f"s{number}", 1), shared) for number in range(20)]
    for turn in range(3):
        for number, each in enumerate(logs):
            assert each.append([one(b"%d" % number)], turn) == [Appended(turn, turn + 1)]
            assert each.read(turn).records == [b"%d" % number]
    # And one for the length of a call.
    assert files.opened_most <= 3 + 4 + 1
    for each in logs:
        each.release()
    assert files.opened == 0


def test_a_descriptor_that_is_let_go_syncs_what_it_has_written() -> None:
    files = FakeFiles()
    files.make_folder(ROOT)
    shared = Shared(files=files, writers_max=1)
    options = StreamOptions(sync_every_s=1.0)
    logs = [Log.create(ROOT / folder_name(number), Meta(number, f"s{number}", 1, options), shared) for number in (1, 2)]
    for each in logs:
        each.append([one(b"a")], 1)
    files.power_cut()
    first, second = (Log.recover(each.folder, Shared(files=files)) for each in logs)
    assert first.read(0).records == [b"a"]
    assert second.view.tail == 0


def test_bytes_of_a_file_that_somebody_else_has_changed_are_not_built_upon() -> None:
    rig = numbered(2, StreamOptions())
    path = rig.log.view.segments[0].path
    rig.log.release()
    rig.files.put(path, rig.files.read(path)[:-10])
    assert rig.log.append([one(b"x")], 9) == [Appended(2, 3)]
    assert len(rig.reports) == 1
    assert rig.records() == [b"0000" * 50, b"x"]
    with contextlib.suppress(DamagedError):
        rig.crash()
    assert rig.records() == [b"0000" * 50, b"x"]


def test_what_the_disk_refuses_to_read_is_refused_and_read_later() -> None:
    rig = numbered(2)
    rig.files.fail("read_at", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        rig.log.read(0)
    assert rig.records() == [b"0000" * 50, b"0001" * 50]
