"""What waits on a volume, between the thread that takes it and the event loop that gives it up."""

from __future__ import annotations

import asyncio
import threading

from shell_parts import Rig, an_entry, outcome

from outlast.extend import OwnThread
from outlast.streams import Appended, ExpiredError
from outlast.streams._commit import Committer, Lane
from outlast.streams._commit.lane import Item, Round
from outlast.streams._commit.volume_queue import VolumeQueue
from outlast.testing import run_virtual

MANY = 5_000


def test_what_one_thread_takes_while_another_gives_it_up_is_either_taken_or_given_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue, lane = VolumeQueue("disk a", MANY, MANY), Lane("orders")
        items = [Item(an_entry(), 1, loop.create_future()) for _ in range(MANY)]
        rounds: list[Round] = []

        def take() -> None:
            while sum(len(now.passed_over) + sum(len(work) for _, work in now.works or ()) for now in rounds) < MANY:
                rounds.append(Round())
                queue.take(rounds[-1])

        thread = threading.Thread(target=take)
        for item in items[: MANY // 2]:
            queue.add(lane, item)
        thread.start()
        given_up = set()
        for old, new in zip(items, items[MANY // 2 :], strict=False):
            queue.add(lane, new)
            given_up |= {item for item in (old, new) if queue.give_up(lane, item)}
        thread.join()
        taken = [item for now in rounds for _, work in now.works or () for item in work]
        passed_over = [item for now in rounds for _, item in now.passed_over]
        assert set(passed_over) == given_up
        assert set(taken) == set(items) - given_up
        assert len(taken) + len(passed_over) == MANY
        kept = set(taken)
        assert [item for item in items if item in kept] == taken, "in their order"
        for item in taken + passed_over:
            queue.leave(lane, item)
        assert (queue.waiting, queue.size_bytes, lane.waiting, lane.size_bytes) == (0, 0, 0, 0)
        assert not queue

    run_virtual(main)


def test_an_append_that_is_cancelled_and_passed_over_before_its_caller_runs_frees_its_bytes_once() -> None:
    async def main() -> None:
        rig = Rig()
        first, second = rig.start(b"1"), rig.start(b"2")
        await asyncio.sleep(0)
        second.cancel()
        # Its future is cancelled, and its task has not run yet.
        now = Round()
        rig.committer.queue.take(now)
        for lane, work in now.passed_over:
            rig.committer.queue.leave(lane, work)
        assert await first == Appended(0, 1)
        await outcome(second)
        assert (rig.committer.queue.size_bytes, rig.lane().size_bytes, rig.committer.queue.waiting) == (0, 0, 0)

    run_virtual(main)


def test_of_appends_to_a_real_thread_with_deadlines_exactly_those_are_stored_that_are_acknowledged() -> None:
    async def main() -> None:
        rig = Rig()
        rig.committer = Committer(rig.disk, OwnThread("writes"), lambda: 1)
        tasks = {}
        for number in range(2_000):
            data = b"%d" % number
            tasks[data] = rig.start(data, deadline_s=1e-9 if number % 3 else None)
            if number % 50 == 0:
                await asyncio.sleep(0)
        answers = {data: await outcome(task) for data, task in tasks.items()}
        stored = set(rig.log().records)
        assert len(rig.log().records) == len(stored)
        assert {data for data, answer in answers.items() if isinstance(answer, Appended)} <= stored
        assert not stored & {data for data, answer in answers.items() if isinstance(answer, ExpiredError)}
        assert rig.committer.queue.waiting == 0

    asyncio.run(main())
