"""A start finds what is there: it cuts a torn tail and nothing else, makes nothing, needs no room, and says what it misses."""

from __future__ import annotations

import errno
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
from log_rig import ID, ROOT, Rig, one

from fake_files import Died, FakeFiles
from outlast.streams._errors import BeyondTailError, DamagedError, TrimmedError
from outlast.streams._format.frames import salt_of
from outlast.streams._format.meta import Meta, encode_meta
from outlast.streams._format.names import folder_name
from outlast.streams._format.scan import batches
from outlast.streams._format.segments import read_header
from outlast.streams._log import Log, Shared, log
from outlast.streams._log.pieces import reader
from outlast.streams._model import Appended, Entry, Producer, StreamOptions

if TYPE_CHECKING:
    import os
    from pathlib import Path

    StrPath = str | os.PathLike[str]

SMALL: Final = StreamOptions(segment_bytes=600)
FIRST: Final = Producer("p", 0, 0)


def offsets(rig: Rig, name: str) -> list[int]:
    """Where the batches of a segment begin, and where the last one ends."""
    path = f"{rig.folder}/{name}"
    descriptor = rig.files.open(path, 0)
    size, first = rig.files.size(descriptor), int(name[:20])
    read = reader(rig.files, descriptor)
    found = list(batches(read, salt=salt_of(ID, first), begin=read_header(read)[1], end=size))
    rig.files.close(descriptor)
    return [batch.offset for batch in found] + [found[-1].end]


def test_a_torn_tail_is_cut_off_once_and_said() -> None:
    rig = Rig()
    for number in range(3):
        rig.log.append([one(b"%d" % number)], number)
    path = f"{rig.folder}/{rig.segments()[0]}"
    whole = rig.files.read(path)
    for torn in (whole[-40:-3], bytes(4096), whole[-60:][:48], b"\xa9OLS" * 20):
        rig.files.put(path, whole + torn)
        rig.notes.clear()
        rig.crash()
        assert rig.files.read(path) == whole
        assert len(rig.notes) == 1
        rig.crash()
        assert len(rig.notes) == 1
    assert rig.records() == [b"0", b"1", b"2"]
    assert not rig.reports


def test_the_index_of_a_log_that_was_cut_has_the_record_that_was_kept_last() -> None:
    for kept in (5, 4, 0):
        rig = Rig()
        for number in range(7):
            rig.log.append([one(b"%d" % number * 70_000)], number)
        path = f"{rig.folder}/{rig.segments()[0]}"
        rig.files.put(path, rig.files.read(path)[: offsets(rig, rig.segments()[0])[kept + 1] - 1])
        rig.crash()
        tail = kept
        assert rig.log.view.tail == tail
        for position in range(tail):
            assert rig.log.read(position, 1).records == [b"%d" % position * 70_000]
        assert rig.log.append([one(b"x")], 9) == [Appended(tail, tail + 1)]
        assert rig.log.read(tail).records == [b"x"]
        with pytest.raises(BeyondTailError):
            rig.log.read(tail + 2)


def test_damage_in_a_closed_segment_is_not_cut() -> None:
    rig = Rig(SMALL)
    for number in range(4):
        rig.log.append([one(b"%d" % number * 200)], number)
    assert len(rig.segments()) > 1
    closed = f"{rig.folder}/{rig.segments()[0]}"
    rig.files.flip(closed, len(rig.files.read(closed)) * 8 - 1)
    tree = rig.files.tree(rig.folder)
    rig.crash()
    assert rig.files.tree(rig.folder) == tree
    last = rig.log.view.segments[1].first - 1
    with pytest.raises(DamagedError) as caught:
        rig.log.read(last)
    assert (caught.value.segment, caught.value.position, caught.value.next) == (rig.segments()[0], last, last + 1)
    assert rig.records() == [b"%d" % number * 200 for number in range(4) if number != last]
    assert rig.log.append([one(b"x")], 9) == [Appended(4, 5)]


