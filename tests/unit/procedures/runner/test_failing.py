"""A key that fails: refused from memory, probed after its backoff, healed by a success, a clear, or a word from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import one_step, served

from fake_procedure_store import FakeStore
from outlast import Fault, Kind, OutlastError
from outlast.procedures import ProcedureFailedError, ProcedureRefused, ProcedureState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.procedures import Procedures, Run

pytestmark = pytest.mark.expected_logs("procedures (still )?are failing")
CAUSE = Fault(Kind.REJECTED, "bad columns", "the columns make no table", "tables")


class Table:
    """A table that cannot be created, until it can."""

    def __init__(self) -> None:
        self.fault: Fault | None = CAUSE
        self.tried = 0

    async def create(self, run: Run) -> str:
        self.tried += 1
        if self.fault is not None:
            raise OutlastError("no", self.fault)
        return f"created {run.key}"


async def fail_once(procedures: Procedures, key: str = "cpu") -> None:
    with pytest.raises(ProcedureFailedError) as failed:
        await (await procedures.submit("create", key)).wait(5.0)
    assert failed.value.fault.code == CAUSE.code


async def refused(procedures: Procedures, key: str = "cpu") -> ProcedureRefused:
    with pytest.raises(ProcedureRefused) as refusal:
        await procedures.submit("create", key)
    return refusal.value


def test_ten_thousand_submissions_of_a_failing_key_cost_one_record_no_statement_and_few_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store, table = FakeStore(), Table()
        async with served(store, [one_step("create", table.create)], tmp_path) as procedures:
            await fail_once(procedures)
            first = await refused(procedures)
            before = store.statements.total()
            last = first
            for _ in range(9_999):
                last = await refused(procedures)
            assert store.statements.total() == before
            for refusal in (first, last):
                assert refusal.fault.key == CAUSE.key
                assert refusal.why == "failing"
                assert 0 < refusal.retry_after_s <= 15
                record = await refusal.handle.get()
                assert record is not None
                assert record.state is ProcedureState.DEAD
            assert len(await procedures.list()) == 1
            assert procedures.tally.refused == {"failing": 10_000}
            assert table.tried == 1

    run_virtual(main())
    lines = [each for each in caplog.records if each.levelname in {"WARNING", "ERROR"}]
    assert 1 <= len(lines) <= 6


def test_after_its_backoff_one_submission_is_the_probe_and_the_others_join_it(tmp_path: Path) -> None:
    async def main() -> None:
        store, table = FakeStore(), Table()
        async with served(store, [one_step("create", table.create)], tmp_path) as procedures:
            await fail_once(procedures)
            await asyncio.sleep((await refused(procedures)).retry_after_s + 0.001)
            assert table.tried == 1, "nobody has submitted it since"
            handles = await asyncio.gather(*(procedures.submit("create", "cpu") for _ in range(5)))
            assert len({handle.id for handle in handles}) == 1
            with pytest.raises(ProcedureFailedError):
                await handles[0].wait(5.0)
            assert table.tried == 2
            longer = await refused(procedures)
            assert longer.retry_after_s > 10
            table.fault = None
            await asyncio.sleep(longer.retry_after_s + 0.001)
            handle = await procedures.submit("create", "cpu")
            assert await handle.wait(5.0) == "created cpu"
            again = await procedures.submit("create", "cpu")
            assert again.id != handle.id, "what is done is no record of the key any more"

    run_virtual(main())


@pytest.mark.parametrize("how", ["clear", "fixed", "clear elsewhere"])
def test_a_clear_heals_at_once(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        store, table = FakeStore(), Table()
        async with served(store, [one_step("create", table.create)], tmp_path) as procedures:
            await fail_once(procedures)
            await refused(procedures)
            table.fault = None
            if how == "clear":
                assert await procedures.clear("create", "cpu") == 1
            elif how == "fixed":
                assert await procedures.fixed(CAUSE.source, CAUSE.kind, CAUSE.code) == 1
            else:
                await store.beside().clear("create")
                await asyncio.sleep(0.1)
            assert await (await procedures.submit("create", "cpu")).wait(5.0) == "created cpu"

    run_virtual(main())


def test_a_process_that_starts_knows_the_failing_keys(tmp_path: Path) -> None:
    async def main() -> None:
        store, table = FakeStore(), Table()
        async with served(store, [one_step("create", table.create)], tmp_path) as procedures:
            await fail_once(procedures)
        other = store.beside()
        async with served(other, [one_step("create", table.create)], tmp_path) as procedures:
            await asyncio.sleep(0.01)
            refusal = await refused(procedures)
            assert refusal.fault.code == CAUSE.code
            assert other.statements["submit"] == 0
            explained = await procedures.explain("create", "cpu")
            assert (explained.why, explained.state) == ("failing", ProcedureState.DEAD)
            assert explained.retry_after_s > 0
            assert "failed once" in explained.text
            assert "clear create cpu" in explained.clears

    run_virtual(main())
