"""Plain functions as handlers, in threads of the queue's own, beside a real database."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
from worked_queue import on_queue, settled, until, working

import outlast
from outlast.jobs import Job, Jobs, JobState, NewJob
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.testing import PostgresServer

pytestmark = pytest.mark.expected_logs
word: ContextVar[str] = ContextVar("word", default="none")


@pytest.mark.short
def test_twenty_jobs_that_block_are_all_begun_at_once(database: str, tmp_path: Path) -> None:
    """None begins before all have begun, however few processors there are; and none has been taken for too slow."""

    async def test(jobs: Jobs) -> None:
        barrier = threading.Barrier(20, timeout=60)

        @jobs.handler("block", timeout_s=60.0)
        def block(job: Job) -> int:
            barrier.wait()
            return job.payload

        await jobs.enqueue_many([NewJob("block", number) for number in range(20)])
        async with working(jobs, workers=20):
            await until(lambda: settled(jobs), limit_s=60)
        records = await jobs.list()
        assert [(record.state, record.attempt) for record in records] == [(JobState.DONE, 1)] * 20
        assert sorted(record.result for record in records) == list(range(20))

    on_queue(database, tmp_path, test)


def test_handlers_that_block_keep_no_outcome_from_the_journal(server: PostgresServer, tmp_path: Path) -> None:
    """Eight threads hang for good, the database goes away, ten jobs finish: all ten are on the disk, and recorded afterwards."""
    door, others_may = threading.Event(), asyncio.Event()

    async def main() -> None:
        db = Postgres(server.dsn())
        jobs = Jobs(db, journal_path=tmp_path / "journal")
        await jobs.migrate()

        @jobs.handler("hang")
        def hang(job: Job) -> None:
            door.wait(120)

        @jobs.handler("note")
        async def note(job: Job) -> int:
            await others_may.wait()
            return job.payload

        await jobs.enqueue_many([NewJob("hang")] * 8 + [NewJob("note", number) for number in range(10)])
        service, stop = outlast.Service("worker", deadline_s=5.0), outlast.Stop()
        process = jobs.work(service, workers=20)
        running = asyncio.create_task(service.run(stop))
        try:
            await until_true(lambda: len(process.running) == 18)
            await stopped(server)
            others_may.set()
            await until_true(lambda: process.recorder.journalled == 10)
            assert (tmp_path / "journal").read_bytes().count(b"}\n") == 10
            await started(server)
            await until_true(lambda: process.recorder.sieve.recorded == 10)
            assert (await jobs.counts())["default"] == {"done": 10, "running": 8}
        finally:
            door.set()
            stop.fire("test")
            await running
            await db.close()

    asyncio.run(main())


async def until_true(condition: object, limit_s: float = 60.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def stopped(server: PostgresServer) -> None:
    await on_a_thread(server.stop)


async def started(server: PostgresServer) -> None:
    await on_a_thread(server.start)


async def on_a_thread(function: object) -> None:
    """On a thread of its own: those of asyncio may all be blocked, which is what some of these tests are about."""
    assert callable(function)
    thread = threading.Thread(target=function)
    thread.start()
    await until_true(lambda: not thread.is_alive())


def test_a_handler_in_a_thread_works_for_its_loop_and_logs_in_its_context(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        seen: list[str] = []

        @jobs.handler("note")
        def note(job: Job) -> None:
            seen.append(word.get())
            outlast.progress()

        word.set("of the service")
        await jobs.enqueue("note")
        async with working(jobs):
            await until(lambda: settled(jobs))
        assert seen == ["of the service"]

    on_queue(database, tmp_path, test)


def test_one_that_hangs_costs_its_own_job_and_the_stop_names_it(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        door = threading.Event()

        @jobs.handler("hang", attempts_max=1, timeout_s=0.1)
        def hang(job: Job) -> None:
            door.wait(120)

        @jobs.handler("note")
        def note(job: Job) -> str:
            return threading.current_thread().name

        job = await jobs.enqueue("hang", attempts_max=1)
        service, stop = outlast.Service("worker", deadline_s=1.0), outlast.Stop()
        jobs.work(service, workers=1)
        running = asyncio.create_task(service.run(stop))
        try:
            await until(lambda: settled(jobs))
            # The only worker goes on, in another thread.
            other = await jobs.enqueue("note")
            await until(lambda: settled(jobs))
        finally:
            stop.fire("test")
            assert await running == 75
            door.set()
        hung, noted = await jobs.get(job.id), await jobs.get(other.id)
        assert hung is not None
        assert noted is not None
        assert hung.last_fault is not None
        assert (hung.state, hung.last_fault["code"]) == (JobState.DEAD, "timeout")
        assert "did not end within 0.1 s" in hung.last_fault["reason"]
        assert noted.result == f"jobs note {other.id}"
        assert service.report is not None
        assert [unfinished.what for unfinished in service.report.unfinished] == [f"jobs hang {job.id}"]
        assert any("test_threads" in line for line in service.report.unfinished[0].stack)

    on_queue(database, tmp_path, test)


def test_at_its_bound_a_kind_is_not_acquired_and_the_others_are(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(jobs: Jobs) -> None:
        door = threading.Event()

        @jobs.handler("hang", attempts_max=1, timeout_s=0.01)
        def hang(job: Job) -> None:
            door.wait(120)

        @jobs.handler("note")
        async def note(job: Job) -> None:
            return

        @jobs.handler("plain")
        def plain(job: Job) -> None:
            return

        await jobs.enqueue_many([NewJob("hang", attempts_max=1)] * 4)
        async with working(jobs):
            await until(lambda: settled(jobs))
            await jobs.enqueue_many([NewJob("hang"), NewJob("note"), NewJob("plain")])
            async with asyncio.timeout(60):
                while (await jobs.counts())["default"].get("done", 0) < 2:
                    await asyncio.sleep(0.01)
            assert (await jobs.counts())["default"] == {"dead": 4, "done": 2, "available": 1}
            door.set()
            await until(lambda: settled(jobs))
        assert (await jobs.counts())["default"] == {"dead": 4, "done": 3}

    with caplog.at_level(logging.WARNING, "outlast"):
        on_queue(database, tmp_path, test, poll_s=60.0)
    assert len([text for text in caplog.messages if "no job of this kind is acquired" in text]) == 1
