"""`Disk` stops before the disk is full, and goes on by itself; in virtual time, on a disk in memory."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import Any

import pytest
from guarded_disk import MIB, Writer, changes_of, disk_of, files_of, lines

from fake_files import FakeFiles
from outlast import Kind, Scope, State, Unavailable
from outlast.disk import SpaceLowError
from outlast.extend import Levels, Room, attached
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("disk /disk", "disk /other")


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "outlast")


def test_a_disk_that_runs_low_refuses_and_goes_on_by_itself_after_one_proof_once_there_is_room() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            writer = Writer(disk)
            assert await writer.write()
            files.fill(files.available_bytes - 3 * MIB)
            await asyncio.sleep(1.0)
            assert not await writer.write()
            assert (disk.fault.kind, disk.fault.code) == (Kind.EXHAUSTED, "low space")  # type: ignore[union-attr]
            files.free(4 * MIB)
            await asyncio.sleep(10)
            assert (disk.state, disk.probes) == (State.DOWN, 0), "between the levels nothing is written to find out"
            files.free(MIB)
            await asyncio.sleep(2)
            assert (disk.state, disk.probes) == (State.RECOVERING, 1)
            assert await writer.write()
            await asyncio.sleep(30)
            assert disk.state is State.UP
            assert files.tree("/disk").keys() == {"/disk", "/disk/data"} or ".outlast-probe" not in str(files.tree("/disk"))

    run_virtual(main)


def test_a_neighbour_that_fills_the_disk_is_outrun_by_the_soft_stop(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Writer:
        files = files_of()
        async with disk_of(files) as disk:
            writer = Writer(disk)
            writing = asyncio.create_task(writer.write_for(10, every_s=0.02))
            while files.available_bytes > 0:
                files.fill(min(files.available_bytes, MIB // 5))
                await asyncio.sleep(0.01)
            await writing
        return writer

    writer = run_virtual(main)
    assert writer.acknowledged
    assert "ENOSPC" not in writer.errors, "no write met a full disk"
    assert writer.codes == {"low space"}
    assert len(lines(caplog)) == 1


def test_a_neighbour_that_takes_the_rest_at_once_costs_one_line_and_no_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> Writer:
        files = files_of()
        async with disk_of(files) as disk:
            writer = Writer(disk)
            assert await writer.write()
            files.fill()
            await writer.write_for(20)
            assert files.size(files.open("/disk/data", os.O_RDONLY)) == writer.acknowledged * writer.size
        return writer

    writer = run_virtual(main)
    assert (writer.acknowledged, writer.errors) == (1, ["ENOSPC"])
    assert writer.codes == {"ENOSPC"}, "the first refusal says what the last one says"
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("begins", ["well", "low"])
@pytest.mark.parametrize("centre", [0, 1, 4, 8], ids=lambda centre: f"{centre} MiB")
def test_room_that_swings_by_a_mebibyte_for_a_minute_changes_the_state_twice_at_most(centre: int, begins: str) -> None:
    async def main() -> tuple[list[State], int]:
        files, chance = files_of(), random.Random(centre)
        if begins == "low":
            files.fill()
        async with disk_of(files) as disk:
            changes, writer = changes_of(disk), Writer(disk, size=4096)

            async def swing() -> None:
                for _ in range(600):
                    files.free()
                    available = max(0, centre * MIB + chance.randint(-MIB, MIB))
                    files.fill(max(0, files.available_bytes - available))
                    await asyncio.sleep(0.1)

            await asyncio.gather(swing(), writer.write_for(60, every_s=0.05))
            return changes, disk.probes

    changes, probes = run_virtual(main)
    assert len(changes) <= 2, changes
    assert probes <= 1


def test_a_quota_that_statvfs_hides_is_one_outage_with_at_most_a_proof_a_second(caplog: pytest.LogCaptureFixture) -> None:
    class Quota(FakeFiles):
        def room(self, path: Any, /) -> Room:
            super().room(path)
            return Room(100 << 30, None, 100 << 30)

    async def main() -> None:
        files = Quota(random.Random(1), capacity_bytes=10 * MIB)
        files.make_folder("/disk")
        files.refuses_with = errno.EDQUOT
        async with disk_of(files) as disk:
            changes, writer = changes_of(disk), Writer(disk)
            await writer.write_for(60)
            assert writer.acknowledged == 160
            assert (disk.fault.kind, disk.fault.code) == (Kind.EXHAUSTED, "EDQUOT")  # type: ignore[union-attr]
            assert "GiB" not in str(disk.unavailable()), "the lie is not passed on"
            assert changes == [State.DOWN]
            assert 10 <= disk.probes <= 60
            files.capacity_bytes = 1 << 30
            await writer.write_for(60)
            assert changes == [State.DOWN, State.RECOVERING]
            assert writer.errors == ["EDQUOT"]

    run_virtual(main)
    assert len(lines(caplog)) <= 6


def test_no_error_outlives_a_resumption() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            busy, idle = Writer(disk), Writer(disk)
            assert await busy.write()
            files.fill()
            assert not await busy.write()
            files.free()
            await asyncio.sleep(2)
            assert await busy.write()
            assert await idle.write()
            assert disk.fault is not None, "the outage is over once health has lasted"
            await asyncio.sleep(31)
            assert disk.fault is None

    run_virtual(main)


def test_a_guard_that_starts_on_a_disk_between_the_levels_writes_at_once() -> None:
    async def main() -> None:
        files = files_of()
        files.fill(files.available_bytes - 3 * MIB)
        for available, writable in ((3, False), (6, True)):
            # Each a process of its own: there is no file of its state.
            files.free()
            files.fill(files.available_bytes - available * MIB)
            async with disk_of(files) as disk:
                await asyncio.sleep(0.1)
                assert await Writer(disk).write() is writable
                files.free()
                await asyncio.sleep(2)
                assert await Writer(disk).write()

    run_virtual(main)


def test_an_outage_of_two_minutes_is_six_lines_for_eight_producers(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            writers = [Writer(disk, size=512) for _ in range(8)]
            files.fill()
            await asyncio.gather(*(writer.write_for(120, every_s=0.2) for writer in writers))
            files.free()
            await asyncio.gather(*(writer.write_for(40, every_s=0.2) for writer in writers))
            assert disk.state is State.UP
            assert sum(writer.acknowledged for writer in writers) > 0

    run_virtual(main)
    said = lines(caplog)
    assert 3 <= len(said) <= 6, said
    assert "first cause EXHAUSTED" in said[-1]


def test_a_write_that_would_pass_the_lower_level_is_refused_before_it_is_begun() -> None:
    async def main() -> None:
        files = files_of()
        files.fill(files.available_bytes - 7 * MIB)
        async with disk_of(files) as disk:
            with pytest.raises(SpaceLowError) as refused:
                async with disk.use():
                    disk.admit(4 * MIB)
            assert refused.value.errno == errno.ENOSPC
            assert attached(refused.value).scope is Scope.DEPENDENCY  # type: ignore[union-attr]
            assert disk.state is State.DOWN
            await asyncio.sleep(10)
            assert disk.state is State.DOWN, "it goes on at the upper level, which is not reached"

    run_virtual(main)


def test_a_write_that_is_too_large_for_a_disk_with_room_concerns_nobody_else() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            with pytest.raises(SpaceLowError) as refused:
                async with disk.use():
                    disk.admit(61 * MIB)
            assert attached(refused.value).scope is Scope.CALL  # type: ignore[union-attr]
            assert "61.0 MiB do not fit" in str(refused.value)
            assert disk.state is State.UP
            assert await Writer(disk).write()

    run_virtual(main)


def test_what_was_let_in_counts_until_the_next_look() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files, low=Levels(4 * MIB, 8 * MIB)) as disk:
            looks = files.calls["room"]
            for _ in range(51):
                disk.admit(MIB)
            assert files.calls["room"] == looks, "far from the level nobody asks"
            disk.admit(10 * MIB)
            assert files.calls["room"] == looks + 1, "nothing of it was written: it fits after all"

    run_virtual(main)


def test_the_guard_works_in_threads_without_an_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    files = files_of()
    disk = disk_of(files)

    def write() -> None:
        with disk.blocking.use("append"):
            disk.admit(MIB)

    write()
    files.fill()
    # As of the last look half a mebibyte more would fit.
    disk.admit(58 * MIB + MIB // 2)
    with pytest.raises(SpaceLowError):
        write()
    with pytest.raises(Unavailable):
        write()
    assert len(lines(caplog)) == 1
