"""Points that are too old are deleted in small steps, beside writers, over a stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from served_tables import INTEGER, NOW_NS, point, served, served_by, write

from fake_procedure_store import FakeStore
from fake_table_store import FakeTableStore
from outlast.tables._schema.upkeep import EXPIRE_ROWS, EXPIRE_ROWS_MIN, rows_of
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from pathlib import Path

MINUTES_NS = 300_000_000_000


def test_new_tables_have_the_retention_that_was_given_and_old_points_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, retention_s=300.0) as process:
            assert (await write(process, point("m", NOW_NS, v=1), point("m", NOW_NS + MINUTES_NS, v=2))).stored == 2
            record = await process.tables.table("m")
            assert record is not None
            assert record.retention_s == 300.0
            await asyncio.sleep(300.0 - 1.0 - asyncio.get_running_loop().time())
            assert len(await process.points("m")) == 2
            await asyncio.sleep(62.0)
            assert set(await process.points("m")) == {("", NOW_NS + MINUTES_NS)}
            assert process.tables._tally.expired == 1

    run_virtual(main())


class SlowStore(FakeTableStore):
    """A store with one writer at a time, whose deletes take a tenth of a millisecond for each point."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = asyncio.Lock()
        self.waits: list[float] = []
        self.steps: list[int] = []

    async def expire(self, name: str, before_ns: int, count: int) -> int:
        async with self.lock:
            deleted = await super().expire(name, before_ns, count)
            self.steps.append(deleted)
            await asyncio.sleep(deleted * 0.0001)
        return deleted

    async def write(self, groups: Any, *, whole: bool = False) -> Any:
        began = asyncio.get_running_loop().time()
        async with self.lock:
            self.waits.append(asyncio.get_running_loop().time() - began)
            return await super().write(groups, whole=whole)


def test_ingest_goes_on_beside_a_large_backlog_and_no_write_waits_long_for_it(tmp_path: Path) -> None:
    """WAYS: lower the horizon by a year; no write waits over 100 ms."""

    async def main() -> None:
        process = served_by(SlowStore(), FakeStore(), tmp_path / "journal")
        await process.start()
        await write(process, point("m", 0, v=0))
        held = process.store.held.tables["m"].points
        held.update({(2, time): {"v": time} for time in range(20_000)})
        await process.tables.set_retention("m", 3_600.0)
        written = 0
        while len(held) > written:
            now = NOW_NS + round(asyncio.get_running_loop().time() * 1e9)
            written += (await write(process, point("m", now, v=1))).stored
            await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() < 600.0
        assert max(process.store.waits) <= 0.1
        assert max(process.store.steps) <= EXPIRE_ROWS
        assert sum(process.store.steps) == 20_000
        assert process.tables._tally.expired == 20_000
        await process.end()

    run_virtual(main())


def test_the_steps_go_on_after_a_stop_and_after_an_outage(tmp_path: Path, expected_logs: Any) -> None:
    expected_logs("store is down")

    async def main() -> None:
        store, procedures = FakeTableStore(latency_s=0.02), FakeStore()
        await store.shape("m", {"v": INTEGER}, fields_max=10, retention_s=3_600.0)
        held = store.held.tables["m"].points
        held.update({(2, time): {"v": time} for time in range(20_000)})
        first = served_by(store, procedures, tmp_path / "journal")
        await first.start()
        await asyncio.sleep(0.3)
        assert await first.end() == 0
        left = len(held)
        assert 0 < left < 20_000
        second = served_by(store.beside(), procedures.beside(), tmp_path / "journal")
        await second.start()
        await asyncio.sleep(0.2)
        assert len(held) < left
        second.store.trouble(Trouble.REFUSE)
        await asyncio.sleep(5.0)
        assert len(held) > 0
        second.store.heal()
        await asyncio.sleep(60.0)
        assert len(held) == 0
        await second.end()

    run_virtual(main())


@pytest.mark.parametrize(
    ("rows", "took_s", "next_rows"),
    [(1_000, 0.06, 500), (60, 0.2, EXPIRE_ROWS_MIN), (500, 0.02, 500), (500, 0.001, 1_000), (1_000, 0.001, EXPIRE_ROWS)],
)
def test_a_step_is_smaller_after_one_that_took_long(rows: int, took_s: float, next_rows: int) -> None:
    assert rows_of(rows, took_s) == next_rows


def test_all_tables_are_known_from_the_start_and_those_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeTableStore()
        for number in range(1_200):
            await store.shape(f"t{number:05}", {"v": INTEGER}, fields_max=10)
        process = served_by(store, FakeStore(), tmp_path / "journal")
        await process.start()
        assert len(process.tables._catalogue) == 1_200
        store.calls.clear()
        assert (await write(process, point("t00000", 1, v=1), point("t01199", 1, v=1))).stored == 2
        assert store.calls["table"] == 0
        await store.beside().drop("t01000")
        await store.beside().shape("another", {"v": INTEGER}, fields_max=10)
        await process.tables._upkeep.load()
        assert process.tables._catalogue.get("t01000") is None
        assert process.tables._catalogue.get("another") is not None
        assert len(process.tables._catalogue) == 1_200
        await process.end()

    run_virtual(main())
