"""Tables as they show themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_tables import point, served, served_by, write

from fake_procedure_store import FakeStore
from fake_table_store import FakeTableStore
from outlast import Unavailable
from outlast.tables import TableLimits
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from served_tables import Served


def figures(process: Served) -> dict[str, dict[tuple[str, ...], float]]:
    return {figure.name: dict(figure.samples) for figure in process.tables.shown.figures()}


@pytest.mark.expected_logs("store is down|procedures are failing")
def test_figures_health_and_acts(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(points_per_s=100.0)) as process:
            process.store.held.by_hand("CREATE VIEW bad AS SELECT 1")
            await write(process, point("m", 1, "a", v=1), point("m", 1, "a", v=2), point("m", 2, "b", v="x"))
            await write(process, point("bad", 1, v=1), point("m", 3, "a", v=3))
            with pytest.raises(Unavailable):
                await write(process, *(point("m", time, v=1) for time in range(1_000)))
            found = figures(process)
            assert found["points"] == {("stored",): 3, ("never",): 1, ("waits for a person",): 1}
            assert found["refused_points"] == {("type",): 1, ("name taken",): 1}
            assert found["refused_bodies"] == {("rate",): 1}
            assert found["commits"] == {(): 2}
            assert found["rows"] == {(): 2}
            assert found["tables"] == {(): 1}
            assert found["series_known"] == {(): 4}
            assert found["tables_refused"] == {(): 1}
            for name in ("lost_points", "late_points", "expired_points", "line_points", "line", "tables_making"):
                assert found[name] == {(): 0}
            health = process.tables.shown.health()
            assert (health.well, health.state) == (True, "open")
            assert process.tables.shown.lag() is None
            assert process.tables.shown.acts() == []
            assert process.tables.shown in process.service.all_shown()
            process.store.trouble(Trouble.REFUSE)
            await write(process, point("m", 4, "a", v=4))
            health = process.tables.shown.health()
            assert (health.well, health.state) == (False, "waiting for store")
            assert health.cause is not None
            process.store.heal()
            await asyncio.sleep(5.0)
            assert process.tables.shown.health().well is True

    run_virtual(main())


def test_before_it_is_open_nobody_says_that_it_is_well(tmp_path: Path) -> None:
    async def main() -> None:
        process = served_by(FakeTableStore(), FakeStore(), tmp_path / "journal")
        health = process.tables.shown.health()
        assert (health.well, health.state) == (None, "not open yet")
        await process.start()
        assert process.tables.shown.health().well is True
        await process.end()

    run_virtual(main())


def test_a_refused_point_shows_its_line(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            long = b'm text="' + b"x" * 300 + b'" 5'
            lines = b'm v=1 1\nm v=2 2\r\nbad\nm v=true 3\r\nm v="a" 4\n' + long + b"\nm text=1 6"
            written = await process.tables.write_lines(lines)
            assert [(each.place, each.text) for each in written.refused] == [
                (3, "bad"),
                (4, "m v=true 3"),
                (5, 'm v="a" 4'),
                (7, "m text=1 6"),
            ]
            again = await process.tables.write_lines(b"m v=1 1\n" + long.replace(b"text", b"v"))
            assert [each.text for each in again.refused] == ['m v="' + "x" * 195]

    run_virtual(main())
