"""What the data of one job does to the others: nothing. Refused outcomes, payloads that do not read, times out of range."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from worked_queue import on_queue, settled, until, working

from outlast.jobs import Job, Jobs, JobState, NewJob
from outlast.jobs._journal import encode
from outlast.jobs._model import Outcome

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.expected_logs, pytest.mark.short]

ODD: dict[str, Any] = {
    "nan": {"score": float("nan")},
    "infinite": [float("-inf")],
    "set": {1, 2},
    "nul": "a\x00b",
    "surrogate": {"\ud800": 1},
    "huge": "x" * 300_000,
    "number": 10**5000,
    "deep": None,
}
deep: list[Any] = []
for _ in range(5_000):
    deep = [deep]
ODD["deep"] = deep
WORKER = "7e7f4f9e-3f0f-4a5b-9d0c-0d3b8c6d9a01"


async def execute(jobs: Jobs, statement: str) -> list[Any]:
    async with jobs.db.connection() as conn:
        cursor = await conn.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


def test_a_result_that_is_no_json_is_that_jobs_fault_alone(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("odd")
        async def odd(job: Job) -> Any:
            return ODD[job.payload]

        @jobs.handler("good")
        async def good(job: Job) -> dict[str, Any]:
            return {"number": job.payload, "text": "\\u0000 \\ud800 is text, \U0001f600 a pair"}

        await jobs.enqueue_many([NewJob("odd", name) for name in ODD])
        await jobs.enqueue_many([NewJob("good", number) for number in range(20)])
        async with working(jobs, workers=3):
            await until(lambda: settled(jobs))
        records = await jobs.list(limit=100)
        assert {(record.kind, record.state.value, record.attempt) for record in records} == {
            ("odd", "dead", 1),
            ("good", "done", 1),
        }
        for record in records:
            if record.kind == "odd":
                assert record.last_fault is not None
                assert record.last_fault["code"] in {"result", "result size"}, record.last_fault
        assert (tmp_path / "journal").read_bytes() == b""

    on_queue(database, tmp_path, test)


def test_an_error_of_any_text_is_recorded(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("fails", attempts_max=1)
        async def fails(job: Job) -> None:
            raise ValueError(["\x00", "\ud800\udc00\udcff", "x" * 5_000_000][job.payload])

        await jobs.enqueue_many([NewJob("fails", number) for number in range(3)])
        async with working(jobs, workers=3):
            await until(lambda: settled(jobs))
        for record in await jobs.list():
            assert record.state is JobState.DEAD
            assert record.last_fault is not None
            assert len(json.dumps(record.last_fault)) < 2_000
        assert await execute(jobs, "SELECT first_fault::jsonb ->> 'reason' FROM outlast.jobs")

    on_queue(database, tmp_path, test)


def test_a_refused_outcome_is_set_aside(database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A constraint of the user's refuses some results: those jobs are dead, and every other is done."""
    caplog.set_level(logging.INFO)

    async def test(jobs: Jobs) -> None:
        @jobs.handler("note")
        async def note(job: Job) -> dict[str, Any]:
            return {"number": job.payload}

        await execute(jobs, "ALTER TABLE outlast.jobs ADD CONSTRAINT odd CHECK ((result ->> 'number')::int % 50 <> 7)")
        await jobs.enqueue_many([NewJob("note", number) for number in range(200)])
        async with working(jobs, workers=50):
            await until(lambda: settled(jobs))
        records = {record.payload: record for record in await jobs.list(limit=300)}
        dead = {number for number, record in records.items() if record.state is JobState.DEAD}
        assert dead == {7, 57, 107, 157}
        assert {record.state for number, record in records.items() if number not in dead} == {JobState.DONE}
        assert {record.attempt for record in records.values()} == {1}
        fault = records[7].last_fault
        assert fault is not None
        assert (fault["kind"], fault["code"]) == ("rejected", "23514")

    on_queue(database, tmp_path, test)
    kept = tmp_path / "journal.refused"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    lines = [json.loads(line[9:]) for line in kept.read_bytes().splitlines()]
    assert {json.loads(line["result_json"])["number"] for line in lines} == {7, 57, 107, 157}
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


