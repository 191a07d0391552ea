"""Cancel: what was done is undone to the end, whatever comes in between, and the answer is what holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import served, served_by
from three_steps import World, three_steps

from fake_procedure_store import FakeStore
from outlast.procedures import ProcedureCancelledError, ProcedureState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

UNDONE = ["one", "two", "undo three", "undo two", "undo one"]


def test_a_cancel_in_the_third_step_undoes_all_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        world, store = World(), FakeStore()
        world.stay_in = "three"
        async with served(store, [three_steps(world)], tmp_path) as procedures:
            handle = await procedures.submit("three", "a")
            await world.inside.wait()
            world.inside.clear()
            world.stay_in = "undo two"
            first = asyncio.create_task(handle.cancel())
            await world.inside.wait()
            second = asyncio.create_task(handle.cancel())
            await asyncio.sleep(1.0)
            world.go.set()
            assert await first is ProcedureState.CANCELLED
            assert await second is ProcedureState.CANCELLED
            assert world.done == UNDONE
            assert world.outcomes == [False, True, True]
            with pytest.raises(ProcedureCancelledError):
                await handle.wait(1.0)

    run_virtual(main())


@pytest.mark.expected_logs("cancelled what still ran")
def test_a_stop_while_it_is_undone_is_no_cancel_and_the_next_runner_goes_on_undoing(tmp_path: Path) -> None:
    async def main() -> None:
        world, store = World(), FakeStore()
        world.stay_in = "three"
        runs = served_by(store, [three_steps(world)], tmp_path / "1")
        await runs.start()
        handle = await runs.system.submit("three", "a")
        await world.inside.wait()
        world.inside.clear()
        world.stay_in = "undo two"
        asking = asyncio.create_task(handle.cancel())
        await world.inside.wait()
        assert await runs.end() == 0
        asking.cancel()
        record = await handle.get()
        assert record is not None
        assert record.state is ProcedureState.QUEUED
        world.stay_in = ""
        async with served(store.beside(), [three_steps(world)], tmp_path) as procedures:
            with pytest.raises(ProcedureCancelledError):
                await procedures.wait(handle.id, 5.0)
        assert world.done == UNDONE
        assert len(set(world.keys)) == len(world.keys)

    run_virtual(main())


def test_what_was_never_begun_is_cancelled_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        world, store = World(), FakeStore()
        async with served(store, [three_steps(world)], tmp_path) as procedures:
            await procedures.pause("three")
            handle = await procedures.submit("three", "a")
            waits = asyncio.create_task(handle.wait())
            assert await handle.cancel(1.0) is ProcedureState.CANCELLED
            with pytest.raises(ProcedureCancelledError):
                await waits
            assert world.done == []
            again = await procedures.submit("three", "a")
            assert again.id != handle.id

    run_virtual(main())


@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_a_cancel_beside_the_end_answers_with_what_holds(tmp_path: Path, *, from_elsewhere: bool) -> None:
    """At every instant around the end, in steps of a tenth of the store's latency."""

    async def once(tenths: int, path: Path) -> None:
        world, store = World(), FakeStore(latency_s=0.01)
        async with served(store, [three_steps(world)], path) as procedures:
            other = store.beside()
            handle = await procedures.submit("three", "a")
            waits = asyncio.create_task(handle.wait())
            await asyncio.sleep(0.001 * tenths)
            if from_elsewhere:
                asked = await other.cancel(handle.id)
                answer = await asyncio.gather(waits, return_exceptions=True)
                record = await handle.get()
                assert record is not None
                if asked is ProcedureState.DONE:
                    assert record.state is ProcedureState.DONE
                said = ProcedureState.CANCELLED if isinstance(answer[0], ProcedureCancelledError) else ProcedureState.DONE
            else:
                said = await handle.cancel(60.0)
                await asyncio.gather(waits, return_exceptions=True)
                record = await handle.get()
                assert record is not None
            assert record.state is said
            ends.add(said)
            if said is ProcedureState.CANCELLED:
                undone = [name for name in world.done if name.startswith("undo")]
                assert len(undone) >= len(world.done) - len(undone)
            await asyncio.sleep(5.0)
            again = await handle.get()
            assert again is not None
            assert again.state is said, "final states never change"

    ends: set[ProcedureState | None] = set()

    async def main() -> None:
        for tenths in range(60):
            await once(tenths, tmp_path / f"{tenths}")

    run_virtual(main())
    assert ends == {ProcedureState.DONE, ProcedureState.CANCELLED}
