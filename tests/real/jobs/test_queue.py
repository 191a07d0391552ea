"""The queue on a real database: what is enqueued, in which order it is done, and what an operator can do with it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from worked_queue import left, on_queue, settled, until, working

import outlast
from outlast.jobs import InvalidJobError, Job, Jobs, JobState, NewJob, PayloadTooLargeError
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.expected_logs, pytest.mark.short]


def test_jobs_are_done_by_priority_and_then_in_order(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        order: list[str] = []

        @jobs.handler("note")
        async def note(job: Job) -> str:
            order.append(job.payload)
            return job.payload.upper()

        await jobs.enqueue_many([NewJob("note", name) for name in "abc"])
        await jobs.enqueue("note", "first", priority=5)
        late = await jobs.enqueue("note", "late", priority=9, delay_s=3600)
        await jobs.enqueue("note", "other queue", queue="other")
        async with working(jobs):
            await until(lambda: left(jobs, late.id))
            with psycopg.connect(database) as conn:
                conn.execute("UPDATE outlast.jobs SET run_at = now() WHERE id = %s", (late.id,))
            await until(lambda: settled(jobs))
        assert order == ["first", "a", "b", "c", "late"]
        assert {record.result for record in await jobs.list(queue="default")} == {"FIRST", "A", "B", "C", "LATE"}
        assert (await jobs.counts())["other"] == {"available": 1}

    on_queue(database, tmp_path, test)


def test_a_new_job_wakes_an_idle_worker(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        done = asyncio.Event()

        @jobs.handler("note")
        def note(job: Job) -> None:  # a plain function, run in a thread
            loop.call_soon_threadsafe(done.set)

        loop = asyncio.get_running_loop()
        async with working(jobs):
            await asyncio.sleep(0.5)
            await jobs.enqueue("note")
            # The poll comes after an hour: it was the notification.
            async with asyncio.timeout(60):
                await done.wait()

    on_queue(database, tmp_path, test, poll_s=3600.0)


def test_a_unique_key_is_unique_until_the_job_is_finished(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        first = await jobs.enqueue("note", unique_key="k")
        again = await jobs.enqueue("note", unique_key="k")
        assert (first.created, again.created) == (True, False)
        assert again.id == first.id
        both = await jobs.enqueue_many([NewJob("note", unique_key="k"), NewJob("note", unique_key="l")])
        assert [(result.id == first.id, result.created) for result in both] == [(True, False), (False, True)]
        await jobs.cancel(first.id)
        assert (await jobs.enqueue("note", unique_key="k")).created

    on_queue(database, tmp_path, test)


def test_expired_work_is_dropped_with_a_count_and_never_run(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(jobs: Jobs) -> None:
        ran: list[int] = []

        @jobs.handler("note")
        async def note(job: Job) -> None:
            ran.append(job.id)

        past = datetime.now(UTC) - timedelta(seconds=1)
        await jobs.enqueue_many([NewJob("note", deadline_at=past) for _ in range(25)])
        good = await jobs.enqueue("note", deadline_s=60)
        async with working(jobs):
            await until(lambda: settled(jobs))
        assert ran == [good.id]
        assert (await jobs.counts())["default"] == {"done": 1, "expired": 25}

    on_queue(database, tmp_path, test)
    assert "25 dropped unrun" in caplog.text


def test_work_that_nobody_can_finish_in_time_is_dropped(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("long")
        async def long(job: Job) -> None:
            await asyncio.sleep(2)

        await jobs.enqueue("long")
        async with working(jobs):
            await until(lambda: settled(jobs))
            # It takes two seconds, and less than half of that is left.
            hopeless = await jobs.enqueue("long", deadline_s=0.8)
            hopeful = await jobs.enqueue("long", deadline_s=60)
            await until(lambda: settled(jobs))
        states = {record.id: record.state for record in await jobs.list()}
        assert states[hopeless.id] is JobState.EXPIRED
        assert states[hopeful.id] is JobState.DONE

    on_queue(database, tmp_path, test, lease_s=1.5)


def test_enqueueing_is_part_of_the_callers_transaction(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            await jobs.enqueue("note", "undone", conn=conn)
            await conn.rollback()
            await jobs.enqueue("note", "kept", conn=conn)
        with psycopg.connect(database) as plain:
            assert jobs.enqueue_in(plain, [NewJob("note", "plain", unique_key="p")])[0].created
            assert not jobs.enqueue_in(plain, [NewJob("note", "plain", unique_key="p")])[0].created
        assert sorted(record.payload for record in await jobs.list()) == ["kept", "plain"]

    on_queue(database, tmp_path, test)


def test_a_database_without_an_encoding_is_one_as_any_other(database: str, tmp_path: Path) -> None:
    """In SQL_ASCII the driver would give bytes instead of text, unless the session says what it speaks."""
    name = f"{psycopg.conninfo.conninfo_to_dict(database)['dbname']}_ascii"
    bare = psycopg.conninfo.make_conninfo(database, dbname=name)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} ENCODING SQL_ASCII LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0".encode())

    async def test(jobs: Jobs) -> None:
        @jobs.handler("note")
        async def note(job: Job) -> str:
            return str(job.payload)

        await jobs.enqueue("note", "déjà vu", unique_key="ключ")
        async with working(jobs):
            await until(lambda: settled(jobs))
        (record,) = await jobs.list()
        assert (record.state, record.result, record.unique_key) == (JobState.DONE, "déjà vu", "ключ")

    try:
        on_queue(bare, tmp_path, test)
    finally:
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_batch_is_all_or_none(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        with pytest.raises(InvalidJobError, match="attempts_max must be a whole number from 1"):
            await jobs.enqueue_many([NewJob("note"), NewJob("note", attempts_max=0)])
        with pytest.raises(PayloadTooLargeError, match="the limit is 100"):
            await jobs.enqueue_many([NewJob("note"), NewJob("note", "x" * 200)])
        with pytest.raises(ValueError, match="no JSON"):
            await jobs.enqueue("note", object())
        assert await jobs.counts() == {}
        assert await jobs.enqueue_many([]) == []

    on_queue(database, tmp_path, test, payload_bytes_max=100)


def test_migrations_may_run_at_once_and_again(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        others = [Jobs(Postgres(database), schema="twice; DROP") for _ in range(4)]
        needed = await asyncio.gather(*(other.migrate() for other in others))
        assert sorted(needed) == [0, 0, 0, 1]
        assert await jobs.migrate() == 0
        for other in others:
            assert (await other.enqueue("note")).created
            await other.db.close()

    on_queue(database, tmp_path, test)


def test_faults_lead_where_their_kind_says(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        quick = outlast.Backoff(0.01, 0.02)

        def fails(kind: str, error: Exception, *, until_attempt: int = 100) -> None:
            @jobs.handler(kind, attempts_max=3, backoff=quick)
            async def handler(job: Job) -> None:
                if job.attempt < until_attempt:
                    raise error

        fails("bug", ValueError("no such account"))
        fails("passing", ConnectionResetError(104, "reset"), until_attempt=3)
        fails("rejected", rejected("bad input"))
        fails("slow", TimeoutError())
        for kind in ("bug", "passing", "rejected", "slow"):
            await jobs.enqueue(kind, attempts_max=3)
        async with working(jobs, workers=4):
            await until(lambda: settled(jobs))
        found = {record.kind: record for record in await jobs.list()}
        assert {kind: (record.state.value, record.attempt) for kind, record in found.items()} == {
            "bug": ("dead", 3),
            "passing": ("done", 3),
            "rejected": ("dead", 1),
            "slow": ("dead", 3),
        }
        first, last = found["bug"].first_fault, found["bug"].last_fault
        assert first is not None
        assert last is not None
        assert "no such account" in first["reason"]
        assert last["kind"] == "bug"

    on_queue(database, tmp_path, test)


def rejected(reason: str) -> Exception:
    from outlast._core.faults import attach

    error = RuntimeError(reason)
    attach(error, outlast.Fault(outlast.Kind.REJECTED, "input", reason, "caller"))
    return error


def test_a_handler_that_was_refused_keeps_its_attempt(database: str, tmp_path: Path) -> None:
    """Some other dependency is down: the job was never tried."""

    async def test(jobs: Jobs) -> None:
        calls = 0

        async def probe() -> None:
            if not calls:
                raise ConnectionRefusedError

        payments = outlast.Dependency("payments", probe=probe)

        @jobs.handler("pay", attempts_max=1)
        async def pay(job: Job) -> None:
            nonlocal calls
            calls += 1
            async with payments.use():
                pass

        with contextlib.suppress(TimeoutError):
            async with payments.use():
                raise TimeoutError
        job = await jobs.enqueue("pay", attempts_max=1)
        async with working(jobs):
            await until(lambda: settled(jobs))
        record = await jobs.get(job.id)
        assert record is not None
        assert (record.state, record.attempt) == (JobState.DONE, 1)
        # It may be asked again before the dependency is known to be back.
        assert calls >= 2

    on_queue(database, tmp_path, test)


def test_a_timeout_ends_a_handler(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("hang", attempts_max=1, timeout_s=0.2)
        async def hang(job: Job) -> None:
            await asyncio.sleep(3600)

        job = await jobs.enqueue("hang", attempts_max=1)
        async with working(jobs):
            await until(lambda: settled(jobs))
        record = await jobs.get(job.id)
        assert record is not None
        assert record.state is JobState.DEAD
        assert record.last_fault is not None
        assert record.last_fault["code"] == "timeout"

    on_queue(database, tmp_path, test)


def test_cancel_and_retry(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @jobs.handler("hang")
        async def hang(job: Job) -> None:
            begun.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        waiting = await jobs.enqueue("hang", delay_s=3600)
        assert await jobs.cancel(waiting.id) is JobState.CANCELLED
        assert await jobs.cancel(waiting.id) is None
        assert await jobs.cancel(123456) is None
        running = await jobs.enqueue("hang")
        async with working(jobs):
            await asyncio.wait_for(begun.wait(), 60)
            assert await jobs.cancel(running.id) is JobState.RUNNING
            await asyncio.wait_for(cancelled.wait(), 60)
            await until(lambda: settled(jobs))
        record = await jobs.get(running.id)
        assert record is not None
        assert record.state is JobState.CANCELLED
        assert await jobs.retry(running.id)
        assert not await jobs.retry(running.id)
        record = await jobs.get(running.id)
        assert record is not None
        assert (record.state, record.attempt) == (JobState.AVAILABLE, 0)

    # The notification of the cancel is what does it: the next heartbeat is far away.
    on_queue(database, tmp_path, test, lease_s=300.0)


def test_finished_jobs_are_purged_and_others_never(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        results = await jobs.enqueue_many([NewJob("note") for _ in range(5)])
        for result in results[:3]:
            await jobs.cancel(result.id)
        assert await jobs.purge(age_s=3600) == 0
        with pytest.raises(ValueError, match="not available"):
            await jobs.purge(states=[JobState.AVAILABLE])
        assert await jobs.purge() == 3
        assert (await jobs.counts())["default"] == {"available": 2}

    on_queue(database, tmp_path, test)


def test_a_journal_belongs_to_one_process(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("note")
        async def note(job: Job) -> None:
            return

        async with working(jobs):
            await asyncio.sleep(0.2)
            other = Jobs(jobs.db, journal_path=tmp_path / "journal")
            service = outlast.Service("other")
            other.work(service)
            with pytest.raises(outlast.ConfigurationError, match="held by another process"):
                await other.work(outlast.Service("third"))._open()

    on_queue(database, tmp_path, test)


def test_a_thousand_idle_workers_take_few_connections(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        slots: set[int] = set()

        @jobs.handler("note")
        async def note(job: Job) -> None:
            slots.add(job.worker)
            await asyncio.sleep(0.5)

        async with working(jobs, workers=1_000):
            await jobs.enqueue_many([NewJob("note") for _ in range(1_000)])
            await until(lambda: settled(jobs))
            async with jobs.db.connection() as conn:
                cursor = await conn.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outlast'")
                row = await cursor.fetchone()
        assert row is not None
        assert row[0] <= 11
        assert len(slots) > 500

    on_queue(database, tmp_path, test)


def test_a_job_taken_from_a_worker_may_come_to_it_again_while_its_lost_attempt_ends(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        begun, lost = [asyncio.Event(), asyncio.Event()], asyncio.Event()

        @jobs.handler("slow")
        async def slow(job: Job) -> str:
            begun[job.attempt - 1].set()
            if job.attempt == 1:
                try:
                    await asyncio.sleep(3600)
                finally:
                    # Until the job has come again: an attempt that ends before is given back, and is attempt 1 once more.
                    await begun[1].wait()
                    lost.set()
            await lost.wait()
            return f"attempt {job.attempt}"

        await jobs.enqueue("slow")
        async with working(jobs, workers=2):
            await begun[0].wait()
            with psycopg.connect(database) as conn:
                conn.execute("UPDATE outlast.jobs SET state = 'available', worker = NULL")
            async with asyncio.timeout(60):
                await begun[1].wait()
                await lost.wait()
            await until(lambda: settled(jobs))
        (record,) = await jobs.list()
        assert (record.state, record.attempt, record.result) == (JobState.DONE, 2, "attempt 2")

    on_queue(database, tmp_path, test, lease_s=1.5, poll_s=0.1)