def old_line(fields: dict[str, Any]) -> bytes:
    """A line of a journal as the version before wrote it, which kept what the database then refused."""
    import zlib

    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def test_an_old_journal_with_a_refused_outcome_stops_nobody(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("note")
        async def note(job: Job) -> str:
            return "new"

        ids = [result.id for result in await jobs.enqueue_many([NewJob("note") for _ in range(6)])]
        await execute(jobs, f"UPDATE outlast.jobs SET state = 'running', worker = '{WORKER}', attempt = 1 WHERE id <= {ids[4]}")
        plain = {"worker": WORKER, "attempt": 1, "state": "done", "fault": None, "delay_s": 0.0, "give_back": False}
        entries = [
            old_line({**plain, "id": ids[0], "result": {"score": 1}}),
            old_line({**plain, "id": ids[1], "result": {"score": float("nan")}}),
            old_line({**plain, "id": ids[2], "worker": "nobody", "result": None}),
            b"00000000 a line of somebody else's\n",
            old_line(json.loads(encode((WORKER, Outcome(ids[3], 1, "done", result_json='{"score": 4}'))))),
            old_line(json.loads(encode((WORKER, Outcome(ids[4], 1, "available", delay_s=float("inf")))))),
        ]
        (tmp_path / "journal").write_bytes(b"".join(entries))
        async with working(jobs):
            await until(lambda: done(jobs, ids[5]))
            assert (tmp_path / "journal").read_bytes() == b""
        records = {record.id: record for record in await jobs.list()}
        assert [records[job_id].state.value for job_id in ids] == ["done", "dead", "running", "done", "dead", "done"]
        assert (records[ids[0]].result, records[ids[3]].result, records[ids[5]].result) == ({"score": 1}, {"score": 4}, "new")

    on_queue(database, tmp_path, test)
    assert (tmp_path / "journal.refused").read_bytes().count(b"\n") == 4


async def done(jobs: Jobs, job_id: int) -> bool:
    record = await jobs.get(job_id)
    return record is not None and record.state is JobState.DONE


def test_a_locked_row_holds_up_no_other_job(database: str, tmp_path: Path) -> None:
    """Somebody looks into one job in a transaction that stays open: that outcome waits, the others do not."""

    async def test(jobs: Jobs) -> None:
        jobs.db.operation_timeout_s = 1.0
        locked = asyncio.Event()

        @jobs.handler("note")
        async def note(job: Job) -> str:
            await locked.wait()
            return "done"

        first = (await jobs.enqueue("note")).id
        async with await psycopg.AsyncConnection.connect(database) as conn, working(jobs, workers=5):
            await until(lambda: running(jobs, first))
            await conn.execute("SELECT 1 FROM outlast.jobs WHERE id = %s FOR UPDATE", (first,))
            locked.set()
            others = await jobs.enqueue_many([NewJob("note") for _ in range(20)])
            for other in others:
                await until(lambda job_id=other.id: done(jobs, job_id))  # type: ignore[misc]
            await conn.rollback()
            await until(lambda: done(jobs, first))
        assert {record.attempt for record in await jobs.list()} == {1}

    on_queue(database, tmp_path, test)


def test_a_table_that_is_not_there_is_held_against_no_outcome(database: str, tmp_path: Path) -> None:
    """What every outcome meets is nobody's fault: they are kept until it has passed."""

    async def test(jobs: Jobs) -> None:
        gone = asyncio.Event()

        @jobs.handler("note")
        async def note(job: Job) -> int:
            await gone.wait()
            return 1

        ids = [result.id for result in await jobs.enqueue_many([NewJob("note") for _ in range(30)])]
        async with working(jobs, workers=30):
            for job_id in ids:
                await until(lambda job_id=job_id: running(jobs, job_id))  # type: ignore[misc]
            await execute(jobs, "ALTER TABLE outlast.jobs RENAME TO gone")
            gone.set()
            while (tmp_path / "journal").read_bytes().count(b"}\n") < 30:
                await asyncio.sleep(0.01)
            await execute(jobs, "ALTER TABLE outlast.gone RENAME TO jobs")
            await until(lambda: settled(jobs))
        assert {(record.state, record.attempt) for record in await jobs.list()} == {(JobState.DONE, 1)}

    on_queue(database, tmp_path, test)
    assert not (tmp_path / "journal.refused").exists()


async def running(jobs: Jobs, job_id: int) -> bool:
    record = await jobs.get(job_id)
    return record is not None and record.state is JobState.RUNNING


GUARDED = """
CREATE FUNCTION outlast.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.payload::text = '"guarded"' AND NEW.state <> OLD.state THEN RAISE EXCEPTION 'nobody touches this one'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON outlast.jobs FOR EACH ROW EXECUTE FUNCTION outlast.guard();
INSERT INTO outlast.jobs (token, queue, kind, payload, priority, run_at, attempt, attempts_max, worker, state, started_at)
VALUES (gen_random_uuid(), 'default', 'note', '"guarded"', 9, now(), 3, 3, gen_random_uuid(), 'running', '-infinity'),
    (gen_random_uuid(), 'default', 'note', '"lost"', 9, now(), 3, 3, gen_random_uuid(), 'running', '-infinity')
"""


def test_a_row_that_cannot_be_changed_is_left_out(database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A trigger of the user's forbids to acquire one job, to rescue another, to drop a third: the others go their way."""

    async def test(jobs: Jobs) -> None:
        @jobs.handler("note")
        async def note(job: Job) -> None:
            return

        await execute(jobs, GUARDED)
        await jobs.enqueue("note", "guarded", deadline_s=0.0)
        await jobs.enqueue_many([NewJob("note", "late", deadline_s=0.0) for _ in range(5)])
        await jobs.enqueue("note", "guarded", priority=5)
        await jobs.enqueue_many([NewJob("note", "good") for _ in range(40)])
        async with working(jobs, workers=10):
            await until(lambda: counted_all(jobs, done=40, dead=1, expired=5, available=2, running=1))

    on_queue(database, tmp_path, test, lease_s=1.0)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert told
    assert all("cannot be" in message and "is left out" in message for message in told[:1])


async def counted_all(jobs: Jobs, **wanted: int) -> bool:
    return (await jobs.counts())["default"] == wanted


FOREIGN = """
INSERT INTO outlast.jobs (token, queue, kind, payload, priority, run_at, deadline_at, attempt, attempts_max, enqueued_at)
SELECT gen_random_uuid(), 'default', 'note', payload::json, 9, run_at::timestamptz, deadline_at::timestamptz, attempt, 3,
    enqueued_at::timestamptz
FROM (VALUES
    ('"far"', '-infinity', '200000-01-01', 0, 'infinity'),
    ('"ever"', '4000-01-01 BC', 'infinity', 0, '-infinity'),
    ('"often"', 'yesterday', NULL, 2147483647, 'now'),
    (repeat('[', 5000) || repeat(']', 5000), 'yesterday', NULL, 0, 'now'),
    (repeat('9', 5000), 'yesterday', NULL, 0, 'now'),
    ('"\\ud800\\u0000"', 'yesterday', NULL, 0, 'now'),
    ('"never"', 'infinity', NULL, 0, 'now'),
    ('"too late"', 'yesterday', '-infinity', 0, 'now')
) AS foreign_rows (payload, run_at, deadline_at, attempt, enqueued_at)
"""


def test_rows_that_others_put_in_are_read_and_stop_nobody(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        @jobs.handler("note")
        async def note(job: Job) -> Any:
            return job.payload

        async with jobs.db.connection() as conn:
            # Settings of a role or database, which every session begins with.
            for setting in ("DateStyle = 'German'", "TimeZone = 'Pacific/Kiritimati'", "IntervalStyle = 'sql_standard'"):
                await conn.execute(f"ALTER DATABASE {conn.info.dbname} SET {setting}".encode())
        await jobs.db.close()
        await execute(jobs, FOREIGN)
        await execute(
            jobs,
            "INSERT INTO outlast.jobs (token, queue, kind, state, priority, run_at, attempt, attempts_max, worker, started_at,"
            " first_fault) VALUES (gen_random_uuid(), 'default', 'note', 'running', 0, 'infinity', 3, 3, gen_random_uuid(),"
            " '294276-12-31', '\"a text\"')",
        )
        assert len(await jobs.list()) == 9
        good = [result.id for result in await jobs.enqueue_many([NewJob("note", "good") for _ in range(5)])]
        async with working(jobs):
            for job_id in good:
                await until(lambda job_id=job_id: done(jobs, job_id))  # type: ignore[misc]
            await until(lambda: counted(jobs, available=1))
        states = {str(record.payload)[:8]: record.state.value for record in await jobs.list()}
        assert states == {
            "far": "done",
            "ever": "done",
            "often": "done",
            "[[[[[[[[": "dead",
            "99999999": "dead",
            "\ud800\x00": "dead",
            "never": "available",
            "too late": "expired",
            "None": "dead",
            "good": "done",
        }

    on_queue(database, tmp_path, test, lease_s=1.0)


async def counted(jobs: Jobs, **wanted: int) -> bool:
    counts = (await jobs.counts())["default"]
    return counts.get("running", 0) == 0 and all(counts.get(state, 0) == count for state, count in wanted.items())
