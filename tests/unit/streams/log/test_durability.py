"""Acknowledged is on disk, refused is nowhere: through failed syncs, full disks, kills and power cuts at each call."""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
from log_rig import Rig, one

from fake_files import Died
from outlast.streams._errors import OutcomeUnknownError, StreamNotFoundError
from outlast.streams._format.names import GONE_NAME, META_NAME
from outlast.streams._log import remove
from outlast.streams._log.folders import NEW_NAME
from outlast.streams._model import Appended, Entry, Producer, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL: Final = StreamOptions(segment_bytes=600)
INTERVAL: Final = StreamOptions(sync_every_s=1.0)
FIRST: Final = Producer("p", 0, 0)


def test_what_a_killed_process_had_not_synced_is_on_disk_before_it_is_called_a_duplicate() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    rig.files.die_after(2)  # It writes, and ends before the sync.
    with pytest.raises(Died):
        rig.log.append([one(b"b", FIRST)], 1)
    rig.crash()
    assert rig.log.append([one(b"b", FIRST)], 2) == [Appended(1, 2, duplicate=True)]
    rig.power_cut()
    assert rig.records() == [b"a", b"b"]


@pytest.mark.parametrize("seed", range(12))
def test_a_sync_that_failed_in_a_killed_process_is_no_success_in_the_next(seed: int) -> None:
    rig = Rig(rng=Random(seed))
    rig.log.append([one(b"a")], 1)
    rig.files.fail("sync_data", errno.EIO)
    rig.files.fail("open", errno.EIO)
    with pytest.raises(OutcomeUnknownError):
        # The cut fails too, so the frame stays in memory: the next process finds it, and may not trust the kernel.
        rig.log.append([one(b"b" * 5000, FIRST)], 2)
    rig.crash()
    answers = rig.log.append([one(b"b" * 5000, FIRST), one(b"c")], 3)
    rig.power_cut()
    assert rig.records() == [b"a", b"b" * 5000, b"c"]
    assert answers == [Appended(1, 2, duplicate=True), Appended(2, 3)]
    assert not rig.reports


