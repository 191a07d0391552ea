"""Bodies on their way: folded by key, typed by shape, each table for itself, and every point told apart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from served_tables import BOOLEAN, LATER, NEVER, NOW_NS, STRING, body, point, refusals, served, write

from outlast import Fault, Kind, Scope
from outlast.tables import FieldRecord, FieldType, Point, Range, TableLimits, TableRecord
from outlast.tables._errors import NameTakenError
from outlast.tables._tables import page_of
from outlast.tables._writing.writer import linger_s
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def test_a_table_and_its_fields_appear_with_the_first_points(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            written = await write(process, point("cpu", 1, "a", used=0.5, n=3), point("cpu", 2, "b", up=True, text="x"))
            assert (written.points, written.stored, written.refused, dict(written.counts)) == (2, 2, (), {})
            assert written.retry_after_s is None
            assert await process.points("cpu") == {("a", 1): {"used": 0.5, "n": 3}, ("b", 2): {"up": True, "text": "x"}}
            record = await process.tables.table("cpu")
            assert record is not None
            assert record.fields == (
                FieldRecord("used", "used", FieldType.FLOAT),
                FieldRecord("n", "n", FieldType.INTEGER),
                FieldRecord("up", "up", BOOLEAN),
                FieldRecord("text", "text", STRING),
            )
            assert process.made == ["cpu"]

    run_virtual(main())


def test_what_is_known_asks_no_procedure_and_no_more_of_the_store_than_the_write(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("cpu", 1, "a", v=1))
            process.store.calls.clear()
            before = process.procedures.statements["submit"]
            for time in range(2, 12):
                assert (await write(process, point("cpu", time, "a", v=time))).stored == 1
            assert dict(process.store.calls) == {"write": 10}
            assert process.procedures.statements["submit"] == before

    run_virtual(main())


def test_a_body_against_itself_is_folded_field_by_field(tmp_path: Path) -> None:
    """WAYS: `m f=1 1`, `m g=2 1`, `m f=3 1` are one row, f=3 and g=2."""

    async def main() -> None:
        async with served(tmp_path) as process:
            written = await write(process, point("m", 1, f=1), point("m", 1, g=2), point("m", 1, f=3))
            assert written.stored == 3
            assert await process.points("m") == {("", 1): {"f": 3, "g": 2}}

    run_virtual(main())


@pytest.mark.parametrize("first", [{"f": 1, "new": 2}, {"new": 2, "f": 1}])
def test_the_later_point_of_a_key_wins_also_where_the_earlier_waits_for_a_field(tmp_path: Path, first: Mapping[str, Any]) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 9, f=0))
            written = await write(process, ("m", {}, 1, first), point("m", 1, f=3), point("m", 2, f=4))
            assert written.stored == 3
            assert await process.points("m") == {("", 1): {"f": 3, "new": 2}, ("", 2): {"f": 4}, ("", 9): {"f": 0}}

    run_virtual(main())


def test_an_integer_field_that_meets_a_float_is_widened_and_both_stay_exact(tmp_path: Path) -> None:
    """WAYS: `m v=9007199254740993i 1`, then `m v=1.5 2`; other tables are written meanwhile."""

    async def main() -> None:
        async with served(tmp_path, latency_s=0.5) as process:
            await write(process, point("m", 1, v=9007199254740993), point("other", 1, v=1))
            widening = asyncio.create_task(write(process, point("m", 2, v=1.5)))
            await asyncio.sleep(0.1)
            assert (await write(process, point("other", 2, v=2))).stored == 1
            assert not widening.done()
            assert (await widening).stored == 1
            assert (await write(process, point("m", 3, v=7), point("m", 4, v=0.25))).stored == 2
            found = await process.points("m")
            assert found == {("", 1): {"v": 9007199254740993}, ("", 2): {"v": 1.5}, ("", 3): {"v": 7}, ("", 4): {"v": 0.25}}
            assert [type(fields["v"]) for fields in found.values()] == [int, float, int, float]

    run_virtual(main())


def test_a_field_of_floats_takes_integers_that_a_float_equals_and_refuses_the_others_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 1, v=0.5))
            written = await write(process, point("m", 2, v=4), point("m", 3, v=9007199254740993), point("m", 4, v=2**62))
            assert refusals(written) == [(2, NEVER, "type")]
            reason = "field 'v' of table 'm' is FLOAT, which does not hold the integer 9007199254740993 exactly"
            assert written.refused[0].reason == reason
            found = await process.points("m")
            assert found == {("", 1): {"v": 0.5}, ("", 2): {"v": 4.0}, ("", 4): {"v": 2.0**62}}
            assert {type(fields["v"]) for fields in found.values()} == {float}
            assert process.made == ["m"]

    run_virtual(main())


def test_a_conflict_of_types_is_refused_alone_with_its_line(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            written = await write(process, point("m", 1, v=1), point("m", 2, v="x"), point("m", 3, v=True), point("n", 1, v="x"))
            assert refusals(written) == [(2, NEVER, "type"), (3, NEVER, "type")]
            assert [each.reason for each in written.refused] == [
                "field 'v' of table 'm' is INTEGER, the value is a STRING",
                "field 'v' of table 'm' is INTEGER, the value is a BOOLEAN",
            ]
            assert (written.points, written.stored, dict(written.counts)) == (4, 2, {NEVER: 2})
            assert written.retry_after_s is None
            before = process.procedures.statements["submit"]
            assert refusals(await write(process, point("n", 2, v=1))) == [(1, NEVER, "type")]
            assert process.procedures.statements["submit"] == before

    run_virtual(main())


def test_points_without_a_time_have_one_time_and_the_last_wins(tmp_path: Path) -> None:
    """WAYS: three lines without a time, same tags; the same body again is another time."""

    async def main() -> None:
        async with served(tmp_path) as process:
            await asyncio.sleep(1.0 - asyncio.get_running_loop().time())
            for _ in range(2):
                assert (await write(process, *(point("m", None, v=value) for value in (1, 2, 3)))).stored == 3
                await asyncio.sleep(2.0 - asyncio.get_running_loop().time())
            found = await process.points("m")
            assert found == {("", NOW_NS + 1_000_000_000): {"v": 3}, ("", NOW_NS + 2_000_000_000): {"v": 3}}

    run_virtual(main())


def test_a_row_that_only_the_store_refuses_is_refused_alone_with_all_points_that_are_in_it(tmp_path: Path) -> None:
    fault = Fault(Kind.REJECTED, "22021", "it is no text", "store", Scope.CALL)

    async def main() -> None:
        async with served(tmp_path) as process:
            process.store.held.refuses = lambda table, fields: fault if fields.get("v") == 13 else None
            points = [point("m", time, v=time) for time in range(100)]
            written = await write(process, *points, point("n", 13, v=1))
            assert refusals(written) == [(14, NEVER, "22021")]
            assert written.stored == 100
            again = await write(process, point("m", 200, v=5), point("m", 200, v=13), point("m", 201, v=13, w=1))
            assert refusals(again) == [(1, NEVER, "22021"), (2, NEVER, "22021"), (3, NEVER, "22021")]

    run_virtual(main())


@pytest.mark.parametrize(
    ("kind", "outcome", "retry_after_s"),
    [(Kind.PERMANENT, "waits for a person", 1.0), (Kind.CONTENDED, "later", 1.0), (Kind.EXHAUSTED, "later", 1.0)],
)
def test_a_row_that_is_refused_for_the_state_of_its_table_may_come_again(
    tmp_path: Path, kind: Kind, outcome: str, retry_after_s: float
) -> None:
    fault = Fault(kind, "42501", "no right to write to it", "store", Scope.CALL)

    async def main() -> None:
        async with served(tmp_path) as process:
            process.store.held.refuses = lambda table, fields: fault if table == "m" else None
            written = await write(process, point("m", 1, v=1), point("n", 1, v=1))
            assert [(each.place, each.outcome.value) for each in written.refused] == [(1, outcome)]
            assert (written.stored, written.retry_after_s) == (1, retry_after_s)

    run_virtual(main())


def test_bodies_that_come_together_are_committed_together_and_acknowledged_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, *(point("m", 0, f"h{host}", v=0) for host in range(50)))
            process.store.written.clear()
            process.store.peer.latency_s = 1.0
            bodies = [write(process, *(point("m", time, f"h{host}", v=time) for host in range(50))) for time in range(1, 41)]
            first = asyncio.create_task(bodies[0])
            await asyncio.sleep(0.1)
            results = await asyncio.gather(first, *bodies[1:])
            assert [each.stored for each in results] == [50] * 40
            assert len(process.store.written) == 2, "the first alone, and the others while it was under way"
            assert process.store.written[0] == [50]
            assert sum(process.store.written[1]) == 39 * 50
            assert len(await process.points("m")) == 50 * 41

    run_virtual(main())


def test_a_large_body_is_committed_in_pieces_in_the_order_of_its_lines(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", -1, v=0, w=0))
            process.store.written.clear()
            # Each time comes three times, with other fields, the last one far behind the first.
            points = [point("m", time, v=1) for time in range(6_000)]
            points += [point("m", time, v=2, w=2) for time in range(6_000)]
            points += [point("m", time, v=3) for time in range(3_000)]
            written = await write(process, *points)
            assert written.stored == 15_000
            assert [sum(rows) for rows in process.store.written] == [5_000, 5_000, 5_000]
            found = await process.points("m")
            assert all(found["", time] == ({"v": 3, "w": 2} if time < 3_000 else {"v": 2, "w": 2}) for time in range(6_000))

    run_virtual(main())


def test_a_page_of_texts_has_fewer_points_than_one_of_numbers() -> None:
    fields = [FieldRecord("n", "n", FieldType.INTEGER), FieldRecord("s", "s", STRING), FieldRecord("t", "t", STRING)]
    record = TableRecord(1, "m", "m", tuple(fields))
    # 64 KiB a text: some 6 MB a page.
    assert [page_of(record, names) for names in (["n"], ["s"], ["n", "s", "t"], [], ["n"] * 20_000)] == [
        10_000,
        100,
        49,
        10_000,
        1,
    ]


def test_all_or_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            assert (await write(process, point("m", 1, v=1), point("n", 1, v=1), whole=True)).stored == 2
            written = await write(process, point("m", 2, v=2), point("m", 2, v="x"), point("new", 2, v=1), whole=True)
            assert (written.points, written.stored, dict(written.counts)) == (3, 0, {NEVER: 3})
            assert refusals(written) == [(2, NEVER, "type")]
            parsed = body(process.tables.known, point("m", 3, v=3))
            parsed.points = 1_501
            written = await process.tables.write_parsed(parsed, whole=True)
            assert (written.points, written.stored, dict(written.counts)) == (1_501, 0, {NEVER: 1_501})
            assert await process.points("m") == {("", 1): {"v": 1}}

    run_virtual(main())


def test_all_or_nothing_also_where_a_series_is_one_too_many(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tag_values_max=1)) as process:
            await write(process, point("m", 1, "a", v=1))
            written = await write(process, point("m", 2, "a", v=2), point("m", 2, "b", v=2), whole=True)
            assert (written.stored, refusals(written), dict(written.counts)) == (0, [(2, NEVER, "tag_values_max")], {NEVER: 2})
            assert await process.points("m") == {("a", 1): {"v": 1}}

    run_virtual(main())


def test_all_or_nothing_also_where_the_store_refuses_a_row_and_others_beside_it_are_stored(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 1, v=1), point("n", 1, v=1))
            fault = Fault(Kind.REJECTED, "13", "no 13s", scope=Scope.CALL)
            process.store.held.refuses = lambda _, fields: fault if fields.get("v") == 13 else None
            process.store.written.clear()
            whole, other = await asyncio.gather(
                write(process, point("m", 2, v=2), point("n", 2, v=13), whole=True), write(process, point("m", 3, v=3))
            )
            assert (whole.stored, refusals(whole), dict(whole.counts)) == (0, [(2, NEVER, "13")], {NEVER: 2})
            assert other.stored == 1
            assert await process.points("m") == {("", 1): {"v": 1}, ("", 3): {"v": 3}}
            assert process.store.written == [[1, 1], [1]], "a commit each"

    run_virtual(main())


@pytest.mark.expected_logs("procedures are failing")
def test_all_or_nothing_also_where_a_table_was_dropped_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 1, v=1), point("n", 1, v=1))
            process.store.held.drop("n")
            process.store.written.clear()
            written = await write(process, point("m", 2, v=2), point("n", 2, v=2), whole=True)
            assert written.stored == 2
            assert await process.points("m") == {("", 1): {"v": 1}, ("", 2): {"v": 2}}
            assert await process.points("n") == {("", 2): {"v": 2}}
            assert process.store.written == [[1, 1], [1, 1]]
            # One that cannot be made again takes the others with it.
            process.store.held.drop("n")
            process.store.held.fails = lambda _: NameTakenError("a view has it")
            written = await write(process, point("m", 3, v=3), point("n", 3, v=3), whole=True)
            assert (written.stored, [refusal.fault.code for refusal in written.refused]) == (0, ["name taken"])
            assert len(await process.points("m")) == 2

    run_virtual(main())


def test_bad_lines_that_the_parser_only_counted_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            parsed = body(process.tables.known, point("m", 1, v=1), point("m", 2, v=1))
            parsed.points = 5_000
            written = await process.tables.write_parsed(parsed)
            assert (written.points, written.stored, dict(written.counts)) == (5_000, 2, {NEVER: 4_998})

    run_virtual(main())


def test_points_from_python_and_lines(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            written = await process.tables.write(
                [
                    Point("cpu", {"used": 0.5}, {"host": "a", "empty": ""}, 1),
                    Point("cpu", {}, {}, 1),
                    Point("cpu", {"used": float("nan")}, {}, 1),
                    Point("", {"used": 1.0}, {}, 1),
                ]
            )
            assert refusals(written) == [(1, NEVER, "point"), (2, NEVER, "point"), (3, NEVER, "point")]
            assert "no field" in written.refused[0].reason
            assert "finite" in written.refused[1].reason
            assert "name of the table is empty" in written.refused[2].reason
            written = await process.tables.write_lines(b"cpu,host=b used=1 2\nbad\ncpu used=2 3", unit_ns=1_000_000_000)
            assert [(each.place, each.fault.code) for each in written.refused] == [(2, "line")]
            assert await process.points("cpu") == {
                ("a", 1): {"used": 0.5},
                ("b", 2_000_000_000): {"used": 1.0},
                ("", 3_000_000_000): {"used": 2.0},
            }

    run_virtual(main())


def test_what_can_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            tables = process.tables
            await write(process, *(point("cpu", time, host, v=time, w=0.5) for host in ("a", "b") for time in range(3)))
            await write(process, point("mem", 1, "c", v=1))
            read = [
                (each.tags, each.time_ns, dict(each.fields)) async for each in tables.read(Range("cpu", ("v",)), points_max=2)
            ]
            assert read == [((("host", "a"),), 0, {"v": 0}), ((("host", "a"),), 1, {"v": 1})]
            assert [each async for each in tables.read(Range("no"))] == []
            assert [(each.tags, each.time_ns, dict(each.fields)) for each in await tables.newest("cpu")] == [
                ((("host", "a"),), 2, {"v": 2, "w": 0.5}),
                ((("host", "b"),), 2, {"v": 2, "w": 0.5}),
            ]
            assert await tables.newest("no") == []
            assert [each.name for each in await tables.tables()] == ["cpu", "mem"]
            assert [each.name for each in await tables.tables(after="cpu")] == ["mem"]
            assert await tables.tag_names() == ["host"]
            assert await tables.tag_values("host", table="cpu") == ["a", "b"]
            counts = await tables.counts("cpu")
            assert counts is not None
            assert (counts.series, counts.points, counts.oldest_ns, counts.newest_ns) == (2, 6, 0, 2)
            assert await tables.counts("no") is None

    run_virtual(main())


def test_what_is_too_far_ahead_is_refused_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(future_s=60.0)) as process:
            now = NOW_NS + round(asyncio.get_running_loop().time() * 1e9)
            ahead = now + 60_000_000_000
            written = await write(process, point("m", ahead, v=1), point("m", ahead + 1, v=2), point("m", 0, v=3))
            assert refusals(written) == [(2, NEVER, "future")]
            assert f"time {ahead + 1} is after {ahead}" in written.refused[0].reason
            assert written.stored == 2

    run_virtual(main())


def test_a_sender_that_wants_no_sync_waits_for_no_commit_and_losses_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.peer.latency_s = 2.0
            before = asyncio.get_running_loop().time()
            written = await write(process, point("m", 1, v=1), durable=False)
            assert written.stored == 1
            assert asyncio.get_running_loop().time() == before
            held = process.store.held.tables["m"].points
            assert len(held) == 1
            await asyncio.sleep(3.0)
            assert len(held) == 2
            process.store.held.refuses = lambda table, fields: Fault(Kind.REJECTED, "no", "no", "store", Scope.CALL)
            assert (await write(process, point("m", 2, v=1), durable=False)).stored == 1
            await asyncio.sleep(3.0)
            assert process.tables._tally.lost == 1

    run_virtual(main())


def test_a_caller_that_is_cancelled_leaves_nothing_in_line(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, latency_s=1.0) as process:
            await write(process, point("m", 0, v=0))
            first = asyncio.create_task(write(process, point("m", 1, v=1)))
            second = asyncio.create_task(write(process, point("m", 2, v=2), point("new", 2, v=2)))
            await asyncio.sleep(0.1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert (await first).stored == 1
            assert (await write(process, point("m", 3, v=3))).stored == 1
            assert set(await process.points("m")) == {("", 0), ("", 1), ("", 3)}
            assert process.tables._line.points == 0

    run_virtual(main())


def test_a_body_that_is_not_written_in_time_is_refused_and_others_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.peer.latency_s = 4.0
            first = asyncio.create_task(write(process, point("m", 1, v=1)))
            await asyncio.sleep(0.1)
            late = await write(process, point("m", 2, v=2), deadline_s=1.0)
            assert refusals(late) == [(1, LATER, "deadline")]
            assert "not written within 1 s" in late.refused[0].reason
            assert late.retry_after_s == 1.0
            assert (await first).stored == 1
            process.store.peer.latency_s = 0.0
            assert set(await process.points("m")) == {("", 0), ("", 1)}

    run_virtual(main())


@pytest.mark.parametrize(
    ("took_s", "others", "expected"), [(0.004, True, 0.001), (0.004, False, 0.0), (1.0, True, 0.005), (0.0, True, 0.0)]
)
def test_who_is_alone_waits_for_nobody_and_the_others_for_a_part_of_a_commit(
    took_s: float,
    others: bool,  # noqa: FBT001
    expected: float,
) -> None:
    assert linger_s(took_s, others=others) == expected


def test_writers_that_come_again_after_a_commit_are_in_one_commit_with_those_that_waited(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.written.clear()
            process.store.peer.latency_s = 0.01

            async def writer(number: int) -> None:
                await asyncio.sleep(number * 0.003)
                for turn in range(20):
                    assert (await write(process, point("m", 100 * number + turn + 1, v=1))).stored == 1
                    # The answer, and the next body.
                    await asyncio.sleep(0.001)

            await asyncio.gather(*(writer(number) for number in range(4)))
            assert len(await process.points("m")) == 1 + 4 * 20
            # Of 20 rounds of all four; the first ones are apart.
            assert len(process.store.written) <= 23

    run_virtual(main())
