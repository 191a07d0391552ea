"""What goes wrong beside want of room: a disk that hangs, fails, is lost, or is not to blame."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from guarded_disk import MIB, TOTAL, Inline, Writer, disk_of, files_of, lines, threads

from outlast import Kind, Scope, State
from outlast.extend import attached
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("disk /disk", "disk /other")


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "outlast")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.disk._disk.OwnThread", Inline)


@pytest.mark.usefixtures("inline")
def test_a_statvfs_that_hangs_is_one_call_unknown_and_no_trouble_for_another_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk, disk_of(files, "/other") as other:
            looks, _ = threads(disk)
            looks.hanging, before = True, looks.started
            await asyncio.sleep(60)
            assert looks.started == before + 1, "never a second call while one is stuck"
            assert disk.room.available_bytes is None
            assert disk.shown.health().well is None
            assert (disk.fault.kind, disk.fault.code) == (Kind.TRANSIENT, "hangs")  # type: ignore[union-attr]
            assert not await Writer(disk).write()
            with pytest.raises(TimeoutError, match="has not returned for"):
                disk.admit(1)
            assert disk.probes == 0, "what does not answer is not written to"
            assert await Writer(other).write()
            assert other.room.read_at is not None
            assert other.room.read_at > asyncio.get_running_loop().time() - 2
            looks.heal()
            await asyncio.sleep(1)
            assert await Writer(disk).write()
            looks.hanging = True
        assert len(lines(caplog)) == 3, "it is down, a reminder, it is back"

    run_virtual(main)


@pytest.mark.usefixtures("inline")
def test_a_disk_that_answers_and_takes_no_write_stays_down_by_one_stuck_write() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            _, proofs = threads(disk)
            proofs.hanging = True
            disk.stuck("a write has not returned for 2 s")
            await asyncio.sleep(60)
            assert (proofs.started, disk.probes) == (1, 1)
            assert (disk.state, disk.last.code) == (State.DOWN, "hangs")  # type: ignore[union-attr]
            proofs.heal()
            await asyncio.sleep(0.6)
            assert disk.state is State.RECOVERING
            assert disk.probes == 1, "the write that was stuck is the proof"

    run_virtual(main)


@pytest.mark.usefixtures("inline")
def test_a_disk_that_hangs_at_the_start_delays_it_by_two_seconds_and_its_end_not_at_all() -> None:
    async def main() -> None:
        files = files_of()
        disk = disk_of(files)
        threads(disk)[0].hanging = True
        started_at = asyncio.get_running_loop().time()
        await disk.open()
        assert asyncio.get_running_loop().time() - started_at == 2.0
        assert disk.room.total_bytes is None
        ended_at = asyncio.get_running_loop().time()
        await disk.close()
        assert asyncio.get_running_loop().time() == ended_at
        await disk.open()
        assert threads(disk)[0].started == 1, "the call is stuck still"
        threads(disk)[0].heal()
        await asyncio.sleep(1)
        assert disk.room.total_bytes == TOTAL
        await disk.close()

    run_virtual(main)


def test_a_statvfs_that_fails_means_unknown_and_never_well() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            failure = files.fail("room", errno.ENOTCONN, times=1000)
            await asyncio.sleep(2)
            assert (disk.fault.kind, disk.fault.code) == (Kind.TRANSIENT, "unknown")  # type: ignore[union-attr]
            assert disk.room.available_bytes is None
            assert failure is not None
            files.heal()
            await asyncio.sleep(2)
            assert await Writer(disk).write()

    run_virtual(main)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_disk_that_is_lost_is_ended_with_one_line_and_its_service_lives_on(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk, disk_of(files, "/other") as other:
            writer = Writer(disk)
            files.fail("write", number, times=10_000, path="/disk/*")
            await writer.write_for(70)
            code = errno.errorcode[number]
            assert writer.codes == {code}
            assert writer.errors == [code], "it is not written to again"
            assert disk.probes == 0
            assert (disk.is_lost, disk.shown.health().state) == (True, "lost")
            assert disk.unavailable().fault.kind is Kind.FATAL
            with pytest.raises(OSError, match=os.strerror(number)) as refused:
                disk.admit(1 << 50)
            assert refused.value.errno == number
            assert await Writer(other).write()
            [act] = disk.shown.acts()
            assert (act.name, act.concerns) == ("use the disk again", 1)
            assert await act.run() == 1
            await asyncio.sleep(5)
            assert (disk.is_lost, disk.probes) == (True, 1), "the proof has found the same"
            await act.run()
            await asyncio.sleep(0.1)
            assert (disk.is_lost, disk.probes) == (True, 2)
            files.heal()
            assert await act.run() == 1
            await asyncio.sleep(0.1)
            assert await writer.write(), "an operator is not told to wait a second"
            assert await act.run() == 0
            assert disk.shown.acts()[0].concerns == 0

    run_virtual(main)
    critical = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert len(critical) == 1
    assert "/disk" in critical[0]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_want_of_descriptors_is_no_fault_of_the_disk(number: int) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            files.fail("open", number)
            with pytest.raises(OSError, match=os.strerror(number)) as failed:
                async with disk.use():
                    files.open("/disk/new", os.O_CREAT | os.O_WRONLY)
            fault = attached(failed.value)
            assert fault is not None
            assert (fault.kind, fault.scope) == (Kind.TRANSIENT, Scope.CALL)
            assert disk.state is State.UP

    run_virtual(main)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_each_way_to_have_no_room_is_an_outage_of_the_disk(number: int) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            files.fail("write", number)
            assert not await Writer(disk).write()
            assert (disk.fault.kind, disk.fault.code) == (Kind.EXHAUSTED, errno.errorcode[number])  # type: ignore[union-attr]
            await asyncio.sleep(2)
            assert await Writer(disk).write()

    run_virtual(main)


def test_inodes_run_out_while_bytes_are_left() -> None:
    async def main() -> None:
        files = files_of(inodes=200)
        async with disk_of(files) as disk:
            made = 0
            while disk.passable:
                async with disk.use():
                    files.close(files.open(f"/disk/{made}", os.O_CREAT | os.O_WRONLY))
                made += 1
                await asyncio.sleep(0.1)
            assert 180 <= made < 190
            assert (disk.unavailable().fault.kind, disk.unavailable().fault.code) == (Kind.EXHAUSTED, "low inodes")
            assert "of 200 inodes available; writing stops below 16" in disk.unavailable().fault.reason
            for number in range(30):
                files.unlink(f"/disk/{number}")
            await asyncio.sleep(2)
            assert disk.state is State.RECOVERING

    run_virtual(main)


@pytest.mark.usefixtures("inline")
def test_without_a_thread_to_spare_the_room_is_unknown_and_the_watch_goes_on() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files, reserve_bytes=MIB) as disk:
            for thread in threads(disk):
                thread.refusing = True
            await asyncio.sleep(5)
            assert (disk.fault.kind, disk.fault.code) == (Kind.TRANSIENT, "unknown")  # type: ignore[union-attr]
            assert "no thread" in disk.fault.reason  # type: ignore[union-attr]
            for thread in threads(disk):
                thread.refusing = False
            await asyncio.sleep(3)
            assert await Writer(disk).write()

    run_virtual(main)
