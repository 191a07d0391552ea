"""A service in virtual time whose dependency fails by a script."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

import outlast
from outlast.testing import Episode, Script, ScriptedPeer, Trouble, run_virtual

SEEDS = range(60)


class Shop:
    """Settles an order a second, each exactly once however often it has to ask."""

    def __init__(self, script: Script, seed: int) -> None:
        self.seed = seed
        self.peer = ScriptedPeer("db", script, latency_s=0.02)
        self.db = outlast.Dependency("db", probe=self.peer.probe, rng=random.Random(seed))
        self.service = outlast.Service("shop", rng=random.Random(seed))
        self.settled: dict[int, int] = {}
        self.acknowledged = 0
        self.service.loop(needs=self.db, every_s=1.0)(self.settle)

    async def settle(self, stop: outlast.Stop) -> None:
        order = self.acknowledged
        async with self.db.use(), asyncio.timeout(3):
            await self.peer.call(lambda: self.settled.update({order: self.settled.get(order, 0) + 1}))
        self.acknowledged += 1


def run_shop(shop: Shop, until_s: float, heal_s: float) -> int:
    async def main() -> int:
        stop, loop = outlast.Stop(), asyncio.get_running_loop()
        loop.call_at(heal_s, shop.peer.script.heal)
        loop.call_at(until_s, stop.fire, "the test is over")
        return await shop.service.run(stop)

    return run_virtual(main, seed=shop.seed)


@pytest.mark.expected_logs
def test_a_service_outlasts_an_outage_with_one_prober() -> None:
    shop = Shop(Script(Episode(10, 40, Trouble.REFUSE)), seed=1)
    states: list[tuple[float, outlast.State]] = []
    shop.db.subscribe(lambda state, fault: states.append((asyncio.get_running_loop().time(), state)))
    assert run_shop(shop, until_s=100, heal_s=99) == 0
    assert [state for _, state in states] == [outlast.State.DOWN, outlast.State.RECOVERING, outlast.State.UP]
    assert 10 <= states[0][0] < 11.5
    assert 40 <= states[1][0] < 42
    assert shop.peer.calls == shop.peer.answered + 1
    assert 20 < shop.peer.probes < 100
    assert shop.acknowledged == len(shop.settled) > 65
    assert set(shop.settled.values()) == {1}


@pytest.mark.expected_logs
@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_loses_nothing_it_acknowledged_and_is_up_again_when_all_is_well(seed: int) -> None:
    shop = Shop(Script.random(random.Random(seed), 120.0), seed)
    assert run_shop(shop, until_s=300, heal_s=120) == 0
    peer = shop.peer
    assert shop.db.state is outlast.State.UP
    assert peer.in_flight == peer.script.held == 0
    assert peer.effects == peer.answered + peer.replies_lost == sum(shop.settled.values())
    assert peer.answered == shop.acknowledged > 150
    assert all(order in shop.settled for order in range(shop.acknowledged))


@pytest.mark.expected_logs
def test_a_corruption_is_fatal_to_a_service() -> None:
    shop = Shop(Script(Episode(10, math.inf, Trouble.FAIL)), seed=1)
    assert run_shop(shop, until_s=100, heal_s=99) == 74
    assert shop.peer.troubled == 1
