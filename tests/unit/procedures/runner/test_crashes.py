"""A runner that dies, at every write it makes: the next one goes on, and each procedure ends once, as if never interrupted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import served, served_by
from three_steps import NAMES, World, three_steps

from fake_procedure_store import FakeStore
from outlast.procedures import Procedures, ProcedureState
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from outlast.procedures._model import Recorded, RecordWrite

pytestmark = pytest.mark.expected_logs("store (is|still) down|lease of this runner|cancelled what still ran")


class DyingStore(FakeStore):
    """A store that is cut off from its runner for good, before or after the n-th write."""

    writes_left = 0
    does_the_last = False

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        if self.writes_left == 0:
            done = await super().record(writes) if self.does_the_last else []
            del done
            self.trouble(Trouble.REFUSE)
        self.writes_left -= 1
        return await super().record(writes)


@pytest.mark.parametrize("does_the_last", [False, True])
@pytest.mark.parametrize("writes", range(3))
def test_a_runner_that_dies_at_any_write_is_taken_over(tmp_path: Path, writes: int, *, does_the_last: bool) -> None:
    async def main() -> None:
        world = World()
        store = DyingStore()
        store.writes_left, store.does_the_last = writes, does_the_last
        runs = served_by(store, [three_steps(world)], tmp_path / "dead")
        await runs.start()
        handle = await runs.system.submit("three", "a")
        await asyncio.sleep(1.0)
        other = FakeStore(store.held)
        async with served(other, [three_steps(world)], tmp_path) as procedures:
            # It is dead only when its lease is over: until then nobody else runs it.
            await asyncio.sleep(20.0)
            record = await procedures.get(handle.id)
            assert record is not None
            ended = does_the_last and writes == 2
            assert (record.state is ProcedureState.RUNNING) == (not ended)
            assert await procedures.wait(handle.id, 60.0) == "three of a"
            record = await procedures.get(handle.id)
            assert record is not None
            assert record.state is ProcedureState.DONE
        # Each step once or, if its record was lost, twice with one key.
        assert [name for place, name in enumerate(world.done) if name not in world.done[:place]] == list(NAMES)
        assert len(world.done) == 3 if does_the_last else 4
        assert len(set(world.keys)) == 3
        assert world.running_max == 1
        await runs.end()

    run_virtual(main())


def test_a_runner_cut_off_for_longer_than_its_lease_leaves_its_steps_and_its_write_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        world, ghosts = World(), World()
        ghosts.stay_in = "two"
        store = FakeStore()
        runs = served_by(store, [three_steps(ghosts)], tmp_path / "ghost")
        await runs.start()
        handle = await runs.system.submit("three", "a")
        await ghosts.inside.wait()
        ghosts.inside.clear()
        store.trouble(Trouble.HANG)
        other = FakeStore(store.held)
        async with served(other, [three_steps(world)], tmp_path) as procedures:
            assert await procedures.wait(handle.id, 60.0) == "three of a"
            assert ghosts.running == 0, "its step was cancelled before another began"
            store.heal()
            await asyncio.sleep(30.0)
            assert (ghosts.done, world.done) == (["one"], ["two", "three"])
            # The ghost works again, for others.
            ghosts.go.set()
            assert await (await runs.system.submit("three", "b")).wait(60.0) == "three of b"
            assert await (await procedures.submit("three", "c")).wait(60.0) == "three of c"
        assert await runs.end() == 0

    run_virtual(main())


def test_a_reply_that_is_lost_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        world, store = World(), FakeStore()
        async with served(store, [three_steps(world)], tmp_path):
            await asyncio.sleep(1.0)
            maker = FakeStore(store.held)
            store.trouble(Trouble.LOSE_REPLY)
            system = Procedures(maker, [three_steps(world)], journal_path=tmp_path / "none")
            handle = await system.submit("three", "a")
            await asyncio.sleep(1.5)
            record = await handle.get()
            assert record is not None
            assert record.state is ProcedureState.RUNNING, "the claim was done, and its reply lost"
            store.heal()
            assert await system.wait(handle.id, 5.0) == "three of a"
            await system.close()
        assert world.done == list(NAMES)

    run_virtual(main())
