"""The fake disk is as nasty as it says: other tests believe what they find on it."""

from __future__ import annotations

import errno
import os
import threading
from random import Random
from typing import TYPE_CHECKING

import pytest

from fake_files import Died, FakeFiles
from outlast.extend import FileSystem, Room

if TYPE_CHECKING:
    from collections.abc import Callable

NEW = os.O_RDWR | os.O_CREAT


def disk(seed: int | None = None, *, capacity: int = 1 << 30, inodes: int | None = None) -> FakeFiles:
    files = FakeFiles(None if seed is None else Random(seed), capacity_bytes=capacity, inodes=inodes)
    files.make_folder("/disk")
    return files


def written(files: FileSystem, path: str, data: bytes, *, sync: bool = False) -> int:
    descriptor = files.open(path, NEW)
    assert files.write(descriptor, [data[:1], data[1:]]) == len(data)
    if sync:
        files.sync(descriptor)
        files.sync_folder("/disk")
    return descriptor


def refused(number: int, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        call(*arguments)
    assert caught.value.errno == number


def test_a_crash_keeps_what_was_written_and_a_power_cut_what_was_synced() -> None:
    files = disk()
    written(files, "/disk/a", b"synced", sync=True)
    descriptor = files.open("/disk/a", os.O_RDWR | os.O_APPEND)
    files.write(descriptor, [b" and more"])
    written(files, "/disk/b", b"no name")
    files.crash()
    assert files.tree("/disk") == {"/disk/a": b"synced and more", "/disk/b": b"no name"}
    refused(errno.EBADF, files.size, descriptor)
    files.power_cut()
    assert files.tree("/disk") == {"/disk/a": b"synced"}


def test_a_name_lasts_once_its_folder_is_synced() -> None:
    files = disk()
    files.sync(written(files, "/disk/a", b"synced"))
    files.mkdir("/disk/folder")
    files.sync_folder("/disk")
    files.rename("/disk/a", "/disk/folder/b")
    files.power_cut()
    assert files.tree("/disk") == {"/disk/a": b"synced", "/disk/folder": None}
    files.rename("/disk/a", "/disk/folder/b")
    files.sync_folder("/disk/folder")
    files.power_cut()
    assert files.tree("/disk") == {"/disk/folder": None, "/disk/folder/b": b"synced"}, "a move is in both folders or in none"


def test_a_power_cut_may_leave_any_mixture_of_what_was_not_synced() -> None:
    found = set[tuple[int, bytes, bytes]]()
    for seed in range(100):
        files = disk(seed)
        descriptor = written(files, "/disk/a", b"o" * 1024, sync=True)
        files.write_at(descriptor, b"n" * 512, 0)
        files.write_at(descriptor, b"n" * 512, 1024)
        files.truncate(descriptor, 1100)
        files.power_cut()
        data = files.read("/disk/a")
        assert data[512:1024] == b"o" * 512, "what was synced and not touched stays"
        assert data[:512] in {b"o" * 512, b"n" * 512}, "a sector is whole"
        found.add((len(data), data[:1], data[1024:1025]))
    sizes = {size for size, _, _ in found}
    assert sizes == {1024, 1100, 1536}
    assert {(b"n", b""), (b"o", b"n"), (b"o", b"\0"), (b"n", b"n"), (b"o", b"")} <= {(first, last) for _, first, last in found}


def test_a_refused_sync_loses_what_it_was_to_write_and_must_not_be_asked_again() -> None:
    files = disk()
    descriptor = written(files, "/disk/a", b"first", sync=True)
    files.write_at(descriptor, b"SECOND", 0)
    files.fail("sync", errno.EIO)
    refused(errno.EIO, files.sync, descriptor)
    assert files.read("/disk/a") == b"SECOND"
    with pytest.raises(AssertionError, match="synced again after a failure"):
        files.sync_data(descriptor)
    files.sync(files.open("/disk/a", os.O_RDWR))
    files.power_cut()
    assert files.read("/disk/a") == b"first", "a sync that works has not written it either"


def test_a_lying_sync_makes_nothing_durable() -> None:
    files = disk()
    files.lie()
    written(files, "/disk/a", b"data", sync=True)
    files.power_cut()
    assert files.tree("/disk") == {}


def test_a_disk_runs_full_by_a_short_write_first_and_a_cut_gives_room_back() -> None:
    files = disk(capacity=10)
    descriptor = files.open("/disk/a", NEW)
    assert files.write(descriptor, [b"12345678"]) == 8
    assert files.write(descriptor, [b"9abc"]) == 2
    refused(errno.ENOSPC, files.write, descriptor, [b"c"])
    assert files.write_at(descriptor, b"X", 3) == 1, "in place needs no room"
    files.truncate(descriptor, 4)
    assert files.room("/disk") == Room(6, None, 10)
    files.fill()
    refused(errno.ENOSPC, files.write, descriptor, [b"c"])
    files.free()
    refused(errno.ENOSPC, files.allocate, descriptor, 11)
    files.allocate(descriptor, 10)
    assert (files.available_bytes, files.read("/disk/a")) == (0, b"123X" + bytes(6))


def test_room_of_what_is_unlinked_comes_when_nobody_has_it_open_or_later() -> None:
    files = disk(capacity=10)
    descriptor = written(files, "/disk/a", b"12345678")
    files.unlink("/disk/a")
    assert files.available_bytes == 2
    files.frees_late = True
    files.close(descriptor)
    assert files.available_bytes == 2
    files.settle()
    assert files.available_bytes == 10


def test_inodes_and_descriptors_run_out() -> None:
    files = FakeFiles(inodes=3, descriptors_max=1)
    files.make_folder("/disk")
    descriptor = files.open("/disk/a", NEW)
    refused(errno.EMFILE, files.open, "/disk/b", NEW)
    files.close(descriptor)
    refused(errno.ENOSPC, files.open, "/disk/b", NEW)
    assert files.room("/disk").available_inodes == 0
    files.unlink("/disk/a")
    assert files.open("/disk/b", NEW) == descriptor, "the number is the next file's"


def test_a_fault_hits_the_calls_it_is_for() -> None:
    files = disk()
    failure = files.fail("open", errno.EACCES, times=2, after=1, path="*/a")
    files.open("/disk/b", NEW)
    files.open("/disk/a", NEW)
    refused(errno.EACCES, files.open, "/disk/a", NEW)
    files.heal()
    files.open("/disk/a", NEW)
    assert failure.hits == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_process_ends_in_the_middle_of_a_call_and_does_nothing_more(seed: int) -> None:
    files = disk(seed)
    descriptor = written(files, "/disk/a", b"first", sync=True)
    files.die_after(2)
    files.size(descriptor)
    with pytest.raises(Died):
        files.write(descriptor, [b"second"])
    with pytest.raises(Died):
        files.truncate(descriptor, 0)
    files.close(descriptor)
    files.crash()
    assert (b"firstsecond").startswith(files.read("/disk/a"))
    assert files.read("/disk/a").startswith(b"first")


def test_a_lock_is_held_until_its_process_ends() -> None:
    files = disk()
    files.lock(files.open("/disk/a", NEW))
    with pytest.raises(BlockingIOError):
        files.lock(files.open("/disk/a", NEW))
    files.crash()
    files.lock(files.open("/disk/a", NEW))


def test_a_call_hangs_while_others_go_on() -> None:
    files = disk()
    descriptor = written(files, "/disk/a", b"data")
    with files.hang("sync", path="*/a") as hang:
        thread = threading.Thread(target=files.sync, args=(descriptor,))
        thread.start()
        assert hang.entered.wait(60)
        assert files.read_at(descriptor, 10, 0) == b"data"
    thread.join(60)
    assert files.calls["sync"] == 1


def test_a_flipped_bit_is_flipped_on_the_disk_too() -> None:
    files = disk()
    files.put("/disk/a", b"\0\0")
    files.flip("/disk/a", 9)
    files.power_cut()
    assert files.read("/disk/a") == b"\0\2"
