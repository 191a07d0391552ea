"""The appended file on a disk whose syncs fail: that descriptor is never synced again, and nothing that was refused comes back.

FakeFiles raises AssertionError for the second sync; tests/contract has what everything that appends promises.
"""

from __future__ import annotations

import errno
import os
from random import Random

import pytest

from fake_files import Died, FakeFiles
from outlast.extend import AppendFile, Sync, TornFileError

PATH = "/disk/file"


def disk(seed: int | None = None) -> FakeFiles:
    files = FakeFiles(None if seed is None else Random(seed))
    files.make_folder("/disk")
    return files


def opened(files: FakeFiles, sync: Sync = Sync.EACH) -> AppendFile:
    return AppendFile.open(PATH, sync=sync, files=files)


@pytest.mark.parametrize("seed", range(20))
def test_what_could_not_be_synced_is_cut_through_a_fresh_descriptor_and_the_file_goes_on(seed: int) -> None:
    files = disk(seed)
    file = opened(files)
    file.append(b"one ")
    before = file.descriptor
    files.fail("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as caught:
        file.append(b"refused ")
    assert not isinstance(caught.value, TornFileError)
    assert (files.read(PATH), file.is_torn, file.descriptor != before) == (b"one ", False, True)
    file.append(b"two ")
    files.power_cut()
    assert files.read(PATH) == b"one two "


def test_the_lock_is_kept_over_a_failed_sync() -> None:
    files = disk()
    file = opened(files)
    files.fail("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        file.append(b"refused")
    with pytest.raises(BlockingIOError):
        opened(files)
    assert files.opened == 1


def test_a_file_whose_lock_was_taken_meanwhile_is_closed() -> None:
    files = disk()
    file = opened(files)
    files.fail("sync_data", errno.EIO)
    files.fail("lock", errno.EWOULDBLOCK)
    with pytest.raises(TornFileError, match="Input/output error"):
        file.append(b"refused")
    with pytest.raises(OSError, match="it is closed"):
        file.append(b"more")
    assert (files.read(PATH), files.opened) == (b"", 0)


@pytest.mark.parametrize("call", ["open", "truncate", "sync"])
def test_a_cut_that_fails_too_is_tried_again_before_anything_is_appended(call: str) -> None:
    files = disk()
    file = opened(files)
    file.append(b"one ")
    files.fail("sync_data", errno.EIO)
    files.fail(call, errno.EROFS, times=2)
    with pytest.raises(TornFileError, match="cannot be cut back to 4 bytes") as caught:
        file.append(b"refused ")
    assert (caught.value.errno, file.is_torn, file.size) == (errno.EIO, True, 4)
    with pytest.raises(OSError, match="Read-only"):
        file.append(b"refused too ")
    file.append(b"two ")
    assert files.opened == 1
    files.power_cut()
    assert files.read(PATH) == b"one two "


def test_a_cut_that_cannot_be_synced_is_made_once_more_through_a_fresh_descriptor() -> None:
    files = disk()
    file = opened(files)
    file.append(b"one ")
    files.fail("write", errno.ENOSPC)
    files.fail("sync", errno.EIO)
    with pytest.raises(OSError, match="No space left") as caught:
        file.append(b"refused ")
    assert not isinstance(caught.value, TornFileError)
    file.append(b"two ")
    files.power_cut()
    assert files.read(PATH) == b"one two "


def test_earlier_appends_that_are_lost_with_a_cut_close_the_file() -> None:
    files = disk()
    file = opened(files, Sync.ASKED)
    file.append(b"one ")
    file.sync()
    file.append(b"two ")
    files.fail("write", errno.ENOSPC)
    files.fail("sync", errno.EIO)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"three ")
    assert file.size == 4
    with pytest.raises(OSError, match="it is closed"):
        file.append(b"four ")
    assert (files.read(PATH), files.opened) == (b"one ", 0)


@pytest.mark.parametrize("seed", range(10))
def test_many_pieces_are_written_in_their_order_however_short_the_writes(seed: int) -> None:
    files = disk(seed)
    files.short_writes = 0.9
    file = opened(files)
    assert file.append(b"ab", bytearray(b"c"), b"", memoryview(b"defg")) == 7
    assert (files.read(PATH), file.read(2, 3)) == (b"abcdefg", b"cde")


def test_several_pieces_are_one_call() -> None:
    files = disk()
    file = opened(files)
    before = files.calls["write"]
    file.append(b"ab", b"cd")
    assert files.calls["write"] == before + 1


@pytest.mark.parametrize("cut_fails", [False, True])
def test_a_part_that_is_kept_is_on_disk(cut_fails: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    files = FakeFiles(capacity_bytes=6)
    files.make_folder("/disk")
    file = opened(files)
    if cut_fails:
        files.fail("truncate", errno.EIO)
        with pytest.raises(TornFileError):
            file.append(b"one\ntwo\n", keep=lambda written: 4)
        assert file.size == 0
    else:
        assert file.append(b"one\ntwo\n", keep=lambda written: 4) == 4
        files.power_cut()
        assert files.read(PATH) == b"one\n"


@pytest.mark.parametrize("seed", range(40))
def test_a_replacement_is_there_whole_or_not_at_all_after_a_power_cut_at_any_call(seed: int) -> None:
    files = disk(seed)
    file = opened(files)
    file.append(b"o" * 2000)
    files.die_after(1 + seed % 14)
    try:
        file.replace(b"n" * 1500)
    except Died:
        files.power_cut()
        assert files.read(PATH) in {b"o" * 2000, b"n" * 1500}
    else:
        files.power_cut()
        assert files.read(PATH) == b"n" * 1500


def test_a_descriptor_of_the_process_can_be_adopted(tmp_path: os.PathLike[str]) -> None:
    descriptor = os.open(os.path.join(tmp_path, "file"), os.O_RDWR | os.O_CREAT)  # noqa: PTH118 - a descriptor is tried
    os.write(descriptor, b"one")
    os.lseek(descriptor, 0, os.SEEK_SET)
    with AppendFile.adopt(descriptor, "named for messages", Sync.NEVER) as file:
        file.append(b"two")
        assert file.read(0, 10) == b"onetwo"