def test_damage_in_the_middle_of_the_last_segment_is_not_cut_and_nothing_is_written_behind_it() -> None:
    rig = Rig()
    for number in range(3):
        rig.log.append([one(b"%d" % number * 100, Producer("p", 0, number))], number)
    name = rig.segments()[0]
    path = f"{rig.folder}/{name}"
    rig.files.flip(path, (offsets(rig, name)[1] + 8) * 8)  # The length of the second.
    damaged = rig.files.read(path)
    rig.crash()
    assert [(report.position, report.next) for report in rig.reports if isinstance(report, DamagedError)] == [(1, 2)]
    with pytest.raises(DamagedError) as caught:
        rig.log.read(1)
    assert (caught.value.segment, caught.value.position, caught.value.next) == (name, 1, 2)
    assert rig.log.append([one(b"x")], 9) == [Appended(3, 4)]
    rig.crash()
    assert rig.files.read(path) == damaged
    assert rig.records() == [b"0" * 100, b"2" * 100, b"x"]
    assert rig.log.read(2).records == [b"2" * 100]


def test_a_segment_that_lost_its_header_is_read_and_its_producers_are_found_in_the_one_before() -> None:
    rig = Rig(SMALL)
    for number in range(2):
        rig.log.append([one(b"%d" % number * 300, Producer("p", 0, number))], number)
    last = f"{rig.folder}/{rig.segments()[1]}"
    rig.files.flip(last, 200)
    damaged = rig.files.read(last)
    rig.crash()
    assert len(rig.reports) == 1
    assert rig.log.append([one(b"x", Producer("p", 0, 0)), one(b"y", Producer("p", 0, 2))], 9) == [
        Appended(0, 1, duplicate=True),
        Appended(2, 3),
    ]
    assert rig.files.read(last) == damaged
    assert rig.records() == [b"0" * 300, b"1" * 300, b"y"]


def test_a_stream_whose_end_is_not_known_is_read_and_takes_nothing() -> None:
    rig = Rig(SMALL)
    for number in range(2):
        rig.log.append([one(b"%d" % number * 300)], number)
    last = f"{rig.folder}/{rig.segments()[1]}"
    rig.files.put(last, bytes(len(rig.files.read(last))))
    rig.crash()
    for _ in range(2):
        with pytest.raises(DamagedError, match="its end is not known"):
            rig.log.append([one(b"x")], 9)
    assert rig.log.read(0).records == [b"0" * 300]


def test_when_the_end_is_lost_nothing_is_deleted_and_no_position_comes_again() -> None:
    rig = Rig()
    for number in range(100):
        rig.log.append([one(b"%d" % number)], number)
    name = rig.segments()[0]
    path = f"{rig.folder}/{name}"
    rig.log.trim(100)
    rig.files.put(path, rig.files.read(path)[: offsets(rig, name)[50]])
    before = rig.files.tree(rig.folder)
    rig.crash()
    assert rig.files.tree(rig.folder) == before
    assert (rig.log.view.oldest, rig.log.view.tail) == (100, 100)
    assert [(report.position, report.next) for report in rig.reports if isinstance(report, DamagedError)] == [(50, 100)]
    assert rig.log.append([one(b"x")], 200) == [Appended(100, 101)]
    with pytest.raises(TrimmedError):
        rig.log.read(60)
    rig.reports.clear()
    rig.crash()
    assert not rig.reports
    assert rig.records() == [b"x"]
    assert rig.log.append([one(b"y")], 201) == [Appended(101, 102)]


@pytest.mark.parametrize("how", ["trim", "drop"])
@pytest.mark.parametrize("size", [1, 20_000])
def test_an_empty_log_knows_its_tail_and_its_producers(how: str, size: int) -> None:
    rig = Rig(StreamOptions(segment_bytes=30_000))
    for number in range(10):
        rig.log.append([one(b"x" * size, Producer("p", 0, number))], number)
    if how == "drop":
        rig.log.append([one(b"y" * 40_000)], 10)
        rig.log.drop(100)
        assert len(rig.segments()) == 1
    rig.log.trim(rig.log.view.tail)
    tail = rig.log.view.tail
    rig.power_cut()
    assert (rig.log.view.oldest, rig.log.view.tail) == (tail, tail)
    assert rig.log.read(tail).records == []
    assert rig.log.append([one(b"x", Producer("p", 0, 9)), one(b"new", Producer("p", 0, 10))], 11) == [
        Appended(9, 10, duplicate=True),
        Appended(tail, tail + 1),
    ]
    assert rig.log.read(tail).records == [b"new"]


