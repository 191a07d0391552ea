"""A store on a disk that is full, lost, slow or was cut off, and its clock: what is acknowledged is there, what is refused is not."""

from __future__ import annotations

import asyncio
import errno
import logging
from contextlib import suppress
from typing import Any

import pytest

import outlast
from fake_files import FakeFiles
from outlast.disk import Disk
from outlast.streams import Appended, Producer, Retention, Stream, StreamOptions, Streams
from outlast.streams._streams import Clock
from outlast.testing import run_virtual
from store_parts import MIB, data, disk_in_memory, entered, opened, segments

DOWN = "/disk is down: EXHAUSTED"


async def fill(stream: Stream, size: int = 100_000) -> list[int]:
    """Append until it is refused; return the positions that were acknowledged."""
    got: list[int] = []
    with suppress(outlast.Unavailable):
        while True:
            got.append((await stream.append(b"%08d" % len(got) + bytes(size))).first)
    return got


# A reader never sees what may be lost.


def test_nobody_reads_what_is_not_on_disk_yet_and_its_position_is_given_once() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append(b"0")
            waiting = asyncio.create_task(orders.fetch(1, wait_s=0.5))
            with files.hang("sync_data") as hang:
                task = asyncio.create_task(orders.append(b"X"))
                await entered(hang)
                assert orders.tail == 1
                assert len(await orders.fetch(1)) == 0
                assert await data(orders) == [b"0"]
                assert not waiting.done()
                files.fail("sync_data", errno.EIO)
                files.fail("truncate", errno.EIO)
            with pytest.raises((outlast.Unavailable, outlast.OutlastError)):
                await task
            waiting.cancel()

    async def read() -> None:
        async with opened(files) as streams:
            orders = await streams.open("orders")
            got = await data(orders)
            assert got in ([b"0"], [b"0", b"X"])
            assert (await orders.append(b"Y")).first == len(got)

    with logged():
        run_virtual(write)
        files.heal()
        files.power_cut()
        run_virtual(read)


def test_a_record_that_was_acknowledged_is_there_at_once_after_a_crash() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with opened(files) as streams:
            await (await streams.create("orders")).append(b"kept")
            files.power_cut()

    async def read() -> None:
        async with opened(files) as streams:
            orders = await streams.open("orders")
            assert orders.tail == 1
            assert (await orders.fetch(0, wait_s=3600.0)).records == [b"kept"]
            assert asyncio.get_running_loop().time() < 1.0

    with logged():
        with suppress(Exception):
            run_virtual(write)
        run_virtual(read)


def test_a_stream_with_an_interval_loses_nothing_by_a_stop_and_nothing_by_the_end_of_the_process() -> None:
    files = disk_in_memory()
    options = StreamOptions(sync_every_s=3600.0)

    async def write() -> None:
        async with opened(files) as streams:
            await (await streams.create("orders", options)).append(b"synced by the stop")
        files.power_cut()
        async with opened(files) as streams:
            orders = await streams.open("orders")
            assert await data(orders) == [b"synced by the stop"]
            await orders.append(b"not synced")
            assert await data(orders, 1) == [b"not synced"]
            files.crash()

    async def read() -> None:
        async with opened(files) as streams:
            assert await data(await streams.open("orders")) == [b"synced by the stop", b"not synced"]

    with logged():
        with suppress(Exception):
            run_virtual(write)
        run_virtual(read)


# Full.


def test_while_a_disk_is_full_it_is_read_trimmed_and_deleted_from_and_both_streams_go_on_when_there_is_room(
    expected_logs: Any,
) -> None:
    expected_logs(DOWN)
    files = disk_in_memory(capacity_bytes=16 * MIB)

    async def main() -> None:
        async with opened(files) as streams:
            busy, idle = await streams.create("busy"), await streams.create("idle")
            gone = await streams.create("gone")
            await idle.append(b"idle")
            await gone.append(b"gone")
            stored = await fill(busy)
            assert stored == list(range(len(stored)))
            calls = files.calls["write"]
            for stream in (busy, idle):
                with pytest.raises(outlast.Unavailable, match="low space|ENOSPC"):
                    await stream.append(b"x")
            with pytest.raises(outlast.Unavailable):
                await streams.create("more")
            assert files.calls["write"] == calls
            # What makes room, and what reads, is not held up.
            assert len(await data(busy)) == len(stored)
            await gone.delete()
            await busy.trim(busy.tail)
            await streams.disks[0].ready(5.0)
            assert asyncio.get_running_loop().time() < 2.0
            assert await idle.append(b"again") == Appended(1, 2)
            assert await busy.append(b"again") == Appended(len(stored), len(stored) + 1)

    run_virtual(main)


