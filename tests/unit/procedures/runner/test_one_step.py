"""A procedure of one step and of three, from its submission to its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from served_procedures import served

from fake_procedure_store import FakeStore
from outlast.procedures import Procedure, ProcedureState, Run
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path


def one_step() -> Procedure:
    procedure = Procedure("double")

    @procedure.step
    async def double(run: Run) -> int:
        return int(run.payload) * 2

    return procedure


def test_a_procedure_is_begun_at_once_and_its_result_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step()], tmp_path) as procedures:
            handle = await procedures.submit("double", "a", 21)
            assert await handle.wait(5.0) == 42
            record = await handle.get()
            assert record is not None
            assert record.state is ProcedureState.DONE
            assert store.statements["submit"] == 1
            assert store.statements["record"] == 1

    run_virtual(main())
