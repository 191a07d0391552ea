"""What a queue shows of itself: what the table holds, what a process did, and acts on many jobs at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from worked_queue import on_queue, until

import outlast
from outlast.jobs import Job, Jobs, JobState, NewJob
from outlast.jobs import _shown as shown

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.extend import Act, Figure, Shown
    from outlast.testing import PostgresServer


def values(system: Shown, name: str) -> dict[tuple[str, ...], float]:
    return next((dict(figure.samples) for figure in system.figures() if figure.name == name), {})


def act(system: Shown, name: str) -> Act:
    return next(act for act in system.acts() if act.name == name)


def figure(system: Shown, name: str) -> Figure:
    return next(figure for figure in system.figures() if figure.name == name)


@pytest.mark.expected_logs("jobs are failing")
def test_the_table_is_counted_and_dead_jobs_are_retried_at_once(database: str, tmp_path: Path) -> None:
    async def scenario(jobs: Jobs) -> None:
        works = False

        @jobs.handler("settle", attempts_max=1)
        async def settle(job: Job) -> None:
            if not works:
                raise ConnectionRefusedError(111, f"job {job.id}")

        await jobs.enqueue_many([NewJob("settle") for _ in range(3)])
        await jobs.enqueue("settle", unique_key="one", attempts_max=1)
        await jobs.enqueue("settle", queue="elsewhere")
        service, stop = outlast.Service("worker", deadline_s=2.0), outlast.Stop()
        jobs.work(service, workers=2)
        (system,) = service.all_shown()
        assert act(system, "retry dead jobs").concerns is None, "nothing was counted yet"
        running = asyncio.create_task(service.run(stop))

        async def dead() -> bool:
            return len(await jobs.list(state=JobState.DEAD)) == 4

        await until(dead)
        assert isinstance(system, shown.ShownJobs)
        await system.count(_Fired())
        assert values(system, "held") == {("default", "dead"): 4, ("elsewhere", "available"): 1}
        assert values(system, "acquired") == {(): 4}
        assert values(system, "ended") == {("dead",): 4}
        assert values(system, "running") == {(): 0}
        assert figure(system, "held").read_at is not None
        assert system.health().well is True
        assert system.health().cause is not None, "why jobs fail"
        retry = act(system, "retry dead jobs")
        assert (retry.concerns, retry.destructive) == (4, False)
        assert (act(system, "delete finished jobs").concerns, act(system, "delete finished jobs").destructive) == (4, True)
        # One whose key is another job's by now stays dead, and keeps none of the others.
        await jobs.enqueue("settle", unique_key="one", delay_s=3600.0)
        works = True
        assert await retry.run() == 3

        async def done() -> bool:
            return len(await jobs.list(state=JobState.DONE)) == 3

        await until(done)
        await system.count(_Fired())
        assert values(system, "held")["default", "done"] == 3
        assert act(system, "retry dead jobs").concerns == 1
        assert values(system, "ended") == {("dead",): 4, ("done",): 3}
        stop.fire("test")
        await running

    on_queue(database, tmp_path, scenario)


def test_a_count_that_takes_too_long_is_given_up_and_troubles_nobody(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "COUNT", "SELECT pg_sleep(600) FROM {schema}.jobs")
    monkeypatch.setattr(shown, "COUNT_S_MAX", 1.0)

    async def scenario(jobs: Jobs) -> None:
        await jobs.enqueue("settle")
        service = outlast.Service("worker")
        jobs.work(service)
        (system,) = service.all_shown()
        assert isinstance(system, shown.ShownJobs)
        await jobs.db.open()
        await system.count(_Fired())
        assert values(system, "held") == {}
        assert system.lag() is None
        assert jobs.db.passable

    on_queue(database, tmp_path, scenario)


def test_the_oldest_due_job_is_how_far_the_queue_is_behind(database: str, tmp_path: Path) -> None:
    async def scenario(jobs: Jobs) -> None:
        await jobs.enqueue("settle", delay_s=3600.0)
        service = outlast.Service("worker")
        jobs.work(service)
        (system,) = service.all_shown()
        assert isinstance(system, shown.ShownJobs)
        await jobs.db.open()
        await system.count(_Fired())
        lag = system.lag()
        assert lag is not None
        assert lag.seconds == 0, "a job that is not due waits for nobody"
        async with jobs.db.connection() as conn:
            await conn.execute("UPDATE outlast.jobs SET run_at = now() - interval '1 hour'")
        await system.count(_Fired())
        lag = system.lag()
        assert lag is not None
        assert lag.seconds is not None
        assert lag.seconds >= 3600

    on_queue(database, tmp_path, scenario)


class _Fired(outlast.Stop):
    """A stop in which a sleep takes no time."""

    async def sleep(self, seconds: float) -> None:
        assert seconds >= shown.EVERY_S


@pytest.mark.expected_logs
def test_while_the_database_is_away_it_says_so_with_the_first_cause_and_counts_what_the_journal_keeps(
    server: PostgresServer, tmp_path: Path
) -> None:
    async def scenario(jobs: Jobs) -> None:
        finish = asyncio.Event()

        @jobs.handler("settle")
        async def settle(job: Job) -> None:
            await finish.wait()

        await jobs.enqueue("settle")
        service, stop = outlast.Service("worker", deadline_s=2.0), outlast.Stop()
        jobs.work(service, workers=1)
        (system,) = service.all_shown()
        running = asyncio.create_task(service.run(stop))

        async def shows(name: str, value: float) -> bool:
            return values(system, name) == {(): value}

        await until(lambda: shows("running", 1))
        await asyncio.to_thread(server.stop)
        finish.set()
        await until(lambda: shows("journal_outcomes", 1))
        health = system.health()
        assert (health.well, health.state) == (False, "waiting for postgres")
        assert health.cause is not None
        assert health.since is not None
        await asyncio.to_thread(server.start)
        await until(lambda: shows("journal_outcomes", 0))
        assert values(system, "ended") == {("done",): 1}
        stop.fire("test")
        await running

    on_queue(server.dsn(), tmp_path, scenario)
