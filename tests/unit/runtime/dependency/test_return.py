"""Two hundred services lose one server at the same instant: how they come back to it."""

from __future__ import annotations

import asyncio
import random

import pytest

import outlast
from outlast._core.health import Health, HealthPolicy, State
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs

SERVICES = 200
WINDOW_S = 0.1
REFUSED = outlast.Fault(outlast.Kind.TRANSIENT, "ECONNREFUSED", "connection refused", "db")
TOLD_30_S = outlast.Fault(outlast.Kind.OVERLOADED, "429", "slow down", "db", retry_after_s=30.0)
DENIED = outlast.Fault(outlast.Kind.PERMANENT, "28P01", "password authentication failed", "db")


def share(times: list[float]) -> float:
    """The largest share that any 100 ms hold."""
    times = sorted(times)
    first, most = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most / len(times)


def back_at(seed: int, fault: outlast.Fault, lasts_s: float) -> float:
    """When the first probe of one service passes, by the health machine alone."""
    policy, rng = HealthPolicy(), random.Random(seed)
    health, _ = policy.fault(Health(), fault, 0.0, rng)
    while health.probe_at is not None and health.probe_at < lasts_s:
        health = policy.probe_failed(health, fault, health.probe_at, rng)
    assert health.probe_at is not None
    return health.probe_at


@pytest.mark.parametrize("fault", [REFUSED, TOLD_30_S, DENIED], ids=lambda fault: fault.code)
@pytest.mark.parametrize("lasts_s", [5.0, 10.0, 31.0, 60.0])
def test_after_five_seconds_and_more_at_most_a_fifth_come_back_in_the_same_tenth_of_a_second(
    fault: outlast.Fault, lasts_s: float
) -> None:
    for fleet in range(5):
        assert share([back_at(fleet * SERVICES + service, fault, lasts_s) for service in range(SERVICES)]) <= 0.2


@pytest.mark.parametrize("lasts_s", [0.05, 0.1, 0.2, 0.3])
def test_after_a_moment_at_most_55_of_a_hundred_do(lasts_s: float) -> None:
    for fleet in range(5):
        assert share([back_at(fleet * SERVICES + service, REFUSED, lasts_s) for service in range(SERVICES)]) <= 0.55


@pytest.mark.parametrize(("lasts_s", "limit"), [(0.2, 0.55), (5.0, 0.2), (20.0, 0.2)])
def test_the_connects_of_two_hundred_dependencies_are_spread(lasts_s: float, limit: float) -> None:
    """With their probers, and three loops that wait for each: every connect to the server counts."""

    async def main() -> list[float]:
        loop, connects = asyncio.get_running_loop(), list[float]()

        async def connect() -> None:
            if loop.time() < lasts_s:
                raise ConnectionRefusedError(111, "connection refused")
            connects.append(loop.time())

        async def work(db: outlast.Dependency) -> None:
            await db.ready()
            async with db.use():
                await connect()

        fleet = [outlast.Dependency("db", probe=connect, rng=random.Random(seed)) for seed in range(SERVICES)]
        for db in fleet:
            db.report(ConnectionRefusedError(111, "connection refused"))
        await asyncio.gather(*(work(db) for db in fleet for _ in range(3)))
        assert all(db.state is State.RECOVERING for db in fleet)
        return connects

    connects = run_virtual(main)
    assert len(connects) == 4 * SERVICES
    assert share(connects) <= limit
