"""`Disk` in virtual time, on a disk in memory."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from fake_files import FakeFiles
from outlast import ConfigurationError, Kind, Scope, State, Unavailable
from outlast.disk import Disk, SpaceLowError
from outlast.extend import Levels, Room, attached
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
TOTAL = 64 * MIB
pytestmark = pytest.mark.expected_logs("disk /disk", "disk /other")


def files_of(total: int = TOTAL, **options: Any) -> FakeFiles:
    files = FakeFiles(random.Random(1), capacity_bytes=total, **options)
    files.make_folder("/disk")
    files.make_folder("/other")
    return files


def disk_of(files: FakeFiles, path: str = "/disk", **options: Any) -> Disk:
    return Disk(path, files=files, rng=random.Random(1), **{"reserve_bytes": None, **options})


class Writer:
    """Appends to one file as a user of the guard does, and counts what it was told."""

    def __init__(self, disk: Disk, size: int = 64 << 10) -> None:
        self.disk, self.size = disk, size
        self.acknowledged = 0
        self.errors: list[str] = []
        self.codes: set[str] = set()
        self._descriptor: int | None = None

    def _write(self) -> None:
        files, disk = self.disk.files, self.disk
        disk.admit(self.size)
        if self._descriptor is None:
            self._descriptor = files.open(disk.path / "data", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        before, written = files.size(self._descriptor), 0
        try:
            while written < self.size:
                written += files.write(self._descriptor, [bytes(self.size - written)])
        except OSError:
            files.truncate(self._descriptor, before)
            raise

    async def write(self) -> bool:
        try:
            async with self.disk.use("append"):
                self._write()
        except OSError as exc:
            self.errors.append(errno.errorcode[exc.errno or 0] + (" soft" if isinstance(exc, SpaceLowError) else ""))
            self.codes.add(self.disk.refusal(exc).fault.code)
            return False
        except Unavailable as refusal:
            self.codes.add(refusal.fault.code)
            return False
        self.acknowledged += 1
        return True

    async def write_for(self, seconds: float, every_s: float = 0.05) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            await self.write()
            await asyncio.sleep(every_s)


def changes_of(disk: Disk) -> list[State]:
    """The times at which it began to refuse, and to let in again."""
    changes: list[State] = []
    disk.subscribe(lambda state, _: None if state is State.UP else changes.append(state))
    return changes


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "outlast")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# Soft stop and resumption.


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


# What fits.


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


# What else goes wrong.


class Inline:
    """Stands for `OwnThread`: makes calls where they are handed over, but for those that hang, which wait for the test."""

    hanging: bool = False
    waiting: list[Callable[[], None]]
    started = 0

    def __init__(self, name: str) -> None:
        self.waiting = []

    def start(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                result = function()
            except Exception as exc:  # noqa: BLE001 - as a thread does
                future.set_exception(exc)
            else:
                future.set_result(result)

        self.started += 1
        if self.hanging:
            self.waiting.append(call)
        else:
            call()
        return future

    def heal(self) -> None:
        self.hanging = False
        while self.waiting:
            self.waiting.pop()()

    def close(self) -> None: ...


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.disk._disk.OwnThread", Inline)


def threads(disk: Disk) -> tuple[Inline, Inline]:
    return disk._threads  # type: ignore[return-value]


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
            files.heal()
            assert await act.run() == 1
            await asyncio.sleep(1)
            assert await writer.write()
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


# The reserve.


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


# In a service, and how it looks.


def test_a_service_watches_its_disk_and_shows_it() -> None:
    async def main() -> None:
        files, service, stop = files_of(), outlast.Service("shop"), outlast.Stop()
        disk = disk_of(files)
        disk.attach(service)

        @service.task()
        async def look(stop: outlast.Stop) -> None:
            await asyncio.sleep(1)
            assert disk.room.total_bytes == TOTAL

        asyncio.get_running_loop().call_later(5, stop.fire, "the test is over")
        assert await service.run(stop) == 0

    run_virtual(main)


def test_its_figures_show_what_is_known_and_nothing_else() -> None:
    async def main() -> None:
        files = files_of(inodes=1000)
        disk = disk_of(files, reserve_bytes="by size")

        def figures() -> dict[str, list[float]]:
            return {figure.name: [value for _, value in figure.samples] for figure in disk.shown.figures()}

        assert figures()["available"] == []
        assert disk.shown.health().well is None
        await disk.open()
        await asyncio.sleep(3)
        assert figures() | {"condition": []} == {
            "available": [TOTAL - MIB],
            "size": [TOTAL],
            "available_inodes": [1000 - 4],
            "filled_a_second": figures()["filled_a_second"],
            "full_in": figures()["full_in"],
            "reserve": [MIB],
            "transitions": [0],
            "probes": [0],
            "condition": [],
        }
        health = disk.shown.health()
        assert (health.well, health.state, disk.shown.system, disk.shown.name) == (True, "well", "disk", "disk /disk")
        assert disk.shown.lag() is None
        files.fill()
        await asyncio.sleep(0.2)
        assert (disk.shown.health().well, disk.shown.health().state) == (False, "low space")
        assert figures()["transitions"] == [1]
        files.free()
        files.fail("sync", errno.EDQUOT, times=1000)
        await asyncio.sleep(3)
        assert (disk.shown.health().well, disk.shown.health().state) == (False, "not proved")
        await disk.close()

    run_virtual(main)


def test_time_until_full_is_told_while_it_fills() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            for _ in range(40):
                files.fill(MIB // 10)
                await asyncio.sleep(0.1)
            assert disk.room.filling_bytes_s == pytest.approx(MIB, rel=0.3)
            assert disk.room.full_in_s == pytest.approx(60, rel=0.4)

    run_virtual(main)


def test_a_reserve_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="reserve_bytes must be at least 1, not 0; None keeps no reserve"):
        Disk("/disk", reserve_bytes=0)


def test_a_look_from_another_thread_counts_as_one(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            files.fill()
            errors: list[OSError] = []

            def write() -> None:
                with contextlib.suppress(Unavailable), disk.blocking.use():
                    try:
                        disk.admit(61 * MIB)
                    except OSError as exc:
                        errors.append(exc)

            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            assert [error.errno for error in errors] == [errno.ENOSPC]
            assert disk.watch.read_at == asyncio.get_running_loop().time(), "on the clock of the event loop"

    run_virtual(main)
