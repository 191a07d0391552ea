"""The store goes away: what is finished is kept in the journal and recorded exactly once, and a stop is over in time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from served_procedures import one_step, served, served_by
from three_steps import NAMES, World, three_steps

from fake_procedure_store import FakeStore
from outlast.procedures import ProcedureRefused, ProcedureState
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.procedures import Run

pytestmark = pytest.mark.expected_logs("store (is|still) down|cancelled what still ran|lease of this runner")


@pytest.mark.parametrize("trouble", [Trouble.REFUSE, Trouble.HANG])
def test_a_stop_with_the_store_away_keeps_what_is_finished_and_the_next_start_records_it_once(
    tmp_path: Path, trouble: Trouble
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        world, store = World(), FakeStore()
        world.stay_in = "three"
        runs = served_by(store, [three_steps(world)], tmp_path / "journal", deadline_s=10.0)
        await runs.start()
        handle = await runs.system.submit("three", "a")
        await world.inside.wait()
        store.trouble(trouble)
        world.go.set()
        await asyncio.sleep(0.1)
        assert world.done == list(NAMES)
        began_at = loop.time()
        await runs.end()
        assert loop.time() - began_at <= 11.0
        other = FakeStore(store.held)
        late = World()
        async with served(other, [three_steps(late)], tmp_path) as procedures:
            assert await procedures.wait(handle.id, 5.0) == "three of a"
            record = await procedures.get(handle.id)
            assert record is not None
            assert record.state is ProcedureState.DONE
            await asyncio.sleep(60.0)
            assert procedures.tally.late == 0
        assert late.done == []
        assert other.statements["record"] == 1

    run_virtual(main())


def test_a_run_goes_no_further_than_what_is_recorded_and_resumes_when_the_store_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        world, store = World(), FakeStore()
        world.stay_in = "one"
        async with served(store, [three_steps(world)], tmp_path) as procedures:
            handle = await procedures.submit("three", "a")
            await world.inside.wait()
            store.trouble(Trouble.REFUSE)
            world.go.set()
            await asyncio.sleep(10.0)
            assert world.done == ["one"], "the second step is not begun before the first is recorded"
            with pytest.raises(ProcedureRefused) as refusal:
                await procedures.submit("three", "b")
            assert refusal.value.why == "store"
            assert refusal.value.retry_after_s > 0
            store.heal()
            back_at = loop.time()
            assert await handle.wait(10.0) == "three of a"
            assert loop.time() - back_at <= 2.0
            assert world.done == list(NAMES)

    run_virtual(main())


def test_a_submission_whose_reply_is_lost_is_made_once(tmp_path: Path) -> None:
    async def note(run: Run) -> str:
        ran.append(run.id)
        return run.key

    ran: list[str] = []

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", note)], tmp_path) as procedures:
            await asyncio.sleep(1.0)
            store.trouble(Trouble.LOSE_REPLY)
            with pytest.raises(ProcedureRefused) as refusal:
                await procedures.submit("note", "a")
            store.heal()
            # The record may be there: its handle knows, and whoever submits again joins it.
            assert await refusal.value.handle.wait(60.0) == "a"
            assert len(await procedures.list()) == 1
        assert len(ran) == 1

    run_virtual(main())


def test_an_outage_of_minutes_costs_few_lines_and_everything_resumes_within_two_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def note(run: Run) -> str:
        await asyncio.sleep(1.0)
        return run.key

    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = FakeStore()
        async with served(store, [one_step("note", note)], tmp_path, slots=4) as procedures:
            handles = [await procedures.submit("note", f"{number}") for number in range(12)]
            await asyncio.sleep(1.5)
            store.trouble(Trouble.REFUSE)
            await asyncio.sleep(180.0)
            store.heal()
            back_at, before = loop.time(), procedures.tally.claimed
            while procedures.tally.claimed == before:
                await asyncio.sleep(0.05)
            assert loop.time() - back_at <= 2.0
            for handle in handles:
                await handle.wait(120.0)

    run_virtual(main())
    lines = [each for each in caplog.records if each.levelname in {"WARNING", "ERROR"}]
    assert len(lines) <= 6


@pytest.mark.parametrize("trouble", [Trouble.REFUSE, Trouble.HANG])
def test_long_steps_are_left_at_the_end_of_the_lease_and_begun_again_as_soon_as_the_store_is_back(
    tmp_path: Path, trouble: Trouble
) -> None:
    begun: list[tuple[float, str]] = []

    async def long(run: Run) -> str:
        begun.append((asyncio.get_running_loop().time(), run.idempotency_key))
        await asyncio.sleep(100.0)
        return run.key

    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = FakeStore()
        async with served(store, [one_step("long", long)], tmp_path) as procedures:
            handles = [await procedures.submit("long", f"{number}") for number in range(5)]
            await asyncio.sleep(10.0)
            store.trouble(trouble)
            await asyncio.sleep(60.0)
            assert len(begun) == 5
            store.heal()
            back_at = loop.time()
            assert [await handle.wait(300.0) for handle in handles] == [f"{number}" for number in range(5)]
            assert len(begun) == 10, begun
            assert len({key for _, key in begun}) == 5
            assert max(at for at, _ in begun) - back_at <= 2.0

    run_virtual(main())


def test_a_step_that_does_not_end_when_its_lease_does_keeps_its_record_once_the_lease_is_back(tmp_path: Path) -> None:
    under_way = together = 0

    async def deaf(run: Run) -> str:
        nonlocal under_way, together
        loop = asyncio.get_running_loop()
        under_way += 1
        together = max(together, under_way)
        ends_at = loop.time() + 120.0
        while loop.time() < ends_at:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(ends_at - loop.time())
        under_way -= 1
        return run.key

    async def long(run: Run) -> str:
        await asyncio.sleep(50.0)
        return run.key

    async def main() -> None:
        store = FakeStore()
        both = [one_step("deaf", deaf), one_step("long", long)]
        async with served(store, both, tmp_path, lease_s=60.0, slots=1) as procedures:
            handle = await procedures.submit("deaf", "a")
            # It gets the slot that is free when the lease is over.
            await procedures.submit("long", "b")
            await asyncio.sleep(1.0)
            store.trouble(Trouble.REFUSE)
            # Its own clock says that the lease is over after 54 s; by the store's it is after 60.
            await asyncio.sleep(55.0)
            store.heal()
            await asyncio.sleep(3.0)
            other = served_by(store.beside(), both, tmp_path / "other")
            await other.start()
            assert await handle.wait(300.0) == "a"
            assert together == 1
            await other.end()

    run_virtual(main())