def test_a_stream_whose_recovery_could_not_settle_its_tail_takes_appends_once_the_disk_does(expected_logs: Any) -> None:
    expected_logs("/disk is down")
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            await (await streams.create("orders")).append(b"1")
        files.crash()
        files.fail("sync", errno.ENOSPC, times=3, path="*.log")
        async with opened(files) as streams:
            orders = await streams.open("orders")
            assert await data(orders) == [b"1"]
            with pytest.raises(outlast.Unavailable, match="ENOSPC"):
                await orders.append(b"2")
            files.heal()
            await streams.disks[0].ready(5.0)
            assert await orders.append(b"2") == Appended(1, 2)
            assert await data(orders) == [b"1", b"2"]

    run_virtual(main)


def test_a_start_on_a_full_disk_makes_nothing_and_reads_everything(expected_logs: Any) -> None:
    expected_logs(DOWN)
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append([b"1", b"2"])
        files.fill()
        files.inodes = 0
        before = set(files.tree("/"))
        async with opened(files) as streams:
            orders = await streams.open("orders")
            assert await data(orders) == [b"1", b"2"]
            await orders.trim(1)
            with pytest.raises(outlast.Unavailable):
                await orders.append(b"3")
            assert set(files.tree("/")) <= before

    run_virtual(main)


# One volume of several.


def test_a_volume_that_is_lost_takes_no_other_with_it(expected_logs: Any) -> None:
    expected_logs("/a .*EIO", optional=False)
    files = disk_in_memory("/a", "/b")

    async def main() -> None:
        async with opened(files, "/a", "/b") as streams:
            here, there = await streams.create("here", volume="/a"), await streams.create("there", volume="/b")
            await here.append(b"kept")
            files.fail("write", errno.EIO, times=1e9, path="/a/*")
            files.fail("sync*", errno.EIO, times=1e9, path="/a/*")
            for _ in range(3):
                with pytest.raises(outlast.Unavailable, match="EIO"):
                    await here.append(b"x")
            assert await there.append(b"x") == Appended(0, 1)
            assert await data(here) == [b"kept"]
            files.heal()

    run_virtual(main)


def test_a_new_stream_lives_where_there_is_most_room_or_where_it_is_told_to() -> None:
    files, small = disk_in_memory("/a", "/b"), disk_in_memory("/c", capacity_bytes=32 * MIB)

    async def main() -> None:
        disks = [Disk("/c", name="c", files=small), Disk("/a", name="a", files=files)]
        async with Streams(disks, files=files) as streams:
            await streams.create("free")
            assert [path for path in files.tree("/a") if path.endswith(".log")]
            with pytest.raises(ValueError, match="there is no volume 'x', only c, a"):
                await streams.create("other", volume="x")

    run_virtual(main)


# The folder.


def test_a_folder_is_held_by_one_store() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            await streams.create("a")
            text = "the streams in /disk are in use by another process, or by another Streams of this one; give each a folder"
            with pytest.raises(outlast.ConfigurationError, match=text):
                async with opened(files):
                    pass
        async with opened(files) as streams:
            assert streams.names() == ["a"]

    run_virtual(main)


def test_a_folder_that_is_not_there_is_not_made(expected_logs: Any) -> None:
    expected_logs("/nothing is down")
    files = disk_in_memory()

    async def main() -> None:
        with pytest.raises(outlast.ConfigurationError, match="there is no folder /nothing for streams; make it, on the disk that"):
            async with opened(files, "/nothing"):
                pass
        assert "/nothing" not in files.tree("/")

    run_virtual(main)


def test_a_folder_that_cannot_be_opened_says_why() -> None:
    files = disk_in_memory()
    files.fail("open", errno.EACCES, times=1, path="*.lock")

    async def main() -> None:
        with pytest.raises(outlast.ConfigurationError, match="cannot open the streams in /disk: .*; give a folder that can be read"):
            async with opened(files):
                pass
        # Nothing is left open behind it.
        async with opened(files):
            pass

    run_virtual(main)


def test_a_read_only_disk_is_read() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            await (await streams.create("orders")).append(b"1")
        for call in ("write", "write_at", "truncate", "mkdir", "rename", "unlink", "allocate"):
            files.fail(call, errno.EROFS, times=1e9)
        files.fail("open", errno.EROFS, times=1, path="*.lock")
        async with opened(files) as streams:
            orders = await streams.open("orders")
            assert await data(orders) == [b"1"]
            with pytest.raises(outlast.Unavailable, match="EROFS"):
                await orders.append(b"2")

    with logged():
        run_virtual(main)


