"""`Disk` on real disks: in memory, ext4 on a loop device, and one behind FUSE that fails and hangs as told."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from guarded_disk import MIB, TOTAL, Writer

import outlast
from outlast import Kind, State
from outlast.disk import Disk
from outlast.extend import OwnThread
from outlast.testing import DiskKind, SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs("disk /")
GIB = 1 << 30


def small_disk(kind: DiskKind, size_bytes: int = TOTAL, inodes: int | None = None) -> SmallDisk:
    if (reason := SmallDisk.available(kind)) is not None:
        pytest.skip(reason)
    return SmallDisk(size_bytes, kind, inodes=inodes)


@pytest.fixture(scope="module")
def faulty_disk() -> Iterator[SmallDisk]:
    with small_disk("faulty") as disk:
        yield disk


@pytest.fixture
def faulty(faulty_disk: SmallDisk) -> Iterator[SmallDisk]:
    """A disk behind FUSE, as good as new: each test has a folder of its own on it."""
    yield faulty_disk
    faulty_disk.heal()
    faulty_disk.quota(None)
    faulty_disk.statvfs(None)
    faulty_disk.read_only(False)
    faulty_disk.free()
    for path in faulty_disk.path.iterdir():
        path.unlink()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    caplog.set_level("INFO", "outlast")
    return lambda: [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "outlast"]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


async def until_written(writer: Writer) -> None:
    while not await writer.write():
        await asyncio.sleep(0.02)


def threads_of(disk: Disk) -> int:
    return sum(thread.name.startswith(disk.name) for thread in threading.enumerate())


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_a_neighbour_fills_at_once_loses_nothing_costs_one_line_and_is_used_again_once_there_is_room(
    kind: DiskKind, run_async: RunAsync, said: Callable[[], list[tuple[int, str]]]
) -> None:
    async def main() -> None:
        async with Disk(small.path, reserve_bytes=None) as disk:
            writer = Writer(disk, thread=OwnThread("writer"))
            for _ in range(10):
                assert await writer.write()
            small.fill()
            while disk.passable:
                await writer.write()
                await asyncio.sleep(0)
            for _ in range(100):
                assert not await writer.write()
                await asyncio.sleep(0.011)
            await until(lambda: len(said()) == 1)
            assert said()[0][1].startswith(f"{disk.name} is down: EXHAUSTED")
            assert "used were found in" in said()[0][1]
            assert len(writer.codes) == 1
            assert len(writer.errors) <= 1
            assert (disk.path / "data").stat().st_size == writer.acknowledged * writer.size
            small.free()
            await until_written(writer)
            assert disk.probes == 1
            assert [path.name for path in disk.path.iterdir()] == ["data"]
            assert [level for level, _ in said()] == [logging.WARNING, logging.INFO]

    with small_disk(kind) as small:
        run_async(main)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_a_neighbour_fills_slowly_is_left_before_it_is_full(kind: DiskKind, run_async: RunAsync) -> None:
    async def main() -> None:
        async with Disk(small.path, reserve_bytes=None) as disk:
            writer, left = Writer(disk, size=4096, thread=OwnThread("writer")), small.available_bytes
            while left > 0:
                # The neighbour is as fast as the writer is slow, so that no load of the machine makes it win.
                await writer.write()
                await asyncio.sleep(0.011)
                left = max(0, left - MIB // 2)
                small.fill(left)
            assert writer.acknowledged > 50
            assert writer.codes == {"low space"}
            assert "ENOSPC" not in writer.errors

    with small_disk(kind) as small:
        run_async(main)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_the_reserve_lets_clean_up_work_on_a_full_disk(kind: DiskKind, run_async: RunAsync) -> None:
    async def main() -> None:
        async with Disk(small.path) as disk:
            await until(lambda: disk.reserve.held_bytes > 0)
            size = disk.reserve.held_bytes
            assert MIB * 3 // 4 <= size <= MIB
            small.fill()

            def compact() -> str:
                (disk.path / "smaller").write_bytes(b"x" * (256 << 10))
                return "done"

            with pytest.raises(OSError, match="No space left"):
                compact()
            assert await OwnThread("cleaner").run(disk.cleaning, compact) == "done"
            assert disk.reserve.held_bytes == 0
            small.free()
            await until(lambda: disk.reserve.held_bytes == size)
            assert (disk.path / ".outlast-reserve").stat().st_blocks * 512 >= size

    with small_disk(kind) as small:
        run_async(main)


def test_inodes_run_low_while_bytes_are_left_and_come_back(run_async: RunAsync) -> None:
    async def main() -> None:
        async with Disk(small.path, reserve_bytes=None) as disk:
            made = 0
            while disk.passable:
                (disk.path / f"{made}").touch()
                made += 1
                await asyncio.sleep(0.06)
            assert disk.unavailable().fault.code == "low inodes"
            assert disk.room.available_bytes is not None
            assert disk.room.available_bytes > 50 * MIB
            assert disk.room.available_inodes is not None
            for number in range(made):
                (disk.path / f"{number}").unlink()
            await until_written(Writer(disk, thread=OwnThread("writer")))

    with small_disk("tmpfs", inodes=40) as small:
        run_async(main)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_each_way_to_have_no_room_is_told_by_its_name_and_passes(faulty: SmallDisk, number: int, run_async: RunAsync) -> None:
    async def main() -> None:
        async with Disk(faulty.path, reserve_bytes=None) as disk:
            writer = Writer(disk, thread=OwnThread("writer"))
            assert await writer.write()
            faulty.fail("write", number)
            assert not await writer.write()
            fault = disk.unavailable().fault
            assert (fault.kind, fault.code) == (Kind.EXHAUSTED, errno.errorcode[number])
            await until(lambda: disk.probes > 0)
            assert not await writer.write(), "a proof that fails lets nobody in"
            faulty.heal()
            await until_written(writer)

    run_async(main)


@pytest.mark.parametrize(("call", "number"), [("write", errno.EIO), ("fsync", errno.EIO), ("open for writing", errno.EROFS)])
def test_a_lost_disk_is_ended_alone_and_told_once_until_an_operator_says_that_it_is_mended(
    faulty: SmallDisk, call: str, number: int, run_async: RunAsync, said: Callable[[], list[tuple[int, str]]]
) -> None:
    async def main() -> None:
        async with Disk(faulty.path, reserve_bytes=None) as disk, Disk(other.path, reserve_bytes=None) as neighbour:
            writer, beside = Writer(disk, thread=OwnThread("writer")), Writer(neighbour, thread=OwnThread("other"))
            faulty.fail(call, number)  # type: ignore[arg-type] # one of its names
            if call == "write":
                assert not await writer.write()
            else:
                # Whatever the first fault was: the proof by writing meets the end.
                disk.stuck("a write has not returned")
            await until(lambda: disk.is_lost)
            assert (disk.unavailable().fault.kind, disk.unavailable().fault.code) == (Kind.FATAL, errno.errorcode[number])
            assert await beside.write()
            proofs = disk.probes
            await asyncio.sleep(0.7)
            assert disk.probes == proofs, "what is lost is not written to"
            [act] = disk.shown.acts()
            await act.run()
            await until(lambda: disk.is_lost and disk.probes > proofs)
            faulty.heal()
            assert not await writer.write()
            await act.run()
            await until_written(writer)
            [critical] = [text for level, text in said() if level == logging.CRITICAL]
            assert str(faulty.path) in critical

    with small_disk("tmpfs", 16 * MIB) as other:
        run_async(main)


def test_a_quota_that_statvfs_hides_is_one_outage(
    faulty: SmallDisk, run_async: RunAsync, said: Callable[[], list[tuple[int, str]]]
) -> None:
    async def main() -> None:
        faulty.quota(4 * MIB)
        faulty.statvfs(100 * GIB)
        async with Disk(faulty.path, reserve_bytes=None) as disk:
            changes: list[State] = []
            disk.subscribe(lambda state, _: changes.append(state))
            writer = Writer(disk, thread=OwnThread("writer"))
            while disk.passable:
                await writer.write()
            assert 40 <= writer.acknowledged <= 64
            await until(lambda: disk.probes >= 2)
            assert not await writer.write()
            assert (changes, writer.codes) == ([State.DOWN], {"EDQUOT"})
            faulty.quota(None)
            await until_written(writer)
            assert changes == [State.DOWN, State.RECOVERING]
        assert [level for level, _ in said()] == [logging.WARNING, logging.INFO]

    run_async(main)


def test_a_statvfs_that_hangs_is_one_stuck_thread_and_holds_up_neither_another_disk_nor_the_end(
    faulty: SmallDisk, run_async: RunAsync
) -> None:
    async def main() -> None:
        disk, neighbour = Disk(faulty.path, reserve_bytes=None), Disk(other.path, reserve_bytes=None)
        service, stop = outlast.Service("shop"), outlast.Stop()
        disk.attach(service)
        neighbour.attach(service)

        async def look(stop: outlast.Stop) -> None:
            before = faulty.counts()[0].get("statvfs", 0)
            faulty.hang("statvfs")
            await until(lambda: disk.state is State.DOWN)
            assert (disk.unavailable().fault.kind, disk.unavailable().fault.code) == (Kind.TRANSIENT, "hangs")
            assert disk.room.available_bytes is None
            seen = neighbour.room.read_at
            await until(lambda: neighbour.room.read_at != seen)
            assert await Writer(neighbour, thread=OwnThread("other")).write()
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 80), "the threads that all share are free"
            await asyncio.sleep(1.0)
            assert threads_of(disk) <= 2
            assert faulty.counts()[0]["statvfs"] - before <= 2, "one that hangs, and one that came before"
            stop.fire("the test is over")

        service.task()(look)
        assert await service.run(stop) == 0, "while it hangs"
        faulty.heal()
        async with disk:
            await until_written(Writer(disk, thread=OwnThread("writer")))

    with small_disk("tmpfs", 16 * MIB) as other:
        run_async(main)


def test_a_disk_that_takes_no_write_is_down_by_one_stuck_proof_and_comes_back(faulty: SmallDisk, run_async: RunAsync) -> None:
    async def main() -> None:
        async with Disk(faulty.path, reserve_bytes=None) as disk:
            faulty.hang("fsync")
            disk.stuck("a sync has not returned for 2 s")
            await until(lambda: disk.probes == 1)
            await asyncio.sleep(2.5)
            assert (disk.state, disk.probes, threads_of(disk)) == (State.DOWN, 1, 2)
            faulty.heal()
            await until_written(Writer(disk, thread=OwnThread("writer")))
            assert disk.probes == 1, "the write that was stuck is the proof"

    run_async(main)


def test_no_link_in_the_folder_leads_a_proof_or_the_reserve_elsewhere(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        folder, precious = tmp_path / "disk", tmp_path / "precious"
        folder.mkdir()
        precious.write_text("not ours")
        for name in (".outlast-probe", ".outlast-reserve"):
            (folder / name).symlink_to(precious)
        async with Disk(folder, reserve_bytes=4096) as disk:
            await disk.probe()
            await asyncio.sleep(0.1)
            assert disk.reserve.held_bytes == 0
        assert precious.read_text() == "not ours"

    run_async(main)
