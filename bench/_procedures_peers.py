"""The candidates of `procedures.py`, each run as a process of its own: `_procedures_peers.py NAME PLACE COUNT` prints seconds.

Every function has a fresh and empty place: a database's DSN, or a directory. The work does nothing, 50 are under way at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from absurd_sdk import AsyncTaskContext

    from outlast.procedures import Procedure, Procedures, Run

CONCURRENCY = 50


async def analyze(dsn: str) -> None:
    """Bring the statistics up to date, which autovacuum does within a minute, too late for a bench."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("ANALYZE")


def outlast_procedure(steps: int) -> Procedure:
    from outlast.procedures import Procedure

    nothing = Procedure("nothing")
    for number in range(steps):

        @nothing.step(name=f"step-{number}")
        async def step(run: Run) -> int:  # noqa: ARG001 - it does nothing
            return 1

    return nothing


async def submit_all(procedures: Procedures, count: int) -> None:
    await asyncio.gather(*(procedures.submit("nothing", f"key-{number}", {"number": number}) for number in range(count)))


async def outlast_served(procedures: Procedures, count: int, before: Callable[[], Awaitable[object]] | None) -> float:
    """Return the seconds until all are recorded as done; with `before`, from when they were submitted and it was called."""
    import outlast

    service, stop = outlast.Service("bench"), outlast.Stop()
    procedures.attach(service)
    if before is not None:
        await procedures.store.dependency.open()
        await submit_all(procedures, count)
        await before()
    begun = time.perf_counter()
    running = asyncio.create_task(service.run(stop))
    if before is None:
        while not service.ready:  # noqa: ASYNC110 - the start of a process is not measured
            await asyncio.sleep(0.01)
        begun = time.perf_counter()
        await submit_all(procedures, count)
    # A procedure counts when its end is recorded, not when its function has returned.
    while procedures.tally.ended["done"] < count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    seconds = time.perf_counter() - begun
    stop.fire("measured")
    await running
    return seconds


async def outlast_postgres(dsn: str, count: int, steps: int) -> float:
    from outlast.postgres import Postgres
    from outlast.procedures import Procedures

    with tempfile.TemporaryDirectory() as directory:
        db = Postgres(dsn)
        journal = Path(directory) / "journal"
        procedures = Procedures(db, [outlast_procedure(steps)], slots=CONCURRENCY, journal_path=journal)
        before = (lambda: analyze(dsn)) if steps == 1 else None
        seconds = await outlast_served(procedures, count, before)
        await db.close()
    return seconds


async def outlast_one(dsn: str, count: int) -> float:
    return await outlast_postgres(dsn, count, 1)


async def outlast_three(dsn: str, count: int) -> float:
    return await outlast_postgres(dsn, count, 3)


async def procrastinate_one(dsn: str, count: int) -> float:
    """Defer in batches, then work, as its documents say; until the last function has returned."""
    import procrastinate

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    finished, done = 0, asyncio.Event()

    @app.task(name="nothing")
    async def nothing(number: int) -> None:  # noqa: ARG001 - it does nothing
        nonlocal finished
        finished += 1
        if finished == count:
            done.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await nothing.batch_defer_async(*[{"number": number} for number in range(count)])
        await analyze(dsn)
        begun = time.perf_counter()
        working = asyncio.create_task(app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))
        await done.wait()
        seconds = time.perf_counter() - begun
        working.cancel()
        await asyncio.wait({working})
    return seconds


async def oban_one(dsn: str, count: int) -> float:
    """Enqueue in one batch, then work, as its documents say; until the last function has returned."""
    from oban import Oban, worker
    from oban.schema import install

    finished, done = 0, asyncio.Event()

    @worker(queue="default")
    class Nothing:
        async def process(self, job: object) -> None:  # noqa: ARG002 - it does nothing
            nonlocal finished
            finished += 1
            if finished == count:
                done.set()

    pool = await Oban.create_pool(dsn)
    await install(pool)
    await Oban(pool=pool).enqueue_many([Nothing.new({"number": number}) for number in range(count)])
    await analyze(dsn)
    begun = time.perf_counter()
    async with Oban(pool=pool, queues={"default": CONCURRENCY}):
        await done.wait()
        seconds = time.perf_counter() - begun
    await pool.close()
    return seconds


