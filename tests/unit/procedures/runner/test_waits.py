"""Waiting for a result: told in the process, found across processes, and never without an end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import one_step, served

from fake_procedure_store import FakeStore
from outlast.procedures import (
    ProcedureCancelledError,
    ProcedureExpiredError,
    ProcedureGoneError,
    Procedures,
    ProcedureState,
    WaitTimeoutError,
)
from outlast.procedures._model import Sweep
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from outlast.procedures import ProcedureRecord, Run

POLL_S = 1.0
"""Between two looks at a record, at most."""


async def note(run: Run) -> str:
    return run.key


class Between(FakeStore):
    """A store in which something happens just before or after each look at a record."""

    before: object = None

    async def find(self, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        found = await super().find(ids)
        happen, self.happen = self.happen, None
        if happen is not None:
            await happen()
        return found

    happen = None


def elsewhere(store: FakeStore, path: Path) -> Procedures:
    return Procedures(store, [one_step("note", note)], journal_path=path / "none")


@pytest.mark.parametrize("what", ["done", "deleted", "cancelled"])
def test_what_ends_between_the_look_and_the_next_is_found_within_one_poll(tmp_path: Path, what: str) -> None:
    gate = asyncio.Event()

    async def gated(run: Run) -> str:
        await gate.wait()
        return run.key

    async def main() -> None:
        loop = asyncio.get_running_loop()
        looking = Between()
        runs = FakeStore(looking.held)
        async with served(runs, [one_step("note", gated)], tmp_path) as procedures:
            there = elsewhere(looking, tmp_path)
            handle = await there.submit("note", "a")
            if what == "cancelled":
                handle = await there.submit("note", "later", delay_s=100.0)
            ended_at: list[float] = []

            async def happens() -> None:
                if what == "cancelled":
                    await runs.cancel(handle.id)
                else:
                    gate.set()
                    while (await runs.find([handle.id]))[0].state is not ProcedureState.DONE:  # type: ignore[union-attr]
                        await asyncio.sleep(0.01)
                    if what == "deleted":
                        await runs.sweep(Sweep(0.0, None, 1))
                ended_at.append(loop.time())

            await asyncio.sleep(5.0)
            looking.happen = happens
            waits = asyncio.create_task(handle.wait())
            if what == "done":
                assert await waits == "a"
            else:
                with pytest.raises(ProcedureGoneError if what == "deleted" else ProcedureCancelledError):
                    await waits
            assert loop.time() - ended_at[0] <= POLL_S
            gate.set()
            await there.close()
            del procedures

    run_virtual(main())


def test_a_wait_in_the_process_that_runs_it_asks_the_store_once_at_most(tmp_path: Path) -> None:
    async def slow(run: Run) -> str:
        await asyncio.sleep(100.0)
        return run.key

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", slow)], tmp_path) as procedures:
            handle = await procedures.submit("note", "a")
            with pytest.raises(WaitTimeoutError) as late:
                await handle.wait(50.0)
            assert late.value.handle.id == handle.id
            assert await late.value.handle.wait(60.0) == "a"
            assert store.statements["find"] <= 1

    run_virtual(main())


def test_joiners_of_a_running_key_cost_no_statement_and_get_the_same_result(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def gated(run: Run) -> str:
        await gate.wait()
        return run.id

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", gated)], tmp_path) as procedures:
            first = await procedures.submit("note", "a")
            before = store.statements["submit"]
            handles = [await procedures.submit("note", "a") for _ in range(1_000)]
            assert store.statements["submit"] == before
            waits = [asyncio.create_task(handle.wait()) for handle in handles]
            await asyncio.sleep(0)
            gate.set()
            assert set(await asyncio.gather(*waits)) == {first.id}
            assert procedures.tally.joined == 1_000

    run_virtual(main())


def test_submissions_at_once_go_in_one_statement_and_those_of_one_key_are_one_record(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(latency_s=0.001)
        async with served(store, [one_step("note", note)], tmp_path, slots=500) as procedures:
            await asyncio.sleep(0.1)
            handles = await asyncio.gather(*(procedures.submit("note", f"{number % 100}") for number in range(400)))
            assert len({handle.id for handle in handles}) == 100
            assert store.statements["submit"] <= 2
            assert await asyncio.gather(*(handle.wait(5.0) for handle in handles)) == [f"{number % 100}" for number in range(400)]

    run_virtual(main())


def test_what_nobody_waits_for_any_more_is_dropped_and_a_joiner_puts_that_off(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def gated(run: Run) -> str:
        await gate.wait()
        return run.key

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", gated)], tmp_path, slots=1) as procedures:
            await procedures.submit("note", "blocker")
            dropped = await procedures.submit("note", "a", deadline_s=5.0)
            kept = await procedures.submit("note", "b", deadline_s=5.0)
            await asyncio.sleep(3.0)
            joined = await procedures.submit("note", "b", deadline_s=60.0)
            assert joined.id == kept.id
            with pytest.raises(ProcedureExpiredError):
                await dropped.wait(20.0)
            gate.set()
            assert await kept.wait(20.0) == "b"
            assert procedures.tally.expired == 1

    run_virtual(main())
