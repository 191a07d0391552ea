"""The file of cursors on a disk that tears, fails and forgets: what was acknowledged stays, what was refused never comes back."""

from __future__ import annotations

import errno
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fake_files import Died, FakeFiles
from outlast.extend import NewerFormatError
from outlast.streams._consumers import _codec, _file
from outlast.streams._consumers._codec import encode, parse
from outlast.streams._consumers._cursor import Cursor, Event, EventKind
from outlast.streams._consumers._file import CursorFile, OpenedFiles, load, whole
from outlast.streams._consumers._runs import runs_of
from outlast.streams._errors import DamagedError, OutcomeUnknownError
from outlast.streams._format.frames import encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FOLDER = Path("/disk/0000000000000007")
PATH = FOLDER / "consumers"
ID = 7


def disk(seed: int | None = None, capacity_bytes: int = 1 << 30) -> FakeFiles:
    files = FakeFiles(None if seed is None else random.Random(seed), capacity_bytes=capacity_bytes)
    files.make_folder(str(FOLDER))
    return files


def call(function: Callable[[], object]) -> object:
    return function()


class Cursors:
    """One consumer and its file, as one process has them: an event is carried out if its write worked."""

    def __init__(self, files: FakeFiles) -> None:
        self.file = CursorFile(FOLDER, "orders", ID, OpenedFiles(files, call))
        self.known = self.file.load()

    @property
    def cursor(self) -> Cursor:
        return self.known["billing"]

    def write(self, kind: EventKind, positions: Iterable[int] = (), number: int = 0, *, sync: bool = True) -> None:
        event = Event(kind, "billing", tuple(runs_of(positions)), number)
        self.file.write(whole(self.known.values()) if self.file.wants_whole else None, [event], sync=sync)
        self.known.setdefault("billing", Cursor("billing", 0)).apply(event)

    def begin(self) -> Cursors:
        self.write(EventKind.BEGUN)
        self.write(EventKind.DELIVERED, range(10), sync=False)
        return self

    def acknowledge(self, *positions: int) -> None:
        self.write(EventKind.ACKNOWLEDGED, positions)


def deliver_often(cursors: Cursors) -> None:
    for _ in range(200):
        cursors.write(EventKind.DELIVERED, [0], sync=False)


def found(files: FakeFiles) -> dict[int, int]:
    return Cursors(files).cursor.open


def test_what_was_acknowledged_is_there_after_a_power_cut() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(1, 3)
    files.power_cut()
    assert sorted(found(files)) == [0, 2, 4, 5, 6, 7, 8, 9]


def test_deliveries_outlive_the_process_and_may_be_forgotten_by_a_power_cut() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(9)
    cursors.write(EventKind.DELIVERED, [0], sync=False)
    files.crash()
    assert found(files)[0] == 2
    files.power_cut()
    assert found(files)[0] == 1


def test_a_start_writes_nothing_and_makes_nothing() -> None:
    files = disk()
    assert Cursors(files).known == {}
    assert files.names(FOLDER) == []
    Cursors(files).begin()
    files.crash()
    files.calls.clear()
    assert Cursors(files).cursor.next == 10
    assert set(files.calls) <= {"open", "read_at", "close"}


def test_an_acknowledgement_whose_sync_fails_is_refused_and_never_comes_back() -> None:
    """The row "failed cursor comes back": a cursor at 5, the commit of 9 fails, a crash, a start."""
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(*range(5))
    files.fail("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        cursors.acknowledge(*range(5, 9))
    files.crash()
    assert sorted(found(files)) == [5, 6, 7, 8, 9]
    files.power_cut()
    assert sorted(found(files)) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("ending", ["crash", "power_cut"])
def test_a_replacement_whose_folder_does_not_sync_brings_back_no_refused_acknowledgement(ending: str) -> None:
    files = disk()
    Cursors(files).begin().acknowledge(*range(5))
    files.crash()
    cursors = Cursors(files)
    cursors.file.close()
    files.fail("sync_folder", errno.EIO, after=1)
    with pytest.raises(OSError, match="Input/output error"):
        cursors.acknowledge(*range(5, 9))
    getattr(files, ending)()
    assert sorted(found(files)) == [5, 6, 7, 8, 9]


def test_nothing_is_acknowledged_in_a_new_file_before_its_name_is_on_disk() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(0)
    cursors.file.close()
    # The first is that of the open file, and every later one fails: the new file never is the durable one.
    files.fail("sync_folder", errno.EIO, after=1, times=2)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            cursors.acknowledge(1)
    cursors.acknowledge(2)
    files.power_cut()
    assert sorted(found(files)) == [1, 3, 4, 5, 6, 7, 8, 9]


def test_an_acknowledgement_that_cannot_be_taken_back_is_unknown_and_the_next_write_brings_everything() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(0)
    files.fail("sync_data", errno.EIO)
    files.fail("truncate", errno.EIO)
    with pytest.raises(OutcomeUnknownError, match="cannot be taken back"):
        cursors.acknowledge(1)
    assert cursors.file.wants_whole
    cursors.acknowledge(2)
    files.power_cut()
    assert sorted(found(files)) == [1, 3, 4, 5, 6, 7, 8, 9], "what was answered `unknown` is as it is in memory: not done"


def test_on_a_full_disk_an_acknowledgement_is_refused_and_the_next_one_works_when_there_is_room() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(0)
    files.fill()
    with pytest.raises(OSError, match="No space left"):
        # There may be room in the last block.
        deliver_often(cursors)
    with pytest.raises(OSError, match="No space left"):
        cursors.acknowledge(1)
    before = dict(cursors.cursor.open)
    files.crash()
    assert found(files) == before
    files.heal()
    cursors = Cursors(files)
    cursors.acknowledge(2)
    files.power_cut()
    assert 2 not in found(files)


def test_the_reserve_of_the_disk_makes_room_for_an_acknowledgement() -> None:
    files = disk()
    Cursors(files).begin()
    files.fill()

    def cleaning(function: Callable[[], object]) -> object:
        try:
            return function()
        except OSError:
            files.free(1 << 20)
            return function()

    cursors = Cursors(files)
    cursors.file = CursorFile(FOLDER, "orders", ID, OpenedFiles(files, cleaning))
    cursors.acknowledge(*range(9))
    files.power_cut()
    assert sorted(found(files)) == [9]


def test_a_torn_tail_is_left_out_and_the_next_write_replaces_the_file() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(0)
    size = len(files.read(PATH))
    cursors.write(EventKind.DELIVERED, [1], sync=False)
    files.crash()
    files.put(PATH, files.read(PATH)[: size + 20])
    later = Cursors(files)
    assert later.cursor.open[1] == 1
    later.acknowledge(2)
    assert found(files) == {1: 1} | dict.fromkeys(range(3, 10), 1)


def test_a_file_that_grows_is_written_again_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file, "COMPACT_BYTES", 1000)
    files = disk()
    cursors = Cursors(files).begin()
    for _ in range(100):
        cursors.write(EventKind.DELIVERED, [0], sync=False)
        assert len(files.read(PATH)) < 1100
    assert found(files)[0] == 101


