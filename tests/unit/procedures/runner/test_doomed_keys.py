"""Keys that fail each for its own reason, through a whole process: refusals cost the store nothing, good keys are served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import served

from fake_procedure_store import FakeStore
from outlast import Fault, Kind, OutlastError
from outlast.procedures import Procedure, ProcedureRefused, Procedures, ProcedureState, Run
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

BAD = 300
pytestmark = pytest.mark.expected_logs("procedures are failing", "procedures: (also|more)")


def create_table(is_healed: asyncio.Event) -> Procedure:
    create = Procedure("create", attempts_max=1)

    @create.step
    async def allocate(run: Run) -> str:
        if run.key.startswith("bad") and not is_healed.is_set():
            raise OutlastError("no", Fault(Kind.PERMANENT, f"E-{run.key}", "its own", source="metasrv"))
        return "made"

    return create


async def told(procedures: Procedures, key: str) -> ProcedureRefused:
    with pytest.raises(ProcedureRefused) as caught:
        await procedures.submit("create", key)
    return caught.value


def test_three_thousand_refusals_cost_the_store_nothing_and_a_good_key_is_never_refused(tmp_path: Path) -> None:
    async def whole() -> None:
        store, is_healed = FakeStore(), asyncio.Event()
        async with served(store, [create_table(is_healed)], tmp_path) as procedures:
            handles = [await procedures.submit("create", f"bad-{number}") for number in range(BAD)]
            await asyncio.gather(*(handle.wait() for handle in handles), return_exceptions=True)
            submitted, goods = store.statements["submit"], 0
            for turn in range(10):
                refusals = [await told(procedures, f"bad-{number}") for number in range(BAD)]
                assert {refusal.fault.code for refusal in refusals} == {f"E-bad-{number}" for number in range(BAD)}, "its own"
                assert all(0.0 < refusal.retry_after_s <= 10.0 and refusal.handle.id for refusal in refusals)
                good = await procedures.submit("create", f"good-{turn}")
                assert await good.wait(1.0) == "made"
                goods += 1
            assert store.statements["submit"] == submitted + goods
            assert (await procedures.counts()).held == {("create", "dead"): BAD, ("create", "done"): goods}
            is_healed.set()
            assert await procedures.clear("create") == BAD
            again = await procedures.submit("create", "bad-7")
            assert await again.wait(1.0) == "made", "at once with clear"
            assert again.id == handles[7].id, "of the same record"
            record = await again.get()
            assert record is not None
            assert record.state is ProcedureState.DONE

    run_virtual(whole())
