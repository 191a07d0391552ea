"""The store goes away, fills up, and comes back; the service stops; nothing acknowledged is lost, nothing refused appears."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from served_tables import LATER, NEVER, body, point, refusals, served, served_by, write

from fake_procedure_store import FakeStore
from fake_table_store import FakeTableStore
from outlast import ConfigurationError, Fault, Kind, OutlastError, Scope, Service, Stopping, Unavailable
from outlast.tables import Point, Range, Tables
from outlast.tables._tables import Stores
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from outlast.tables._stores.port import TableRows, Wrote


@pytest.mark.expected_logs("store is down")
@pytest.mark.parametrize("trouble", [Trouble.REFUSE, Trouble.LOSE_REPLY])
def test_while_the_store_is_away_bodies_are_refused_from_memory_and_it_resumes(tmp_path: Path, trouble: Trouble) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.trouble(trouble)
            written = await write(process, point("m", 1, v=1))
            assert (written.stored, [outcome for _, outcome, _ in refusals(written)]) == (0, [LATER])
            assert written.retry_after_s is not None
            calls = process.store.calls.copy()
            for _ in range(100):
                with pytest.raises(Unavailable) as refused:
                    await write(process, point("m", 2, v=2))
                assert refused.value.fault.kind is Kind.TRANSIENT
                with pytest.raises(Unavailable):
                    process.tables.check()
            assert process.store.calls == calls
            unavailable = process.tables.unavailable()
            assert unavailable is not None
            assert unavailable.fault.kind is Kind.TRANSIENT
            process.store.heal()
            waited = 0.0
            while True:
                try:
                    assert (await write(process, point("m", 1, v=1))).stored == 1
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
                    waited += 0.1
            assert waited < 2.0
            assert await process.points("m") == {("", 0): {"v": 0}, ("", 1): {"v": 1}}
            # Each body was asked about twice.
            assert sum(process.tables._tally.bodies_refused.values()) >= 200
            assert process.tables.unavailable() is None

    run_virtual(main())


@pytest.mark.expected_logs("store is down")
def test_a_store_that_hangs_holds_nobody_beyond_the_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            await write(process, point("m", 0, v=0))
            process.store.trouble(Trouble.HANG)
            loop = asyncio.get_running_loop()
            began = loop.time()
            results = await asyncio.gather(*(write(process, point("m", 1, v=1), deadline_s=2.0) for _ in range(20)))
            assert loop.time() - began == pytest.approx(2.0)
            assert {code for each in results for _, _, code in refusals(each)} == {"deadline"}
            process.store.heal()
            await asyncio.sleep(10.0)
            assert (await write(process, point("m", 2, v=2))).stored == 1

    run_virtual(main())


class ExactError(OutlastError):
    """An error that concerns one call."""


def one_call(kind: Kind) -> ExactError:
    return ExactError("it met this", Fault(kind, "code", "it met this", "store", Scope.CALL))


class Picky(FakeTableStore):
    """A store whose write fails as a whole where it holds a value."""

    fault: Kind | None = None

    async def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        if self.fault is not None and any(row[2] == 13 for group in groups for row in group.rows):
            self.calls["failed"] += 1
            raise one_call(self.fault)
        return await super().write(groups, whole=whole)


def picky(tmp_path: Path) -> Any:
    return served_by(Picky(), FakeStore(), tmp_path / "journal")


@pytest.mark.expected_logs("tables writer (is|still) failing")
@pytest.mark.parametrize(("kind", "outcome"), [(Kind.REJECTED, NEVER), (Kind.BUG, LATER)])
def test_a_write_that_fails_by_what_is_in_it_is_halved_until_the_body_is_found(
    tmp_path: Path, kind: Kind, outcome: object
) -> None:
    async def main() -> None:
        process = picky(tmp_path)
        await process.start()
        await write(process, point("m", 0, v=0))
        process.store.fault = kind
        results = await asyncio.gather(*(write(process, point("m", number, v=number)) for number in range(1, 33)))
        assert [each.stored for each in results] == [int(number != 13) for number in range(1, 33)]
        assert refusals(results[12]) == [(1, outcome, "code")]
        # Of 32 bodies, log2(32) halvings and the first.
        assert process.store.calls["failed"] == 6
        assert (process.tables.shown.health().well is False) == (kind is Kind.BUG)
        await asyncio.sleep(61.0)
        assert (await write(process, point("m", 50, v=50))).stored == 1
        assert process.tables.shown.health().well is True
        await process.end()

    run_virtual(main())


def test_a_write_that_fails_for_now_is_not_tried_in_halves(tmp_path: Path) -> None:
    async def main() -> None:
        process = picky(tmp_path)
        await process.start()
        await write(process, point("m", 0, v=0))
        process.store.fault = Kind.CONTENDED
        results = await asyncio.gather(*(write(process, point("m", number, v=number)) for number in range(1, 33)))
        assert {code for each in results for _, _, code in refusals(each)} == {"code"}
        assert process.store.calls["failed"] == 1
        await process.end()

    run_virtual(main())


def test_what_the_writer_meets_is_the_cause_that_late_bodies_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        process = picky(tmp_path)
        await process.start()
        await write(process, point("m", 0, v=0))
        process.store.fault = Kind.CONTENDED
        assert refusals(await write(process, point("m", 13, v=13))) == [(1, LATER, "code")]
        process.store.peer.latency_s = 3.0
        first = asyncio.create_task(write(process, point("m", 1, v=1)))
        late = await write(process, point("m", 2, v=2), deadline_s=1.0)
        assert refusals(late) == [(1, LATER, "code")]
        assert late.refused[0].reason == "it met this"
        assert (await first).stored == 1
        assert refusals(await write(process, point("m", 3, v=3), deadline_s=1.0)) == [(1, LATER, "deadline")]
        await process.end()

    run_virtual(main())


def test_at_the_stop_what_waits_is_written_and_newcomers_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        process = served_by(FakeTableStore(), FakeStore(), tmp_path / "journal")
        await process.start()
        await write(process, point("m", 0, v=0))
        process.store.peer.latency_s = 1.0
        waiting = [asyncio.create_task(write(process, point("m", time, v=time))) for time in range(1, 51)]
        unsynced = await write(process, point("m", 51, v=51), durable=False)
        assert unsynced.stored == 1
        await asyncio.sleep(0.1)
        process.stop.fire("the test says so")
        with pytest.raises(Stopping):
            process.tables.check()
        # What was read may still be written; what is new is not made.
        read = asyncio.create_task(write(process, point("m", 52, v=52), point("new", 1, v=1)))
        assert await process.end() == 0
        assert [(await each).stored for each in waiting] == [1] * 50
        written = await read
        assert (written.stored, refusals(written)) == (1, [(2, LATER, "stopping")])
        assert len(process.store.held.tables["m"].points) == 53
        with pytest.raises(Stopping):
            await write(process, point("m", 99, v=99))

    run_virtual(main())


@pytest.mark.expected_logs("did not finish|stopped in|cancelled what still ran|is down")
def test_what_cannot_be_written_in_the_time_of_the_stop_is_refused_stopping(tmp_path: Path) -> None:
    async def main() -> None:
        process = served_by(FakeTableStore(), FakeStore(), tmp_path / "journal", deadline_s=2.0)
        await process.start()
        await write(process, point("m", 0, v=0))
        process.store.trouble(Trouble.HANG)
        waiting = [asyncio.create_task(write(process, point("m", 1, v=1)))]
        await asyncio.sleep(0.1)
        waiting.append(asyncio.create_task(write(process, point("m", 2, v=2))))
        await asyncio.sleep(0.1)
        await process.end()
        for each in waiting:
            assert refusals(await each) == [(1, LATER, "stopping")]
        assert set(process.store.held.tables["m"].points) == {(2, 0)}

    run_virtual(main())


def test_a_second_service_and_a_block_beside_it_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as process:
            with pytest.raises(ConfigurationError, match="attached to a service already"):
                process.tables.attach(Service("other"))
            with pytest.raises(ConfigurationError, match="attached to a service already"):
                async with process.tables:
                    pass
        tables = Tables(Stores(FakeTableStore(), FakeStore()))
        with pytest.raises(RuntimeError, match="not in use: attach it to a service, or use `async with`"):
            await tables.write([Point("m", {"v": 1})])

    run_virtual(main())


@pytest.mark.parametrize("retention_s", [0, -1.0, float("nan"), 1e12])
def test_a_retention_that_is_none_is_refused_when_it_is_given(retention_s: float) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="retention_s must be above 0"):
            Tables(Stores(FakeTableStore(), FakeStore()), retention_s=retention_s)
        tables = Tables(Stores(FakeTableStore(), FakeStore()))
        async with tables:
            with pytest.raises(ConfigurationError, match="retention_s must be above 0"):
                await tables.set_retention("m", retention_s)

    run_virtual(main())


def test_a_block_writes_reads_and_drops_and_begins_a_runner_only_to_make(tmp_path: Path) -> None:
    async def main() -> None:
        store, procedures = FakeTableStore(), FakeStore()
        async with Tables(Stores(store, procedures)) as tables:
            assert await tables.tables() == []
            assert procedures.statements.total() == 0
            assert (await tables.write([Point("m", {"v": 1}, {"a": "b"}, 1)])).stored == 1
            assert procedures.statements["submit"] == 1
            assert [dict(each.fields) async for each in tables.read(Range("m"))] == [{"v": 1}]
            assert await tables.drop("m") is True
        async with Tables(Stores(store.beside(), procedures.beside())) as tables:
            assert (await tables.write([Point("m", {"v": 1}, {"a": "b"}, 1)])).stored == 1

    run_virtual(main())


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        store, procedures = FakeTableStore(), FakeStore()
        async with Tables(Stores(store, procedures), make=False) as tables:
            assert await tables.tables() == []
            assert await tables.set_retention("m", 5.0) is False
        assert store.calls["open"] == 0
        assert procedures.statements.total() == 0

    run_virtual(main())


@pytest.mark.expected_logs("store is down")
def test_a_service_starts_while_the_store_is_away_and_takes_up_its_work_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeTableStore()
        store.trouble(Trouble.REFUSE)
        process = served_by(store, FakeStore(), tmp_path / "journal")
        process.life = asyncio.create_task(process.service.run(process.stop))
        await process.service.until_ready()
        with pytest.raises(Unavailable):
            await process.tables.write_parsed(body(process.tables.known, point("m", 1, v=1)))
        await asyncio.sleep(5.0)
        assert process.tables.shown.health().well is False
        store.heal()
        await asyncio.sleep(5.0)
        assert (await write(process, point("m", 1, v=1))).stored == 1
        assert process.tables.shown.health().well is True
        await process.end()

    run_virtual(main())
