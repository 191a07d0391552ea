"""A process killed at any moment of its calls on a store of procedures leaves every record whole, and what it was told."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from outlast.procedures import ProcedureState
from outlast.procedures._stores.sqlite import SqliteStore
from outlast.sqlite import Sqlite

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

RUNNER = """
import asyncio, sys, uuid
from outlast.procedures._model import NewRecord, Priority, RecordWrite
from outlast.procedures._stores.sqlite import SqliteStore
from outlast.sqlite import Sqlite

async def main():
    store = SqliteStore(Sqlite(sys.argv[1]))
    await store.open()
    runner = uuid.uuid4().hex
    await store.beat(runner, "r", 0.2)
    print("ready", flush=True)
    while True:
        new = [NewRecord(uuid.uuid4().hex, "k", uuid.uuid4().hex, 1, Priority.NORMAL, "1", locks=("l",)) for _ in range(3)]
        await store.submit(new, runner)
        await store.beat(runner, "r", 0.2)
        for record in await store.claim(runner, ["k"], 5):
            await store.record([RecordWrite(record.id, record.token, "running", "1")])
            await store.record([RecordWrite(record.id, record.token, "done", "2", result_json="1")])
            print(record.id, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_every_record_is_whole_after_kill_9(tmp_path: Path, rounds: int) -> None:
    rng = random.Random(4)
    path, told = tmp_path / "work.db", set[str]()
    for _ in range(rounds):
        with subprocess.Popen([sys.executable, "-c", RUNNER, str(path)], stdout=subprocess.PIPE, text=True) as runner:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "ready\n"
            for _ in range(rng.randint(1, 30)):
                told.add(runner.stdout.readline().strip())
            runner.kill()
            told |= {line.strip() for line in runner.stdout}
        asyncio.run(_look(path, told))


async def _look(path: Path, told: set[str]) -> None:
    async with Sqlite(path) as db:
        assert await db.read(lambda connection: connection.pragma("integrity_check")) == "ok"
        store = SqliteStore(db)
        await store.open()
        found = await store.find(list(told))
        assert all(record is not None and record.state is ProcedureState.DONE for record in found), "what was told is kept"
        locks = await db.read(lambda connection: connection.execute("SELECT id FROM outlast_procedures_locks").fetchall())
        running = await store.records(states=[ProcedureState.RUNNING])
        assert [(record.id,) for record in running] == [tuple(row) for row in locks], "a lock is held by whoever runs"


def test_a_sweep_of_much_is_many_short_transactions(tmp_path: Path) -> None:
    from outlast.procedures._model import NewRecord, Priority, RecordWrite, Sweep

    async def main() -> None:
        async with Sqlite(tmp_path / "work.db") as db:
            store = SqliteStore(db)
            await store.open()
            await store.beat("a", "a", 60)
            new = [NewRecord(f"{number:032x}", "k", str(number), 1, Priority.NORMAL, "1", claim=True) for number in range(2_000)]
            begun = [one.record for one in await store.submit(new, "a")]
            await store.record([RecordWrite(one.id, one.token, "dead", "", failures=1, until_s=60) for one in begun])
            sizes: list[int] = []
            while (swept := await store.sweep(Sweep(None, None, dead_max=10, batch=100))).dead_deleted:
                sizes.append(swept.dead_deleted)
            assert sizes == [100] * 19 + [90]
            plan = await db.read(_plans)
            assert not [line for line in plan if line.startswith("SCAN") and "INDEX" not in line], plan

    asyncio.run(main())


def _plans(connection: apsw.Connection) -> list[str]:
    """How SQLite finds what each statement of the hot paths is about: by an index, never by all rows."""
    from outlast.procedures._stores.sqlite import looking, recording, submitting, sweeping

    statements = [
        submitting._BY_KEY,
        submitting._BY_ID,
        submitting._DUE,
        submitting._LEFT_BY_THE_DEAD,
        submitting._CLAIM,
        recording._READ,
        recording._STEP,
        recording._WAIT,
        recording._END,
        looking._HOLDER,
        looking._ENDED_LAST,
        looking._NEXT_DUE,
        sweeping._EXPIRE,
        sweeping._DELETE,
    ]
    lines: list[str] = []
    for statement in statements:
        values = [None] * (2 if "?2" in statement else statement.count("?"))
        lines += [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    return [line for line in lines if "outlast_procedures" in line or " p" in line]
