"""Jobs whose handlers run in child processes, on a real queue: what a death, a time-out and a stop cost."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import process_handlers
import pytest
from worked_queue import on_queue, settled, until, working

import outlast
from outlast.jobs import Job, Jobs, JobState, NewJob

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.expected_logs
QUICK = outlast.Backoff(0.01, 0.02)


def test_the_death_of_a_child_costs_one_attempt_of_its_own_job_only(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        jobs.handler("leave", process=True, backoff=QUICK)(process_handlers.leave)
        jobs.handler("note", process=True)(process_handlers.note)
        deaths = {"exit": "exit 3", "segfault": "SIGSEGV", "kill": "SIGKILL", "sys.exit": "SystemExit"}
        await jobs.enqueue_many([NewJob("note", number) for number in range(20)])
        await jobs.enqueue_many([NewJob("leave", how) for how in deaths])
        async with working(jobs, workers=2):
            await until(lambda: settled(jobs), limit_s=60)
        records = await jobs.list()
        notes = [record for record in records if record.kind == "note"]
        assert {(record.state, record.attempt) for record in notes} == {(JobState.DONE, 1)}
        assert sorted(record.result for record in notes) == list(range(20))
        for record in records:
            if record.kind == "leave":
                assert (record.state, record.attempt, record.result) == (JobState.DONE, 2, 2)
                assert record.first_fault is not None
                assert record.first_fault["code"].startswith(deaths[record.payload])

    on_queue(database, tmp_path, test)


def test_a_child_that_exceeds_its_time_is_killed_and_the_event_loop_goes_on(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        jobs.handler("spin", process=True, timeout_s=1.0)(process_handlers.spin)

        @jobs.handler("turn")
        async def turn(job: Job) -> int:
            """Go on until the other one is killed."""
            turns = 0
            while (await jobs.counts())["default"].get("dead", 0) == 0:
                await asyncio.sleep(0.1)
                turns += 1
            return turns

        spinning = await jobs.enqueue("spin", str(tmp_path / "never"), attempts_max=1)
        turning = await jobs.enqueue("turn")
        async with working(jobs, workers=2):
            await until(lambda: settled(jobs), limit_s=60)
        spun, turned = await jobs.get(spinning.id), await jobs.get(turning.id)
        assert spun is not None
        assert turned is not None
        assert spun.state is JobState.DEAD
        assert spun.last_fault is not None
        assert spun.last_fault["code"] == "timeout"
        assert "was killed" in spun.last_fault["reason"]
        assert turned.state is JobState.DONE

    on_queue(database, tmp_path, test)


def test_a_stop_and_a_cancel_kill_the_child_and_only_the_cancel_ends_the_job(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        jobs.handler("hold", process=True)(process_handlers.hold)
        files = [tmp_path / name for name in ("cancelled", "stopped")]
        ids = [(await jobs.enqueue("hold", str(file))).id for file in files]
        service, stop = outlast.Service("worker", deadline_s=2.0), outlast.Stop()
        jobs.work(service, workers=2)
        running = asyncio.create_task(service.run(stop))

        async def written() -> bool:
            return all(file.exists() and file.read_text(encoding="ascii") for file in files)

        await until(written, limit_s=60)
        assert await jobs.cancel(ids[0]) is JobState.RUNNING
        await until(lambda: has_state(jobs, ids[0], JobState.CANCELLED))
        stop.fire("test")
        assert await running == 0
        assert service.report is not None
        assert service.report.unfinished == ()
        assert not any(process_handlers.alive(int(pid)) for file in files for pid in file.read_text(encoding="ascii").split())
        record = await jobs.get(ids[1])
        assert record is not None
        assert (record.state, record.attempt) == (JobState.AVAILABLE, 0), "it goes back as if it had not been taken"

    on_queue(database, tmp_path, test)


async def has_state(jobs: Jobs, job_id: int, state: JobState) -> bool:
    record = await jobs.get(job_id)
    return record is not None and record.state is state


def test_while_no_child_can_be_started_other_kinds_are_done_and_no_attempt_is_lost(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(jobs: Jobs) -> None:
        jobs.handler("note", process=True, attempts_max=1)(process_handlers.note)

        @jobs.handler("other")
        async def other(job: Job) -> None:
            return

        await jobs.enqueue_many([NewJob("note", 1, attempts_max=1)] * 5 + [NewJob("other")] * 5)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no_python"))
        async with working(jobs, workers=3):
            await counted(jobs, 5)
            monkeypatch.undo()
            await counted(jobs, 10)
        assert {record.attempt for record in await jobs.list()} == {1}

    on_queue(database, tmp_path, test, poll_s=60.0)


async def counted(jobs: Jobs, done: int) -> None:
    """Wait until so many are done; seldom asked, since it takes seconds until somebody tries to start a child again."""
    async with asyncio.timeout(60):
        while (await jobs.counts())["default"].get("done", 0) < done:
            await asyncio.sleep(0.2)
