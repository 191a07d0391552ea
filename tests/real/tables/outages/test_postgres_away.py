"""PostgreSQL stopped, frozen, read-only and full under load: typed refusals, few lines, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from tables_at_work import LINES_MAX, TablesProcess, all_go_on, collecting, nothing_lost, since, typed, until

from outlast._drill.greptime.http.client import LOST
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunAsync
    from outlast._drill.greptime.http.collectors import Collectors
    from outlast.testing import PostgresServer

RESUMED_S_MAX = 2.0
DISK_BYTES = 64 << 20
WRITES = "-c default_transaction_read_only=off"


def order(server: PostgresServer, *statements: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True, options=WRITES) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def read_only(server: PostgresServer) -> None:
    # Sessions that are there already take it over with their next transaction.
    order(server, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")


def writable(server: PostgresServer) -> None:
    order(server, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


FAULTS: dict[str, tuple[Callable[[PostgresServer], None], Callable[[PostgresServer], None]]] = {
    "stopped": (lambda server: server.stop(), lambda server: server.start()),
    "frozen": (lambda server: server.freeze(), lambda server: server.thaw()),
    "read-only": (read_only, writable),
}


async def staged(
    tables: TablesProcess, collectors: Collectors, seconds: float, begin: Callable[[], object], end: Callable[[], object]
) -> tuple[list[str], float]:
    """Stage a fault and check what every one promises; returns the lines logged, and the seconds until a body was stored."""
    lines, began_s = len(tables.log()), time.monotonic()
    await asyncio.to_thread(begin)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(end)
    mended_s = time.monotonic()
    await all_go_on(collectors)
    during = since(collectors, began_s)
    assert not [each for each in during if each.status == LOST], "each was answered"
    typed(during)
    logged = tables.log()[lines:]
    assert len(logged) <= LINES_MAX, logged
    return logged, min(each.at_s for each in during if each.is_stored and each.at_s > mended_s) - mended_s


async def stopped_and_compared(tables: TablesProcess, collectors: Collectors) -> None:
    """End the server under load, and compare."""
    assert await asyncio.to_thread(tables.terminate) == 0, tables.log()[-5:]
    typed(collectors.sent)
    await asyncio.to_thread(nothing_lost, collectors, tables)


def test_it_refuses_while_postgres_is_away_and_goes_on(run_async: RunAsync, server: PostgresServer, tmp_path: Path) -> None:
    def restarted() -> None:
        tables.kill()
        tables.start()

    async def main() -> None:
        async with collecting(tables, tables=3, points=3, every_s=0.05) as collectors:
            for name in ("stopped", "read-only"):
                begin, end = FAULTS[name]
                began_s = time.monotonic()
                logged, _ = await staged(tables, collectors, 1.0, lambda begin=begin: begin(server), lambda end=end: end(server))
                assert [each for each in since(collectors, began_s) if not each.is_stored], "the fault was felt"
                assert logged, "and was told"
            # The cheap twin of the rounds in test_killed.py.
            for kill in (lambda: (server.kill(), server.start()), restarted):
                await asyncio.to_thread(kill)
                await all_go_on(collectors)
            await stopped_and_compared(tables, collectors)

    with TablesProcess(server.dsn(), tmp_path) as tables:
        run_async(main)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_after_half_a_minute_it_goes_on_at_once(run_async: RunAsync, server: PostgresServer, tmp_path: Path, fault: str) -> None:
    begin, end = FAULTS[fault]

    async def main() -> None:
        async with collecting(tables, tables=20, points=50, every_s=0.2) as collectors:
            began_s = time.monotonic()
            _, resumed_s = await staged(tables, collectors, 30.0, lambda: begin(server), lambda: end(server))
            assert [each for each in since(collectors, began_s) if not each.is_stored], "the fault was felt"
            assert resumed_s < RESUMED_S_MAX
            await stopped_and_compared(tables, collectors)

    with TablesProcess(server.dsn(), tmp_path) as tables:
        run_async(main, limit_s=150.0)


@pytest.fixture
def small_space(server: PostgresServer) -> Iterator[SmallDisk]:
    """A small disk that all tables lie on which are made from now on."""
    if (reason := SmallDisk.available("tmpfs")) is not None:
        pytest.skip(reason)
    with SmallDisk(DISK_BYTES) as disk:
        space, owner = disk.path / "space", server.data.stat()
        space.mkdir()
        os.chown(space, owner.st_uid, owner.st_gid)
        for path in (disk.path, *disk.path.parents[:2]):
            path.chmod(0o755)
        order(server, f"CREATE TABLESPACE small LOCATION '{space}'", "ALTER DATABASE postgres SET default_tablespace = small")
        yield disk
        # It has files open there.
        server.kill()


@pytest.mark.long
@pytest.mark.root
def test_a_full_tablespace_is_a_typed_refusal_and_it_goes_on(
    run_async: RunAsync, server: PostgresServer, small_space: SmallDisk, tmp_path: Path
) -> None:
    async def main() -> None:
        async with collecting(tables, tables=2, points=500, every_s=0.02) as collectors:
            began_s = time.monotonic()
            small_space.fill(leave_bytes=0)
            await until(lambda: any(not each.is_stored for each in since(collectors, began_s)), collectors)
            _, resumed_s = await staged(tables, collectors, 30.0, lambda: None, small_space.free)
            assert resumed_s < RESUMED_S_MAX
            await stopped_and_compared(tables, collectors)

    with TablesProcess(server.dsn(), tmp_path) as tables:
        run_async(main, limit_s=150.0)
