"""The reserve, and proofs on a disk that cannot allocate."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from guarded_disk import MIB, TOTAL, Writer, disk_of, files_of

from outlast import State
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("disk /disk", "disk /other")


def test_the_reserve_is_made_with_headroom_given_to_clean_up_alone_and_made_again() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files, reserve_bytes="by size") as disk:
            await asyncio.sleep(0.1)
            assert disk.reserve.held_bytes == MIB
            assert files.available_bytes == TOTAL - MIB
            files.fill()
            assert not await Writer(disk).write()

            def clean(size: int) -> str:
                descriptor = files.open("/disk/smaller", os.O_CREAT | os.O_WRONLY)
                try:
                    files.allocate(descriptor, size)
                finally:
                    files.close(descriptor)
                return "done"

            assert disk.cleaning(clean, 1000) == "done"
            assert disk.reserve.held_bytes == 0
            with pytest.raises(OSError, match="No space left"):
                disk.cleaning(clean, 2 * MIB)
            files.free(8 * MIB)
            await asyncio.sleep(10)
            assert disk.reserve.held_bytes == 0, "there is room, but none above the upper level"
            files.free(2 * MIB)
            await asyncio.sleep(10)
            assert disk.reserve.held_bytes == MIB
        async with disk_of(files, reserve_bytes="by size") as next_one:
            assert next_one.reserve.held_bytes == MIB, "that of an earlier process is taken over"

    run_virtual(main)


def test_a_clean_up_that_fails_for_another_reason_leaves_the_reserve() -> None:
    async def main() -> None:
        async with disk_of(files_of(), reserve_bytes=MIB) as disk:
            await asyncio.sleep(0.1)
            calls: list[int] = []

            def clean() -> None:
                calls.append(1)
                raise FileNotFoundError(errno.ENOENT, "it is gone")

            with pytest.raises(FileNotFoundError):
                disk.cleaning(clean)
            assert (len(calls), disk.reserve.held_bytes) == (1, MIB)

    run_virtual(main)


def test_a_reserve_that_cannot_be_made_is_tried_again_a_minute_later_and_keeps_nobody_from_writing() -> None:
    async def main() -> None:
        files = files_of()
        files.fail("allocate", errno.EOPNOTSUPP, times=2)
        async with disk_of(files, reserve_bytes=MIB) as disk:
            await asyncio.sleep(30)
            assert files.calls["allocate"] == 1
            assert await Writer(disk).write()
            await asyncio.sleep(31)
            assert files.calls["allocate"] == 2
            await asyncio.sleep(61)
            assert disk.reserve.held_bytes == MIB

    run_virtual(main)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_on_a_disk_that_cannot_allocate_the_room_is_proved_by_writing(number: int) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            files.fail("allocate", number, times=100)
            files.fill()
            assert not await Writer(disk).write()
            files.free()
            before = files.calls["write"]
            await asyncio.sleep(2)
            assert disk.state is State.RECOVERING
            assert files.calls["write"] - before == 2 * MIB // 4096

    run_virtual(main)


def test_what_somebody_has_put_in_the_place_of_the_proof_goes_and_is_not_written_to() -> None:
    async def main() -> None:
        files = files_of()
        files.put("/disk/.outlast-probe", b"of a process that died")
        async with disk_of(files) as disk:
            await disk.probe()
            assert "/disk/.outlast-probe" not in files.tree("/disk")
            assert disk.probes == 1

    run_virtual(main)


def test_processes_that_prove_one_disk_at_the_same_time_do_not_take_it_down_for_a_bug() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            files.fail("open", errno.EEXIST, times=2, path="*probe")
            await disk.probe()
            files.fail("open", errno.EEXIST, times=3, path="*probe")
            with pytest.raises(BlockingIOError):
                await disk.probe()

    run_virtual(main)
