"""What every store of tables promises of the tables that it makes: their names, their fields, and who may make them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from table_store_rig import (
    BOOLEAN,
    FIELDS_MAX,
    FLOAT,
    INTEGER,
    NUMBER,
    STRING,
    TableStoreRig,
    group,
    ids,
    put,
    read,
    shape,
    tags,
    types,
    write,
)

from outlast import Kind, Scope, State
from outlast.extend import attached
from outlast.tables import NameTakenError, TableRecord
from outlast.tables._errors import StaleTableError

if TYPE_CHECKING:
    from outlast.tables._model import FieldType

LETTERS = "ä" * 32
"""64 bytes: one more than a name has in a store."""
ODD_NAMES = (
    "sqlite_x",
    "SQLITE_X",
    "pg_class",
    "outlast_tables",
    "outlast_procedures",
    "outlast_series",
    "a;b \"c\" \\ %s {} 'd'",
    "excluded",
    "select",
    "t",
    "Ünï cødé 🙂",
    "a.b/c-d",
    LETTERS,
    "x" * 63 + "1",
    "x" * 63 + "2",
    "CPU",
    "cpu",
)
ODD_FIELDS = (
    "time",
    "TIME",
    "series",
    "rowid",
    "xmin",
    "excluded",
    "value",
    "tags",
    "Value",
    'a "b" ; %s',
    LETTERS,
    "y" * 70 + "1",
    "y" * 70 + "2",
)


class ShapeContract:
    """A subclass has the fixture `rig`."""

    def test_a_table_is_made_and_gets_the_fields_that_it_lacks(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                assert await store.table("cpu") is None
                first = await store.shape("cpu", {"b": FLOAT, "a": INTEGER}, fields_max=9, retention_s=60.0)
                assert (first.name, first.stored, first.retention_s) == ("cpu", "cpu", 60.0)
                assert list(types(first).items()) == [("b", FLOAT), ("a", INTEGER)]
                again = await other.shape("cpu", {"c": STRING, "a": INTEGER}, fields_max=9, retention_s=5.0)
                assert list(types(again).items()) == [("b", FLOAT), ("a", INTEGER), ("c", STRING)]
                assert (again.id, again.created_at, again.retention_s) == (first.id, first.created_at, 60.0)
                assert await store.table("cpu") == again
                assert await shape(store, a=INTEGER) == again

        rig.run(main)

    def test_integers_and_floats_become_numbers_and_another_conflict_leaves_the_field(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await shape(store, i=INTEGER, f=FLOAT, s=STRING, b=BOOLEAN)
                record = await shape(store, i=FLOAT, f=INTEGER, s=INTEGER, b=STRING)
                assert types(record) == {"i": NUMBER, "f": NUMBER, "s": STRING, "b": BOOLEAN}
                assert await store.table("cpu") == record
                assert types(await shape(store, i=INTEGER, f=FLOAT)) == types(record)
                assert types(await shape(store, i=STRING)) == types(record)

        rig.run(main)

    def test_widening_keeps_integers_that_no_double_holds(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", (), {1: {"v": 2**53 + 1}}, v=INTEGER)
                await put(store, "cpu", (), {2: {"v": 1.5}}, v=FLOAT)
                await put(store, "cpu", (), {3: {"v": 2**63 - 1}, 4: {"v": 0.1}}, v=NUMBER)
                values = [fields["v"] for _, _, fields in await read(store)]
                assert values == [9007199254740993, 1.5, 9223372036854775807, 0.1]
                assert [type(value) for value in values] == [int, float, int, float]
                # What stood there as the other of the two is gone.
                await put(store, "cpu", (), {1: {"v": 0.25}, 2: {"v": 7}})
                assert [fields["v"] for _, _, fields in await read(store)][:2] == [0.25, 7]

        rig.run(main)

    def test_a_field_beyond_the_bound_is_left_out_and_the_known_stay(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                assert store.fields_limit >= 500
                record = await store.shape("cpu", {"a": INTEGER, "b": INTEGER, "c": INTEGER}, fields_max=2)
                assert list(types(record)) == ["a", "b"]
                record = await store.shape("cpu", {"d": INTEGER, "a": FLOAT}, fields_max=2)
                assert types(record) == {"a": NUMBER, "b": INTEGER}

        rig.run(main)

    def test_a_table_has_as_many_fields_as_the_store_says(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                wanted = {f"f{number}": INTEGER for number in range(store.fields_limit + 1)}
                await store.shape("wide", dict(list(wanted.items())[:900]), fields_max=100_000)
                record = await store.shape("wide", wanted, fields_max=100_000)
                assert list(types(record)) == list(wanted)[:-1]
                [series] = await ids(store, record, ())
                names = list(types(record))
                await write(store, group(record, names, [series, 1, *range(len(names))]))
                assert await read(store, "wide") == [({}, 1, {name: int(name[1:]) for name in names})]

        rig.run(main)

    def test_tables_come_in_the_order_of_their_names_by_bytes(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                names = ["b", "a", "Ä", "B", "ab", "🙂", "～"]
                for name in names:
                    await shape(store, name, v=INTEGER)
                ordered = ["B", "a", "ab", "b", "Ä", "～", "🙂"]
                assert [record.name for record in await store.tables()] == ordered
                assert [record.name for record in await store.tables(after="a", count=2)] == ["ab", "b"]
                assert await store.tables(after="🙂") == []
                assert [types(record) for record in await store.tables(count=1)] == [{"v": INTEGER}]

        rig.run(main)

    def test_odd_names_are_only_names(self, rig: TableStoreRig) -> None:
        """WAYS: reserved ones, ours, those that are cut in a store, and those that differ in capitals only."""

        async def main() -> None:
            async with rig.opened() as store:
                records: list[TableRecord] = []
                for number, name in enumerate(ODD_NAMES):
                    await put(store, name, tags(of=name), {number: {"v": number}}, v=INTEGER)
                    record = await store.table(name)
                    assert record is not None
                    records.append(record)
                for number, name in enumerate(ODD_NAMES):
                    assert await read(store, name) == [({"of": name}, number, {"v": number})]
                assert len({record.stored for record in records}) == len(ODD_NAMES)
                assert all(len(record.stored.encode()) <= 63 for record in records)
                assert len(await store.tables()) == len(ODD_NAMES), "the catalogue is whole"

        rig.run(main)

    def test_odd_names_of_fields_never_overwrite_the_time(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                fields: dict[str, FieldType] = dict.fromkeys(ODD_FIELDS, INTEGER)
                await store.shape("cpu", {"time": INTEGER}, fields_max=FIELDS_MAX)
                record = await store.shape("cpu", fields, fields_max=FIELDS_MAX)
                assert set(types(record)) == set(ODD_FIELDS)
                [series] = await ids(store, record, ())
                await write(store, group(record, ODD_FIELDS, [series, 77, *range(len(ODD_FIELDS))]))
                assert await read(store) == [({}, 77, {name: number for number, name in enumerate(ODD_FIELDS)})]

        rig.run(main)

    @pytest.mark.parametrize("kind", ["view", "table", "index"])
    def test_what_is_somebody_elses_is_refused_with_what_it_is(self, rig: TableStoreRig, kind: str) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await rig.by_hand("CREATE TABLE theirs (a integer)")
                made = {"view": "AS SELECT 1 AS a", "table": "(a integer)", "index": "ON theirs (a)"}[kind]
                await rig.by_hand(f"CREATE {kind} cpu {made}")
                for _ in range(2):
                    with pytest.raises(NameTakenError, match=f"(?s)'cpu'.* {kind} ") as taken:
                        await shape(store, v=INTEGER)
                    fault = attached(taken.value)
                    assert fault is not None
                    assert (fault.kind, fault.scope, bool(fault.hint)) == (Kind.PERMANENT, Scope.CALL, True)
                assert await store.table("cpu") is None, "nothing of it is left"
                assert store.dependency.state is State.UP, "it says nothing about the store"
                await put(store, "other", (), {1: {"v": 1}}, v=INTEGER)
                await rig.by_hand(f"DROP {kind} cpu")
                await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
                assert len(await read(store)) == 1

        rig.run(main)

    def test_many_make_the_same_table_and_fields_at_once(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as one, rig.opened() as two, rig.opened() as three, rig.opened() as four:
                stores = [one, two, three, four]
                for turn in range(3):
                    made = await asyncio.gather(*(shape(store, f"t{turn}", v=INTEGER) for store in stores * 2))
                    assert len({record.id for record in made}) == 1
                    wanted = [{f"f{number}": FLOAT, "all": STRING} for number in range(8)]
                    await asyncio.gather(
                        *(shape(store, f"t{turn}", **want) for store, want in zip(stores * 2, wanted, strict=True))
                    )
                    record = await one.table(f"t{turn}")
                    assert record is not None
                    assert set(types(record)) == {"v", "all", *(f"f{number}" for number in range(8))}
                    points = [put(store, f"t{turn}", (), {number: {"v": number}}) for number, store in enumerate(stores)]
                    await asyncio.gather(*points)
                    assert len(await read(one, f"t{turn}")) == 4

        rig.run(main)

    def test_many_open_an_empty_place_at_once(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async def one(name: str) -> None:
                async with rig.opened() as store:
                    await put(store, name, (), {1: {"v": 1}}, v=INTEGER)

            await asyncio.gather(*(one(f"t{number % 2}") for number in range(6)))
            async with rig.opened() as store:
                assert [record.name for record in await store.tables()] == ["t0", "t1"]

        rig.run(main)

    def test_a_dropped_table_is_gone_with_all_it_held_and_its_name_is_free(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                await put(store, "cpu", tags(host="a", zone="z"), {1: {"v": 1}, 2: {"v": 2}}, v=INTEGER)
                await put(store, "mem", tags(host="b"), {1: {"v": 1}}, v=INTEGER)
                old = await shape(store)
                assert await other.drop("cpu") is True
                assert await other.drop("cpu") is False
                assert await store.table("cpu") is None
                assert await read(store, "cpu") == []
                assert (await store.tag_names(), await store.tag_values("host")) == (["host"], ["b"])
                with pytest.raises(StaleTableError, match="'cpu'"):
                    await store.series(old, [tags(host="a")], tag_values_max=9)
                assert store.dependency.state is State.UP
                await put(store, "cpu", tags(host="a"), {3: {"v": "text"}}, v=STRING)
                assert await read(store) == [({"host": "a"}, 3, {"v": "text"})]
                fresh = await shape(store)
                assert fresh.id != old.id
                assert fresh.stored == "cpu"
                wrote = await store.write([group(old, "v", [1, 9, 9]), group(fresh, "v", [1, 9, "new"])])
                assert set(wrote.stale) == {0}, "whoever has the old one must look again"

        rig.run(main)

    def test_retention_is_set_and_kept(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                assert await store.set_retention("cpu", 5.0) is False
                record = await shape(store, v=INTEGER)
                assert record.retention_s is None
                assert await store.set_retention("cpu", 5.5) is True
                assert [one.retention_s for one in await store.tables()] == [5.5]
                assert await store.set_retention("cpu", None) is True
                assert await store.table("cpu") == record

        rig.run(main)

    def test_what_is_open_can_be_opened_and_closed_again(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
                await store.close()
                await store.open()
                await store.open()
                await put(store, "cpu", (), {2: {"v": 2}})
                assert len(await read(store)) == 2
                await store.close()

        rig.run(main)
