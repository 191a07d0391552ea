"""The set of running jobs: who is in it, and whom an interruption concerns."""

from __future__ import annotations

import asyncio

import pytest

from outlast.jobs._model import Job
from outlast.jobs._running import Running
from outlast.testing import run_virtual


def job(job_id: int, attempt: int = 1) -> Job:
    return Job(job_id, "settle", None, attempt, 5)


def test_a_job_is_in_it_from_its_acquisition_until_its_outcome_is_safe() -> None:
    running = Running()
    running.add(job(1))
    running.add(job(2))
    assert running.attempts() == {(1, 1), (2, 1)}
    running.remove(job(1))
    running.remove(job(1))
    assert running.attempts() == {(2, 1)}
    assert len(running) == 1


@pytest.mark.parametrize(("requested", "message"), [(True, "cancelled by request"), (False, "the lease of the job was lost")])
def test_an_interruption_cancels_the_body_and_says_whose_doing_it_is(*, requested: bool, message: str) -> None:
    async def main() -> None:
        running = Running()
        running.add(job(1))
        body = running.begin(job(1), asyncio.sleep(3600))
        await asyncio.sleep(0)
        running.interrupt((1, 1), requested=requested)
        with pytest.raises(asyncio.CancelledError, match=message):
            await body
        assert running.interrupted(job(1)) is requested
        running.remove(job(1))
        assert running.interrupted(job(1)) is None

    run_virtual(main)


def test_who_has_not_begun_or_has_left_is_not_interrupted() -> None:
    running = Running()
    running.add(job(1))
    running.interrupt((1, 1), requested=True)
    running.interrupt((2, 1), requested=True)
    assert running.interrupted(job(1)) is None
    assert running.interrupted(job(2)) is None


def test_an_attempt_that_was_lost_and_the_next_one_at_the_same_job_are_two() -> None:
    async def main() -> None:
        running = Running()
        lost, ours = job(1), job(1, attempt=2)
        running.add(lost)
        first = running.begin(lost, asyncio.sleep(3600))
        running.add(ours)
        second = running.begin(ours, asyncio.sleep(10, "result"))
        await asyncio.sleep(0)
        running.interrupt((1, 1), requested=False)
        await asyncio.wait({first})
        running.remove(lost)
        assert running.attempts() == {(1, 2)}
        assert running.interrupted(ours) is None
        assert await second == "result"

    run_virtual(main)