def test_trimmed_records_of_the_last_segment_are_given_back_when_they_are_many() -> None:
    rig = Rig()
    rig.log.append([one(b"x" * 100_000)], 1)
    rig.log.trim(1)
    assert rig.log.view.size_bytes < 1000
    assert len(rig.segments()) == 1
    rig.files.fail("write", errno.ENOSPC, path="*.new")
    rig.log.append([one(b"y" * 100_000)], 1)
    rig.log.trim(2)
    assert rig.log.view.oldest == 2


def test_a_start_on_a_full_disk_makes_nothing_reads_and_trims() -> None:
    rig = Rig(SMALL)
    for number in range(4):
        rig.log.append([one(b"%d" % number * 200)], number)
    rig.files.put(f"{rig.folder}/{rig.segments()[-1]}", rig.files.read(f"{rig.folder}/{rig.segments()[-1]}") + b"torn")
    rig.files.inodes = len(rig.files.tree()) + 1
    rig.files.fill()
    rig.files.capacity_bytes = 0
    names = rig.files.names(rig.folder)
    rig.crash()
    assert rig.files.names(rig.folder) == names
    assert rig.records() == [b"%d" % number * 200 for number in range(4)]
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            rig.log.append([one(b"x" * 5000)], 9)
    rig.log.trim(2)
    assert rig.log.view.oldest == 2
    assert len(rig.files.names(rig.folder)) < len(names)
    assert rig.records() == [b"2" * 200, b"3" * 200]
    rig.log.close()
    rig.crash()
    assert rig.records() == [b"2" * 200, b"3" * 200]
    assert rig.log.view.closed
    rig.log.delete()
    assert not rig.files.names(ROOT)


def test_a_start_that_is_killed_again_and_again_leaves_the_same_bytes() -> None:
    rig = Rig(SMALL, rng=Random(3))
    for number in range(4):
        rig.log.append([one(b"%d" % number * 200)], number)
    last = f"{rig.folder}/{rig.segments()[-1]}"
    whole = rig.files.read(last)
    rig.files.put(last, whole + whole[-50:-1])
    for calls in range(1, 41):
        rig.files.die_after(calls)
        try:
            rig.recover()
        except Died:
            assert calls < 40
        rig.files.crash() if calls % 2 else rig.files.power_cut()
        assert rig.files.read(last)[: len(whole)] == whole
    rig.recover()
    assert rig.files.read(last) == whole
    rig.files.calls.clear()
    rig.recover()
    first = dict(rig.files.calls)
    rig.files.calls.clear()
    rig.recover()
    assert dict(rig.files.calls) == first
    assert rig.records() == [b"%d" % number * 200 for number in range(4)]


def test_a_start_that_cannot_sync_serves_what_is_surely_on_disk_and_goes_on_when_it_can() -> None:
    rig = Rig(rng=Random(2))
    rig.log.append([one(b"a")], 1)
    rig.log.append([one(b"b" * 3000, FIRST)], 2)
    rig.files.crash()
    rig.files.fail("sync", errno.EIO, times=3)
    rig.recover()
    assert rig.records() == [b"a"]
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            rig.log.append([one(b"b", FIRST)], 3)
    assert rig.log.append([one(b"b", FIRST), one(b"c")], 3) == [Appended(1, 2, duplicate=True), Appended(2, 3)]
    rig.power_cut()
    assert rig.records() == [b"a", b"b" * 3000, b"c"]


def test_a_start_reads_by_pieces() -> None:
    sizes: list[int] = []

    class Watched(FakeFiles):
        def read_at(self, descriptor: int, size: int, at: int, /) -> bytes:
            sizes.append(size)
            return super().read_at(descriptor, size, at)

    rig = Rig(files=Watched())
    for number in range(12):
        rig.log.append([one(b"%d" % number * 500_000)], number)
    sizes.clear()
    rig.crash()
    assert max(sizes) <= 1 << 20
    assert rig.log.view.tail == 12


def test_a_segment_ends_before_offsets_do_whatever_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SEGMENT_BYTES_MAX", 2000)
    rig = Rig(StreamOptions(segment_bytes=1 << 30))
    for number in range(6):
        rig.log.append([one(b"%d" % number * 1000)], number)
    assert [segment.end <= 2000 for segment in rig.log.view.segments] == [True] * len(rig.segments())
    assert len(rig.segments()) == 6
    # A batch that is longer than a segment has one for itself.
    rig.log.append([one(b"x" * 5000)], 7)
    rig.log.append([one(b"y")], 8)
    assert len(rig.segments()) == 8
    rig.crash()
    assert rig.log.read(6).records == [b"x" * 5000]