async def dbos_three(dsn: str, count: int) -> float:
    """Start workflows on the event loop, 50 at a time, which is quicker than one of its queues; until the last has its result."""
    from dbos import DBOS

    DBOS(config={"name": "bench", "system_database_url": dsn, "log_level": "ERROR", "sys_db_pool_size": 20})

    @DBOS.step()
    async def step() -> int:
        return 1

    @DBOS.workflow()
    async def nothing(number: int) -> int:
        return await step() + await step() + await step() + number

    DBOS.launch()
    room = asyncio.Semaphore(CONCURRENCY)

    async def one(number: int) -> None:
        async with room:
            handle = await DBOS.start_workflow_async(nothing, number)
            await handle.get_result()

    begun = time.perf_counter()
    await asyncio.gather(*map(one, range(count)))
    seconds = time.perf_counter() - begun
    DBOS.destroy()
    return seconds


async def absurd_three(dsn: str, count: int) -> float:
    """Spawn all, then work on 50 at a time with its asynchronous worker; until the last function has returned."""
    from absurd_sdk import AsyncAbsurd

    def prepare(*arguments: str) -> None:
        program = Path(sys.executable).parent / "absurdctl"
        subprocess.run([program, *arguments], check=True, env={**os.environ, "PGDATABASE": dsn}, capture_output=True)

    prepare("init")
    prepare("create-queue", "default")
    finished, done = 0, asyncio.Event()
    absurd = AsyncAbsurd(dsn)

    @absurd.register_task("nothing")
    async def nothing(params: object, context: AsyncTaskContext) -> int:  # noqa: ARG001 - it does nothing
        nonlocal finished

        async def step() -> int:
            return 1

        total = 0
        for number in range(3):
            total += await context.step(f"step-{number}", step)
        finished += 1
        if finished == count:
            done.set()
        return total

    for number in range(count):
        await absurd.spawn("nothing", {"number": number})
    await analyze(dsn)
    begun = time.perf_counter()
    working = asyncio.create_task(absurd.start_worker(concurrency=CONCURRENCY))
    await done.wait()
    seconds = time.perf_counter() - begun
    absurd.stop_worker()
    await working
    await absurd.close()
    return seconds


async def outlast_sqlite(directory: str, count: int) -> float:
    """Submit, do and record procedures of one step in a file; until all are recorded."""
    from outlast.procedures import Procedures
    from outlast.sqlite import Sqlite

    db = Sqlite(Path(directory) / "work.db")
    procedures = Procedures(db, [outlast_procedure(1)], slots=CONCURRENCY, journal_path=Path(directory) / "journal")
    seconds = await outlast_served(procedures, count, None)
    await db.close()
    return seconds


async def bare_sqlite(directory: str, count: int) -> float:
    """Insert rows, each in a transaction of its own, with the settings of the store."""
    import apsw

    conn = apsw.Connection(str(Path(directory) / "bare.db"))
    conn.pragma("journal_mode", "wal")
    conn.pragma("synchronous", "full")
    conn.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, key TEXT UNIQUE, payload TEXT)")
    begun = time.perf_counter()
    for number in range(count):
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("INSERT INTO rows (key, payload) VALUES (?, ?)", (f"key-{number}", '{"number": 1}'))
        conn.execute("COMMIT")
    seconds = time.perf_counter() - begun
    conn.close()
    return seconds


CANDIDATES = {
    each.__name__: each
    for each in (
        outlast_one,
        procrastinate_one,
        oban_one,
        outlast_three,
        dbos_three,
        absurd_three,
        outlast_sqlite,
        bare_sqlite,
    )
}


def main(name: str, place: str, count: str) -> None:
    logging.disable(logging.WARNING)
    print(json.dumps({"s": asyncio.run(CANDIDATES[name](place, int(count)))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