def test_folders_of_which_no_stream_is_known_are_said_and_left_as_they_are(expected_logs: Any) -> None:
    expected_logs(r"no stream is known of the folder /disk/streams/[0-9a-f]{16}: .*It is left as it is; run: outlast streams verify")
    expected_logs("no stream is known of the folder /disk/streams/lost: it has no name of ours")
    expected_logs("no stream is known of the folder /disk/streams/0000000000000001: it has no meta")
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append(b"1")
            broken = orders.id
            await (await streams.create("healthy")).append(b"2")
        meta = f"/disk/streams/{broken}/meta"
        for bit in (100, 4096 * 8 + 100):
            files.flip(meta, bit)
        files.make_folder("/disk/streams/lost")
        files.make_folder("/disk/streams/0000000000000001")
        before = files.tree("/disk/streams")
        for _ in range(2):
            async with opened(files) as streams:
                assert streams.names() == ["healthy"]
                assert await data(await streams.open("healthy")) == [b"2"]
                assert streams.shown.figures()[-2].samples == [(("/disk",), 3.0)]
        assert {path: kept for path, kept in files.tree("/disk/streams").items() if path in before} == before

    run_virtual(main)


# Retention.


def test_retention_lets_go_of_whole_segments_that_are_too_many_and_a_reader_is_told() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            options = StreamOptions(segment_bytes=8192, retention=Retention(size_bytes=40_000, floor_s=0.0))
            orders = await streams.create("orders", options)
            for number in range(100):
                await orders.append(b"%04d" % number * 250)
            await asyncio.sleep(3.0)
            assert orders.size_bytes <= 40_000
            assert 50 < orders.oldest < orders.tail == 100
            assert (await data(orders, orders.oldest))[-1] == b"0099" * 250

    run_virtual(main)


def test_a_low_disk_takes_only_from_streams_that_allow_it_and_appends_go_on(expected_logs: Any) -> None:
    expected_logs(DOWN)
    expected_logs("let go of its [0-9]+ oldest segments, .* by retention .low disk.; the oldest position is now")
    files = disk_in_memory(capacity_bytes=32 * MIB)

    async def main() -> None:
        async with opened(files) as streams:
            kept = await streams.create("kept")
            await kept.append(b"kept")
            options = StreamOptions(segment_bytes=MIB, retention=Retention(when_low=True, floor_s=0.0))
            events = await streams.create("events", options)
            stored = await fill(events)
            await streams.disks[0].ready(10.0)
            assert asyncio.get_running_loop().time() < 3.0
            assert (await events.append(b"more")).first == len(stored)
            assert 0 < events.oldest < len(stored)
            assert await data(kept) == [b"kept"]
            dropped = [figure for figure in streams.shown.figures() if figure.name == "retained_away"]
            assert dropped[0].samples[0][0] == ("/disk", "low disk")

    run_virtual(main)


class SetClock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.jump_s = 0.0

    def __call__(self) -> float:
        return 1.8e9 + self.jump_s


def test_a_clock_that_is_set_in_a_running_process_lets_go_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = SetClock()
    monkeypatch.setattr("outlast.streams._streams.time.time", wall)
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            options = StreamOptions(segment_bytes=4096, retention=Retention(age_s=86_400.0))
            orders = await streams.create("orders", options)
            for _ in range(20):
                await orders.append(bytes(1000))
            wall.jump_s = 365 * 86_400.0
            await asyncio.sleep(10.0)
            await orders.append(b"last")
            assert orders.oldest == 0
            times = [record.time async for record in orders.read()]
            assert max(times) - min(times) < 3600.0

    run_virtual(main)


def test_a_clock_that_jumped_between_two_starts_is_said_and_lets_go_of_nothing_early(
    monkeypatch: pytest.MonkeyPatch, expected_logs: Any
) -> None:
    expected_logs(r"the clock is 365\.0 days after the last use of the store; if it was not away for so long, set the clock")
    expected_logs(r"the clock is 365\.0 days before the last use of the store")
    wall = SetClock()
    monkeypatch.setattr("outlast.streams._streams.time.time", wall)
    files = disk_in_memory()
    options = StreamOptions(segment_bytes=4096, retention=Retention(age_s=86_400.0))

    async def write() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders", options)
            for _ in range(20):
                await orders.append(bytes(1000))
            await asyncio.sleep(1.0)

    async def look() -> None:
        async with opened(files) as streams:
            orders = await streams.open("orders")
            await asyncio.sleep(5.0)
            assert orders.oldest == 0

    run_virtual(write)
    wall.jump_s = 365 * 86_400.0
    run_virtual(look)
    wall.jump_s = 0.0
    run_virtual(look)


