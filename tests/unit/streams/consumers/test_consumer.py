"""Consumers as tasks use them, in virtual time: a stream in memory, cursors on a disk that fails on demand."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest
from memory_stream import MemoryStream, consumer_of, positions

from outlast import Unavailable
from outlast.streams._consumers import Consumers, _consumer, _state
from outlast.streams._errors import DamagedError, LimitError, StreamClosedError
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_hands_out_each_record_once_in_order_and_goes_on_after_a_restart() -> None:
    async def main() -> None:
        stream = MemoryStream(5)
        consumer = await consumer_of(stream)
        got = await consumer.fetch(3)
        assert [(each.position, each.data, each.deliveries, each.record.time) for each in got] == [
            (0, b"0", 1, 7.0),
            (1, b"1", 1, 7.0),
            (2, b"2", 1, 7.0),
        ]
        assert positions(await consumer.fetch(3)) == [3, 4]
        assert await consumer.fetch(3) == []
        assert consumer.lag == 5
        await consumer.acknowledge(0, 1, 3)
        stream.crash()
        later = await consumer_of(stream)
        assert later.lag == 2
        assert [(each.position, each.deliveries) for each in await later.fetch()] == [(2, 2), (4, 2)]
        stream.crash()
        assert [(each.position, each.deliveries) for each in await (await consumer_of(stream)).fetch()] == [(2, 3), (4, 3)]

    run_virtual(main)


def test_of_20000_records_of_which_every_second_is_acknowledged_the_others_come_again() -> None:
    """The row "bounded state dropped silently"."""

    async def main() -> None:
        stream = MemoryStream(20_000)
        consumer = await consumer_of(stream)
        while got := await consumer.fetch(1000):
            await consumer.acknowledge(*positions(got)[1::2])
        assert len(consumer.cursor.open) == 10_000
        stream.crash()
        later = await consumer_of(stream)
        assert later.lag == 10_000
        found: list[int] = []
        while got := await later.fetch(1000):
            assert {each.deliveries for each in got} == {2}
            found += positions(got)
        assert found == list(range(0, 20_000, 2))

    run_virtual(main)


def test_at_the_bound_nothing_new_is_handed_out_and_an_acknowledgement_is_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_state, _consumer):
        monkeypatch.setattr(module, "OPEN_MAX", 10)

    async def main() -> None:
        stream = MemoryStream(100)
        consumer = await consumer_of(stream)
        assert len(await consumer.fetch(50)) == 10
        with pytest.raises(LimitError, match=r"10 records that are not acknowledged \(limit 10\): acknowledge some first"):
            await consumer.fetch()
        waiting = asyncio.create_task(consumer.fetch(50, wait_s=10.0))
        await asyncio.sleep(1)
        await consumer.acknowledge(3, 7)
        assert positions(await waiting) == [10, 11]
        consumer.release(5)
        assert positions(await consumer.fetch(50)) == [5], "what was handed out before can be, at the bound too"

    run_virtual(main)


def test_tasks_that_share_it_never_get_the_same_record_while_it_is_leased() -> None:
    async def main() -> None:
        stream = MemoryStream(500, frame=30)
        consumer = await consumer_of(stream)
        seen: list[int] = []

        async def work() -> None:
            while got := await consumer.fetch(7):
                seen.extend(positions(got))
                await asyncio.sleep(0.01)
                await consumer.acknowledge(*positions(got))

        await asyncio.gather(*(work() for _ in range(8)))
        assert sorted(seen) == list(range(500))
        assert consumer.lag == 0

    run_virtual(main)


def test_a_lease_ends_on_the_monotonic_clock_and_can_be_renewed_or_released() -> None:
    async def main() -> None:
        consumer = await consumer_of(MemoryStream(3), lease_s=30.0)
        assert positions(await consumer.fetch()) == [0, 1, 2]
        await asyncio.sleep(20)
        assert consumer.renew(1) == (1,)
        consumer.release(2)
        assert positions(await consumer.fetch(wait_s=60)) == [2]
        began = asyncio.get_running_loop().time()
        assert positions(await consumer.fetch(wait_s=60)) == [0]
        assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)
        assert consumer.renew(0, 1, 2) == (0, 1, 2)

    run_virtual(main)


def test_a_wall_clock_that_jumps_ends_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row "clock steps forward"."""

    async def main() -> None:
        consumer = await consumer_of(MemoryStream(1))
        assert positions(await consumer.fetch()) == [0]
        monkeypatch.setattr("time.time", lambda: 5e9)
        assert await consumer.fetch(wait_s=29) == []

    run_virtual(main)


def test_a_fetch_waits_at_the_tail_for_as_long_as_it_is_told() -> None:
    async def main() -> None:
        stream = MemoryStream()
        consumer = await consumer_of(stream)
        loop = asyncio.get_running_loop()
        assert await consumer.fetch(wait_s=3) == []
        assert loop.time() == pytest.approx(3, abs=0.01)
        loop.call_later(5, stream.append, b"a", b"b")
        assert positions(await consumer.fetch(wait_s=60)) == [0, 1]
        assert loop.time() == pytest.approx(8, abs=0.01)

    run_virtual(main)


