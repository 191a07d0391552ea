"""Slots: only what runs holds one; claims go by priority and age; what is held or stuck stops nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import one_step, served

from fake_procedure_store import FakeStore
from outlast import Dependency, Fault, Kind, State
from outlast.procedures import Priority, Procedure, Procedures, ProcedureState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.procedures import Run


async def quick(run: Run) -> str:
    return run.key


async def state_of(procedures: Procedures, record_id: str) -> ProcedureState:
    record = await procedures.get(record_id)
    assert record is not None
    return record.state


@pytest.mark.expected_logs("procedures (still )?are failing")
def test_what_waits_for_its_next_attempt_holds_no_slot(tmp_path: Path) -> None:
    attempts: list[int] = []

    async def unsteady(run: Run) -> int:
        attempts.append(run.attempt)
        if len(attempts) < 4:
            raise ConnectionRefusedError("not yet")
        return run.attempt

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("unsteady", unsteady), one_step("quick", quick)], tmp_path, slots=1) as procedures:
            handle = await procedures.submit("unsteady", "a")
            await asyncio.sleep(0.1)
            assert await state_of(procedures, handle.id) is ProcedureState.WAITING
            assert await (await procedures.submit("quick", "b")).wait(0.1) == "b"
            assert await handle.wait(60.0) == 4
            assert attempts == [1, 2, 3, 4]

    run_virtual(main())


def test_what_sleeps_or_waits_for_a_signal_holds_no_slot(tmp_path: Path) -> None:
    patient = Procedure("patient")
    patient.sleep("cool down", 30.0)
    patient.wait("approved", timeout_s=3600.0)

    @patient.step
    async def finish(run: Run) -> object:
        return run.results["approved"]

    async def main() -> None:
        store = FakeStore()
        loop = asyncio.get_running_loop()
        async with served(store, [patient, one_step("quick", quick)], tmp_path, slots=1) as procedures:
            began_at = loop.time()
            handle = await procedures.submit("patient", "a")
            await asyncio.sleep(0.1)
            assert await (await procedures.submit("quick", "b")).wait(0.1) == "b"
            assert (await procedures.explain("patient", "a")).why == "sleep"
            await asyncio.sleep(31.0)
            assert (await procedures.explain("patient", "a")).why == "signal"
            assert await (await procedures.submit("quick", "b")).wait(0.1) == "b"
            assert await procedures.signal(handle.id, "approved", {"by": "ann"}) is ProcedureState.WAITING
            assert await handle.wait(0.1) == {"by": "ann"}
            assert loop.time() - began_at < 33

    run_virtual(main())


def test_a_backlog_is_taken_up_in_order_and_none_is_left(tmp_path: Path) -> None:
    ran: list[str] = []

    async def note(run: Run) -> None:
        ran.append(run.key)
        await asyncio.sleep(0.01)

    async def main() -> None:
        store = FakeStore()
        maker = Procedures(FakeStore(store.held), [one_step("note", note)], journal_path=tmp_path / "none")
        for number in range(300):
            await maker.submit("note", f"{number:03}")
        await maker.close()
        async with served(store, [one_step("note", note)], tmp_path, slots=8) as procedures:
            while (await procedures.counts()).held != {("note", "done"): 300}:
                await asyncio.sleep(0.05)
        assert ran == [f"{number:03}" for number in range(300)]
        assert store.statements["record"] < 300, "they are recorded in batches"

    run_virtual(main())


def test_high_comes_before_low_and_one_claim_in_eight_is_the_oldest(tmp_path: Path) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    async def note(run: Run) -> None:
        await gate.wait()
        ran.append(run.key)

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", note)], tmp_path, slots=1) as procedures:
            blocker = await procedures.submit("note", "blocker")
            handles = [await procedures.submit("note", f"low{number}", priority=Priority.LOW) for number in range(4)]
            handles += [await procedures.submit("note", f"high{number}", priority=Priority.HIGH) for number in range(40)]
            gate.set()
            for handle in [blocker, *handles]:
                await handle.wait(60.0)
        assert ran[0] == "blocker"
        lows = [place for place, key in enumerate(ran) if key.startswith("low")]
        # The first low one is not left behind all 40 others, and comes within the first ten claims.
        assert lows[0] <= 10
        assert [key for key in ran if key.startswith("high")] == [f"high{number}" for number in range(40)]

    run_virtual(main())


def test_a_stuck_key_stops_no_other_and_locks_exclude_across_kinds(tmp_path: Path) -> None:
    inside: list[str] = []
    release = asyncio.Event()

    async def hold(run: Run) -> str:
        inside.append(run.key)
        await release.wait()
        return run.key

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("hold", hold), one_step("quick", quick)], tmp_path, slots=4) as procedures:
            first = await procedures.submit("hold", "a", locks=["db"])
            second = await procedures.submit("quick", "b", locks=["db", "more"])
            assert await (await procedures.submit("quick", "c")).wait(1.0) == "c"
            explained = await procedures.explain("quick", "b")
            assert explained.why == "lock"
            assert first.id in explained.clears
            assert await state_of(procedures, second.id) is ProcedureState.QUEUED
            release.set()
            assert await first.wait(1.0) == "a"
            assert await second.wait(5.0) == "b"

    run_virtual(main())


@pytest.mark.expected_logs("disk is down")
def test_what_a_dependency_that_is_down_holds_waits_and_costs_no_attempt(tmp_path: Path) -> None:
    disk_is_up = False

    async def probe() -> None:
        if not disk_is_up:
            raise ConnectionRefusedError("still away")

    tried: list[int] = []

    async def main() -> None:
        nonlocal disk_is_up
        disk = Dependency("disk", probe=probe)

        async def write(run: Run) -> str:
            tried.append(run.attempt)
            async with disk.use():
                return run.key

        store = FakeStore()
        async with served(store, [one_step("write", write, needs=disk), one_step("quick", quick)], tmp_path) as procedures:
            disk.observe(Fault(Kind.TRANSIENT, "ECONNREFUSED", "away", "disk"))
            assert disk.state is State.DOWN
            handle = await procedures.submit("write", "a")
            assert await (await procedures.submit("quick", "b")).wait(1.0) == "b"
            await asyncio.sleep(20.0)
            assert tried == []
            assert (await procedures.explain("write", "a")).why == "dependency"
            disk_is_up = True
            assert await handle.wait(5.0) == "a"
            assert tried == [1]

    run_virtual(main())


def test_a_pause_holds_over_restarts_until_it_is_taken_back(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("quick", quick)], tmp_path) as procedures:
            await procedures.pause("quick", "a")
            handle = await procedures.submit("quick", "a")
            assert await (await procedures.submit("quick", "b")).wait(1.0) == "b"
            assert (await procedures.explain("quick", "a")).why == "paused"
        async with served(store.beside(), [one_step("quick", quick)], tmp_path) as procedures:
            await asyncio.sleep(10.0)
            assert await state_of(procedures, handle.id) is ProcedureState.QUEUED
            assert await procedures.resume("quick", "a")
            assert await (await procedures.submit("quick", "a")).wait(1.0) == "a"

    run_virtual(main())
