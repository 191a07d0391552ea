"""What every store of tables promises of points that are written, and of their series."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from table_store_rig import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    STRING,
    VALUES_MAX,
    TableStoreRig,
    group,
    ids,
    put,
    read,
    refused,
    shape,
    tags,
    write,
)

from outlast import Kind, Scope
from outlast.tables import Range
from outlast.tables._errors import StaleTableError
from outlast.tables._model import NAME_BYTES_MAX, SERIES_BYTES_MAX, TAG_VALUE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from outlast.tables import FieldType
    from outlast.tables._stores.port import TableStore

EXACT: tuple[tuple[FieldType, list[Any]], ...] = (
    (INTEGER, [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]),
    (FLOAT, [0.0, -0.5, 1e300, 5e-324, 0.1, 1.0, float(2**53)]),
    (STRING, ["", "12", "1.0", "true", "NULL", "ä🙂", 'a "b" \\ %s', "two\nlines", " ", "x" * 65_535, "\x01\x7f"]),
    (BOOLEAN, [True, False]),
)


class WriteContract:
    """A subclass has the fixture `rig`."""

    @pytest.mark.parametrize(("kind", "values"), EXACT, ids=[kind.value for kind, _ in EXACT])
    def test_a_value_comes_back_as_it_was(self, rig: TableStoreRig, kind: FieldType, values: list[Any]) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", (), {time: {"v": value} for time, value in enumerate(values)}, v=kind)
                found = [fields["v"] for _, _, fields in await read(store)]
                assert found == values
                assert [type(value) for value in found] == [type(value) for value in values]

        rig.run(main)

    def test_an_integer_in_a_field_of_floats_comes_back_as_a_float(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", (), {1: {"v": 5}, 2: {"v": -(2**53)}}, v=FLOAT)
                values = [fields["v"] for _, _, fields in await read(store)]
                assert values == [5.0, -9007199254740992.0]
                assert {type(value) for value in values} == {float}

        rig.run(main)

    @pytest.mark.parametrize("time", [-(2**63) + 2, -1, 0, 2**63 - 2])
    def test_every_time_is_kept(self, rig: TableStoreRig, time: int) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", (), {time: {"v": 1}}, v=INTEGER)
                assert await read(store, page=1) == [({}, time, {"v": 1})]
                assert [row[2] for row in await store.newest("cpu", {}, 9)] == [time]

        rig.run(main)

    def test_the_same_series_and_time_is_changed_field_by_field(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, f=INTEGER, g=INTEGER)
                [series] = await ids(store, record, tags(host="a"))
                await write(store, group(record, "f", [series, 1, 1]))
                await write(store, group(record, "g", [series, 1, 2]), group(record, "f", [series, 1, 3], [series, 2, 4]))
                for _ in range(2):
                    assert await read(store) == [({"host": "a"}, 1, {"f": 3, "g": 2}), ({"host": "a"}, 2, {"f": 4})]
                    # What is sent again changes nothing.
                    await write(store, group(record, "f", [series, 1, 3], [series, 2, 4]))

        rig.run(main)

    def test_series_are_told_apart_by_all_of_their_tags(self, rig: TableStoreRig) -> None:
        """WAYS: a tag that is absent is no NULL in a key, and a new tag makes another series."""

        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER)
                of = [(), tags(host="a"), tags(host="a", region="x"), tags(host="a", region="y"), tags(region="x")]
                found = await ids(store, record, *of)
                assert len(set(found)) == 5
                assert min(found) > 0
                assert await ids(store, record, *reversed(of)) == found[::-1], "they are there"
                for turn in range(2):
                    await write(store, group(record, "v", *([series, 1, turn] for series in found)))
                assert sorted((sorted(has.items()), time, fields) for has, time, fields in await read(store)) == sorted(
                    (list(one), 1, {"v": 1}) for one in of
                )
                other = await shape(store, "mem", v=INTEGER)
                assert set(await ids(store, other, *of)).isdisjoint(found)

        rig.run(main)

    def test_tags_are_kept_as_they_are(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                odd = ['"', "\\", "a=b,c d", "ä🙂", "%s", "{}", "\x01", "'; DROP TABLE cpu", "null", "1"]
                of = [*(((text, text),) for text in odd), tuple((text, "v") for text in sorted(odd))]
                record = await shape(store, v=INTEGER)
                found = await ids(store, record, *of)
                await write(store, group(record, "v", *([series, 1, 1] for series in found)))
                assert [tuple(has.items()) for has, _, _ in await read(store)] == of
                async with rig.opened() as other:
                    assert await ids(other, record, *of) == found

        rig.run(main)

    def test_many_make_the_same_series_at_once(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as one, rig.opened() as two:
                record = await shape(one, v=INTEGER)
                of = [tags(host=str(number)) for number in range(50)]
                made = await asyncio.gather(*(ids(store, record, *of[start:]) for store in (one, two) for start in (0, 10, 20)))
                assert [found == made[0][-len(found) :] for found in made] == [True] * 6
                assert len(set(made[0])) == 50

        rig.run(main)

    def test_a_tag_gets_no_more_values_than_allowed_and_the_known_go_on(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER)
                of = [tags(host=str(number), zone="z") for number in range(4)]
                found = await store.series(record, of, tag_values_max=3)
                assert [series > 0 for series in found.ids] == [True, True, True, False]
                assert dict(found.full) == {3: "host"}
                async with rig.opened() as other:
                    again = await other.series(record, [*of[1:], tags(zone="y"), tags(host="1", zone="y")], tag_values_max=3)
                    assert list(again.ids)[:3] == [found.ids[1], found.ids[2], 0]
                    assert all(again.ids[3:]), "another tag has room"
                    assert dict(again.full) == {2: "host"}
                assert await store.tag_values("host", table="cpu") == ["0", "1", "2"], "what is refused leaves nothing"
                other_table = await shape(store, "mem", v=INTEGER)
                assert all((await store.series(other_table, of[3:], tag_values_max=3)).ids), "the bound is that of one table"

        rig.run(main)

    def test_many_series_are_made_in_the_order_in_which_they_are_asked_for(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER)
                of = [tags(host=str(number)) for number in range(2_500)]
                found = await store.series(record, of, tag_values_max=2_300)
                assert dict(found.full) == dict.fromkeys(range(2_300, 2_500), "host")
                assert [place for place, series in enumerate(found.ids) if not series] == list(range(2_300, 2_500))
                again = await store.series(record, of[:2_300], tag_values_max=1)
                assert (list(again.ids), dict(again.full)) == (list(found.ids)[:2_300], {})

        rig.run(main)

    @pytest.mark.parametrize("count", [1, 2, 1_000])
    def test_a_row_that_the_store_refuses_is_alone(self, rig: TableStoreRig, count: int) -> None:
        """WAYS: 2**63, and text that is none, among points of many tables."""

        async def main() -> None:
            async with rig.opened() as store:
                good = await shape(store, "good", v=INTEGER, s=STRING)
                bad = await shape(store, "bad", v=INTEGER, s=STRING)
                [series] = await ids(store, good, ())
                [other] = await ids(store, bad, ())
                # Not in the order of their times: a refusal names the row of the call.
                rows: list[list[Any]] = [[other, time, time, "x"] for time in reversed(range(count))]
                places = sorted({0, count // 3, count - 1})
                for place in places:
                    rows[place][2 + place % 2] = 2**63 if place % 2 == 0 else "\ud800"
                wrote = await store.write(
                    [group(good, "v s", [series, 1, 1, "a"]), group(bad, "v s", *rows), group(good, "s", [series, 2, "b"])]
                )
                assert refused(wrote) == [(1, place) for place in places]
                assert not wrote.stale
                for one in wrote.refused:
                    assert (one.fault.kind, one.fault.scope) == (Kind.REJECTED, Scope.CALL)
                    assert "'bad'" in one.fault.reason
                assert [time for _, time, _ in await read(store, "bad")] == [
                    time for time in range(count) if count - 1 - time not in places
                ]
                assert len(await read(store, "good")) == 2
                await write(store, group(good, "v", [series, 3, 3]))

        rig.run(main)

    def test_of_a_whole_write_nothing_is_there_if_anything_is_refused_or_stale(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                good, bad = await shape(store, "good", v=INTEGER), await shape(store, "bad", v=INTEGER)
                [series], [of_bad] = await ids(store, good, ()), await ids(store, bad, ())
                await write(store, group(good, "v", [series, 1, 1]))
                rows = [group(good, "v", [series, 1, 7], [series, 2, 2]), group(bad, "v", [of_bad, 1, 1], [of_bad, 2, 2**63])]
                wrote = await store.write(rows, whole=True)
                assert (refused(wrote), set(wrote.stale)) == ([(1, 1)], set())
                assert (await read(store, "good"), await read(store, "bad")) == ([({}, 1, {"v": 1})], [])
                wrote = await store.write([rows[0], group(bad, "v", [of_bad, 1, 1])], whole=True)
                assert (refused(wrote), set(wrote.stale)) == ([], set())
                assert [len(await read(store, name)) for name in ("good", "bad")] == [2, 1]
                await other.drop("bad")
                wrote = await store.write([group(good, "v", [series, 3, 3]), group(bad, "v", [of_bad, 2, 2])], whole=True)
                assert (refused(wrote), set(wrote.stale)) == ([], {1})
                assert [time for _, time, _ in await read(store, "good")] == [1, 2]

        rig.run(main)

    @pytest.mark.parametrize("value", ["a\0b", "x" * 1_000_000, "\ud800", 2**63, -(2**63) - 1], ids=lambda value: repr(value)[:8])
    def test_a_value_that_nobody_foresaw_comes_back_as_it_was_or_is_refused_alone(self, rig: TableStoreRig, value: Any) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                kind = STRING if isinstance(value, str) else INTEGER
                record = await shape(store, v=kind)
                [series] = await ids(store, record, ())
                good = "good" if kind is STRING else 5
                wrote = await store.write([group(record, "v", [series, 1, good], [series, 2, value], [series, 3, good])])
                assert refused(wrote) in ([], [(0, 1)])
                expected = [({}, 1, {"v": good}), ({}, 2, {"v": value}), ({}, 3, {"v": good})]
                assert await read(store) == [point for point in expected if point[1] != 2 or not wrote.refused]

        rig.run(main)

    def test_the_longest_names_and_tags_are_taken(self, rig: TableStoreRig) -> None:
        """The bounds of `_model`, in letters that cannot be made shorter: an index of PostgreSQL takes 2,704 bytes."""

        async def main() -> None:
            rng = random.Random(15)

            def text(size: int) -> str:
                return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(size))

            async with rig.opened() as store:
                name, field = text(NAME_BYTES_MAX), text(NAME_BYTES_MAX)
                # {"a":"...","b":"..."} is 15 bytes and the values.
                of = tags(a=text(TAG_VALUE_BYTES_MAX), b=text(SERIES_BYTES_MAX - 15 - TAG_VALUE_BYTES_MAX))
                named = ((text(NAME_BYTES_MAX), "v"),)
                record = await store.shape(name, {field: INTEGER}, fields_max=9)
                found = await ids(store, record, of, named)
                await write(store, group(record, [field], *([series, 1, 1] for series in found)))
                assert await read(store, name) == [(dict(of), 1, {field: 1}), (dict(named), 1, {field: 1})]
                assert await store.tag_values("a", table=name) == [of[0][1]]
                assert await store.series_of(Range(name, tags={"a": (of[0][1],)})) == [(found[0], of)]

        rig.run(main)

    def test_what_is_cancelled_is_done_or_not_and_holds_up_nobody(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                record = await shape(store, v=INTEGER)
                first, second = await ids(store, record, (), tags(host="a"))
                for turn in range(10):
                    both = [
                        group(record, "v", *([first, time, turn] for time in range(200))),
                        group(record, "v", [second, turn, 1]),
                    ]
                    calls: list[Coroutine[Any, Any, Any]] = [
                        store.write(both),
                        shape(store, f"t{turn}", v=INTEGER),
                        store.series(record, [tags(host=f"new {turn}", of="all")], tag_values_max=99),
                    ]
                    tasks = [asyncio.create_task(call) for call in calls]
                    for _ in range(turn * turn):
                        await asyncio.sleep(0)
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    await write(other, group(record, "v", [second, -1, turn]))
                    values = {fields["v"] for has, _, fields in await read(other) if not has}
                    is_there = any(time == turn for has, time, _ in await read(other) if has)
                    assert (values == {turn}) == is_there
                    assert tasks[0].cancelled() or is_there
                    # Whatever became of them, to repeat them is harmless.
                    await put(store, f"t{turn}", (), {1: {"v": 1}}, v=INTEGER)
                    await ids(store, record, tags(host=f"new {turn}", of="all"))

        rig.run(main)

    def test_who_writes_while_others_drop_and_make_the_table_meets_no_error(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async def writer(store: TableStore, number: int) -> None:
                for turn in range(8):
                    record = await shape(store, f"{number % 2}", v=INTEGER, **{f"f{number}": FLOAT})
                    try:
                        [series] = await ids(store, record, tags(of=str(number)))
                    except StaleTableError:
                        continue
                    wrote = await store.write([group(record, "v", [series, turn, turn])])
                    assert (refused(wrote), set(wrote.stale) <= {0}) == ([], True)

            async def dropper(store: TableStore) -> None:
                for turn in range(6):
                    await store.drop(f"{turn % 2}")

            async with rig.opened() as one, rig.opened() as two:
                writers = [writer([one, two][number % 2], number) for number in range(6)]
                await asyncio.gather(*writers, dropper(one), dropper(two))
                for name in "01":
                    assert all(fields == {"v": time} for _, time, fields in await read(one, name))

        rig.run(main)

    def test_a_refusal_names_the_field_the_value_and_the_limit(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER)
                [series] = await ids(store, record, ())
                [one] = (await store.write([group(record, "v", [series, 1, 2**63])])).refused
                for part in ("'v'", "'cpu'", "9223372036854775808"):
                    assert part in one.fault.reason
                assert "9223372036854775807" in one.fault.reason + one.fault.hint

        rig.run(main)

    def test_a_group_whose_table_is_not_as_it_was_is_stale_and_the_others_are_written(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                for _ in range(2):
                    record = await shape(store, v=INTEGER, w=INTEGER)
                    kept = await shape(store, "kept", v=INTEGER)
                    [series], [of_kept] = await ids(store, record, ()), await ids(store, kept, ())
                    await write(store, group(record, "v", [series, 1, 1]))
                    # Others' new fields, and other tables, are no change of what is written here.
                    await shape(other, "cpu", new=STRING)
                    await shape(other, "another", v=INTEGER)
                    await other.set_retention("cpu", 5.0)
                    await write(store, group(record, "v w", [series, 1, 1, 1]))
                    await shape(other, "cpu", v=FLOAT)
                    wrote = await store.write([group(record, "v", [series, 2, 2]), group(kept, "v", [of_kept, 2, 2])])
                    assert (refused(wrote), set(wrote.stale)) == ([], {0})
                    await write(store, group(record, "w", [series, 3, 3]))
                    wide = await shape(store)
                    await write(store, group(wide, "v", [series, 2, 2.5]))
                    assert set((await store.write([group(record, "v", [series, 2, 2])])).stale) == {0}
                    await other.drop("cpu")
                    wrote = await store.write([group(wide, "w", [series, 4, 4]), group(kept, "v", [of_kept, 4, 4])])
                    assert (refused(wrote), set(wrote.stale)) == ([], {0})
                    assert [time for _, time, _ in await read(store, "kept")] == [2, 4]
                    await other.drop("kept")

        rig.run(main)

    def test_a_table_that_somebody_changed_by_hand_is_stale_alone_and_a_shape_puts_it_right(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER, w=INTEGER)
                kept = await shape(store, "kept", v=INTEGER)
                [series], [of_kept] = await ids(store, record, ()), await ids(store, kept, ())
                for time, statement in enumerate(["ALTER TABLE cpu DROP COLUMN v", "DROP TABLE cpu"]):
                    await write(store, group(record, "v", [series, time, 1]))
                    await rig.by_hand(statement)
                    wrote = await store.write([group(record, "v", [series, time, 2]), group(kept, "v", [of_kept, time, 2])])
                    assert (refused(wrote), set(wrote.stale)) == ([], {0})
                    assert len(await read(store, "kept")) == time + 1
                    assert await shape(store, v=INTEGER) == record
                    await write(store, group(record, "v w", [series, time, 3, 3]))
                    assert (await read(store))[-1] == ({}, time, {"v": 3, "w": 3})

        rig.run(main)

    def test_a_table_that_somebody_dropped_by_hand_is_empty_until_it_is_written_to(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", tags(host="a"), {1: {"v": 1}}, v=INTEGER)
                await rig.by_hand("DROP TABLE cpu")
                assert await read(store) == []
                assert await store.newest("cpu", {}, 9) == []
                assert await store.expire("cpu", 9, 9) == 0
                counts = await store.counts("cpu")
                assert counts is not None
                assert (counts.series, counts.points, counts.is_exact, counts.newest_ns) == (1, 0, True, None)
                await put(store, "cpu", tags(host="a"), {2: {"v": 2}}, v=INTEGER)
                assert await read(store) == [({"host": "a"}, 2, {"v": 2})]

        rig.run(main)

    def test_nothing_to_write_is_nothing(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER)
                await write(store)
                await write(store, group(record, "v"))
                assert (await store.series(record, [], tag_values_max=VALUES_MAX)).ids == []
                assert await read(store) == []

        rig.run(main)

    def test_many_write_at_once(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as one, rig.opened() as two:
                record = await shape(one, v=INTEGER)
                [series] = await ids(one, record, ())
                batches = [
                    group(record, "v", *([series, at, at] for at in range(start, start + 50))) for start in range(0, 400, 25)
                ]
                await asyncio.gather(*(write([one, two][number % 2], batch) for number, batch in enumerate(batches)))
                assert [time for _, time, _ in await read(one)] == list(range(425))

        rig.run(main)
