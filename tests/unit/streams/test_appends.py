"""Appends as their users make them: their positions, their bounds, and who is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from store_parts import data, disk_in_memory, opened, records

import outlast
from outlast.admission import Rate, TooLargeError
from outlast.streams import (
    Appended,
    AppendTooLargeError,
    FencedError,
    LimitError,
    PositionMismatchError,
    Producer,
    SequenceError,
    Stream,
    StreamOptions,
    Streams,
)
from outlast.streams._model import APPEND_BYTES_MAX, NUMBER_MAX, RECORDS_MAX
from outlast.testing import run_virtual


def test_two_appends_at_once_have_positions_of_their_own() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders")
            got = await asyncio.gather(orders.append([b"abc"] * 3), orders.append([b"def"] * 3))
            assert got == [Appended(0, 3), Appended(3, 6)]
            assert orders.tail == 6
            assert await data(orders) == [b"abc"] * 3 + [b"def"] * 3
            for position in range(7):
                assert len(await data(orders, position)) == 6 - position

    run_virtual(main)


def test_an_empty_record_is_a_record_and_so_is_one_of_headers_alone() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with opened(files) as streams:
            await (await streams.create("empty")).append(b"")
            await (await streams.create("headers")).append(b"", headers={"a": "b"})

    async def read() -> None:
        async with opened(files) as streams:
            for name, headers in (("empty", {}), ("headers", {"a": "b"})):
                stream = await streams.open(name)
                assert stream.tail == 1
                got = await records(stream)
                assert [(record.data, record.headers) for record in got] == [(b"", headers)]
                assert len(await stream.fetch(0)) == 1
                assert len(await stream.fetch(1)) == 0

    run_virtual(write)
    run_virtual(read)


def test_a_producer_is_told_what_is_a_duplicate_what_is_missing_and_that_it_is_fenced() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            assert await orders.append(b"a", producer=Producer("p", 0, 0)) == Appended(0, 1)
            assert await orders.append(b"b", producer=Producer("p", 0, 1)) == Appended(1, 2)
            await check(streams)

    async def check(streams: Streams) -> None:
        orders = await streams.open("orders")
        assert await orders.append(b"b", producer=Producer("p", 0, 1)) == Appended(1, 2, duplicate=True)
        with pytest.raises(SequenceError, match="producer 'p' sent sequence 3, and 2 is the next") as info:
            await orders.append(b"d", producer=Producer("p", 0, 3))
        assert (info.value.sequence, info.value.expected) == (3, 2)
        with pytest.raises(SequenceError, match="and 0 is the next"):
            await orders.append(b"d", producer=Producer("q", 5, 1))
        assert orders.tail == 2

    async def again() -> None:
        async with opened(files) as streams:
            await check(streams)
            orders = await streams.open("orders")
            assert await orders.append(b"c", producer=Producer("p", 1, 0)) == Appended(2, 3)
            with pytest.raises(FencedError, match="producer 'p' writes with epoch 0, and epoch 1 has begun"):
                await orders.append(b"b", producer=Producer("p", 0, 2))

    run_virtual(write)
    run_virtual(again)


def test_the_last_sequence_and_epoch_are_taken_and_what_is_above_is_refused_also_after_a_restart() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append(b"x", producer=Producer("last", NUMBER_MAX, 0))
            await orders.append(b"y", producer=Producer("last", NUMBER_MAX, 1))
            await check(streams)

    async def check(streams: Streams) -> None:
        orders = await streams.open("orders")
        assert await orders.append(b"y", producer=Producer("last", NUMBER_MAX, 1)) == Appended(1, 2, duplicate=True)
        with pytest.raises(SequenceError) as info:
            await orders.append(b"z", producer=Producer("last", NUMBER_MAX, NUMBER_MAX))
        assert info.value.expected == 2
        for epoch, sequence in ((NUMBER_MAX + 1, 0), (0, NUMBER_MAX + 1), (-1, 0), (0, -1)):
            with pytest.raises(ValueError, match=r"of a producer is a number from 0 to 9007199254740991"):
                await orders.append(b"z", producer=Producer("p", epoch, sequence))
        with pytest.raises(ValueError, match="the epoch of a producer is a number"):
            await orders.append(b"z", producer=Producer("p", True, 0))
        with pytest.raises(ValueError, match="the name of a producer has 1 to 256 bytes"):
            await orders.append(b"z", producer=Producer("", 0, 0))

    async def again() -> None:
        async with opened(files) as streams:
            await check(streams)

    run_virtual(write)
    run_virtual(again)


def test_an_append_may_demand_its_position() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders")
            assert await orders.append(b"a", at=0) == Appended(0, 1)
            with pytest.raises(PositionMismatchError, match="an append was to be at position 0, and the tail is 1"):
                await orders.append(b"b", at=0)
            with pytest.raises(ValueError, match="an append is to be at a position from 0"):
                await orders.append(b"b", at=-1)
            assert await data(orders) == [b"a"]

    run_virtual(main)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ([], ValueError, "an append has at least one record; a record may be empty: b''"),
        ("text", TypeError, "an append takes bytes, or a sequence of bytes, not str"),
        (bytearray(b"x"), TypeError, "an append takes bytes, or a sequence of bytes, not bytearray"),
        (7, TypeError, "an append takes bytes, or a sequence of bytes, not int"),
        ([b"a", "b", None], TypeError, "a record is bytes, not NoneType, str"),
    ],
)
def test_what_is_no_record_is_refused(value: Any, error: type[Exception], text: str) -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders")
            with pytest.raises(error, match=text):
                await orders.append(value)
            assert orders.tail == 0

    run_virtual(main)


def test_headers_are_texts_one_mapping_for_all_or_one_for_each() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders")
            with pytest.raises(ValueError, match="there are 2 records and headers for 1: give one mapping for all"):
                await orders.append([b"a", b"b"], headers=[{"a": "b"}])
            with pytest.raises(ValueError, match="headers are texts by name; 'a' has int"):
                await orders.append(b"a", headers={"a": 1})  # type: ignore[dict-item]  # what is refused

    run_virtual(main)


def test_an_append_that_never_fits_is_too_large() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders")
            with pytest.raises(AppendTooLargeError, match="an append has 65537 records and the limit is 65536: divide it"):
                await orders.append([b""] * (RECORDS_MAX + 1))
            with pytest.raises(TooLargeError, match=r"bytes, headers and framing included, and the limit is 33554432") as info:
                await orders.append(bytes(APPEND_BYTES_MAX))
            assert info.value.fault.kind is outlast.Kind.REJECTED
            assert streams.disks[0].passable
            assert orders.tail == 0

    run_virtual(main)


def test_the_largest_append_is_taken() -> None:
    async def main() -> None:
        async with opened(disk_in_memory(capacity_bytes=1 << 30)) as streams:
            orders = await streams.create("orders")
            largest = bytes(APPEND_BYTES_MAX - 1_000)
            assert await orders.append(largest) == Appended(0, 1)
            assert await orders.append([b""] * RECORDS_MAX) == Appended(1, RECORDS_MAX + 1)
            assert (await orders.fetch(0)).records == [largest]

    run_virtual(main)


# Quotas.


def test_a_stream_that_has_used_its_quota_takes_more_once_it_is_trimmed() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders", StreamOptions(quota_bytes=20_000, segment_bytes=4096))
            text = r"bytes do not fit into its quota: it has \d+, 0 wait to be stored, and the limit is 20000"
            with pytest.raises(LimitError, match=text):
                await _fill(orders)
            stored = orders.tail
            assert 10 <= stored <= 20
            assert orders.size_bytes <= 20_000
            assert streams.disks[0].passable
            await orders.trim(orders.tail - 5)
            await orders.append(bytes(1000))
            # What waits counts as well, so that no flood of appends gets past the quota.
            flood = await asyncio.gather(*(orders.append(bytes(1000)) for _ in range(100)), return_exceptions=True)
            assert any(isinstance(answer, LimitError) for answer in flood)
            assert orders.size_bytes <= 20_000

    run_virtual(main)


def test_a_rate_is_that_of_an_admission_by_stream_and_record() -> None:
    async def main() -> None:
        admission = outlast.Admission("appends", key_rate=Rate(10, burst=10), memory=None, concurrency=None)
        async with opened(disk_in_memory(), admission=admission) as streams:
            fast, slow = await streams.create("fast"), await streams.create("slow")
            await fast.append([b"x"] * 10)
            with pytest.raises(outlast.Unavailable, match="appends refused this work by rate"):
                await fast.append(b"x")
            await slow.append(b"x")
            await asyncio.sleep(1.0)
            await fast.append([b"x"] * 10)

    run_virtual(main)


async def _fill(stream: Stream) -> None:
    while True:
        await stream.append(bytes(1000))
