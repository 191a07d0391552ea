"""What many keys fail by is held against none of them: canaries, waves, one incident."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import one_step, served

from fake_procedure_store import FakeStore
from outlast import Backoff, Dependency, Fault, Kind, OutlastError
from outlast.procedures import ProcedureFailedError, ProcedureState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.procedures import Procedures, Run

CAUSE = Fault(Kind.PERMANENT, "no space", "the catalogue is full", "catalogue")
KEYS = 300
pytestmark = pytest.mark.expected_logs("procedures", "not theirs", "disk is down")


class Catalogue:
    """Something that every key needs and no dependency watches."""

    def __init__(self) -> None:
        self.fault: Fault | None = CAUSE
        self.running = self.running_max = 0
        self.failed_at: list[float] = []
        self.done_at: list[float] = []
        self.done: set[str] = set()

    async def create(self, run: Run) -> str:
        loop = asyncio.get_running_loop()
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        if self.fault is not None:
            self.failed_at.append(loop.time())
            raise OutlastError("no", self.fault)
        self.done_at.append(loop.time())
        self.done.add(run.key)
        return run.key


async def counted(procedures: Procedures, state: ProcedureState) -> int:
    return (await procedures.counts()).held.get(("create", state.value), 0)


def test_one_cause_is_one_incident_with_one_canary_at_a_time_and_waves_at_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store, catalogue = FakeStore(), Catalogue()
        create = one_step("create", catalogue.create, attempts_max=1, backoff=Backoff(base_s=1.0, cap_s=2.0))
        async with served(store, [create], tmp_path, slots=16) as procedures:
            handles = [await procedures.submit("create", f"{number}") for number in range(KEYS)]
            await asyncio.sleep(30.0)
            dead = await counted(procedures, ProcedureState.DEAD)
            assert 20 <= dead <= 20 + 16, "those that failed before it was known"
            # One canary at a time: 0.2 to 1 s between two.
            late = [at for at in catalogue.failed_at if at > 10.0]
            assert 15 <= len(late) <= 110
            assert all(later - earlier > 0.05 for earlier, later in zip(late, late[1:], strict=False))
            explained = await procedures.explain("create", f"{KEYS - 1}")
            assert explained.why == "cause"
            assert explained.fault is not None
            assert explained.fault.key == CAUSE.key
            catalogue.running_max, catalogue.fault = 0, None
            gone_at = loop.time()
            waiting = [handle for handle in handles if (await handle.get()).state is not ProcedureState.DEAD]  # type: ignore[union-attr]
            for handle in waiting:
                assert await handle.wait(60.0) == handle.key
            assert catalogue.done_at[0] - gone_at <= 1.1
            # Each wave is twice the last, never all at once.
            first_second = [at for at in catalogue.done_at if at <= catalogue.done_at[0] + 0.015]
            assert len(first_second) <= 4
            # Those that are dead by it are forgotten: nobody waits for their backoff.
            await asyncio.sleep(1.0)
            for handle in handles:
                if handle not in waiting:
                    assert await (await procedures.submit("create", handle.key)).wait(5.0) == handle.key
            assert len(catalogue.done) == KEYS

    run_virtual(main())
    lines = [each for each in caplog.records if each.levelname in {"WARNING", "ERROR"}]
    assert len(lines) <= 8
    assert sum("not theirs" in each.getMessage() for each in lines) <= 3


def test_keys_that_fail_each_for_its_own_reason_hold_nobody(tmp_path: Path) -> None:
    async def own(run: Run) -> str:
        if run.key.startswith("good"):
            return run.key
        raise OutlastError("no", Fault(Kind.REJECTED, f"bad {run.key}", "its own", "tables"))

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("create", own)], tmp_path, slots=16) as procedures:
            for number in range(KEYS):
                await procedures.submit("create", f"bad{number}")
            await asyncio.sleep(1.0)
            assert await counted(procedures, ProcedureState.DEAD) == KEYS
            for number in range(20):
                assert await (await procedures.submit("create", f"good{number}")).wait(1.0) == f"good{number}"
            assert procedures.tally.refused == {}

    run_virtual(main())


def test_an_outage_of_a_dependency_is_held_against_no_key_and_is_no_cause(tmp_path: Path) -> None:
    disk_is_up = False

    async def probe() -> None:
        if not disk_is_up:
            raise ConnectionRefusedError("still away")

    async def main() -> None:
        nonlocal disk_is_up
        disk = Dependency("disk", probe=probe)
        tried: list[int] = []

        async def write(run: Run) -> str:
            tried.append(run.attempt)
            async with disk.use():
                await asyncio.sleep(0.01)
                if not disk_is_up:
                    raise ConnectionRefusedError("away")
            return run.key

        store = FakeStore()
        async with served(store, [one_step("write", write, needs=disk, attempts_max=1)], tmp_path, slots=64) as procedures:
            handles = await asyncio.gather(*(procedures.submit("write", f"{number}") for number in range(50)))
            await asyncio.sleep(20.0)
            assert len(tried) == 50
            disk_is_up = True
            assert [await handle.wait(10.0) for handle in handles] == [f"{number}" for number in range(50)]
            assert set(tried) == {1}
            assert procedures.tally.ended == {"done": 50}

    run_virtual(main())


def test_a_result_that_is_no_json_is_dead_at_once(tmp_path: Path) -> None:
    tried: list[int] = []

    async def odd(run: Run) -> float:
        tried.append(run.attempt)
        return float("nan")

    async def main() -> None:
        async with served(FakeStore(), [one_step("odd", odd)], tmp_path) as procedures:
            with pytest.raises(ProcedureFailedError, match="no JSON"):
                await (await procedures.submit("odd", "a")).wait(5.0)
            assert tried == [1]

    run_virtual(main())
