"""A store on a disk that is full, lost, slow or was cut off: what is acknowledged is there, what is refused is not."""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from typing import Any

import pytest
from store_parts import MIB, data, disk_in_memory, entered, figures, fill, opened

import outlast
from outlast.disk import Disk
from outlast.streams import Appended, FencedError, Producer, StreamOptions, Streams
from outlast.testing import run_virtual

DOWN = "/disk is down: EXHAUSTED"


# An append whose caller has gone.


def test_an_append_whose_caller_is_cancelled_while_it_is_written_is_whole_and_the_next_one_behind_it() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            with files.hang("write") as hang:
                first = asyncio.create_task(orders.append(b"A", producer=Producer("p", 0, 0)))
                await entered(hang)
                first.cancel()
                second = asyncio.create_task(orders.append(b"B", producer=Producer("p", 0, 1)))
                await asyncio.sleep(0)
                assert not second.done()
            assert await second == Appended(1, 2)
            assert await orders.append(b"A", producer=Producer("p", 0, 0)) == Appended(0, 1, duplicate=True)
            assert await data(orders) == [b"A", b"B"]

    run_virtual(main)


# A reader never sees what may be lost.


@pytest.mark.expected_logs
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

    run_virtual(write)
    files.heal()
    files.power_cut()
    run_virtual(read)


@pytest.mark.expected_logs
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

    with suppress(Exception):
        run_virtual(write)
    run_virtual(read)


@pytest.mark.expected_logs
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
            await idle.append(b"idle", producer=Producer("p", 1, 0))
            await gone.append(b"gone")
            stored = await fill(busy)
            assert stored == list(range(len(stored)))
            calls = files.calls["write"]
            for stream in (busy, idle):
                with pytest.raises(outlast.Unavailable, match=r"low space|ENOSPC"):
                    await stream.append(b"x")
            with pytest.raises(outlast.Unavailable):
                await streams.create("more")
            # A retry of what is stored is no append: it is answered, and so is one that can never be stored.
            assert await idle.append(b"idle", producer=Producer("p", 1, 0)) == Appended(0, 1, duplicate=True)
            with pytest.raises(FencedError):
                await idle.append(b"older", producer=Producer("p", 0, 0))
            with pytest.raises(outlast.Unavailable):
                await idle.append(b"next", producer=Producer("p", 1, 1))
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
            await (await streams.create("orders")).append(b"1", producer=Producer("p", 0, 0))
        files.crash()
        files.fail("sync", errno.ENOSPC, times=3, path="*.log")
        async with opened(files) as streams:
            orders = await streams.open("orders")
            # Nobody knows whether it is on disk, so it is not served, nor is anything put in its place.
            assert await data(orders) == []
            with pytest.raises(outlast.Unavailable, match="ENOSPC"):
                await orders.append(b"1", producer=Producer("p", 0, 0))
            files.heal()
            await streams.disks[0].ready(5.0)
            assert await orders.append(b"1", producer=Producer("p", 0, 0)) == Appended(0, 1, duplicate=True)
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
    files, small = disk_in_memory("/a"), disk_in_memory("/c", capacity_bytes=32 * MIB)

    async def main() -> None:
        disks = [Disk("/c", name="c", files=small), Disk("/a", name="a", files=files)]
        async with Streams(disks) as streams:
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
    expected_logs("/nothing is down", optional=True)
    files = disk_in_memory()

    async def main() -> None:
        with pytest.raises(outlast.ConfigurationError, match="there is no folder /nothing for streams; make it, on the"):
            async with opened(files, "/nothing"):
                pass
        assert "/nothing" not in files.tree("/")

    run_virtual(main)


def test_a_folder_that_cannot_be_opened_says_why() -> None:
    files = disk_in_memory()
    files.fail("open", errno.EACCES, times=1, path="*.lock")

    async def main() -> None:
        with pytest.raises(outlast.ConfigurationError, match=r"cannot open the streams in /disk: .*; give a folder"):
            async with opened(files):
                pass
        # Nothing is left open behind it.
        async with opened(files):
            pass

    run_virtual(main)


@pytest.mark.expected_logs
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

    run_virtual(main)


@pytest.mark.parametrize("left", [None, "gone", "new"])
def test_what_is_left_of_a_stream_that_was_deleted_or_never_made_goes_and_nothing_is_said_of_it(left: str | None) -> None:
    """A power cut brings back the name of a folder that was removed, with nothing in it."""
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            await streams.create("orders")
        files.make_folder("/disk/streams/0000000000000001")
        if left is not None:
            files.put(f"/disk/streams/0000000000000001/{left}", b"")
            files.put("/disk/streams/0000000000000001/00000000000000000000.log", b"a segment")
        async with opened(files) as streams:
            await asyncio.sleep(2)
            assert streams.names() == ["orders"]
        assert "0000000000000001" not in files.names("/disk/streams")

    run_virtual(main)


def test_folders_of_which_no_stream_is_known_are_said_and_left_as_they_are(expected_logs: Any) -> None:
    expected_logs(
        r"no stream is known of the folder /disk/streams/[0-9a-f]{16}: .*It is left as it is; run: outlast streams verify"
    )
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
        files.put("/disk/streams/0000000000000001/00000000000000000000.log", b"a segment")
        before = files.tree("/disk/streams")
        for _ in range(2):
            async with opened(files) as streams:
                assert streams.names() == ["healthy"]
                assert await data(await streams.open("healthy")) == [b"2"]
                assert figures(streams)["unknown_folders"] == {("/disk",): 3}
        assert {path: kept for path, kept in files.tree("/disk/streams").items() if path in before} == before

    run_virtual(main)
