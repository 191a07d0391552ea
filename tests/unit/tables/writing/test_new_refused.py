"""Limits: what is new is refused with the limit named, what is known goes on, and a refusal costs the store nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_tables import INTEGER, LATER, NEVER, body, point, refusals, served, write

from outlast import Kind, Unavailable
from outlast.tables import TableLimits
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path


def test_20_known_and_60_new_tables_at_50_a_minute(tmp_path: Path) -> None:
    """WAYS: known ones are stored all the time; new ones are told when to come back, and each is stored later."""

    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tables_per_minute=50.0)) as process:
            for number in range(20):
                await process.store.shape(f"known{number}", {"v": INTEGER}, fields_max=10)
            await asyncio.sleep(61.0)
            names = [f"known{number}" for number in range(20)] + [f"new{number}" for number in range(60)]
            left = names
            for turn in range(100):
                written = await write(process, *(point(name, turn, v=turn) for name in left))
                refused = {left[each.place - 1] for each in written.refused}
                assert not refused & set(names[:20])
                assert {(each.outcome, each.fault.code, each.fault.kind) for each in written.refused} <= {
                    (LATER, "rate", Kind.OVERLOADED)
                }
                if turn == 0:
                    assert len(refused) == 10
                    assert "more than 50 a minute" in written.refused[0].reason
                    assert "tables_per_minute" in written.refused[0].reason
                if not refused:
                    break
                assert written.retry_after_s is not None
                assert written.retry_after_s > 0
                left = [*names[:20], *sorted(refused)]
                await asyncio.sleep(written.retry_after_s)
            else:
                pytest.fail("some new table was never let in")
            assert len(process.store.held.tables) == 80

    run_virtual(main())


def test_a_rate_below_one_a_minute_is_not_zero(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tables_per_minute=0.5)) as process:
            assert (await write(process, point("a", 1, v=1))).stored == 1
            written = await write(process, point("b", 1, v=1))
            assert refusals(written) == [(1, LATER, "rate")]
            assert written.retry_after_s is not None
            # 120 s, and up to a fifth more so that not all come back at once.
            assert 119.0 < written.retry_after_s < 144.5
            await asyncio.sleep(written.retry_after_s)
            assert (await write(process, point("b", 1, v=1))).stored == 1

    run_virtual(main())


def test_a_rate_of_zero_makes_nothing_new_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tables_per_minute=0)) as process:
            await process.store.shape("known", {"v": INTEGER}, fields_max=10)
            await asyncio.sleep(61.0)
            written = await write(process, point("known", 1, v=1), point("new", 1, v=1))
            assert (written.stored, refusals(written)) == (1, [(2, NEVER, "rate")])
            assert written.refused[0].reason == "table 'new' is new, and tables_per_minute is 0: none is made"

    run_virtual(main())


def test_new_fields_have_a_rate_of_their_own_and_points_without_them_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(fields_per_minute=6.0)) as process:
            await write(process, point("m", 0, v=0))
            points = [point("m", number, **{f"f{number}": 1}) for number in range(1, 9)]
            written = await write(process, *points, point("m", 9, v=9))
            assert refusals(written) == [(6, LATER, "rate"), (7, LATER, "rate"), (8, LATER, "rate")]
            assert written.stored == 6
            await asyncio.sleep(60.0)
            assert (await write(process, *points)).stored == 8

    run_virtual(main())


def test_refusals_by_rate_and_by_number_cost_the_store_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tables_max=3, tables_per_minute=2, fields_max=2)) as process:
            assert (await write(process, point("a", 1, v=1), point("b", 1, v=1))).stored == 2
            process.store.calls.clear()
            submits = process.procedures.statements["submit"]
            for number in range(100):
                assert refusals(await write(process, point(f"c{number}", 1, v=1))) == [(1, LATER, "rate")]
                written = await write(process, point("a", 1, **{f"f{number}": 1, f"g{number}": 2}))
                assert refusals(written) == [(1, NEVER, "fields_max")]
            await asyncio.sleep(31.0)
            assert (await write(process, point("c", 1, v=1))).stored == 1
            calls = process.store.calls.copy()
            for number in range(100):
                written = await write(process, point(f"d{number}", 1, v=1))
                assert refusals(written) == [(1, NEVER, "tables_max")]
            assert "would be one more than 3" in written.refused[0].reason
            assert process.store.calls == calls
            assert set(calls) <= {"table", "shape", "series", "write", "tables"}
            assert calls["table"] == calls["shape"] == 1
            assert process.procedures.statements["submit"] == submits + 1

    run_virtual(main())


def test_a_table_that_fails_does_not_use_up_the_rate_of_others(tmp_path: Path, expected_logs: object) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tables_per_minute=3)) as process:
            process.store.held.by_hand("CREATE VIEW bad AS SELECT 1")
            for time in range(120):
                await write(process, point("bad", time, v=1))
                await asyncio.sleep(1.0)
            for number in range(3):
                assert (await write(process, point(f"new{number}", 1, v=1))).stored == 1

    expected_logs("procedures (still )?are failing")  # type: ignore[operator]
    run_virtual(main())


def test_a_field_more_than_the_limit_is_named_and_known_fields_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(fields_max=3)) as process:
            written = await write(
                process, point("m", 1, a=1, b=2), point("m", 2, b=1, c=2), point("m", 3, d=1), point("m", 4, a=1)
            )
            assert refusals(written) == [(3, NEVER, "fields_max")]
            assert written.refused[0].reason == (
                "field 'd' of table 'm' would be one more than 3: it has 3 fields, and the point brings 1 new ones "
                "(limit fields_max)"
            )
            # An integer that meets a float is no new field.
            assert (await write(process, point("m", 5, a=0.5))).stored == 1

    run_virtual(main())


def test_a_store_without_room_for_a_field_is_asked_once_a_minute(tmp_path: Path) -> None:
    """WAYS: dropped columns still count to PostgreSQL's limit, of which the catalogue knows nothing."""

    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            real = process.store.held.shape

            def full(name: str, fields: object, fields_max: int, retention_s: float | None) -> object:
                return real(name, {}, fields_max, retention_s)

            process.store.held.shape = full  # type: ignore[method-assign, assignment]
            submits = process.procedures.statements["submit"]
            for number in range(20):
                written = await write(process, point("m", 1, **{f"f{number}": 1}), point("m", 1, v=1))
                assert refusals(written) == [(1, NEVER, "fields_max")]
                await asyncio.sleep(1.0)
            assert "fields that were dropped may count, limit 990" in written.refused[0].reason
            assert process.procedures.statements["submit"] == submits + 1
            process.store.held.shape = real  # type: ignore[method-assign]
            await asyncio.sleep(60.0)
            assert (await write(process, point("m", 1, f0=1))).stored == 1

    run_virtual(main())


