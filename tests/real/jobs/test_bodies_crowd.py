"""Two worker processes and a thousand good jobs beside those that block, hang through an outage, or kill their child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from outlast.jobs import Jobs, NewJob
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outlast.testing import PostgresServer

pytestmark = [pytest.mark.expected_logs, pytest.mark.long]
WORKER = Path(__file__).parent / "body_worker.py"
GOOD = 1_000


class Crowd:
    """A queue on a server of the test's own, and two workers on it."""

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self.server = server
        self.log = directory / "log"
        self.directory = directory

    def enqueue(self, *others: NewJob) -> None:
        """Enqueue the good jobs around the others."""

        async def main() -> None:
            jobs = Jobs(Postgres(self.server.dsn()))
            await jobs.migrate()
            good = [NewJob("good")] * (GOOD // 2)
            await jobs.enqueue_many([*others, *good, *good])
            await jobs.db.close()

        asyncio.run(main())

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        workers: list[subprocess.Popen[bytes]] = []
        for name in ("first", "second"):
            environment = {
                **os.environ,
                "WORKER_DSN": self.server.dsn(),
                "WORKER_JOURNAL": str(self.directory / f"{name}.journal"),
                "WORKER_LOG": str(self.log),
            }
            with (self.directory / f"{name}.stderr").open("ab") as stderr:
                workers.append(subprocess.Popen([sys.executable, WORKER], env=environment, stderr=stderr))
        try:
            yield
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()

    def logged(self, word: str) -> Counter[int]:
        lines = self.log.read_text(encoding="ascii").splitlines() if self.log.exists() else []
        return Counter(int(line.split()[1]) for line in lines if line.startswith(f"{word} "))

    def rows(self, kind: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.server.dsn()) as conn:
            query = "SELECT state, attempt, result FROM outlast.jobs WHERE kind = %s"
            return conn.execute(query, (kind,)).fetchall()

    def done(self) -> int:
        with psycopg.connect(self.server.dsn()) as conn:
            row = conn.execute("SELECT count(*) FROM outlast.jobs WHERE state = 'done'").fetchone()
        assert row is not None
        return int(row[0])

    def until(self, condition: Callable[[], bool]) -> None:
        waited = threading.Event()
        for _ in range(1_200):
            if condition():
                return
            waited.wait(0.1)
        pytest.fail(f"it did not come about: {(self.directory / 'first.stderr').read_text(encoding='utf-8')[-3000:]}")

    def check(self, kind: str, count: int, attempt: int = 1) -> None:
        """All done, in that attempt, and none twice."""
        assert self.rows(kind) == [("done", attempt, attempt)] * count
        assert self.logged(kind).total() == len(self.logged(kind)) == count


@pytest.fixture
def crowd(server: PostgresServer, tmp_path: Path) -> Crowd:
    return Crowd(server, tmp_path)


def test_jobs_that_block_for_a_second(crowd: Crowd) -> None:
    crowd.enqueue(*[NewJob("block")] * 20)
    with crowd.working():
        crowd.until(lambda: crowd.done() == GOOD + 20)
    crowd.check("block", 20)
    crowd.check("good", GOOD)
    assert crowd.logged("begun").total() == 20


def test_jobs_that_hang_through_an_outage(crowd: Crowd, tmp_path: Path) -> None:
    door = tmp_path / "door"
    crowd.enqueue(*[NewJob("hang", str(door), priority=1)] * 8, *[NewJob("finish", priority=1)] * 10)
    with crowd.working():
        crowd.until(lambda: crowd.logged("begun").total() == 18)
        crowd.server.stop()
        crowd.until(lambda: crowd.logged("finish").total() == 10)
        journals = [tmp_path / "first.journal", tmp_path / "second.journal"]
        # The outcomes of good jobs that were recorded when the server went may be there as well.
        crowd.until(lambda: sum(journal.read_bytes().count(b"}\n") for journal in journals) >= 10)
        crowd.server.start()
        crowd.until(lambda: crowd.done() == GOOD + 10)
        door.touch()
        crowd.until(lambda: crowd.done() == GOOD + 18)
    crowd.check("hang", 8)
    crowd.check("finish", 10)
    crowd.check("good", GOOD)


def test_jobs_that_kill_their_child_process(crowd: Crowd) -> None:
    crowd.enqueue(*[NewJob("die")] * 20)
    with crowd.working():
        crowd.until(lambda: crowd.done() == GOOD + 20)
    assert crowd.logged("died").total() == 20
    crowd.check("die", 20, attempt=2)
    crowd.check("good", GOOD)