def test_what_comes_while_a_fetch_is_about_to_wait_wakes_it() -> None:
    async def main() -> None:
        stream = MemoryStream()
        consumer = await consumer_of(stream)
        fetching = asyncio.create_task(consumer.fetch(wait_s=60))
        for _ in range(20):
            await asyncio.sleep(0)
            if consumer._waiters and not stream.followers:
                stream.append(b"a")
                break
        assert stream.records
        assert positions(await fetching) == [0]
        assert asyncio.get_running_loop().time() < 1

    run_virtual(main)


def test_a_closed_stream_that_is_consumed_says_so() -> None:
    async def main() -> None:
        stream = MemoryStream(2)
        consumer = await consumer_of(stream)
        waiting = asyncio.create_task(consumer.fetch(1))
        assert positions(await waiting) == [0]
        assert positions(await consumer.fetch()) == [1]
        stream.close()
        assert await consumer.fetch(wait_s=5) == [], "they may still come again"
        waiting = asyncio.create_task(consumer.fetch(wait_s=20))
        await asyncio.sleep(1)
        await consumer.acknowledge(0, 1)
        with pytest.raises(StreamClosedError, match="consumer 'billing' has had all of it"):
            await waiting

    run_virtual(main)


def test_a_record_that_is_never_acknowledged_is_set_aside_with_one_line_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        stream = MemoryStream(6)
        consumer = await consumer_of(stream, lease_s=10.0, deliveries_max=3)
        counts: dict[int, int] = {}
        for _ in range(10):
            for each in await consumer.fetch(wait_s=11):
                counts[each.position] = each.deliveries
                if each.position not in {2, 4}:
                    await consumer.acknowledge(each.position)
        assert counts == {0: 1, 1: 1, 2: 3, 3: 1, 4: 3, 5: 1}
        assert consumer.set_aside == (range(2, 3), range(4, 5))
        assert consumer.lag == 0
        stream.crash()
        later = await consumer_of(stream, lease_s=10.0, deliveries_max=3)
        assert later.set_aside == (range(2, 3), range(4, 5))
        await later.put_back(2, 3)
        assert [(each.position, each.deliveries) for each in await later.fetch()] == [(2, 1)]
        await later.acknowledge(2, 4)
        assert (later.set_aside, later.lag) == ((), 0)

    run_virtual(main)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "outlast.streams"]
    assert "consumer 'billing': 2 record(s) from position 2 on were delivered 3 times and not acknowledged: set aside" in line


def test_what_ends_the_process_each_time_is_set_aside_too(expected_logs: Callable[..., None]) -> None:
    expected_logs("1 record.s. from position 0 on were delivered 2 times")

    async def main() -> None:
        stream = MemoryStream(2)
        for deliveries in (1, 2):
            consumer = await consumer_of(stream, deliveries_max=2)
            assert [(each.position, each.deliveries) for each in await consumer.fetch(1)] == [(0, deliveries)]
            stream.crash()
        consumer = await consumer_of(stream, deliveries_max=2)
        assert positions(await consumer.fetch()) == [1]

    run_virtual(main)


def test_records_that_are_gone_are_skipped_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        stream = MemoryStream(10)
        consumer = await consumer_of(stream)
        assert positions(await consumer.fetch(2)) == [0, 1]
        stream.first = 5
        assert positions(await consumer.fetch(2)) == [5, 6]
        stream.first = 8
        assert positions(await consumer.fetch()) == [8, 9]
        assert consumer.skipped == 8

    run_virtual(main)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "outlast.streams"]
    assert "5 record(s) were gone before they were acknowledged: skipped; it goes on at 5" in line


def test_records_that_are_trimmed_while_they_are_read_are_skipped(expected_logs: Callable[..., None]) -> None:
    expected_logs("4 record.s. were gone")

    async def main() -> None:
        stream = MemoryStream(6)
        consumer = await consumer_of(stream)
        fetching = asyncio.create_task(consumer.fetch(wait_s=5))
        await asyncio.sleep(0.0005)
        stream.first = 4
        assert positions(await fetching) == [4, 5]

    run_virtual(main)


def test_records_that_do_not_read_are_an_error_once_and_those_behind_go_on() -> None:
    async def main() -> None:
        stream = MemoryStream(2000)
        stream.damaged[100] = 1100
        consumer = await consumer_of(stream)
        assert len(await consumer.fetch(1000)) == 100
        with pytest.raises(DamagedError, match="position 100"):
            await consumer.fetch(1000)
        assert consumer.set_aside == (range(100, 1100),)
        assert positions(await consumer.fetch(2)) == [1100, 1101]

    run_virtual(main)


