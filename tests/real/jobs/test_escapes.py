"""What a handler raises concerns its job only: cancellations of others, exits, stops that are not ours."""

from __future__ import annotations

import asyncio
import errno
import sys
from typing import TYPE_CHECKING

import pytest
from worked_queue import on_queue, settled, until, working

import outlast
from outlast.jobs import Job, Jobs, JobState, NewJob

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.expected_logs, pytest.mark.short]
QUICK = outlast.Backoff(0.01, 0.02)


async def lets_a_cancellation_out() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    task.cancel()
    await task


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def exits() -> None:
    sys.exit(3)


async def is_interrupted() -> None:
    raise KeyboardInterrupt


async def closes() -> None:
    raise GeneratorExit


class OwnError(BaseException):
    """As trio and pytest have them."""


async def raises_a_base_exception() -> None:
    raise OwnError


async def works_with_one_that_stops() -> None:
    other = outlast.Stop()
    other.fire("the other ends")
    await other.sleep(1.0)


ESCAPES: list[tuple[Callable[[], object], str, str]] = [
    (lets_a_cancellation_out, "bug", "cancelled"),
    (cancels_itself, "bug", "cancelled"),
    (exits, "bug", "SystemExit"),
    (is_interrupted, "bug", "KeyboardInterrupt"),
    (closes, "bug", f"GeneratorExit@{__name__}"),
    (raises_a_base_exception, "bug", f"OwnError@{__name__}"),
    (works_with_one_that_stops, "transient", "stopping"),
]


@pytest.mark.parametrize(("escape", "kind", "code"), ESCAPES, ids=[escape[0].__name__ for escape in ESCAPES])
def test_it_counts_and_the_others_lose_nothing(
    database: str, tmp_path: Path, escape: Callable[[], object], kind: str, code: str
) -> None:
    async def test(jobs: Jobs) -> None:
        calls = 0
        begun = asyncio.Event()

        @jobs.handler("escapes", attempts_max=3, backoff=QUICK)
        async def escapes(job: Job) -> None:
            nonlocal calls
            calls += 1
            await escape()  # type: ignore[misc]

        @jobs.handler("bystander", attempts_max=1)
        async def bystander(job: Job) -> str:
            await begun.wait()
            return "done"

        await jobs.enqueue_many([NewJob("bystander")] * 3 + [NewJob("escapes")])
        async with working(jobs, workers=4):
            await until(lambda: dead(jobs))
            begun.set()
            await jobs.enqueue("bystander")
            await until(lambda: settled(jobs))
        assert calls == 3
        for record in await jobs.list():
            if record.kind == "bystander":
                assert (record.state, record.attempt) == (JobState.DONE, 1)
            else:
                assert record.last_fault is not None
                assert (record.attempt, record.last_fault["kind"]) == (3, kind)
                assert record.last_fault["code"].split(":")[0] == code.split(":", maxsplit=1)[0]

    on_queue(database, tmp_path, test)


def test_the_ground_of_one_job_is_not_that_of_the_queue(database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("reads", attempts_max=3, backoff=QUICK)
        async def reads_a_broken_disk(job: Job) -> None:
            raise OSError(errno.EIO, "Input/output error")

        @jobs.handler("bystander", attempts_max=1)
        async def bystander(job: Job) -> None:
            return

        broken = await jobs.enqueue("reads")
        async with working(jobs):
            await until(lambda: dead(jobs))
            await jobs.enqueue("bystander")
            await until(lambda: settled(jobs))
        (record,) = await jobs.list(state=JobState.DEAD)
        assert record.last_fault is not None
        assert (record.id, record.attempt, record.last_fault["code"]) == (broken.id, 1, "EIO")
        (critical,) = [each.getMessage() for each in caplog.records if each.levelname == "CRITICAL"]
        assert f"job {broken.id} of reads" in critical

    on_queue(database, tmp_path, test)


async def dead(jobs: Jobs) -> bool:
    return bool(await jobs.list(state=JobState.DEAD))


def test_exits_and_interrupts_of_plain_functions_count_too(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("exits", attempts_max=1)
        def leave(job: Job) -> None:
            raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "close": GeneratorExit}[job.payload]

        await jobs.enqueue_many([NewJob("exits", name) for name in ("exit", "interrupt", "close")])
        async with working(jobs):
            await until(lambda: settled(jobs))
        assert {(record.state, record.attempt) for record in await jobs.list()} == {(JobState.DEAD, 1)}

    on_queue(database, tmp_path, test)


def test_our_own_stop_costs_no_attempt(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        begun = asyncio.Event()

        @jobs.handler("long", attempts_max=1)
        async def long(job: Job) -> None:
            begun.set()
            await asyncio.sleep(3600)

        await jobs.enqueue("long")
        async with working(jobs):
            await begun.wait()
        (record,) = await jobs.list()
        assert (record.state, record.attempt, record.last_fault) == (JobState.AVAILABLE, 0, None)

    on_queue(database, tmp_path, test)
