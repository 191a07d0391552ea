"""Group commit: what waits, what is written, what is given up, and what its callers are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from shell_parts import FULL, Rig, outcome

import outlast
from outlast.streams import Appended, ExpiredError, OutcomeUnknownError, SequenceError
from outlast.streams._commit.volume_queue import CONTROLS_MAX
from outlast.testing import run_virtual


def test_an_append_is_stored_and_its_positions_are_returned() -> None:
    async def main() -> None:
        rig = Rig()
        assert await rig.append(b"a") == Appended(0, 1)
        assert await rig.append(b"b") == Appended(1, 2)
        assert rig.log().frames == [[b"a"], [b"b"]]
        assert (rig.committer.queue.waiting, rig.committer.queue.size_bytes) == (0, 0)

    run_virtual(main)


def test_appends_that_come_while_the_disk_is_busy_share_one_frame_in_their_order() -> None:
    async def main() -> None:
        rig = Rig()
        tasks = [rig.start(b"%d" % number) for number in range(64)]
        got = await asyncio.gather(*tasks)
        assert [each.first for each in got] == list(range(64))
        assert [len(frame) for frame in rig.log().frames] == [1, 63]

    run_virtual(main)


def test_a_frame_is_gathered_up_to_a_mebibyte_and_takes_a_larger_append_alone() -> None:
    async def main() -> None:
        rig = Rig()
        first = rig.start(b"first")
        await asyncio.sleep(0)
        sizes = (600_000, 600_000, 2_000_000, 100, 100)
        await asyncio.gather(first, *(rig.start(b"%d" % size, size=size) for size in sizes))
        assert [len(frame) for frame in rig.log().frames] == [1, 1, 1, 1, 2]

    run_virtual(main)


def test_a_stream_with_a_long_queue_leaves_the_others_their_turns() -> None:
    async def main() -> None:
        rig = Rig()
        flood = [rig.start(b"flood", "flood", size=600_000) for _ in range(50)]
        await asyncio.sleep(0)
        few = rig.start(b"few", "few")
        await few
        assert rig.thread.calls <= 3
        for task in flood:
            task.cancel()

    run_virtual(main)


def test_a_round_has_sixteen_streams_and_the_next_goes_on_with_the_others() -> None:
    async def main() -> None:
        rig = Rig()
        await asyncio.gather(*(rig.append(b"x", f"stream {number}") for number in range(40)))
        assert rig.thread.calls == 1 + 3
        assert all(len(rig.log(name).records) == 1 for name in rig.lanes)

    run_virtual(main)


def test_one_append_that_a_log_refuses_keeps_no_other_out() -> None:
    async def main() -> None:
        rig = Rig()
        rig.log().answers[b"bad"] = SequenceError("orders", "p", 3, 1)
        good, bad, last = [rig.start(data) for data in (b"good", b"bad", b"last")]
        assert isinstance(await outcome(bad), SequenceError)
        assert await good == Appended(0, 1)
        assert await last == Appended(1, 2)
        assert rig.disk.passable

    run_virtual(main)


# Cancelled.


def test_an_append_that_is_cancelled_in_the_queue_is_never_written() -> None:
    async def main() -> None:
        rig = Rig()
        first, second, third = [rig.start(data) for data in (b"1", b"2", b"3")]
        await asyncio.sleep(0)
        second.cancel()
        assert await outcome(third) == Appended(1, 2)
        assert rig.log().records == [b"1", b"3"]
        assert await first == Appended(0, 1)
        assert rig.committer.queue.waiting == rig.lane().waiting == 0
        assert rig.committer.queue.size_bytes == rig.lane().size_bytes == 0

    run_virtual(main)


def test_an_append_that_is_cancelled_in_the_thread_is_written_and_the_next_comes_behind_it() -> None:
    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 1.0
        first = rig.start(b"A")
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.1)
        second = rig.start(b"B")
        await asyncio.sleep(0)
        # The place of A is free when the thread is back, not when its caller is gone.
        assert rig.lane().waiting == 2
        assert await second == Appended(1, 2)
        assert first.cancelled()
        assert rig.log().frames == [[b"A"], [b"B"]]

    run_virtual(main)


def test_what_is_given_up_holds_its_place_but_not_its_bytes_until_its_turn() -> None:
    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 1.0
        first = rig.start(b"1")
        await asyncio.sleep(0)
        for _ in range(10):
            task = rig.start(b"given up")
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        assert (rig.committer.queue.waiting, rig.committer.queue.size_bytes) == (11, 100)
        await first
        await asyncio.sleep(1.0)
        assert rig.committer.queue.waiting == 0

    run_virtual(main)


# Deadlines.


def test_an_append_whose_deadline_passes_in_the_queue_is_answered_then_and_never_written() -> None:
    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 1.9
        first, second = rig.start(b"1"), rig.start(b"2", deadline_s=1.5)
        answer = await outcome(second)
        assert isinstance(answer, ExpiredError)
        assert str(answer) == "stream 'orders': the deadline passed before the append was begun"
        assert asyncio.get_running_loop().time() == pytest.approx(1.5)
        assert await first == Appended(0, 1)
        assert rig.log().records == [b"1"]
        assert rig.committer.counts.expired == 1

    run_virtual(main)


def test_a_deadline_that_has_passed_already_is_refused_at_once() -> None:
    async def main() -> None:
        rig = Rig()
        with pytest.raises(ExpiredError, match=r"the deadline of an append had passed 0\.5 s before it came"):
            await rig.append(b"1", deadline_s=-0.5)
        assert rig.thread.calls == 0

    run_virtual(main)


def test_an_append_whose_deadline_passes_on_the_way_to_the_disk_is_told_that_nobody_knows() -> None:
    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 1.0
        task = rig.start(b"1", deadline_s=0.5)
        answer = await outcome(task)
        assert isinstance(answer, OutcomeUnknownError)
        assert "the deadline passed while the append was on its way to the disk" in str(answer)
        await asyncio.sleep(1.0)
        assert rig.log().records == [b"1"]
        assert rig.committer.queue.waiting == 0

    run_virtual(main)


def test_deadlines_of_appends_that_ended_are_not_kept() -> None:
    async def main() -> None:
        rig = Rig()
        for number in range(3_000):
            await rig.append(b"%d" % number, deadline_s=3600.0)
        assert len(rig.committer.deadlines) < 1_100

    run_virtual(main)


# The bounds.


def test_a_full_backlog_refuses_and_takes_again_when_it_is_shorter() -> None:
    async def main() -> None:
        rig = Rig(backlog_max=4)
        tasks = [rig.start(b"x", name) for name in ("a", "b", "a", "b")]
        await asyncio.sleep(0)
        with pytest.raises(
            outlast.Unavailable, match=r"4 appends of 400 bytes wait in volume disk a \(limits 4 and 67108864\)"
        ) as info:
            await rig.append(b"x", "c")
        assert info.value.fault.kind is outlast.Kind.OVERLOADED
        assert info.value.fault.code == "backlog"
        await asyncio.gather(*tasks)
        assert await rig.append(b"x", "c") == Appended(0, 1)
        assert rig.disk.passable
        assert rig.committer.counts.refused == 1

    run_virtual(main)


def test_one_stream_has_half_of_the_backlog_and_always_room_for_one_append() -> None:
    async def main() -> None:
        rig = Rig(backlog_max=4, backlog_bytes=1_000)
        tasks = [rig.start(b"x", "a") for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(outlast.Unavailable, match=r"2 appends of 200 bytes wait in stream 'a' \(limits 2 and 500\)"):
            await rig.append(b"x", "a")
        await asyncio.gather(*tasks)
        assert await rig.append(b"large", "a", size=5_000) == Appended(2, 3)
        large = rig.start(b"large", "a", size=5_000)
        await asyncio.sleep(0)
        with pytest.raises(outlast.Unavailable, match="backlog"):
            await rig.append(b"x", "b")
        await large

    run_virtual(main)


def test_calls_about_streams_are_bounded_as_well() -> None:
    async def main() -> None:
        rig = Rig()
        tasks = [asyncio.create_task(rig.committer.call(rig.lane(), int)) for _ in range(CONTROLS_MAX + 1)]
        await asyncio.sleep(0)
        with pytest.raises(outlast.Unavailable, match=r"1000 calls about streams wait \(limit 1000\)"):
            await rig.committer.call(rig.lane(), int)
        for task in tasks[1:]:
            task.cancel()
        assert await tasks[0] == 0
        # The next round passes over what was cancelled, and frees its places.
        assert await rig.committer.call(rig.lane(), lambda: 7) == 7

    run_virtual(main)


# Calls among the appends.


def test_a_call_about_a_stream_has_its_turn_behind_the_appends_before_it() -> None:
    async def main() -> None:
        rig = Rig()
        log = rig.log()
        tasks = [rig.start(b"1"), rig.start(b"2")]
        await asyncio.sleep(0)
        seen = asyncio.create_task(rig.committer.call(rig.lane(), lambda: log.tail))
        await asyncio.sleep(0)
        last = rig.start(b"3")
        assert await seen == 2
        assert await last == Appended(2, 3)
        await asyncio.gather(*tasks)
        with pytest.raises(ValueError, match="what it raises is raised"):
            await rig.committer.call(rig.lane(), _raise)

    run_virtual(main)


# Streams that are synced now and then.


def test_a_stream_with_an_interval_is_acknowledged_at_once_and_synced_once_an_interval() -> None:
    async def main() -> None:
        rig = Rig()
        lane = rig.lane(sync_every_s=1.0)
        for _ in range(10):
            await rig.append(b"x")
        assert rig.log().synced == 0
        await asyncio.sleep(1.1)
        assert rig.log().synced == 10
        assert rig.committer.counts.syncs == 1
        await asyncio.sleep(10.0)
        assert rig.committer.counts.syncs == 1
        assert lane.syncing is None

    run_virtual(main)


def test_a_sync_that_fails_is_evidence_and_is_tried_again(expected_logs: Any) -> None:
    expected_logs("disk a is down")

    async def main() -> None:
        rig = Rig()
        rig.lane(sync_every_s=1.0)
        await rig.append(b"x")
        rig.is_well = False
        rig.log().error = FULL
        await asyncio.sleep(1.1)
        assert not rig.disk.passable
        assert rig.log().synced == 0
        await asyncio.sleep(1.1)
        assert rig.log().synced == 1

    run_virtual(main)


def test_a_stream_that_is_gone_is_synced_no_more() -> None:
    async def main() -> None:
        rig = Rig()
        lane = rig.lane(sync_every_s=1.0)
        await rig.append(b"x")
        rig.committer.forget(lane)
        await asyncio.sleep(10.0)
        assert (rig.log().synced, lane.syncing, rig.thread.calls) == (0, None, 1)

    run_virtual(main)


def test_a_drain_syncs_what_is_not_synced_and_waits_for_what_is_queued() -> None:
    async def main() -> None:
        rig = Rig()
        rig.lane(sync_every_s=3600.0)
        await rig.append(b"1")
        task = rig.start(b"2")
        await asyncio.sleep(0)
        await rig.committer.drain()
        assert task.done()
        await rig.committer.drain()
        assert rig.log().synced == 2
        assert not rig.committer.close("the end")

    run_virtual(main)


def _raise() -> None:
    raise ValueError("what it raises is raised")