def test_on_a_full_disk_records_are_still_handed_out_and_acknowledgements_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        stream = MemoryStream(4)
        consumer = await consumer_of(stream)
        assert positions(await consumer.fetch(1)) == [0]
        stream.files.fail("write", errno.ENOSPC, times=100)
        assert positions(await consumer.fetch(1)) == [1]
        assert positions(await consumer.fetch(1)) == [2]
        with pytest.raises(Unavailable, match="ENOSPC"):
            await consumer.acknowledge(0, 1)
        assert consumer.lag == 4
        stream.files.heal()
        await consumer.acknowledge(1)
        stream.power_cut()
        later = await consumer_of(stream)
        got = await later.fetch()
        assert [(each.position, each.deliveries) for each in got] == [(0, 2), (2, 2)], "what was counted meanwhile is on disk"

    run_virtual(main)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "outlast.streams"]
    assert "deliveries are counted in memory only, until the disk takes them" in line


def test_acknowledgements_of_many_tasks_share_their_syncs() -> None:
    async def main() -> None:
        stream = MemoryStream(100)
        consumer = await consumer_of(stream)
        await consumer.fetch()
        stream.files.calls.clear()
        await asyncio.gather(*(consumer.acknowledge(position) for position in range(100)))
        assert stream.files.calls["sync_data"] <= 2
        assert consumer.acknowledged == 100

    run_virtual(main)


def test_where_the_stream_syncs_at_intervals_acknowledgements_do_too_and_a_flush_does_it_at_once() -> None:
    async def main() -> None:
        stream = MemoryStream(9, sync_every_s=5.0)
        consumers = Consumers(stream)
        consumer = await consumers.consumer("billing")
        await consumer.fetch()
        await consumer.acknowledge(0)
        stream.files.calls.clear()
        await asyncio.sleep(4)
        assert stream.files.calls["sync_data"] == 0
        await asyncio.sleep(2)
        assert stream.files.calls["sync_data"] == 1
        await consumer.acknowledge(1)
        await consumers.flush()
        assert stream.files.calls["sync_data"] == 2
        consumers.let_go()
        stream.power_cut()
        assert positions(await (await consumer_of(stream)).fetch()) == list(range(2, 9))

    run_virtual(main)


def test_a_sync_at_an_interval_that_fails_is_made_up_for() -> None:
    async def main() -> None:
        stream = MemoryStream(3, sync_every_s=5.0)
        consumer = await consumer_of(stream)
        await consumer.fetch()
        await consumer.acknowledge(0)
        stream.files.fail("sync_data", errno.EIO)
        await asyncio.sleep(20)
        stream.power_cut()
        assert positions(await (await consumer_of(stream)).fetch()) == [1, 2]

    run_virtual(main)


def test_positions_that_a_power_cut_took_come_again_also_when_the_stream_has_grown_meanwhile(
    expected_logs: Callable[..., None],
) -> None:
    expected_logs("goes back to position 1: what was there was not on disk")

    async def main() -> None:
        stream = MemoryStream(3)
        consumer = await consumer_of(stream)
        await consumer.acknowledge(*positions(await consumer.fetch()))
        stream.crash()
        after = MemoryStream(1, files=stream.files)
        after.append(b"other", b"others", b"more")
        later = await consumer_of(after)
        assert [each.data for each in await later.fetch()] == [b"other", b"others", b"more"]
        await later.acknowledge(1)
        after.crash()
        after.recovered_tail = 4
        assert positions(await (await consumer_of(after)).fetch()) == [2, 3]

    run_virtual(main)


def test_a_cancelled_fetch_loses_nothing() -> None:
    async def main() -> None:
        stream = MemoryStream(3)
        consumer = await consumer_of(stream)
        stream.is_slow = True
        fetching = asyncio.create_task(consumer.fetch())
        await asyncio.sleep(1)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        stream.is_slow = False
        assert positions(await consumer.fetch()) == [0, 1, 2]

    run_virtual(main)


def test_records_in_line_that_lie_far_apart_are_read_a_few_at_a_time() -> None:
    async def main() -> None:
        stream = MemoryStream(400, frame=10)
        consumer = await consumer_of(stream)
        while got := await consumer.fetch(400):
            await consumer.acknowledge(*(position for position in positions(got) if position % 20))
        stream.crash()
        later, found = await consumer_of(stream), list[int]()
        while got := await later.fetch(400):
            assert len(got) <= _consumer.READS_MAX
            found += positions(got)
        assert found == list(range(0, 400, 20))

    run_virtual(main)


def test_the_numbers_are_those_of_all_consumers_in_use() -> None:
    async def main() -> None:
        consumers = Consumers(MemoryStream(5))
        one, two = await consumers.consumer("one"), await consumers.consumer("two", start=3)
        await one.acknowledge(*positions(await one.fetch(2)))
        await two.fetch(1)
        counts = consumers.counts
        assert (counts.lag, counts.open, counts.set_aside) == (3 + 2, 1, 0)
        assert (counts.delivered, counts.acknowledged, counts.skipped) == (3, 2, 0)

    run_virtual(main)
