"""Work that comes, leaves, parks and ends in any order: the counts are those of a list, and in the end nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

import outlast
from outlast.admission import Concurrency, Criticality, Queue, Rate, Refusal, Ticket, Waiting
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("admission orders")


class Scene:
    """An admission under chance, and what should be inside by what its callers know."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.orders = outlast.Admission(
            "orders",
            key_rate=Rate(200, burst=20),
            concurrency=Concurrency(limit_min=2, limit_start=3, limit_max=5),
            memory=None,
            queue=Queue(target_s=0.01, interval_s=0.05, waiters_max=6),
            parked_max=2,
            rng=rng,
        )
        self.held: list[Ticket] = []
        self.parked: list[Ticket] = []
        self.unasked: list[Waiting] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.working = 0

    async def work(self, seconds: float, *, fails: bool) -> None:
        try:
            async with self.orders.enter(key=self.rng.choice("abc"), tenant=self.rng.choice("xy"), deadline_s=0.2):
                self.working += 1
                try:
                    await asyncio.sleep(seconds)
                finally:
                    self.working -= 1
                if fails:
                    raise TimeoutError
        except (outlast.Unavailable, TimeoutError):
            pass

    async def step(self) -> None:
        rng = self.rng
        match rng.randrange(10):
            case 0 | 1 | 2:
                self.tasks.append(asyncio.create_task(self.work(rng.choice((0.0, 0.01, 0.1)), fails=rng.random() < 0.3)))
            case 3:
                got = self.orders.try_enter(criticality=rng.choice(list(Criticality)))
                self.held += [got] if isinstance(got, Ticket) else []
            case 4:
                arrived = self.orders.arrive(key="a")
                self.held += [arrived] if isinstance(arrived, Ticket) else []
                self.unasked += [arrived] if isinstance(arrived, Waiting) else []
                assert isinstance(arrived, Ticket | Waiting | Refusal)
            case 5 if self.tasks:
                rng.choice(self.tasks).cancel()
            case 6 if self.held:
                self.held.pop(rng.randrange(len(self.held))).release(ok=rng.choice((True, False, None)))
            case 7 if self.held:
                await self.park(self.held.pop())
            case 8 if self.parked:
                ticket = self.parked.pop()
                ticket.unpark()
                self.held.append(ticket)
            case 9 if self.unasked:
                await self.ask(self.unasked.pop(0))
            case _:
                await asyncio.sleep(rng.choice((0.0, 0.0, 0.003, 0.02)))

    async def park(self, ticket: Ticket) -> None:
        try:
            ticket.park()
            self.parked.append(ticket)
        except outlast.Unavailable:
            self.held.append(ticket)

    async def ask(self, waiting: Waiting) -> None:
        if self.rng.random() < 0.5:
            waiting.release()
            return
        with contextlib.suppress(outlast.Unavailable):
            self.held.append(await waiting.ticket())

    def check(self) -> None:
        admitter = self.orders._desk.admitter
        assert admitter.parked == len(self.parked)
        # Those that were let in and have not had their turn are inside as well.
        known = self.working + len(self.held)
        assert known <= admitter.in_flight <= known + len(self.unasked) + len(self.tasks)

    async def end(self) -> None:
        for ticket in (*self.held, *self.parked, *self.unasked):
            ticket.release()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", [*range(15), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(15, 500))])
def test_whatever_happens_in_whichever_order_nothing_is_lost(seed: int) -> None:
    async def main() -> None:
        scene = Scene(random.Random(seed))
        for _ in range(300):
            await scene.step()
            scene.check()
        await scene.end()
        assert repr(scene.orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"
        assert scene.orders._desk._waiting == {}
        # The whole capacity is there.
        assert all(isinstance(scene.orders.try_enter(key="d"), Ticket) for _ in range(2))

    run_virtual(main(), seed=seed)
