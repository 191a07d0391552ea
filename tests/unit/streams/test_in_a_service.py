"""A store beside others: readers that wait, a service that runs it, and what it shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from store_parts import data, disk_in_memory, figures, opened

import outlast
from outlast.disk import Disk
from outlast.streams import DamagedError, Producer, Retention, StreamOptions, Streams
from outlast.testing import run_virtual

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
            assert figures(streams)["followers"] == {(): 0}

    run_virtual(main)


def test_thousands_at_the_tail_of_one_stream_share_one_read() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            orders = await streams.create("orders")
            waiting = [asyncio.create_task(orders.fetch(0, wait_s=60.0)) for _ in range(3_000)]
            await asyncio.sleep(0.1)
            waiting[0].cancel()
            reads = files.calls["read_at"]
            await orders.append(b"x")
            assert {bytes(chunk.records[0]) for chunk in await asyncio.gather(*waiting[1:])} == {b"x"}
            assert files.calls["read_at"] - reads <= 5

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


def test_a_damaged_record_is_told_with_its_place_and_ends_no_service(expected_logs: Any) -> None:
    expected_logs(
        "loop read is failing: PERMANENT segment [0-9]{20}.log is damaged at position 2: .*; run: outlast streams verify"
    )
    expected_logs("is damaged", optional=True)
    files = disk_in_memory()
    met: list[DamagedError] = []
    turns = [0]

    async def main() -> int:
        async with opened(files) as streams:
            orders = await streams.create("orders", StreamOptions(segment_bytes=4096))
            for number in range(12):
                await orders.append(b"%04d" % number * 250)
        [first, *_] = sorted(path for path in files.tree("/disk") if path.endswith(".log"))
        files.flip(first, 8 * (len(files.read(first)) - 500))
        streams = Streams(Disk("/disk", name="/disk", files=files))
        service = outlast.Service("shop")
        streams.attach(service)

        @service.loop()
        async def read(stop: outlast.Stop) -> None:
            try:
                await data(await streams.open("orders"))
            except DamagedError as error:
                met.append(error)
                raise

        @service.loop(every_s=1.0)
        async def other(stop: outlast.Stop) -> None:
            orders = await streams.open("orders")
            while not met:
                await asyncio.sleep(0.1)
            assert met[0].next is not None
            assert (await data(orders, met[0].next))[0] == b"%04d" % met[0].next * 250
            await orders.append(b"goes on")
            turns[0] += 1

        stop = outlast.Stop()
        asyncio.get_running_loop().call_later(10.0, stop.fire, "enough")
        return await service.run(stop)

    assert run_virtual(main) == 0
    assert turns[0] >= 8
    assert (met[0].stream, met[0].position) == ("orders", 2)


def test_a_store_that_was_closed_can_be_opened_again_also_on_another_event_loop() -> None:
    streams = Streams(Disk("/disk", name="/disk", files=disk_in_memory()))

    async def use(before: int) -> None:
        for number in range(2):
            async with streams:
                orders = await streams.create("orders", exist_ok=True)
                waiting = asyncio.create_task(orders.fetch(orders.tail, wait_s=60.0))
                await asyncio.sleep(0.1)
                await orders.append(b"x")
                assert len(await waiting) == 1
                assert orders.tail == before + number + 1
                with pytest.raises(outlast.ConfigurationError, match="open already; attach it to one service, or enter it once"):
                    await streams.__aenter__()

    run_virtual(use(0))
    run_virtual(use(2))
    assert figures(streams)["appended_records"] == {("/disk",): 4}


def test_it_shows_itself_and_its_act_applies_retention() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            options = StreamOptions(segment_bytes=4096, retention=Retention(size_bytes=10_000, floor_s=0.0))
            orders = await streams.create("orders", options)
            await orders.append(b"a", producer=Producer("p", 0, 0))
            await orders.append(b"a", producer=Producer("p", 0, 0))
            for _ in range(30):
                await orders.append(bytes(1000))
            shown = figures(streams)
            assert shown["appended_records"] == {("/disk",): 31}
            assert shown["appends"]["/disk", "duplicate"] == 1
            assert shown["appends"]["/disk", "stored"] == shown["syncs"]["/disk",] == shown["frames"]["/disk",] == 31
            assert shown["streams"] == {("/disk",): 1}
            assert shown["backlog"] == {("/disk",): 0}
            assert streams.shown.health().state == "open"
            assert streams.shown.health().well
            assert streams.shown.lag() is None
            [act] = streams.shown.acts()
            assert act.destructive
            assert await act.run() == orders.oldest // 3 > 0
        assert streams.shown.health().state == "closed"

    run_virtual(main)
