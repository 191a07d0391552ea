"""The server of tables, and PostgreSQL, killed in the middle of writes: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from tables_at_work import TablesProcess, all_go_on, collecting, nothing_lost, typed

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync
    from outlast.testing import PostgresServer

MANY = pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(1200)])
WAIT_S_MAX = 0.3
ROUND_S_MAX = 30.0


@pytest.mark.parametrize("rounds", [1, MANY])
def test_what_was_acknowledged_is_in_the_file_after_kills(run_async: RunAsync, tmp_path: Path, rounds: int) -> None:
    rng = random.Random(rounds)

    async def main() -> None:
        async with collecting(tables, tables=3, points=10, every_s=0.01) as collectors:
            for _ in range(rounds):
                await asyncio.sleep(rng.uniform(0.0, WAIT_S_MAX))
                tables.kill()
                tables.start()
                await all_go_on(collectors)
            tables.kill()
        nothing_lost(collectors, tables)
        typed(collectors.sent)

    with TablesProcess(str(tmp_path / "metrics.db"), tmp_path) as tables:
        run_async(main, limit_s=60.0 + ROUND_S_MAX * rounds)


@pytest.mark.parametrize("rounds", [MANY])
def test_what_was_acknowledged_is_in_postgres_after_kills_of_either(
    run_async: RunAsync, server: PostgresServer, tmp_path: Path, rounds: int
) -> None:
    rng = random.Random(rounds)

    async def main() -> None:
        async with collecting(tables, tables=3, points=10, every_s=0.01) as collectors:
            for number in range(rounds):
                await asyncio.sleep(rng.uniform(0.0, WAIT_S_MAX))
                if number % 2:
                    tables.kill()
                    tables.start()
                else:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                await all_go_on(collectors)
            tables.kill()
        nothing_lost(collectors, tables)
        typed(collectors.sent)

    with TablesProcess(server.dsn(), tmp_path) as tables:
        run_async(main, limit_s=60.0 + ROUND_S_MAX * rounds)
