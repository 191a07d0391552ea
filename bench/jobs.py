"""Jobs enqueued and completed a second: Outlast against Procrastinate, on one real server, with the same durability.

    python bench/jobs.py                         # 3,000 jobs, median of 3 rounds
    python bench/jobs.py --json                  # the same, for a script

The server is started for the bench and writes its log to disk (fsync and synchronous_commit on). In a round each of the two
enqueues some jobs one by one, then the others in one batch, then does them all with 50 at a time; the jobs do nothing. Each
has a database of its own, whose statistics are brought up to date before the jobs are done, as in one that has run for a
while: without them Procrastinate takes twice as long. The clock of Outlast stops when the last result is recorded, that of
Procrastinate when the last function has returned. The figure is the median over the rounds, each of which is shown as
well. The exit code is 1 when Outlast completes fewer than 3 x the jobs a second that Procrastinate does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import procrastinate
import psycopg

import outlast
from outlast.jobs import Job, Jobs, NewJob
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

TIMES_MIN = 3.0
CONCURRENCY = 50
SINGLES = 500
"""Jobs that are enqueued one by one, each in a transaction of its own."""


async def analyze(dsn: str) -> None:
    """Bring the statistics up to date, which autovacuum does within a minute, too late for a bench."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("ANALYZE")


async def measure_outlast(dsn: str, count: int) -> dict[str, float]:
    """Measure the seconds for one enqueue after the other, for one batch, and for doing them all."""
    with tempfile.TemporaryDirectory() as directory:
        db = Postgres(dsn)
        jobs = Jobs(db, journal_path=Path(directory) / "journal")
        await jobs.migrate()
        finished, done = 0, asyncio.Event()

        @jobs.handler("nothing")
        async def nothing(job: Job) -> None:  # noqa: ARG001 - it does nothing
            nonlocal finished
            finished += 1
            if finished == SINGLES + count:
                done.set()

        started = time.perf_counter()
        for number in range(SINGLES):
            await jobs.enqueue("nothing", {"number": number})
        singles_s = time.perf_counter() - started
        started = time.perf_counter()
        await jobs.enqueue_many([NewJob("nothing", {"number": number}) for number in range(count)])
        batch_s = time.perf_counter() - started
        await analyze(dsn)
        service, stop = outlast.Service("bench"), outlast.Stop()
        jobs.work(service, workers=CONCURRENCY)
        started = time.perf_counter()
        running = asyncio.create_task(service.run(stop))
        await done.wait()
        # A job counts when its result is recorded, not when its function has returned.
        while (await jobs.counts())["default"].get("done", 0) < SINGLES + count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        work_s = time.perf_counter() - started
        stop.fire("measured")
        await running
        await db.close()
    return {"singles": SINGLES / singles_s, "batch": count / batch_s, "completed": (SINGLES + count) / work_s}


async def measure_procrastinate(dsn: str, count: int) -> dict[str, float]:
    """Measure the same with Procrastinate, as its documents say."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    finished, done = 0, asyncio.Event()

    @app.task(name="nothing")
    async def nothing(number: int) -> None:  # noqa: ARG001 - it does nothing
        nonlocal finished
        finished += 1
        if finished == SINGLES + count:
            done.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        started = time.perf_counter()
        for number in range(SINGLES):
            await nothing.defer_async(number=number)
        singles_s = time.perf_counter() - started
        started = time.perf_counter()
        await nothing.batch_defer_async(*[{"number": number} for number in range(count)])
        batch_s = time.perf_counter() - started
        await analyze(dsn)
        started = time.perf_counter()
        worker = app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
        working = asyncio.create_task(worker)
        await done.wait()
        work_s = time.perf_counter() - started
        working.cancel()
        await asyncio.wait({working})
    return {"singles": SINGLES / singles_s, "batch": count / batch_s, "completed": (SINGLES + count) / work_s}


CANDIDATES: dict[str, Any] = {"outlast": measure_outlast, "procrastinate": measure_procrastinate}


def measure(count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measure the jobs a second of each candidate: the median of the rounds."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    with PostgresServer(settings={"fsync": "on", "synchronous_commit": "on"}) as server:
        for number in range(rounds):
            for name, candidate in CANDIDATES.items():
                print(f"round {number + 1} of {rounds}: {name} ...", file=sys.stderr, flush=True)
                database = f"{name}_{number}"
                with psycopg.connect(server.dsn(), autocommit=True) as conn:
                    conn.execute(f"CREATE DATABASE {database}".encode())
                seen[name].append(asyncio.run(candidate(server.dsn(database), count)))
                print(f"    {seen[name][-1]['completed']:,.0f} completed a second", file=sys.stderr, flush=True)
    return {
        name: {what: statistics.median(row[what] for row in rows) for what in ("singles", "batch", "completed")}
        for name, rows in seen.items()
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=3_000, help="jobs in a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    figures = measure(options.jobs, options.rounds)
    ratio = {what: figures["outlast"][what] / figures["procrastinate"][what] for what in figures["outlast"]}
    if options.json:
        version = importlib.metadata.version("procrastinate")
        print(json.dumps({"per_s": figures, "ratio": ratio, "procrastinate": version, "jobs": options.jobs}, indent=2))
    else:
        print(f"{'jobs a second':<16}{'one by one':>12}{'in a batch':>12}{'completed':>12}")
        for name, row in (*figures.items(), ("ratio", ratio)):
            digits = 1 if name == "ratio" else 0
            print(f"{name:<16}" + "".join(f"{row[what]:>12,.{digits}f}" for what in ("singles", "batch", "completed")))
        kept = ratio["completed"] >= TIMES_MIN
        print(f"the promise {'holds' if kept else 'is broken'}: at least {TIMES_MIN:g} x the completed jobs a second")
    return 0 if ratio["completed"] >= TIMES_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
