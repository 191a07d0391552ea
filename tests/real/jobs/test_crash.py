"""Killed workers, outages, lost replies: nothing acknowledged is lost, and nothing is recorded twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import outlast
from outlast.jobs import Job, Jobs, NewJob
from outlast.postgres import Postgres
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.expected_logs
WORKER = Path(__file__).parent / "job_worker.py"


class Shop:
    """A queue on a server of the test's own, and worker processes on it."""

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.workers: list[subprocess.Popen[bytes]] = []

    def enqueue(self, count: int, seconds: float) -> list[int]:
        async def main() -> list[int]:
            db = Postgres(self.server.dsn())
            jobs = Jobs(db)
            await jobs.migrate()
            results = await jobs.enqueue_many([NewJob("sleep", {"seconds": seconds}, attempts_max=50) for _ in range(count)])
            await db.close()
            return [result.id for result in results]

        return asyncio.run(main())

    def start(self, name: str = "worker", *, lease_s: float = 1.0) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "WORKER_DSN": self.server.dsn(),
            "WORKER_JOURNAL": str(self.directory / f"{name}.journal"),
            "WORKER_LOG": str(self.directory / "log"),
            "WORKER_LEASE_S": str(lease_s),
        }
        with (self.directory / "stderr").open("ab") as stderr:
            worker = subprocess.Popen([sys.executable, WORKER], env=environment, stderr=stderr)
        self.workers.append(worker)
        return worker

    def rows(self, query: str = "SELECT id, state, attempt, result FROM outlast.jobs") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.dsn()) as conn:
            return conn.execute(query.encode()).fetchall()

    def states(self) -> Counter[str]:
        return Counter(row[1] for row in self.rows())

    def logged(self, word: str) -> Counter[int]:
        log = self.directory / "log"
        lines = log.read_text(encoding="ascii").splitlines() if log.exists() else []
        return Counter(int(line.split()[1]) for line in lines if line.startswith(word))

    def until(self, condition: Callable[[], bool], limit_s: float = 90.0) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                said = (self.directory / "stderr").read_text(encoding="utf-8")[-3000:]
                pytest.fail(f"it did not come about in time: {self.states()}\n{said}")
            time.sleep(0.02)


