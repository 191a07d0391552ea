"""Tables that are made: many that want one, those that cannot be made, those that take long, and their healing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from served_tables import FLOAT, INTEGER, LATER, NEVER, NOW_NS, PERSON, point, refusals, served, served_by, write

from fake_procedure_store import FakeStore
from fake_table_store import FakeTableStore
from outlast import Fault, Kind, OutlastError, Scope
from outlast.procedures import Procedures
from outlast.tables import TableLimits
from outlast.tables._schema.shape_procedures import SHAPE_KIND
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from pathlib import Path


class BrokenError(OutlastError):
    """The making of a table meets this fault."""


def broken(kind: Kind, code: str) -> BrokenError:
    return BrokenError("it is broken", Fault(kind, code, "it is broken", "store", Scope.CALL))


def test_many_that_want_one_new_table_join_one_procedure(tmp_path: Path) -> None:
    """WAYS: the first write to one new table, from many at once."""

    async def main() -> None:
        async with served(tmp_path, latency_s=0.1) as process:
            written = await asyncio.gather(*(write(process, point("m", time, v=time)) for time in range(200)))
            assert [each.stored for each in written] == [1] * 200
            assert process.made == ["m"]
            assert process.procedures.statements["submit"] == 1
            assert len(await process.points("m")) == 200

    run_virtual(main())


def test_fields_that_many_want_are_made_together_and_those_that_come_later_in_a_second_procedure(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, latency_s=0.1) as process:
            first = [asyncio.create_task(write(process, point("m", time, **{f"f{time}": 1}))) for time in range(50)]
            await asyncio.sleep(0.15)
            later = [asyncio.create_task(write(process, point("m", time, **{f"f{time}": 1}))) for time in range(50, 100)]
            assert [each.stored for each in await asyncio.gather(*first, *later)] == [1] * 100
            assert process.made == ["m", "m"]
            record = await process.tables.table("m")
            assert record is not None
            assert {field.name for field in record.fields} == {f"f{number}" for number in range(100)}

    run_virtual(main())


def test_many_processes_that_want_one_new_table_and_other_fields_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        store, procedures = FakeTableStore(latency_s=0.02), FakeStore(latency_s=0.02)
        processes = [served_by(store, procedures, tmp_path / "0")]
        processes += [served_by(store.beside(), procedures.beside(), tmp_path / str(number)) for number in range(1, 5)]
        for process in processes:
            await process.start()
        writes = [
            write(process, point("m", number, **{f"f{number}": 1}), point("m", 100, all=number))
            for number, process in enumerate(processes)
        ]
        written = await asyncio.gather(*writes)
        assert [each.stored for each in written] == [2] * 5
        assert len(await processes[0].points("m")) == 6
        for process in processes:
            await process.end()

    run_virtual(main())


@pytest.mark.expected_logs("procedures is failing|procedures are failing")
def test_a_table_whose_name_is_taken_refuses_its_own_points_from_memory_and_nobody_elses(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            process.store.held.by_hand("CREATE VIEW bad AS SELECT 1")
            await write(process, point("good", 0, v=0))
            written = await write(process, point("bad", 1, v=1), point("good", 1, v=1), point("bad", 2, v=1))
            assert refusals(written) == [(1, PERSON, "name taken"), (3, PERSON, "name taken")]
            assert written.refused[0].reason == "table 'bad' cannot be made: a view has this name"
            assert written.stored == 1
            # Half of 10 s at least, of which none has passed.
            assert written.retry_after_s is not None
            assert 1.0 <= written.retry_after_s <= 10.0
            submits, looks = process.procedures.statements["submit"], process.store.calls["table"]
            for time in range(2, 102):
                again = await write(process, point("bad", time, v=1), point("good", time, v=1))
                assert (again.stored, refusals(again)) == (1, [(1, PERSON, "name taken")])
                await asyncio.sleep(0.03)
            assert process.procedures.statements["submit"] == submits
            assert process.store.calls["table"] == looks
            assert process.made == ["good"]

    run_virtual(main())


@pytest.mark.expected_logs("procedures is failing|procedures are failing")
def test_it_heals_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            process.store.held.by_hand("CREATE VIEW bad AS SELECT 1")
            assert refusals(await write(process, point("bad", 1, v=1))) == [(1, PERSON, "name taken")]
            process.store.held.by_hand("DROP VIEW bad")
            waited = 0
            while (await write(process, point("bad", 1, v=1))).stored == 0:
                await asyncio.sleep(1.0)
                waited += 1
            # The backoff of a first failure is 5 to 10 s, and its probe comes within a second of it.
            assert 5 <= waited <= 12

    run_virtual(main())


@pytest.mark.expected_logs("procedures is failing|procedures are failing")
@pytest.mark.parametrize("how", ["clear", "fixed"])
def test_who_says_that_it_is_mended_need_not_wait_for_the_backoff(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            process.store.held.by_hand("CREATE VIEW bad AS SELECT 1")
            await write(process, point("bad", 1, v=1))
            process.store.held.by_hand("DROP VIEW bad")
            other = Procedures(process.procedures.beside(), make=False)
            if how == "clear":
                assert await other.clear(SHAPE_KIND, "bad") == 1
            else:
                assert await other.fixed("tables", Kind.PERMANENT, "name taken") == 1
            await asyncio.sleep(1.5)
            assert (await write(process, point("bad", 1, v=1))).stored == 1
            await other.close()

    run_virtual(main())


@pytest.mark.expected_logs("procedures is failing|procedures are failing")
@pytest.mark.parametrize(
    ("kind", "outcome"), [(Kind.REJECTED, PERSON), (Kind.PERMANENT, PERSON), (Kind.EXHAUSTED, LATER), (Kind.CONTENDED, LATER)]
)
def test_the_kind_of_the_cause_says_who_has_to_act(tmp_path: Path, kind: Kind, outcome: object) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            process.store.held.fails = lambda table: broken(kind, "42501")
            for _ in range(2):
                written = await write(process, point("m", 1, v=1))
                assert refusals(written) == [(1, outcome, "42501")]
                assert written.refused[0].reason == "it is broken"
                await asyncio.sleep(0.7)

    run_virtual(main())


@pytest.mark.expected_logs("procedures is failing|procedures are failing")
def test_known_fields_go_on_while_a_new_one_cannot_be_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.held.fails = lambda table: broken(Kind.PERMANENT, "42501")
            written = await write(process, point("m", 1, v=1), point("m", 2, v=2, new=2), point("m", 3, v=3))
            assert refusals(written) == [(2, PERSON, "42501")]
            assert await process.points("m") == {("", 0): {"v": 0}, ("", 1): {"v": 1}, ("", 3): {"v": 3}}

    run_virtual(main())


def test_a_table_that_takes_long_to_be_made_holds_up_no_other_and_newcomers_are_told_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("good", 0, v=0))
            procedures = await process.tables._procedures_at_work()
            await procedures.pause()
            await asyncio.sleep(1.0)
            loop = asyncio.get_running_loop()
            began = loop.time()
            slow = asyncio.create_task(write(process, point("good", 1, v=1), point("slow", 1, v=1)))
            quick = asyncio.create_task(write(process, point("slow", 2, v=1), deadline_s=1.0))
            await asyncio.sleep(0.5)
            assert len(await process.points("good")) == 2
            assert refusals(await quick) == [(1, LATER, "not made")]
            assert loop.time() - began == pytest.approx(1.0)
            written = await slow
            assert (written.stored, refusals(written)) == (1, [(2, LATER, "not made")])
            assert loop.time() - began == pytest.approx(5.0, abs=0.1)
            await asyncio.sleep(0.01)
            before = loop.time()
            assert refusals(await write(process, point("slow", 3, v=1))) == [(1, LATER, "not made")]
            assert loop.time() == before
            await procedures.resume()
            await asyncio.sleep(3.0)
            assert (await write(process, point("slow", 4, v=1))).stored == 1

    run_virtual(main())


def test_points_that_wait_for_their_tables_have_a_share_of_the_line_and_the_others_keep_theirs(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, limits=TableLimits(points_max=100)) as process:
            await write(process, point("good", 0, v=0))
            await (await process.tables._procedures_at_work()).pause()
            await asyncio.sleep(1.0)
            waiting = [
                asyncio.create_task(write(process, *(point(f"slow{number}", time, v=1) for time in range(10))))
                for number in range(4)
            ]
            await asyncio.sleep(1.0)
            assert (await write(process, point("good", 1, v=1))).stored == 1
            results = await asyncio.gather(*waiting)
            codes = sorted({code for each in results for _, _, code in refusals(each)})
            assert codes == ["line full", "not made"]
            assert [sum(each.counts.values()) for each in results] == [10] * 4
            assert process.tables._line.held == 0

    run_virtual(main())


def test_another_process_drops_widens_and_makes_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 1, "a", v=1), point("n", 1, v=1))
            other = process.store.beside()
            await other.drop("m")
            assert (await write(process, point("m", 2, "a", v=2), point("n", 2, v=2))).stored == 2
            assert await process.points("m") == {("a", 2): {"v": 2}}
            await other.shape("n", {"v": FLOAT}, fields_max=10)
            assert (await write(process, point("n", 3, v=3))).stored == 1
            await other.shape("made", {"v": INTEGER}, fields_max=10)
            before = process.procedures.statements["submit"]
            assert (await write(process, point("made", 1, v=1))).stored == 1
            assert process.procedures.statements["submit"] == before, "a look was enough"
            await other.drop("n")
            await other.shape("n", {"v": FLOAT}, fields_max=10)
            # Two of the first three go back as they came: as integers, which the new field takes as floats.
            assert (await write(process, point("n", 4, v=4), point("n", 5, v=5))).stored == 2
            assert await process.points("n") == {("", 4): {"v": 4.0}, ("", 5): {"v": 5.0}}

    run_virtual(main())


def test_a_table_that_somebody_changed_by_hand_is_put_right(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 1, v=1, w=0.5))
            process.store.held.damage("m", "v")
            assert (await write(process, point("m", 2, v=2, w=1))).stored == 1
            record = await process.tables.table("m")
            assert record is not None
            assert [field.type for field in record.fields] == [INTEGER, FLOAT]
            assert await process.points("m") == {("", 1): {"w": 0.5}, ("", 2): {"v": 2, "w": 1.0}}

    run_virtual(main())


def test_a_dropped_table_is_gone_and_made_again_by_the_next_point(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 1, v=1))
            assert await process.tables.drop("m") is True
            assert await process.tables.drop("m") is False
            assert await process.tables.table("m") is None
            assert (await write(process, point("m", 2, v="text"))).stored == 1
            assert await process.points("m") == {("", 2): {"v": "text"}}

    run_virtual(main())


def test_a_drop_waits_for_the_making_of_the_table(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, latency_s=0.2) as process:
            await write(process, point("m", 1, v=1))
            making = asyncio.create_task(write(process, point("m", 2, new=2)))
            await asyncio.sleep(0.5)
            dropping = asyncio.create_task(process.tables.drop("m"))
            assert (await making).stored == 1
            assert await dropping is True

    run_virtual(main())


def test_a_set_retention_refuses_what_is_older_and_is_seen_by_other_processes(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            other = served_by(process.store.beside(), process.procedures.beside(), tmp_path / "other")
            await write(process, point("m", NOW_NS, v=1))
            await other.start()
            assert await process.tables.set_retention("m", 3_600.0) is True
            assert await process.tables.set_retention("no", 3_600.0) is False
            old = NOW_NS - 3_601_000_000_000
            written = await write(process, point("m", old, v=1), point("m", NOW_NS, v=2))
            assert refusals(written) == [(1, NEVER, "retention")]
            assert "table 'm' keeps points for 3600 s" in written.refused[0].reason
            await asyncio.sleep(61.0)
            assert refusals(await write(other, point("m", old, v=1))) == [(1, NEVER, "retention")]
            await other.end()

    run_virtual(main())


@pytest.mark.expected_logs("store is down")
def test_the_store_goes_while_a_table_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, latency_s=0.2) as process:
            writing = asyncio.create_task(write(process, point("m", 1, v=1)))
            await asyncio.sleep(0.3)
            process.store.trouble(Trouble.REFUSE)
            written = await writing
            assert (written.stored, [outcome for _, outcome, _ in refusals(written)]) == (0, [LATER])
            process.store.heal()
            await asyncio.sleep(10.0)
            assert (await write(process, point("m", 1, v=1))).stored == 1

    run_virtual(main())


@pytest.mark.expected_logs("procedures")
def test_very_many_tables_that_fail_by_one_cause_are_told_it_and_heal_together(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("good", 0, v=0))
            process.store.held.fails = lambda table: broken(Kind.PERMANENT, "42501")
            points = [point(f"bad{number}", 1, v=1) for number in range(60)]
            for _ in range(40):
                written = await write(process, *points, point("good", 1, v=1))
                assert written.stored == 1
                assert {each.fault.code for each in written.refused} <= {"42501", "not made"}
                await asyncio.sleep(1.0)
            assert {(each.outcome, each.fault.code) for each in written.refused} == {(PERSON, "42501")}
            process.store.held.fails = lambda table: None
            left = 60
            for _ in range(300):
                written = await write(process, *points)
                left = len(written.refused)
                if not left:
                    break
                await asyncio.sleep(1.0)
            assert left == 0

    run_virtual(main())


def test_a_name_that_no_procedure_can_have_is_refused_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            written = await write(process, point("a\u2028b", 1, v=1), point("m", 1, v=1))
            assert refusals(written) == [(1, NEVER, "name")]
            assert "holds a control character" in written.refused[0].reason

    run_virtual(main())


def test_a_table_that_is_never_as_it_was_looked_at_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.held.damage("m")
            # Whatever is made is gone again when it is written to.
            real = process.store.held.write

            def write_to_nothing(groups: Any, **asked: Any) -> Any:
                process.store.held.damage("m")
                return real(groups, **asked)

            process.store.held.write = write_to_nothing  # type: ignore[method-assign]
            written = await write(process, point("m", 1, v=1))
            assert refusals(written) == [(1, LATER, "not made")]
            assert "table 'm' changes too quickly" in written.refused[0].reason
            assert process.made == ["m", "m", "m", "m"]

    run_virtual(main())
