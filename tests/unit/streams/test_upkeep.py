"""The upkeep of a store: what retention lets go of, and by which clock records grow old."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from store_parts import MIB, data, disk_in_memory, figures, fill, opened

from outlast.streams import Retention, StreamOptions
from outlast.streams._clock import Clock
from outlast.testing import run_virtual

if TYPE_CHECKING:
    import pytest


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
    expected_logs("/disk is down: EXHAUSTED")
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
            assert figures(streams)["retained_away"]["/disk", "low disk"] > 0

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
    clock = Clock(lambda: 1_000_000.0)
    clock.begin(lambda: monotonic[0])
    assert clock.now_us() == 1_000_000_000_000
    monotonic[0] += 5.0
    assert clock.now_us() == clock.age_now_us() == 1_000_005_000_000
    assert clock.seen(clock.now_us() - 86_400_000_000) is None
    assert clock.seen(clock.now_us() - 90_000_000_000) == 90_000.0
    assert clock.age_now_us() == clock.now_us() - 90_000_000_000


def test_records_of_a_stream_that_never_fills_a_segment_go_by_age_as_well() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            options = StreamOptions(retention=Retention(age_s=100.0, floor_s=0.0))
            slow, idle = await streams.create("slow", options), await streams.create("idle", options)
            await idle.append(b"x")
            for _ in range(30):
                await slow.append(b"x")
                await asyncio.sleep(10.0)
            assert 14 <= slow.oldest <= 20
            assert len(await data(slow, slow.oldest)) == 30 - slow.oldest
            assert (idle.oldest, idle.tail) == (1, 1)
            files_before = len(files.tree("/disk"))
            await asyncio.sleep(300.0)
            assert slow.oldest == 30
            # What has no records rolls no more.
            assert len(files.tree("/disk")) < files_before

    run_virtual(main)
