"""A store of procedures on a disk that runs full: submissions are refused with the cause, a sweep makes room, and it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from procedure_store_rig import DONE, begin, new, submit, written

from outlast import Kind, Unavailable
from outlast.extend import Levels
from outlast.procedures._model import Recorded, Sweep
from outlast.procedures._stores.sqlite import SqliteStore
from outlast.sqlite import Sqlite
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from conftest import RunAsync

pytestmark = [pytest.mark.expected_logs, pytest.mark.root]


def test_it_refuses_while_room_is_low_and_sweeps_all_the_same(run_async: RunAsync) -> None:
    with SmallDisk(8 << 20) as disk:

        async def main() -> None:
            async with Sqlite(disk.path / "work.db", low=Levels(2 << 20, 3 << 20)) as db:
                store = SqliteStore(db)
                await store.open()
                records = [await begin(store, f"k{number}", payload_json=f'"{"x" * 1_000}"') for number in range(20)]
                assert set(await store.record([written(record, DONE) for record in records])) == {Recorded.WRITTEN}
                disk.fill(leave_bytes=(2 << 20) - 10_000)
                with pytest.raises(OSError, match="writing stops below"):
                    await submit(store, "one more")
                with pytest.raises(Unavailable) as refused:
                    await store.submit([new("one more")], "a")
                assert refused.value.fault.kind is Kind.EXHAUSTED
                assert (await store.sweep(Sweep(done_keep_s=0, dead_keep_s=None, dead_max=0))).deleted == 20
                disk.free()
                await db.ready()
                await submit(store, "one more")
                assert [record.key for record in await store.records()] == ["one more"]

        run_async(main)
