"""Consumers of real streams, on a disk in memory: restarts, a full disk, a stream of the same name, the end of a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from memory_stream import positions
from store_parts import disk_in_memory, figures, fill, opened

import outlast
from fake_files import FakeFiles
from outlast.streams import StreamNotFoundError, StreamOptions, TrimmedError
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


def test_of_20000_records_of_which_every_second_is_acknowledged_the_others_come_after_kill_9() -> None:
    """The row "bounded state dropped silently", end to end."""
    files = disk_in_memory()

    async def before() -> None:
        async with opened(files) as streams:
            stream = await streams.create("orders")
            for _ in range(20):
                await stream.append([b"a record"] * 1000)
            consumer = await stream.consumer("billing")
            while got := await consumer.fetch(1000):
                await consumer.acknowledge(*positions(got)[1::2])
            # From here on nothing of this process reaches a disk: its end is none.
            files.die_after(0)

    async def after() -> None:
        async with opened(files) as streams:
            consumer = await (await streams.open("orders")).consumer("billing")
            found: list[int] = []
            while got := await consumer.fetch(1000):
                found += positions(got)
            assert found == list(range(0, 20_000, 2))

    run_virtual(before)
    files.crash()
    run_virtual(after)


def test_a_consumer_of_a_deleted_stream_is_unknown_to_the_next_of_its_name() -> None:
    """The row "incarnation"."""

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("orders")
            await stream.append([b"a", b"b"])
            consumer = await stream.consumer("billing")
            await consumer.acknowledge(*positions(await consumer.fetch()))
            waiting = asyncio.create_task(consumer.fetch(wait_s=60))
            await asyncio.sleep(1)
            await stream.delete()
            again = await streams.create("orders")
            await again.append(b"c")
            with pytest.raises(StreamNotFoundError):
                await waiting
            with pytest.raises(StreamNotFoundError):
                await consumer.acknowledge(0)
            assert [each.data for each in await (await again.consumer("billing")).fetch()] == [b"c"]

    run_virtual(main)


def test_on_a_full_disk_records_are_handed_out_and_acknowledged(expected_logs: Callable[..., None]) -> None:
    expected_logs("low space|is down")

    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            stream = await streams.create("orders", StreamOptions(segment_bytes=1 << 20))
            stored = await fill(stream)
            consumer = await stream.consumer("billing")
            files.fill()
            done: list[int] = []
            while got := await consumer.fetch(50):
                await consumer.acknowledge(*positions(got))
                done += positions(got)
            assert done == stored
            assert consumer.lag == 0

    run_virtual(main)


def test_a_fetch_that_waits_at_the_tail_ends_with_the_store_and_the_figures_say_what_was_done() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            stream = await streams.create("orders", StreamOptions(sync_every_s=60.0))
            await stream.append([b"a", b"b", b"c"])
            consumer = await stream.consumer("billing")
            await consumer.acknowledge(*positions(await consumer.fetch(2)))
            found = figures(streams)
            assert found["consumer_lag_records"] == {("/disk",): 1}
            assert found["consumer_acknowledged"] == {("/disk",): 2}
            await consumer.fetch()
            waiting = asyncio.create_task(consumer.fetch(wait_s=600))
            await asyncio.sleep(1)
        with pytest.raises(outlast.Stopping):
            await waiting
        # The end of a store makes durable what was acknowledged.
        files.power_cut()
        async with opened(files) as streams:
            consumer = await (await streams.open("orders")).consumer("billing")
            assert [(each.position, each.deliveries) for each in await consumer.fetch()] == [(2, 2)]

    run_virtual(main)


def test_a_cursor_that_a_power_cut_kept_skips_none_of_the_records_that_come_in_place_of_lost_ones(
    expected_logs: Callable[..., None],
) -> None:
    expected_logs("goes back to position 2")

    async def main() -> None:
        files = FakeFiles()
        files.make_folder("/disk")
        async with opened(files) as streams:
            stream = await streams.create("orders", StreamOptions(sync_every_s=1.0))
            await stream.append([b"kept", b"kept too"])
            await asyncio.sleep(2)
            consumer = await stream.consumer("billing")
            await stream.append([b"lost"] * 8)
            await consumer.acknowledge(*positions(await consumer.fetch()))
            await stream._held.consumers.flush()
            files.power_cut()
            files.die_after(0)
        files.crash()
        async with opened(files) as streams:
            stream = await streams.open("orders")
            assert stream.tail == 2
            await stream.append([b"new"] * 20)
            consumer = await stream.consumer("billing")
            assert [each.data for each in await consumer.fetch()] == [b"new"] * 20

    run_virtual(main)


def test_trimmed_records_are_skipped(expected_logs: Callable[..., None]) -> None:
    expected_logs("3 record.s. were gone before they were acknowledged")

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("orders")
            await stream.append([b"%d" % number for number in range(5)])
            consumer = await stream.consumer("billing")
            assert len(await consumer.fetch(2)) == 2
            await stream.trim(3)
            assert positions(await consumer.fetch()) == [3, 4]
            with pytest.raises(TrimmedError):
                await stream.fetch(0)

    run_virtual(main)