def test_time_passes_for_records_by_the_monotonic_clock() -> None:
    monotonic = [100.0]
    clock = Clock(lambda: monotonic[0], lambda: 1_000_000.0)
    assert clock.now_us() == 1_000_000_000_000
    monotonic[0] += 5.0
    assert clock.now_us() == clock.age_now_us() == 1_000_005_000_000
    assert clock.seen(clock.now_us() - 86_400_000_000) is None
    assert clock.seen(clock.now_us() - 90_000_000_000) == 90_000.0
    assert clock.age_now_us() == clock.now_us() - 90_000_000_000


# Those who wait at the tail.


def test_those_who_wait_at_the_tail_are_bounded_and_leave_their_places() -> None:
    async def main() -> None:
        async with opened(disk_in_memory(), followers_max=2) as streams:
            orders = await streams.create("orders")
            waiting = [asyncio.create_task(orders.fetch(0, wait_s=60.0)) for _ in range(2)]
            await asyncio.sleep(0.1)
            with pytest.raises(outlast.Unavailable, match=r"2 readers wait at the tail of streams \(limit 2\)"):
                await orders.fetch(0, wait_s=60.0)
            waiting[0].cancel()
            await asyncio.sleep(0)
            late = asyncio.create_task(orders.fetch(0, wait_s=60.0))
            await asyncio.sleep(0.1)
            await orders.append(b"x")
            assert (await waiting[1]).records == (await late).records == [b"x"]
            assert len(await orders.fetch(1, wait_s=0.5)) == 0
            assert streams.shown.figures()[-1].samples == [((), 0)]

    run_virtual(main)


# In a service.


def test_a_service_opens_it_and_at_its_end_lets_readers_go_and_stores_what_is_under_way() -> None:
    files = disk_in_memory()
    told: list[BaseException] = []

    async def main() -> int:
        streams = Streams(Disk("/disk", name="/disk", files=files), files=files)
        service = outlast.Service("shop")
        streams.attach(service)

        @service.loop()
        async def follow(stop: outlast.Stop) -> None:
            orders = await streams.create("orders", StreamOptions(sync_every_s=3600.0), exist_ok=True)
            try:
                async for record in orders.read(follow=True):
                    assert record.data == b"x"
            except outlast.Stopping as error:
                told.append(error)
                # Work that is under way may still store what it has.
                await orders.append(b"last")
                raise

        @service.task()
        async def write(stop: outlast.Stop) -> None:
            orders = await streams.create("orders", StreamOptions(sync_every_s=3600.0), exist_ok=True)
            await orders.append(b"x")
            await stop.wait()

        stop = outlast.Stop()
        asyncio.get_running_loop().call_later(5.0, stop.fire, "enough")
        code = await service.run(stop)
        with pytest.raises(RuntimeError):
            streams.names()
        return code

    async def read() -> None:
        async with opened(files) as streams:
            assert await data(await streams.open("orders")) == [b"x", b"last"]

    assert run_virtual(main) == 0
    assert len(told) == 1
    files.power_cut()
    run_virtual(read)


def test_it_shows_itself_and_its_act_applies_retention() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            options = StreamOptions(segment_bytes=4096, retention=Retention(size_bytes=10_000, floor_s=0.0))
            orders = await streams.create("orders", options)
            await orders.append(b"a", producer=Producer("p", 0, 0))
            await orders.append(b"a", producer=Producer("p", 0, 0))
            for _ in range(30):
                await orders.append(bytes(1000))
            figures = {figure.name: dict(figure.samples) for figure in streams.shown.figures()}
            assert figures["appended_records"] == {("/disk",): 31}
            assert figures["appends"]["/disk", "duplicate"] == 1
            assert figures["appends"]["/disk", "stored"] == figures["syncs"]["/disk",] == figures["frames"]["/disk",] == 31
            assert figures["streams"] == {("/disk",): 1}
            assert figures["backlog"] == {("/disk",): 0}
            assert streams.shown.health().state == "open"
            assert streams.shown.health().well
            assert streams.shown.lag() is None
            [act] = streams.shown.acts()
            assert act.destructive
            assert await act.run() == orders.oldest // 3 > 0
        assert streams.shown.health().state == "closed"

    run_virtual(main)


class logged:
    """Lets through every line of a part that is about an outage."""

    def __enter__(self) -> None:
        logging.getLogger("outlast").setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("outlast").setLevel(logging.NOTSET)
