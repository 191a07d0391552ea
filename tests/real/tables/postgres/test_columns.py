"""The columns of a table of PostgreSQL: there are 1,600, and those that were dropped count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from postgres_table_rig import PostgresRig, emptied, shared_database
from table_store_rig import FLOAT, INTEGER, NUMBER, fields_of, group, ids, put, read, shape, types, write

from outlast.tables import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.testing import PostgresServer


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[str]:
    with shared_database(postgres.dsn()) as dsn:
        yield dsn


@pytest.fixture
def rig(shared: str) -> PostgresRig:
    return PostgresRig(emptied(shared))


@pytest.mark.parametrize("left", [pytest.param(0, marks=pytest.mark.long), 1, pytest.param(2, marks=pytest.mark.long)])
def test_what_has_no_column_left_is_left_out_and_the_known_are_written(rig: PostgresRig, left: int) -> None:
    """WAYS 151."""

    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 1, "w": 1}}, v=INTEGER, w=INTEGER)
            # 1,600 columns, of which series, time, v and w are four.
            names = [f"c{number}" for number in range(1_596 - left)]
            await rig.by_hand(f"ALTER TABLE cpu {', '.join(f'ADD {name} boolean' for name in names)}")
            await rig.by_hand(f"ALTER TABLE cpu {', '.join(f'DROP {name}' for name in names)}")
            record = await store.shape("cpu", {"a": INTEGER, "b": INTEGER, "v": FLOAT}, fields_max=500)
            expected = {"v": INTEGER, "w": INTEGER, **dict([("a", INTEGER), ("b", INTEGER)][:left])}
            assert types(record) == expected
            [series] = await ids(store, record, ())
            await write(store, group(record, "v w", [series, 2, 2, 2]))
            assert len(await read(store)) == 2
            assert await store.shape("cpu", {"a": INTEGER, "v": FLOAT}, fields_max=500) == record, "and again"

    rig.run(main)


@pytest.mark.long
def test_the_last_column_widens_a_field(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            names = [f"c{number}" for number in range(1_596)]
            await rig.by_hand(f"ALTER TABLE cpu {', '.join(f'ADD {name} boolean' for name in names)}")
            record = await store.shape("cpu", {"v": FLOAT, "a": INTEGER, "b": NUMBER}, fields_max=500)
            assert types(record) == {"v": INTEGER, "a": INTEGER}, "the new come first"

    rig.run(main)


def test_columns_and_tables_that_somebody_dropped_are_made_again(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            record = await shape(store, v=FLOAT, w=INTEGER)
            for broken in ('ALTER TABLE cpu DROP "v~float"', "ALTER TABLE cpu DROP v CASCADE", "DROP TABLE cpu"):
                await rig.by_hand(broken)
                [series] = await ids(store, record, ())
                wrote = await store.write([group(record, "v", [series, 2, 2.5])])
                assert (list(wrote.refused), set(wrote.stale)) == ([], {0})
                assert await shape(store) == record
                await write(store, group(record, "v w", [series, 2, 2.5, 1]))
                assert (await read(store))[-1] == ({}, 2, {"v": 2.5, "w": 1})
                rig.check()

    rig.run(main)


def test_what_somebody_dropped_is_absent_and_the_rest_is_read(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 1, "w": 1, "x": 1}}, v=INTEGER, w=INTEGER, x=INTEGER)
            await put(store, "cpu", (), {2: {"v": 1.5, "w": 2, "x": 2}}, v=FLOAT)
            await rig.by_hand("ALTER TABLE cpu DROP w, DROP v CASCADE")
            assert await read(store) == [({}, 1, {"x": 1}), ({}, 2, {"x": 2})]
            assert await read(store, Range("cpu", ("w",))) == []
            assert [await fields_of(store, row) for row in await store.newest("cpu", {}, 5)] == [{"x": 2}]
            await rig.by_hand("DROP TABLE cpu")
            assert await read(store) == []
            assert await store.newest("cpu", {}, 5) == []
            assert await store.expire("cpu", 10, 10) == 0
            counts = await store.counts("cpu")
            assert counts is not None
            assert (counts.points, counts.series, counts.is_exact) == (0, 1, True)

    rig.run(main)
