"""Three runners on one store through seeded troubles: one runner at a time for a key, and in the end all has ended once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

import pytest
from served_procedures import Served, served_by

from fake_procedure_store import FakeStore
from outlast import Backoff
from outlast.procedures import (
    Procedure,
    ProcedureCancelledError,
    ProcedureExpiredError,
    ProcedureFailedError,
    ProcedureRefused,
    Procedures,
    ProcedureState,
)
from outlast.testing import Episode, Script, Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from outlast.procedures import ProcedureHandle, Run, StepOutcome

pytestmark = pytest.mark.expected_logs
T = TypeVar("T")
KEYS = 12
TROUBLED_S = 60.0
LEASE_S = 6.0


class TimedStore(FakeStore):
    """A store whose calls end in time, as those of every adapter do."""

    async def _call(self, name: str, work: Callable[[], T]) -> T:
        async with self.dependency.use(name), asyncio.timeout(3.0):
            return await super()._call(name, work)

    def beside(self, *, name: str | None = None) -> TimedStore:
        other = TimedStore(self.held, name=name or self.peer.name, latency_s=self.peer.latency_s)
        other._stores = self._stores
        self._stores.append(other)
        return other


class World:
    """The keys that are under way, whoever runs them, and what was done under which idempotency key."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.under_way: Counter[str] = Counter()
        self.together = 0
        self.done: Counter[str] = Counter()

    def procedure(self) -> Procedure:
        made = Procedure("work", backoff=Backoff(base_s=0.1, cap_s=0.5))
        for name in ("one", "two"):
            step = made.step(name=name)(self.step)
            step.undo(self.undo)
        return made

    async def step(self, run: Run) -> str:
        await self._alone(run)
        if self.rng.random() < 0.1:
            raise ConnectionResetError("now and then")
        self.done[run.idempotency_key] += 1
        return run.id

    async def undo(self, run: Run, outcome: StepOutcome) -> None:
        del outcome
        await self._alone(run)

    async def _alone(self, run: Run) -> None:
        self.under_way[run.key] += 1
        self.together = max(self.together, self.under_way[run.key])
        try:
            await asyncio.sleep(self.rng.uniform(0.0, 1.5))
        finally:
            self.under_way[run.key] -= 1


def script(rng: random.Random) -> Script:
    """Some troubles, of up to ten seconds each."""
    troubles = (Trouble.REFUSE, Trouble.HANG, Trouble.LOSE_REPLY, Trouble.SLOW)
    episodes, at = list[Episode](), rng.uniform(1.0, 10.0)
    while at < TROUBLED_S:
        until = at + rng.uniform(0.1, 10.0)
        episodes.append(Episode(at, until, rng.choice(troubles)))
        at = until + rng.uniform(0.5, 10.0)
    return Script(*episodes)


async def client(procedures: Procedures, rng: random.Random, ends: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < TROUBLED_S:
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        try:
            handle = await procedures.submit("work", f"{rng.randrange(KEYS)}", deadline_s=rng.choice([None, 5.0, 30.0]))
        except ProcedureRefused as refusal:
            ends[f"refused {refusal.why}"] += 1
            continue
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0.0, 2.0))
            ends[f"cancel {await asked(handle)}"] += 1
        try:
            assert await handle.wait(600.0) == handle.id
            ends["done"] += 1
        except (ProcedureCancelledError, ProcedureExpiredError, ProcedureFailedError) as end:
            ends[type(end).__name__] += 1


async def asked(handle: ProcedureHandle) -> ProcedureState | None:
    while True:
        try:
            return await handle.cancel(600.0)
        except Exception:  # noqa: BLE001 - the store is away: asked again
            await asyncio.sleep(0.5)


async def life(seed: int, path: Path) -> tuple[World, Counter[str], Counter[str]]:
    rng = random.Random(seed)
    world, ends = World(rng), Counter[str]()
    first = TimedStore(latency_s=0.002)
    runners: list[Served] = []
    for number in range(3):
        store = first if number == 0 else first.beside()
        store.peer.script = script(rng)
        runs = served_by(store, [world.procedure()], path / f"{seed}.{number}", lease_s=LEASE_S, slots=4)
        await runs.start()
        runners.append(runs)
    clients = [asyncio.create_task(client(runs.system, rng, ends)) for runs in runners for _ in range(3)]
    await asyncio.gather(*clients)
    looking = FakeStore(first.held)
    loop = asyncio.get_running_loop()
    until = loop.time() + 120.0
    held = (await looking.counts()).held
    while any(state not in {"done", "dead", "cancelled", "expired"} for _, state in held):
        assert loop.time() < until, held
        await asyncio.sleep(1.0)
        held = (await looking.counts()).held
    for runs in runners:
        await runs.end()
    return world, ends, Counter({state: count for (_, state), count in held.items()})


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 103), marks=pytest.mark.long)], ids=["three", "a hundred"])
def test_a_key_has_one_runner_at_a_time_and_everything_ends(tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        world, ends, held = run_virtual(life(seed, tmp_path), seed=seed)
        assert world.together == 1, f"seed {seed}"
        assert ends["done"] > 0
        assert held["done"] > 0