def test_a_stream_of_the_longest_name_is_rolled_trimmed_and_deleted() -> None:
    for name in ("あ" * 60, "あ" * 85, "あ" * 255, "あ" * 341, "\n" * 1024):
        rig = Rig(SMALL, name=name)
        for number in range(4):
            rig.log.append([one(b"%d" % number * 200)], number)
        rig.log.trim(3)
        rig.power_cut()
        assert rig.log.meta.name == name
        assert max(map(len, rig.files.names(rig.folder))) < 64
        rig.log.delete()
        assert not rig.files.names(ROOT)


def test_names_are_changed_within_the_folder_of_a_stream_alone() -> None:
    """Over an overlay a folder cannot be renamed (EXDEV), nor a file from another disk."""
    renames: list[tuple[str, str]] = []

    class Watched(FakeFiles):
        def rename(self, source: StrPath, target: StrPath, /) -> None:
            renames.append((str(source), str(target)))
            super().rename(source, target)

    rig = Rig(SMALL, files=Watched())
    for number in range(4):
        rig.log.append([one(b"%d" % number * 200)], number)
    rig.log.trim(3)
    rig.log.delete()
    assert len(renames) > 4
    for source, target in renames:
        assert source.rpartition("/")[0] == target.rpartition("/")[0] == str(rig.folder)


def test_a_catalogue_entry_is_mended_from_its_other_slot_and_refused_when_there_is_none() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    path = f"{rig.folder}/meta"
    whole = rig.files.read(path)
    for bit in (1000, 4096 * 8 + 1000):
        rig.files.flip(path, bit)
        rig.notes.clear()
        rig.crash()
        assert rig.files.read(path) == whole
        assert len(rig.notes) == 1
    rig.files.flip(path, 1000)
    rig.files.flip(path, 4096 * 8 + 1000)
    tree = rig.files.tree(rig.folder)
    with pytest.raises(DamagedError, match="neither slot"):
        rig.crash()
    assert rig.files.tree(rig.folder) == tree
    other = encode_meta(Meta(ID + 1, "other", 1))
    rig.files.put(path, other + other)
    with pytest.raises(DamagedError, match="of stream"):
        rig.crash()
    rig.files.put(path, whole)
    rig.files.unlink(f"{rig.folder}/{rig.segments()[0]}")
    with pytest.raises(DamagedError, match="no segment"):
        Log.recover(rig.folder, rig.shared)


def test_what_crashes_left_beside_a_stream_is_removed_by_the_next_trim_and_not_by_a_start() -> None:
    rig = Rig(SMALL)
    for number in range(4):
        rig.log.append([one(b"%d" % number * 200)], number)
    left = [f"{9:020d}.log.new", f"{1:020d}.idx.new", f"{7:020d}.idx", f"{0:020d}.log", f"{0:020d}.idx"]
    whole = rig.files.read(f"{rig.folder}/{left[3]}")
    rig.log.trim(2)
    for name in left:
        rig.files.put(f"{rig.folder}/{name}", whole)
    rig.files.put(f"{rig.folder}/consumers", b"mine")
    names = sorted(rig.files.names(rig.folder))
    rig.crash()
    assert sorted(rig.files.names(rig.folder)) == names
    rig.log.trim(2)
    assert sorted(rig.files.names(rig.folder)) == sorted(set(names) - set(left))
    assert rig.records() == [b"2" * 200, b"3" * 200]


def written(folder: Path, mebibytes: int) -> Log:
    log = Log.create(folder / folder_name(ID), Meta(ID, "s", 1, StreamOptions(sync_every_s=1.0)), Shared())
    for number in range(mebibytes):
        log.append([Entry([b"%04d" % number * 256] * 1024)], number)
    log.release()
    return log


@pytest.mark.long
def test_a_start_of_many_gigabytes_needs_little_memory(tmp_path: Path) -> None:
    log = written(tmp_path, 1500)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "from outlast.streams._log import Log, Shared\n"
        "log = Log.recover(Path(sys.argv[1]), Shared())\n"
        "assert log.view.tail == 1500 * 1024\n"
        "assert log.read(700_000).records\n"
    )
    before = sum(path.stat().st_size for path in log.folder.iterdir())
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program, str(log.folder)], check=True)
    assert sum(path.stat().st_size for path in log.folder.iterdir()) == before