def test_an_append_whose_sync_failed_never_appears_and_the_next_goes_into_a_new_segment() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    rig.files.fail("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        rig.log.append([one(b"b", FIRST)], 2)
    assert rig.records() == [b"a"]
    rig.crash()
    assert rig.records() == [b"a"]
    rig.files.fail("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        rig.log.append([one(b"b", FIRST)], 2)
    # The fake disk would object to a sync of the descriptor that failed.
    assert rig.log.append([one(b"c", FIRST)], 3) == [Appended(1, 2)]
    assert len(rig.segments()) == 2
    rig.power_cut()
    assert rig.records() == [b"a", b"c"]


def test_nothing_is_written_behind_garbage_that_could_not_be_cut_off() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    rig.files.capacity_bytes = 1 << 20
    rig.files.fill(rig.files.available_bytes - 8192)
    rig.files.fail("truncate", errno.EIO)
    with pytest.raises(OutcomeUnknownError) as caught:
        rig.log.append([one(b"b" * 20_000)], 2)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    good = rig.log.view.end
    garbage = rig.files.read(f"{rig.folder}/{rig.segments()[0]}")
    assert len(garbage) > good
    rig.files.heal()
    assert rig.log.append([one(b"c")], 3) == [Appended(1, 2)]
    assert len(rig.segments()) == 2
    assert rig.files.read(f"{rig.folder}/{rig.segments()[0]}") == garbage
    rig.crash()
    assert rig.records() == [b"a", b"c"]
    assert not rig.reports


def test_a_torn_write_is_cut_off_and_the_next_record_stands_in_its_place() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    before = rig.files.read(f"{rig.folder}/{rig.segments()[0]}")
    rig.files.capacity_bytes = 1 << 20
    rig.files.fill(rig.files.available_bytes - 8192)
    for _ in range(3):
        with pytest.raises(OSError, match="No space") as caught:
            rig.log.append([one(b"b" * 20_000)], 2)
        assert caught.value.errno == errno.ENOSPC
        assert rig.files.read(f"{rig.folder}/{rig.segments()[0]}") == before
    rig.log.append([one(b"c")], 3)
    after = rig.files.read(f"{rig.folder}/{rig.segments()[0]}")
    assert after.startswith(before)
    assert len(after) == rig.log.view.end
    rig.power_cut()
    assert rig.records() == [b"a", b"c"]


def test_no_failure_outlives_the_next_success() -> None:
    for call in ("open", "write", "sync_data"):
        rig = Rig()
        rig.log.release()
        rig.files.fail(call, errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            rig.log.append([one(b"a")], 1)
        assert rig.log.append([one(b"b")], 2) == [Appended(0, 1)]
        rig.files.calls.clear()
        assert rig.log.append([one(b"c")], 3) == [Appended(1, 2)]
        assert rig.files.calls == {"write": 1, "sync_data": 1}
        rig.power_cut()
        assert rig.records() == [b"b", b"c"]


def test_without_descriptors_an_append_is_refused_and_nothing_is_lost() -> None:
    rig = Rig()
    rig.log.append([one(b"a")], 1)
    rig.log.release()
    rig.files.fail("open", errno.EMFILE, times=3)
    for _ in range(2):
        with pytest.raises(OSError, match="Too many") as caught:
            rig.log.append([one(b"b")], 2)
        assert caught.value.errno == errno.EMFILE
    with pytest.raises(OSError, match="Too many"):
        rig.log.read(0)
    assert rig.log.append([one(b"c")], 3) == [Appended(1, 2)]
    assert rig.records() == [b"a", b"c"]


def test_a_roll_over_without_room_is_refused_and_tried_again() -> None:
    rig = Rig(SMALL)
    rig.log.append([one(b"a" * 300)], 1)
    rig.files.fail("write", errno.ENOSPC, path="*.log.new")
    with pytest.raises(OSError, match="No space"):
        rig.log.append([one(b"b" * 300, FIRST)], 2)
    assert len(rig.segments()) == 1
    assert rig.records() == [b"a" * 300]
    assert rig.log.append([one(b"c" * 300, FIRST)], 3) == [Appended(1, 2)]
    assert len(rig.segments()) == 2
    rig.power_cut()
    assert rig.records() == [b"a" * 300, b"c" * 300]


def test_a_producer_whose_append_was_refused_at_a_roll_over_is_not_in_the_new_segment() -> None:
    rig = Rig(SMALL)
    rig.log.append([one(b"a" * 300)], 1)
    rig.files.fail("write", errno.ENOSPC, path="*1.log")
    with pytest.raises(OSError, match="No space"):
        rig.log.append([one(b"b", FIRST), one(b"b" * 300)], 2)
    assert len(rig.segments()) == 2
    rig.crash()
    assert rig.log.append([one(b"c", FIRST)], 3) == [Appended(1, 2)]


def test_a_stream_that_is_synced_at_intervals_is_so_after_a_failure_too() -> None:
    rig = Rig(INTERVAL, rng=Random(1))
    rig.log.append([one(b"a" * 3000, FIRST)], 1)
    rig.files.fail("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        rig.log.sync()
    rig.log.sync()
    rig.power_cut()
    assert rig.records() == [b"a" * 3000]
    rig.log.append([one(b"b" * 3000)], 2)
    rig.files.fail("sync_data", errno.EIO)
    rig.log.release()
    assert rig.log.append([one(b"c")], 3) == [Appended(2, 3)]
    rig.log.sync()
    rig.power_cut()
    assert rig.records() == [b"a" * 3000, b"b" * 3000, b"c"]


def test_what_was_trimmed_of_a_stream_that_is_synced_at_intervals_is_on_disk_first() -> None:
    rig = Rig(INTERVAL)
    rig.log.append([one(b"a", FIRST), one(b"b")], 1)
    rig.log.trim(2)
    rig.power_cut()
    assert (rig.log.view.oldest, rig.log.view.tail) == (2, 2)
    assert rig.log.append([one(b"a", FIRST)], 2) == [Appended(0, 1, duplicate=True)]
    assert not rig.reports


ACTS: Final[dict[str, Callable[[Rig], object]]] = {
    "roll": lambda rig: rig.log.append([one(b"n" * 400)], 9),
    "trim": lambda rig: rig.log.trim(3),
    "trim all": lambda rig: rig.log.trim(4),
    "drop": lambda rig: rig.log.drop(1),
    "close": lambda rig: rig.log.close(),
}


def state(rig: Rig) -> tuple[int, list[bytes], bool]:
    return rig.log.view.oldest, rig.records(), rig.log.view.closed


def filled(seed: int) -> Rig:
    rig = Rig(SMALL, rng=Random(seed))
    for number in range(4):
        rig.log.append([one(b"%d" % number * 300, Producer("p", 0, number))], number)
    return rig


@pytest.mark.parametrize("act", ACTS)
def test_a_power_cut_at_any_call_leaves_the_old_state_or_the_new_and_what_is_answered_stays(act: str) -> None:
    calls, is_answered = 0, False
    while not is_answered:
        calls += 1
        rig, other = filled(calls), filled(calls)
        old = state(rig)
        ACTS[act](other)
        new = state(other)
        rig.files.die_after(calls)
        try:
            ACTS[act](rig)
            is_answered = True
        except Died:
            pass
        rig.power_cut()
        assert state(rig) == new or (state(rig) == old and not is_answered)
        # A second start finds the same, byte for byte, and the stream goes on.
        tree = rig.files.tree(rig.folder)
        rig.crash()
        assert rig.files.tree(rig.folder) == tree
        ACTS[act](rig)
        assert not rig.reports
    assert calls > 3


@pytest.mark.parametrize("seed", [1, 25, 34, 74])
def test_a_power_cut_at_any_call_of_create_leaves_a_stream_or_none(seed: int) -> None:
    calls, is_made = 0, False
    while not is_made:
        calls += 1
        rig = Rig(rng=Random(100 * seed + calls), is_made=False)
        rig.files.die_after(calls)
        try:
            rig.create()
            is_made = True
        except Died:
            pass
        rig.files.power_cut()
        names = rig.files.names(rig.folder) if rig.files.names(rig.folder.parent) else []
        if is_made or META_NAME in names:
            rig.recover()
            assert rig.log.append([one()], 1) == [Appended(0, 1)]
        elif names:
            assert NEW_NAME in names
            remove(rig.folder, rig.files)
            assert not rig.files.names(rig.folder.parent)
    assert calls > 10


def test_a_power_cut_at_any_call_of_delete_leaves_the_stream_or_what_is_removed_later() -> None:
    calls = 0
    is_gone = False
    while not is_gone:
        calls += 1
        rig = filled(calls)
        old = state(rig)
        rig.files.die_after(calls)
        try:
            rig.log.delete()
            is_gone = True
        except Died:
            pass
        rig.files.power_cut()
        names = rig.files.names(rig.folder) if rig.files.names(rig.folder.parent) else []
        if META_NAME in names:
            assert not is_gone
            rig.recover()
            assert state(rig) == old
        elif names:
            assert GONE_NAME in names
            remove(rig.folder, rig.files)
            assert not rig.files.names(rig.folder.parent)


@pytest.mark.parametrize("call", ["rename", "sync_folder"])
def test_a_delete_that_fails_has_deleted_nothing(call: str) -> None:
    rig = filled(0)
    old = state(rig)
    rig.files.fail(call, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        rig.log.delete()
    assert state(rig) == old
    rig.power_cut()
    assert state(rig) == old
    rig.files.fail("sync_folder", errno.EIO, times=2)
    with pytest.raises(OutcomeUnknownError):
        rig.log.delete()
    rig.log.delete()
    with pytest.raises(StreamNotFoundError):
        rig.log.read(0)
    with pytest.raises(StreamNotFoundError):
        rig.log.append([one()], 1)
    assert not rig.files.names(rig.folder.parent)


@pytest.mark.parametrize("call", ["write_at", "sync_data"])
def test_a_trim_that_fails_has_trimmed_nothing(call: str) -> None:
    rig = filled(0)
    old = state(rig)
    rig.files.fail(call, errno.EIO, path="*meta")
    with pytest.raises(OSError, match="Input/output"):
        rig.log.trim(2)
    assert state(rig) == old
    rig.power_cut()
    assert state(rig) == old
    rig.files.fail(call, errno.EIO, path="*meta", times=2)
    with pytest.raises(OutcomeUnknownError):
        rig.log.trim(2)
    rig.log.trim(2)
    rig.power_cut()
    assert rig.log.view.oldest == 2


@pytest.mark.parametrize("call", ["write", "write_at", "sync", "sync_data", "rename", "sync_folder"])
def test_a_creation_that_fails_leaves_no_stream(call: str) -> None:
    rig = Rig(is_made=False)
    rig.files.fail(call, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        rig.create()
    rig.files.power_cut()
    assert META_NAME not in (rig.files.names(rig.folder) if rig.files.names(rig.folder.parent) else [])


def test_a_creation_without_descriptors_is_refused_and_can_be_tried_again() -> None:
    rig = Rig(is_made=False)
    rig.files.fail("open", errno.EMFILE)
    rig.files.fail("names", errno.EMFILE)
    with pytest.raises(OSError, match="Too many"):
        rig.create()
    remove(rig.folder, rig.files)
    rig.create()
    assert rig.log.append([one()], 1) == [Appended(0, 1)]


def test_of_appends_that_do_not_fit_into_one_frame_none_is_stored() -> None:
    rig = Rig()
    whole = b"x" * (8 << 20)
    with pytest.raises(ValueError, match="at most"):
        rig.log.append([one(whole, FIRST), *[one(whole)] * 4], 1)
    assert rig.log.append([one(b"a", FIRST)], 2) == [Appended(0, 1)]
    assert rig.records() == [b"a"]


def test_all_appends_of_a_frame_are_answered_in_order_and_by_themselves() -> None:
    rig = Rig()
    rig.log.append([one(b"a", FIRST)], 1)
    answers = rig.log.append(
        [
            one(b"a", FIRST),
            one(b"b", at=7),
            Entry([b"c", b"d"], at=1),
            one(b"e", Producer("p", 0, 2)),
            one(b"f", Producer("p", 1, 0)),
            one(b"g", Producer("p", 0, 1)),
            one(b"f", Producer("p", 1, 0)),
        ],
        2,
    )
    assert [answer if isinstance(answer, Appended) else answer.code for answer in answers] == [
        Appended(0, 1, duplicate=True),
        "position",
        Appended(1, 3),
        "sequence",
        Appended(3, 4),
        "fenced",
        Appended(3, 4, duplicate=True),
    ]
    assert rig.records() == [b"a", b"c", b"d", b"f"]


def test_a_closed_stream_takes_nothing_and_still_knows_what_it_has() -> None:
    rig = Rig()
    rig.log.append([one(b"a", FIRST)], 1)
    rig.log.close()
    rig.power_cut()
    assert rig.log.view.closed
    first, second = rig.log.append([one(b"a", FIRST), one(b"b")], 2)
    assert first == Appended(0, 1, duplicate=True)
    assert not isinstance(second, Appended)
    assert second.code == "stream closed"
    assert rig.records() == [b"a"]
