"""Tables on a disk that runs full: nothing stored is lost, what makes room goes on, and writing comes back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import pytest
from table_store_rig import INTEGER, STRING, group, ids, read, shape, tags, write

from outlast import Kind, State, Unavailable
from outlast.extend import Levels, attached
from outlast.sqlite import Sqlite
from outlast.tables._stores.sqlite import SqliteStore
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from conftest import RunAsync
    from outlast.tables import TableRecord

pytestmark = [pytest.mark.expected_logs, pytest.mark.root]

TEXT = "x" * 20_000


async def filled(store: SqliteStore, points: int) -> tuple[TableRecord, int]:
    """Make a table with one series and so many points of 20,000 bytes."""
    record = await shape(store, "cpu", v=STRING)
    [series] = await ids(store, record, tags(host="a"))
    await write(store, group(record, "v", *([series, time, TEXT] for time in range(points))))
    return record, series


def test_a_full_disk_loses_nothing_that_was_stored_and_writes_go_on_by_themselves(run_async: RunAsync) -> None:
    with SmallDisk(4 << 20) as disk:

        async def main() -> None:
            async with Sqlite(disk.path / "work.db", low=None) as db:
                store = SqliteStore(db)
                await store.open()
                record, series = await filled(store, 1)
                disk.fill(leave_bytes=1 << 20)
                stored, fault = 1, None
                while fault is None:
                    try:
                        await write(store, group(record, "v", [series, stored, TEXT], [series, stored + 1, TEXT]))
                        stored += 2
                    except apsw.FullError as error:
                        fault = attached(error)
                assert fault.kind is Kind.EXHAUSTED
                disk.free()
                await db.ready()
                assert [time for _, time, _ in await read(store)] == list(range(stored)), "a write is whole or not at all"
                await write(store, group(record, "v", [series, stored, TEXT]))
                assert len(await read(store)) == stored + 1

        run_async(main)


@pytest.mark.parametrize("how", ["expire", "drop"])
def test_while_room_is_low_writes_are_refused_and_what_makes_room_goes_on(run_async: RunAsync, how: str) -> None:
    with SmallDisk(8 << 20) as disk:

        async def main() -> None:
            async with Sqlite(disk.path / "work.db", low=Levels(2 << 20, 3 << 20)) as db:
                store = SqliteStore(db)
                await store.open()
                record, series = await filled(store, 40)
                disk.fill(leave_bytes=(2 << 20) - 10_000)
                with pytest.raises(OSError, match="writing stops below"):
                    await write(store, group(record, "v", [series, 99, TEXT]))
                assert db.state is State.DOWN
                refused: list[Any] = [
                    lambda: store.write([group(record, "v", [series, 99, TEXT])]),
                    lambda: shape(store, "mem", v=INTEGER),
                    lambda: store.series(record, [tags(host="b")], tag_values_max=9),
                ]
                for call in refused:
                    with pytest.raises(Unavailable) as caught:
                        await call()
                    assert caught.value.fault.kind is Kind.EXHAUSTED
                assert len(await read(store)) == 40, "reads go on"
                assert await store.tag_values("host") == ["a"]
                if how == "expire":
                    assert [await store.expire("cpu", 30, 20) for _ in range(3)] == [20, 10, 0]
                else:
                    assert await store.drop("cpu") is True
                disk.free()
                await db.ready()
                left = list(range(30, 40)) if how == "expire" else []
                assert [time for _, time, _ in await read(store)] == left
                await filled(store, 1)

        run_async(main)
