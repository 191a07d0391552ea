"""What every store of tables promises of what is read, looked at and expired."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from table_store_rig import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    STRING,
    TableStoreRig,
    fields_of,
    group,
    ids,
    put,
    read,
    series_of,
    shape,
    tags,
    write,
)

from outlast.tables import Range, TableRecord

if TYPE_CHECKING:
    from table_store_rig import Read

    from outlast.tables._stores.port import TableStore

A_X, A_Y, B_X, B, NONE = tags(host="a", zone="x"), tags(host="a", zone="y"), tags(host="b", zone="x"), tags(host="b"), ()
FIVE = (A_X, A_Y, B_X, B, NONE)


async def five(store: TableStore) -> TableRecord:
    """Write points at the times 0 to 3 for five series; `i` is there at each, and `odd` at times 1 and 3."""
    record = await shape(store, i=INTEGER, odd=STRING)
    found = await ids(store, record, *FIVE)
    rows = [[series, time, 10 * place + time] for place, series in enumerate(found) for time in range(4)]
    odd = [[series, time, f"{place}{time}"] for place, series in enumerate(found) for time in (1, 3)]
    await write(store, group(record, "i", *rows), group(record, "odd", *odd))
    return record


def all_five() -> list[Read]:
    return [
        (dict(of), time, {"i": 10 * place + time} | ({"odd": f"{place}{time}"} if time % 2 else {}))
        for place, of in enumerate(FIVE)
        for time in range(4)
    ]


class ReadContract:
    """A subclass has the fixture `rig`."""

    @pytest.mark.parametrize("page", [1, 3, 4, 7, 19, 20, 21])
    def test_all_is_read_page_by_page_in_the_order_of_series_and_time(self, rig: TableStoreRig, page: int) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await five(store)
                assert await read(store, page=page) == all_five()
                assert await store.read(Range("cpu"), count=0) == []

        rig.run(main)

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"host": ("a",)}, {A_X, A_Y}),
            ({"host": ("a", "b", "no")}, {A_X, A_Y, B_X, B}),
            ({"host": ()}, {A_X, A_Y, B_X, B}),
            ({"zone": ()}, {A_X, A_Y, B_X}),
            ({"zone": ("x",), "host": ("b",)}, {B_X}),
            ({"zone": (), "host": ("b",)}, {B_X}),
            ({"zone": ("x", "y"), "host": ("a", "b")}, {A_X, A_Y, B_X}),
            ({"host": ("no",)}, set()),
            ({"no": ()}, set()),
            ({"no": (), "host": ("a",)}, set()),
            ({}, set(FIVE)),
        ],
    )
    @pytest.mark.parametrize("page", [1, 2, 100])
    def test_series_are_chosen_by_their_tags(self, rig: TableStoreRig, asked: Any, expected: set[Any], page: int) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await five(store)
                await put(store, "mem", A_X, {9: {"i": 9}}, i=INTEGER)
                chosen = Range("cpu", tags=asked)
                places = [place for place, of in enumerate(FIVE) if of in expected]
                assert [of for _, of in await series_of(store, chosen, page=page)] == [FIVE[place] for place in places]
                points = [point for place in places for point in all_five()[4 * place : 4 * place + 4]]
                assert await read(store, chosen, page=page) == points
                newest = await store.newest("cpu", asked, page)
                assert [(dict(row[1]), row[2], await fields_of(store, row)) for row in newest] == points[3::4][:page]

        rig.run(main)

    @pytest.mark.parametrize(
        ("start", "end", "times"),
        [
            (1, 2, [1, 2]),
            (2, 2, [2]),
            (3, 99, [3]),
            (-5, 0, [0]),
            (2, 1, []),
            (4, 9, []),
            (-(2**63) + 2, 2**63 - 2, [0, 1, 2, 3]),
        ],
    )
    def test_a_stretch_of_time_has_both_its_ends(self, rig: TableStoreRig, start: int, end: int, times: list[int]) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await five(store)
                for page in (1, 2, 50):
                    found = await read(store, Range("cpu", start_ns=start, end_ns=end), page=page)
                    assert found == [point for point in all_five() if point[1] in times]

        rig.run(main)

    def test_points_without_any_of_the_fields_are_left_out(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await five(store)
                for page in (1, 3, 50):
                    odd = [(of, time, {"odd": fields["odd"]}) for of, time, fields in all_five() if time % 2]
                    assert await read(store, Range("cpu", ("odd",)), page=page) == odd
                    assert await read(store, Range("cpu", ("no", "odd")), page=page) == odd
                    both = await read(store, Range("cpu", ("odd", "i")), page=page)
                    assert both == all_five()
                assert [row[3] for row in await store.read(Range("cpu", ("no", "i", "odd")), count=2)] == [
                    (None, 0, None),
                    (None, 1, "01"),
                ]
                assert await read(store, Range("cpu", ("no",))) == []

        rig.run(main)

    def test_a_table_that_is_not_there_has_nothing(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                assert await store.read(Range("no")) == []
                assert await store.newest("no", {}, 9) == []
                assert await store.series_of(Range("no")) == []
                assert await store.tag_names("no") == []
                assert await store.tag_values("host", table="no") == []
                assert await store.counts("no") is None
                assert await store.expire("no", 10, 10) == 0
                assert await store.drop("no") is False

        rig.run(main)

    def test_the_newest_point_of_a_series_without_points_is_none(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, i=INTEGER, b=BOOLEAN, f=FLOAT)
                first, empty, last = await ids(store, record, A_X, A_Y, B)
                await write(
                    store, group(record, "i b", [first, -5, 1, True], [last, 7, 2, False]), group(record, "f", [first, -9, 1])
                )
                assert await store.newest("cpu", {}, 2) == [(first, A_X, -5, (1, True, None)), (last, B, 7, (2, False, None))]
                assert await store.newest("cpu", {}, 1) == [(first, A_X, -5, (1, True, None))]
                assert await store.newest("cpu", {"zone": ("y",)}, 9) == []
                assert [series for series, _ in await store.series_of(Range("cpu"))] == [first, empty, last]

        rig.run(main)

    def test_names_and_values_of_tags_are_sorted_and_none_comes_twice(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await put(store, "cpu", tags(host="web2", Zone="x", hold="%"), {1: {"v": 1}}, v=INTEGER)
                await put(store, "cpu", tags(host="web10", rack="_"), {1: {"v": 1}})
                await put(store, "cpu", tags(host="ä", rack="🙂"), {1: {"v": 1}})
                await put(store, "mem", tags(host="web2", disk="x"), {1: {"v": 1}}, v=INTEGER)
                assert await store.tag_names() == ["Zone", "disk", "hold", "host", "rack"]
                assert await store.tag_names(prefix="ho") == ["hold", "host"]
                assert await store.tag_names("mem") == ["disk", "host"]
                assert await store.tag_names("cpu", prefix="h", count=1) == ["hold"]
                assert await store.tag_names(count=2) == ["Zone", "disk"]
                assert await store.tag_names(prefix="%") == []
                assert await store.tag_values("host") == ["web10", "web2", "ä"]
                assert await store.tag_values("host", prefix="web", count=1) == ["web10"]
                assert await store.tag_values("host", table="mem") == ["web2"]
                assert await store.tag_values("host", table="cpu", prefix="web2") == ["web2"]
                assert await store.tag_values() == ["%", "_", "web10", "web2", "x", "ä", "🙂"]
                assert await store.tag_values(prefix="_") == ["_"]
                assert await store.tag_values(prefix="web") == ["web10", "web2"]
                assert await store.tag_values(table="cpu", count=3) == ["%", "_", "web10"]
                assert await store.tag_values(table="mem") == ["web2", "x"]
                assert await store.tag_values("no") == []

        rig.run(main)

    def test_a_small_table_is_counted_exactly(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await shape(store, v=INTEGER)
                counts = await store.counts("cpu")
                assert counts is not None
                assert (counts.series, counts.points, counts.is_exact) == (0, 0, True)
                assert (counts.oldest_ns, counts.newest_ns) == (None, None)
                one, two, _ = await ids(store, record, A_X, A_Y, B)
                await write(store, group(record, "v", [one, 5, 1], [one, -7, 1], [two, 9, 1]))
                counts = await store.counts("cpu")
                assert counts is not None
                assert (counts.series, counts.points, counts.is_exact) == (3, 3, True)
                assert (counts.oldest_ns, counts.newest_ns) == (-7, 9)

        rig.run(main)

    @pytest.mark.parametrize("count", [1, 3, 4, 100])
    def test_what_is_too_old_expires_some_at_a_time(self, rig: TableStoreRig, count: int) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await five(store)
                await put(store, "mem", A_X, {0: {"v": 1}}, v=INTEGER)
                assert await store.expire("cpu", -5, count) == 0
                deleted: list[int] = []
                for _ in range(50):
                    deleted.append(await store.expire("cpu", 3, count))
                    if not deleted[-1]:
                        break
                assert sum(deleted) == 15
                assert max(deleted) <= count
                assert await read(store) == [point for point in all_five() if point[1] == 3]
                assert len(await read(store, "mem")) == 1
                assert len(await series_of(store, Range("cpu"))) == 5, "their tags are known"
                # Points that come behind a walk that stands in the middle are not forgotten.
                while await store.expire("cpu", 4, 10):
                    pass
                await put(store, "cpu", NONE, {0: {"i": 0}})
                assert await store.expire("cpu", 4, 1) == 1
                await put(store, "cpu", A_X, {0: {"i": 0}})
                assert await store.expire("cpu", 4, 1) == 1
                assert await store.expire("cpu", 4, 1) == 0
                assert await read(store) == []

        rig.run(main)

    def test_another_process_goes_on_where_expiring_was_left(self, rig: TableStoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                await five(store)
                for one in itertools.islice(itertools.cycle([store, other]), 4):
                    assert await one.expire("cpu", 4, 5) == 5
                assert [await one.expire("cpu", 4, 5) for one in (store, other)] == [0, 0]

        rig.run(main)