def test_every_bit_that_flips_in_what_is_durable_is_found() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(4)
    cursors.file.close()
    # Everything but the last frame is known to be durable: by the frames of a replaced file, and by the one that follows.
    cursors.acknowledge(5)
    durable = parse(files.read(PATH), ID).durable_to
    assert durable == len(encode(whole(cursors.known.values()), ID)), "all but the last acknowledgement"
    for bit in range(durable * 8):
        files.flip(PATH, bit)
        with pytest.raises(DamagedError, match="consumers is damaged"):
            load(FOLDER, "orders", ID, files)
        files.flip(PATH, bit)
    assert 4 not in found(files)


def test_a_file_that_was_cut_is_found_where_it_was_written_as_a_whole() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.acknowledge(4)
    cursors.file.close()
    cursors.write(EventKind.DELIVERED, [5], sync=False)
    data = files.read(PATH)
    durable = parse(data, ID).durable_to
    for size in range(1, durable):
        files.put(PATH, data[:size])
        with pytest.raises(DamagedError, match="consumers is damaged"):
            load(FOLDER, "orders", ID, files)


def test_cursors_of_a_deleted_stream_are_unknown_to_the_next_of_its_name() -> None:
    """The row "incarnation": a file that stayed behind moves nothing."""
    files = disk()
    Cursors(files).begin()
    with pytest.raises(DamagedError, match="those of another stream"):
        load(FOLDER, "orders", ID + 1, files)


def test_a_newer_format_is_refused_and_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    files = disk()
    with monkeypatch.context() as newer:
        newer.setattr(_codec, "encode_frame", partial(encode_frame, version=3))
        data = encode([Event(EventKind.BEGUN, "billing")], ID)
    files.put(PATH, data)
    with pytest.raises(NewerFormatError, match="format 3"):
        load(FOLDER, "orders", ID, files)
    assert files.read(PATH) == data


def test_a_consumer_that_was_deleted_is_gone() -> None:
    files = disk()
    cursors = Cursors(files).begin()
    cursors.write(EventKind.DELETED)
    assert Cursors(files).known == {}


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_what_was_acknowledged_stays_and_what_was_refused_is_open(seed: int) -> None:
    """Faults, deaths in the middle of a call and power cuts, as the seed says; then the disk is well and all is acknowledged."""
    rng = random.Random(seed)
    files = disk(seed)
    cursors = Cursors(files).begin()
    cursors.acknowledge()
    done, maybe = set[int](), set[int]()
    for _ in range(60):
        match rng.randrange(8):
            case 0:
                files.fail(rng.choice(["write", "sync", "sync_data", "sync_folder", "rename", "truncate"]), errno.EIO)
            case 1:
                files.die_after(rng.randrange(8))
            case 2:
                cursors.file.close()
            case _:
                pass
        position = rng.randrange(10)
        try:
            cursors.acknowledge(position)
        except OutcomeUnknownError:
            maybe.add(position)
        except OSError:
            pass
        except Died:
            maybe.add(position)
            rng.choice([files.crash, files.power_cut])()
            files.heal()
            cursors = Cursors(files)
        else:
            done.add(position)
        # Of what nobody was told, either holds; it holds from the next start on.
        closed = set(range(10)) - set(cursors.cursor.open)
        assert done <= closed <= done | maybe
    files.heal()
    cursors.acknowledge(*range(10))
    files.power_cut()
    assert found(files) == {}


def test_a_file_that_is_not_known_is_not_appended_to() -> None:
    files = disk()
    Cursors(files).begin()
    with pytest.raises(RuntimeError, match="not known was to be appended to"):
        CursorFile(FOLDER, "orders", ID, OpenedFiles(files, call)).write(None, [], sync=True)
