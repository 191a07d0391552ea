"""A tablespace that is full refuses the points of its table for now; other tables go on, and it goes on by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from postgres_table_rig import PostgresRig
from table_store_rig import STRING, group, ids, read, refused, shape, write

from outlast import Kind
from outlast.tables._stores.postgres import _refusals
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from outlast.testing import PostgresServer

ROWS = 2_000


@pytest.mark.root
def test_a_full_tablespace_stops_its_own_table_alone(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refusals, "HELD_S", 0.0)
    rig = PostgresRig(server.dsn())

    async def main() -> None:
        async with rig.opened() as store:
            full, free = await shape(store, "full", s=STRING), await shape(store, "free", s=STRING)
            [of_full], [of_free] = await ids(store, full, ()), await ids(store, free, ())
            space = disk.path / "space"
            space.mkdir()
            owner = server.data.stat()
            os.chown(space, owner.st_uid, owner.st_gid)
            for folder in space.parents[:3]:
                folder.chmod(0o755)
            await rig.by_hand(f"CREATE TABLESPACE small LOCATION '{space}'")
            await rig.by_hand('ALTER TABLE "full" SET TABLESPACE small')
            disk.fill()
            rows = [[of_full, time, "x" * 100] for time in range(ROWS)]
            for _ in range(2):
                wrote = await store.write([group(full, "s", *rows), group(free, "s", [of_free, 1, "x"])])
                assert refused(wrote) == [(0, place) for place in range(ROWS)]
                assert {(one.fault.kind, one.fault.code) for one in wrote.refused} == {(Kind.EXHAUSTED, "53100")}
            assert len(await read(store, "free")) == 1
            with pytest.raises(Exception, match="No space left on device") as raised:
                await store.write([group(full, "s", *rows)])
            assert store.dependency.classifiers.classify(raised.value).kind is Kind.EXHAUSTED
            assert store.dependency.passable, "the server is not away"
            disk.free()
            await write(store, group(full, "s", *rows))
            assert len(await read(store, "full")) == ROWS
            await rig.by_hand('DROP TABLE "full"')
            await rig.by_hand("DROP TABLESPACE small")

    with SmallDisk(4 << 20) as disk:
        rig.run(main)
