"""A writer that is killed: what was acknowledged is there, every transaction is whole, and the next one goes on at once."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import apsw
import pytest

if TYPE_CHECKING:
    from pathlib import Path

WRITER = """
import asyncio, sys
from outlast.sqlite import Sqlite

async def main():
    db = Sqlite(sys.argv[1])
    await db.write(lambda c: c.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER, part INTEGER, PRIMARY KEY (a, part))"))
    first = (await db.read(lambda c: c.execute("SELECT coalesce(max(a), -1) + 1 FROM t").fetchall()))[0][0]
    for number in range(first, 1_000_000):
        await db.write(lambda c: c.executemany("INSERT INTO t VALUES (?, ?)", [(number, part) for part in range(5)]))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, rounds: int) -> None:
    rng = random.Random(9)
    path, acknowledged = tmp_path / "work.db", -1
    for _ in range(rounds):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 40)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            for line in writer.stdout:
                acknowledged = int(line)
        connection = apsw.Connection(str(path))
        assert connection.pragma("integrity_check") == "ok"
        rows = connection.execute("SELECT a, count(*) FROM t GROUP BY a ORDER BY a").fetchall()
        connection.close()
        assert [row[1] for row in rows] == [5] * len(rows), "every transaction is whole"
        assert len(rows) - 1 in {acknowledged, acknowledged + 1}, "the last may have been told to nobody"
        acknowledged = len(rows) - 1