@pytest.fixture
def shop(server: PostgresServer, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(server, tmp_path)
    yield shop
    for worker in shop.workers:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_workers_killed_with_ten_jobs_in_flight_lose_none(shop: Shop, kills: int) -> None:
    rng = random.Random(7)
    ids = shop.enqueue(3 * kills, 0.3)
    for _ in range(kills):
        worker = shop.start()
        started = sum(shop.logged("start").values())
        finished = len(ids) == shop.states()["done"]
        if not finished:
            remaining = min(10, len(ids) - shop.states()["done"])
            shop.until(
                lambda started=started, remaining=remaining: (
                    sum(shop.logged("start").values()) >= started + remaining  # type: ignore[misc]
                    or shop.states()["done"] == len(ids)
                )
            )
            time.sleep(rng.uniform(0, 0.35))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    shop.start()
    shop.until(lambda: shop.states()["done"] == len(ids))
    rows = shop.rows()
    assert sorted(row[0] for row in rows) == sorted(ids)
    # Each result is the one of the attempt that the row counts: none was recorded over another.
    assert all(row[3] == {"attempt": row[2]} for row in rows)
    assert set(shop.logged("end")) >= set(ids)


def test_jobs_that_finish_during_an_outage_are_recorded_once_when_it_is_over(shop: Shop) -> None:
    ids = shop.enqueue(10, 1.5)
    shop.start(lease_s=2.0)
    shop.until(lambda: shop.states()["running"] == 10)
    shop.server.stop()
    shop.until(lambda: sum(shop.logged("end").values()) == 10)
    # Longer than the lease: nobody may be taken for dead because the database was away.
    time.sleep(3.0)
    shop.server.start()
    shop.until(lambda: shop.states()["done"] == 10)
    time.sleep(3.0)
    assert [row[1:] for row in shop.rows()] == [("done", 1, {"attempt": 1})] * 10
    assert shop.logged("start") == Counter(ids), "each ran once"


def test_the_journal_outlives_the_worker(shop: Shop) -> None:
    ids = shop.enqueue(10, 1.0)
    worker = shop.start(lease_s=30.0)
    shop.until(lambda: shop.states()["running"] == 10)
    shop.server.stop()
    shop.until(lambda: sum(shop.logged("end").values()) == 10)
    journal = shop.directory / "worker.journal"
    end = time.monotonic() + 60
    while journal.read_bytes().count(b"}\n") < 10:
        assert time.monotonic() < end
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    shop.start(lease_s=30.0)
    time.sleep(1.0)
    shop.server.start()
    shop.until(lambda: shop.states()["done"] == 10)
    assert [row[1:] for row in shop.rows()] == [("done", 1, {"attempt": 1})] * 10
    assert shop.logged("start") == Counter(ids), "each ran once"


def in_process(
    dsn: str, directory: Path, act: Callable[[Jobs, list[tuple[int, int]]], Any], *, seconds: float = 0.2
) -> list[tuple[int, int]]:
    """Run a worker in this process and `act` beside it; gives the (id, attempt) of what was run."""

    async def main() -> list[tuple[int, int]]:
        db = Postgres(dsn, operation_timeout_s=2.0)
        jobs = Jobs(db, journal_path=directory / "journal", lease_s=3.0)
        await jobs.migrate()
        ran: list[tuple[int, int]] = []

        @jobs.handler("sleep")
        async def sleep(job: Job) -> None:
            await asyncio.sleep(seconds)
            ran.append((job.id, job.attempt))

        service, stop = outlast.Service("worker", deadline_s=3.0), outlast.Stop()
        jobs.work(service, workers=10)
        running = asyncio.create_task(service.run(stop))
        try:
            await act(jobs, ran)
        finally:
            stop.fire("test")
            assert await running == 0
        return ran

    return asyncio.run(main())


def test_replies_that_are_lost_lose_nothing_and_record_nothing_twice(server: PostgresServer, tmp_path: Path) -> None:
    """The link is cut at random moments under load: after the server got the statement, or before."""
    with FaultProxy("127.0.0.1", server.port) as proxy:
        rng, cuts = random.Random(11), 12

        async def act(jobs: Jobs, ran: list[tuple[int, int]]) -> None:
            # On a slow machine cuts without end would leave no time for the work.
            nonlocal cuts
            direct = Jobs(Postgres(server.dsn()))
            await direct.enqueue_many([NewJob("sleep", {}) for _ in range(400)])
            async with asyncio.timeout(120):
                while (await direct.counts())["default"].get("done", 0) < 400:
                    await asyncio.sleep(rng.uniform(0.1, 0.6))
                    if cuts and rng.random() < 0.5:
                        proxy.cut()
                        cuts -= 1
            records = await direct.list(limit=1_000)
            assert {record.attempt for record in records} == {1}, "a lost reply costs no attempt"
            await direct.db.close()

        ran = in_process(server.dsn(port=proxy.port), tmp_path, act, seconds=0.02)
    assert len(ran) == 400, "no job ran twice"
    assert len(set(ran)) == 400


def test_enqueueing_during_an_outage_is_refused_at_once_or_waits(server: PostgresServer, tmp_path: Path) -> None:
    async def main() -> None:
        db = Postgres(server.dsn())
        jobs = Jobs(db, journal_path=tmp_path / "journal")
        await jobs.migrate()
        await asyncio.to_thread(server.stop)
        with contextlib.suppress(outlast.OutlastError):
            await jobs.enqueue("sleep", {"number": 1})
        with pytest.raises(outlast.Unavailable):
            await jobs.enqueue("sleep", {"number": 2})
        waiting = asyncio.create_task(jobs.enqueue("sleep", {"number": 3}, wait_s=30))
        with pytest.raises(outlast.Unavailable):
            await jobs.enqueue("sleep", {"number": 4}, wait_s=0.2)
        await asyncio.to_thread(server.start)
        assert (await waiting).created
        numbers = [record.payload["number"] for record in await jobs.list()]
        assert numbers == [3], "what was refused does not appear later"
        await db.close()

    asyncio.run(main())


def test_a_thousand_good_jobs_beside_bad_ones_are_all_done_and_none_twice(shop: Shop) -> None:
    """Two processes, one with an old journal: results and outcomes that the database refuses, a payload that does not read."""

    async def main() -> list[int]:
        db = Postgres(shop.server.dsn())
        jobs = Jobs(db)
        await jobs.migrate()
        async with db.connection() as conn:
            await conn.execute("ALTER TABLE outlast.jobs ADD CONSTRAINT odd CHECK ((result ->> 'number')::int <> -1)")
        good = [NewJob("note", number) for number in range(1_001)]
        bad = [NewJob("odd"), NewJob("note", -1), NewJob("note", "unread")]
        for place in (900, 500, 10):
            good[place:place] = bad
        ids = [result.id for result in await jobs.enqueue_many(good)]
        async with db.connection() as conn:
            deep = "[" * 5_000 + "]" * 5_000
            await conn.execute("UPDATE outlast.jobs SET payload = %s WHERE payload::text = '\"unread\"'", (deep,))
            # This one ran before the restart.
            running = "UPDATE outlast.jobs SET state = 'running', worker = %s, attempt = 1, started_at = now() WHERE id = %s"
            await conn.execute(running, (before, ids[0]))
        await db.close()
        return ids

    before = str(uuid.uuid4())
    ids = asyncio.run(main())
    body = f'{{"worker":"{before}","id":{ids[0]},"attempt":1,"state":"done","result":{{"score":NaN}}}}'.encode()
    (shop.directory / "first.journal").write_bytes(b"%08x %s\n" % (zlib.crc32(body), body))
    shop.start("first", lease_s=30.0)
    shop.start("second", lease_s=30.0)
    shop.until(lambda: shop.states() == {"done": 1_000, "dead": 10})
    assert {row[2] for row in shop.rows() if row[1] == "done"} == {1}
    assert set(shop.logged("start").values()) == {1}, "none ran twice"
    assert (shop.directory / "first.journal").read_bytes() == b""


def test_workers_in_two_processes_share_and_rescue(shop: Shop) -> None:
    ids = shop.enqueue(40, 0.4)
    first = shop.start("first")
    shop.start("second")
    shop.until(lambda: shop.states()["running"] == 20)
    first.kill()
    first.wait()
    shop.until(lambda: shop.states()["done"] == 40)
    assert {row[2] for row in shop.rows()} <= {1, 2}
    assert set(shop.logged("end")) == set(ids)
    died = shop.rows("SELECT id, last_fault ->> 'code' FROM outlast.jobs WHERE attempt = 2")
    assert died
    assert {row[1] for row in died} == {"worker died"}
