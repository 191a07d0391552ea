"""Group commit on a disk that refuses, loses, hangs: what its callers are told, and what is stored all the same."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from shell_parts import FULL, Rig, an_entry, outcome

import outlast
from outlast.extend import OwnThread, TornFileError
from outlast.streams import Appended, ExpiredError, OutcomeUnknownError
from outlast.streams._commit import Committer
from outlast.testing import run_virtual

# The disk refuses.


def test_a_full_disk_refuses_the_whole_round_and_what_waits_and_is_told_once(expected_logs: Any) -> None:
    expected_logs("disk a is down: EXHAUSTED ENOSPC")

    async def main() -> None:
        rig = Rig()
        await rig.disk.open()
        rig.is_well = False
        rig.thread.takes_s = 0.5
        rig.log().error = FULL
        first = rig.start(b"first")
        await asyncio.sleep(0.1)
        rest = [rig.start(b"%d" % number) for number in range(100)]
        answers = [await outcome(task) for task in (first, *rest)]
        assert all(isinstance(answer, outlast.Unavailable) and answer.fault.code == "ENOSPC" for answer in answers)
        # What waited was refused without an attempt of its own: that would have succeeded.
        assert rig.log().records == []
        with pytest.raises(outlast.Unavailable, match="ENOSPC"):
            await rig.append(b"later")
        rig.is_well = True
        await rig.disk.ready()
        assert await rig.append(b"again") == Appended(0, 1)
        await rig.disk.close()

    run_virtual(main)


def test_streams_of_a_round_in_which_another_failed_are_stored(expected_logs: Any) -> None:
    expected_logs("disk a is down")

    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 0.5
        first = rig.start(b"1", "idle")
        await asyncio.sleep(0.1)
        bad, good = rig.start(b"2", "bad"), rig.start(b"3", "good")
        rig.log("bad").error = FULL
        assert isinstance(await outcome(bad), outlast.Unavailable)
        assert await good == Appended(0, 1)
        await first

    run_virtual(main)


def test_an_append_that_could_not_be_taken_back_is_told_that_nobody_knows(expected_logs: Any) -> None:
    expected_logs("disk a is down")

    async def main() -> None:
        rig = Rig()
        for error in (OutcomeUnknownError("orders", "the cut failed"), TornFileError(errno.ENOSPC, "the cut failed", "/x")):
            if isinstance(error, OutcomeUnknownError):
                error.__cause__ = FULL
            rig.log().error = error
            task = asyncio.create_task(rig.committer.append(rig.lane(), an_entry(), 100))
            answer = await outcome(task)
            assert isinstance(answer, OutcomeUnknownError)
        assert rig.committer.counts.unknown == 2
        assert not rig.disk.passable

    run_virtual(main)


def test_a_bug_in_the_engine_is_loud_and_its_callers_are_told_that_nobody_knows(expected_logs: Any) -> None:
    expected_logs("stream 'orders': an append met a bug: ZeroDivisionError")

    async def main() -> None:
        rig = Rig()
        rig.log().error = ZeroDivisionError("oops")
        answer = await outcome(rig.start(b"1"))
        assert isinstance(answer, OutcomeUnknownError)
        assert isinstance(answer.__cause__, ZeroDivisionError)
        assert await rig.append(b"2") == Appended(0, 1)

    run_virtual(main)


def test_what_would_end_the_thread_ends_one_round_and_its_callers_are_told_that_nobody_knows(expected_logs: Any) -> None:
    expected_logs("an append met a bug: RuntimeError.'a call in the thread writes raised SystemExit: 3'")

    async def main() -> None:
        rig = Rig()
        rig.committer = Committer(rig.disk, OwnThread("writes"), lambda: 1)
        rig.log().error = SystemExit(3)
        assert isinstance(await outcome(rig.start(b"1")), OutcomeUnknownError)
        assert await rig.append(b"2") == Appended(0, 1)

    run_virtual(main)


# The disk hangs.


def test_while_a_call_hangs_newcomers_are_refused_at_once_and_what_waits_is_served_when_it_is_back(
    expected_logs: Any,
) -> None:
    expected_logs("disk a is down: TRANSIENT hangs a write has not returned for 2 s")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        rig = Rig()
        await rig.disk.open()
        rig.thread.takes_s = 30.0
        stuck = rig.start(b"stuck")
        await asyncio.sleep(1.0)
        expiring = [rig.start(b"late", deadline_s=5.0) for _ in range(1_000)]
        patient = rig.start(b"patient")
        await asyncio.sleep(1.5)
        rig.thread.takes_s = 0.001
        with pytest.raises(outlast.Unavailable, match="hangs"):
            await rig.append(b"new")
        assert loop.time() < 2.6
        answers = [await outcome(task) for task in expiring]
        assert all(isinstance(answer, ExpiredError) for answer in answers)
        assert loop.time() == pytest.approx(6.0)
        # A probe that writes elsewhere may pass meanwhile; the queue refuses all the same.
        with pytest.raises(outlast.Unavailable, match="hangs"):
            await rig.committer.append(rig.lane(), an_entry(), 100)
        with pytest.raises(outlast.Unavailable, match="hangs"):
            await rig.committer.call(rig.lane(), int)
        assert await stuck == Appended(0, 1)
        assert await patient == Appended(1, 2)
        assert loop.time() == pytest.approx(30.0, abs=0.1)
        await rig.disk.ready()
        assert await rig.append(b"fresh") == Appended(2, 3)
        assert loop.time() < 31.0
        assert rig.log().records == [b"stuck", b"patient", b"fresh"]
        await rig.disk.close()

    run_virtual(main)


def test_a_disk_that_hangs_moves_no_other_volume(expected_logs: Any) -> None:
    expected_logs("disk a is down")

    async def main() -> None:
        hung, other = Rig(), Rig()
        hung.thread.takes_s = 30.0
        task = hung.start(b"stuck")
        await asyncio.sleep(3.0)
        assert await other.append(b"1") == Appended(0, 1)
        assert asyncio.get_running_loop().time() < 3.1
        await task

    run_virtual(main)


# The end.


def test_a_thread_that_hangs_at_the_end_is_left_and_everyone_is_answered(expected_logs: Any) -> None:
    expected_logs("disk a is down")

    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 1e6
        stuck = rig.start(b"1")
        await asyncio.sleep(0)
        queued = rig.start(b"2")
        call = asyncio.create_task(rig.committer.call(rig.lane(), int))
        await rig.committer.drain()
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        assert rig.committer.close("the service stops")
        answer = await outcome(stuck)
        assert isinstance(answer, OutcomeUnknownError)
        assert "the store ended (the service stops) while the append was on its way to the disk" in str(answer)
        assert isinstance(await outcome(queued), outlast.Stopping)
        with pytest.raises(outlast.Stopping):
            await call
        with pytest.raises(outlast.Stopping):
            await rig.committer.append(rig.lane(), an_entry(), 100)
        with pytest.raises(outlast.Stopping):
            await rig.committer.call(rig.lane(), int)

    run_virtual(main)


def test_a_call_that_is_in_the_thread_at_the_end_is_told_that_nobody_knows() -> None:
    async def main() -> None:
        rig = Rig()
        rig.thread.takes_s = 1e6
        call = asyncio.create_task(rig.committer.call(rig.lane(), int))
        await asyncio.sleep(0)
        assert rig.committer.close("the service stops")
        with pytest.raises(OutcomeUnknownError, match="before a call about the stream returned"):
            await call

    run_virtual(main)