def test_a_tag_with_all_its_values_refuses_new_ones_from_memory_and_known_ones_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(tag_values_max=3)) as process:

            def at(host: str, zone: str) -> tuple[str, dict[str, str], int, dict[str, int]]:
                return "m", {"host": host, "zone": zone}, 1, {"v": 1}

            assert (await write(process, at("a", "x"), at("b", "x"), at("c", "x"))).stored == 3
            written = await write(process, at("d", "x"), at("a", "x"))
            assert refusals(written) == [(1, NEVER, "tag_values_max")]
            assert written.refused[0].reason == (
                "value 'd' of tag 'host' of table 'm' would be one more than 3 (limit tag_values_max)"
            )
            await asyncio.sleep(0.1)
            process.store.calls.clear()
            for number in range(50):
                written = await write(process, at(f"e{number}", "x"), at("b", "x"))
                assert (written.stored, refusals(written)) == (1, [(1, NEVER, "tag_values_max")])
            assert dict(process.store.calls) == {"write": 50}
            # A series that is new, of values that are known.
            assert (await write(process, at("a", "y"), at("b", "y"))).stored == 2
            assert dict(process.store.calls) == {"write": 51, "series": 1}
            await asyncio.sleep(61.0)
            assert refusals(await write(process, at("f", "x"))) == [(1, NEVER, "tag_values_max")]
            assert process.store.calls["series"] == 2

    run_virtual(main())


def test_the_quota_of_a_client_is_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(points_per_s=10.0)) as process:
            await write(process, point("m", 0, v=0), client="other")

            def many(count: int) -> list[object]:
                return [point("m", time, v=time) for time in range(count)]

            assert (await write(process, *many(100), client="ann")).stored == 100
            with pytest.raises(Unavailable) as refused:
                await write(process, *many(50), client="ann")
            assert (refused.value.fault.code, refused.value.fault.kind) == ("rate", Kind.OVERLOADED)
            assert refused.value.fault.reason == (
                "client 'ann' sends more than 10 points a second (limit points_per_s); this body has 50"
            )
            assert 4.9 < refused.value.retry_after_s < 6.1
            assert (await write(process, *many(50), client="bob")).stored == 50
            await asyncio.sleep(refused.value.retry_after_s)
            assert (await write(process, *many(50), client="ann")).stored == 50
            written = await write(process, *many(101), client="eve")
            assert (written.stored, dict(written.counts)) == (0, {NEVER: 101})
            assert written.refused[0].reason == (
                "101 points at once are more than client 'eve' may ever send: 100 (limit points_per_s, 10)"
            )
            assert process.tables._tally.bodies_refused == {"rate": 1}

    run_virtual(main())


def test_a_full_line_refuses_bodies_and_takes_one_when_it_is_empty(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(points_max=100)) as process:
            await write(process, point("m", 0, v=0))
            process.store.peer.latency_s = 1.0
            large = [point("m", time, v=time) for time in range(150)]
            assert (await write(process, *large)).stored == 150
            first = asyncio.create_task(write(process, *large))
            await asyncio.sleep(0.1)
            waiting = [asyncio.create_task(write(process, *large[: 40 + number])) for number in range(3)]
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable) as refused:
                process.tables.check(60)
            assert refused.value.fault.code == "line full"
            assert refused.value.fault.reason == ("81 points wait to be written, and 60 more are beyond 100 (limit points_max)")
            assert refused.value.retry_after_s == 1.0
            process.tables.check(19)
            results = await asyncio.gather(first, *waiting, return_exceptions=True)
            assert [getattr(each, "stored", 0) for each in results] == [150, 40, 41, 0]
            assert isinstance(results[3], Unavailable)

    run_virtual(main())


def test_what_waits_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, text=""))
            process.store.peer.latency_s = 1.0
            text = "x" * 65_000
            first = asyncio.create_task(write(process, point("m", 1, text=text)))
            await asyncio.sleep(0.1)
            parsed = body(process.tables.known, *(point("m", time, text=text) for time in range(1_100)))
            second = asyncio.create_task(process.tables.write_parsed(parsed))
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable, match="bytes wait to be written"):
                await write(process, point("m", 2, text=""))
            assert (await first).stored == 1
            assert (await second).stored == 1_100

    run_virtual(main())
