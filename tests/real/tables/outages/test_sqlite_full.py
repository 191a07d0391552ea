"""A file of SQLite on a disk that is full: writes are refused from memory, reads go on, and it goes on once there is room."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest
from tables_at_work import LINES_MAX, TablesProcess, all_go_on, collecting, nothing_lost, since, typed, until

from outlast._drill.greptime.http.client import HttpClient
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

pytestmark = pytest.mark.root
READ = "/api/suggest?type=metrics&q=table_"
METRICS = ["table_0", "table_1", "table_2", "table_3"]
POINTS = "/api/query?start=2023/11/14-00:00:00&end=2023/11/15-00:00:00&m=sum:table_0.n"
SECONDS = [pytest.param(0.5, id="short"), pytest.param(30.0, id="long", marks=pytest.mark.long)]


@pytest.mark.parametrize("seconds", SECONDS)
def test_it_refuses_from_memory_while_the_disk_is_full_and_goes_on(run_async: RunAsync, tmp_path: Path, seconds: float) -> None:
    async def main() -> None:
        async with collecting(tables, tables=4, points=20, every_s=0.01) as collectors:
            lines = len(tables.log())
            disk.fill(leave_bytes=1 << 20)
            full_s = time.monotonic()
            await until(lambda: any(not each.is_stored for each in since(collectors, full_s)), collectors)
            refused_s = time.monotonic()
            await asyncio.sleep(seconds)
            during = since(collectors, refused_s)
            assert during
            assert not [each for each in during if each.is_stored], "nothing is written while room is low"
            causes = {each.body for each in during}
            assert all(b"low space" in cause or b"available" in cause for cause in causes), causes
            client = HttpClient(tables.address)
            read = await client.ask(b"GET", READ)
            points = await client.ask(b"GET", POINTS)
            client.close()
            assert (read.status, json.loads(read.body)) == (200, METRICS)
            assert (points.status, json.loads(points.body)[0]["metric"]) == (200, "table_0.n")
            disk.free()
            await all_go_on(collectors)
            typed(since(collectors, full_s))
            assert len(tables.log()) - lines <= LINES_MAX, tables.log()
            assert await asyncio.to_thread(tables.terminate) == 0
        typed(collectors.sent)
        nothing_lost(collectors, tables)

    if (reason := SmallDisk.available("tmpfs")) is not None:
        pytest.skip(reason)
    with SmallDisk(48 << 20) as disk, TablesProcess(str(disk.path / "metrics.db"), tmp_path) as tables:
        run_async(main, limit_s=120.0)
