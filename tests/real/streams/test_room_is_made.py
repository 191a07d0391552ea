"""Retention that makes room on a disk that is full for real."""

from __future__ import annotations

import asyncio

import pytest
from small_disks import MIB, all_go_on, running, small_disk, until
from streams_ledger import Attempt, Client, Ledger

from outlast.streams import Retention, StreamOptions, Streams

pytestmark = pytest.mark.expected_logs(r"disk .* (is down|unavailable)", r"let go of its \d+ oldest segments.*low disk")


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_retention_makes_room_on_a_full_disk_so_that_appends_go_on_and_nothing_else_is_lost(kind: str) -> None:
    async def main() -> None:
        ledger = Ledger()
        giving = StreamOptions(segment_bytes=MIB, retention=Retention(when_low=True, floor_s=0.0))
        keeping = StreamOptions(segment_bytes=MIB, retention=Retention(when_low=True, floor_s=3600.0))
        async with Streams(disk.path) as streams:
            kept = Client("keeping", await streams.create("keeping", keeping), ledger, size=16_384)
            async with running([kept]):
                await until(lambda: kept.sequence >= 256)
            client = Client("giving", await streams.create("giving", giving), ledger, size=16_384)
            async with running([client]):
                # Twice as much as the disk holds.
                await until(lambda: client.sequence * client.size > 48 * MIB)
                await all_go_on([client])
        async with Streams(disk.path) as streams:
            found = {name: await streams.open(name) for name in ("giving", "keeping")}
            assert found["giving"].oldest > 0
            assert found["keeping"].oldest == 0, "a record that is younger than the floor is never given up"
            for name, stream in found.items():
                there = {record.position: Attempt.of(record.data) async for record in stream.read(stream.oldest)}
                mine = {
                    at: attempt for attempt, at in ledger.acknowledged.items() if attempt.producer == name and at >= stream.oldest
                }
                assert mine.items() <= there.items()
                assert ledger.refused.isdisjoint(there.values())
                assert list(there) == list(range(stream.oldest, stream.tail))

    with small_disk(32 * MIB, kind) as disk:  # type: ignore[arg-type]
        asyncio.run(main())
