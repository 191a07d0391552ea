"""Another dependency is down: the kinds that need it wait for it, the others go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from worked_queue import on_queue, settled, until, working

import outlast
from outlast.jobs import Job, Jobs, JobState, NewJob

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.expected_logs, pytest.mark.short]
WORKERS = 10
JOBS = 200


class Payments:
    """Somebody else's service, and the dependency that stands for it."""

    def __init__(self, *, probed: bool) -> None:
        self.up = False
        self.calls = 0
        self.refused = 0
        self.paid: Counter[int] = Counter()
        self.dependency = outlast.Dependency("payments", probe=self.ask if probed else None)

    async def ask(self) -> None:
        if not self.up:
            raise ConnectionRefusedError(111, "refused")

    async def pay(self, job: Job) -> None:
        self.calls += 1
        try:
            async with self.dependency.use():
                await self.ask()
        except outlast.Unavailable:
            self.refused += 1
            raise
        self.paid[job.id] += 1


@pytest.mark.parametrize("probed", [True, False], ids=["probed", "without a probe"])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "learned"])
def test_a_kind_whose_dependency_is_down_is_not_acquired(
    database: str,
    tmp_path: Path,
    probed: bool,  # noqa: FBT001
    declared: bool,  # noqa: FBT001
) -> None:
    async def test(jobs: Jobs) -> None:
        payments = Payments(probed=probed)
        needs: dict[str, Any] = {"needs": payments.dependency} if declared else {}

        @jobs.handler("pay", attempts_max=WORKERS + 1, backoff=outlast.Backoff(0.01, 0.02), **needs)
        async def pay(job: Job) -> None:
            await payments.pay(job)

        @jobs.handler("note")
        async def note(job: Job) -> int:
            return job.payload

        # All of them are before the others in the line.
        await jobs.enqueue_many([NewJob("pay", attempts_max=100) for _ in range(JOBS)])
        async with working(jobs, workers=WORKERS):
            await until(lambda: is_down(payments))
            for round_number in range(5):
                await jobs.enqueue_many([NewJob("note", number) for number in range(JOBS)])
                await until(lambda count=JOBS * (round_number + 1): done(jobs, count))  # type: ignore[misc]
            in_outage = payments.calls
            assert in_outage <= 2 * WORKERS + (0 if probed else 60), "those that had begun, and the trials"
            payments.up = True
            await until(lambda: settled(jobs))
        assert set(payments.paid.values()) == {1}, "none was done twice"
        assert len(payments.paid) == JOBS
        records = await jobs.list(kind="pay", limit=1_000)
        assert {record.state for record in records} == {JobState.DONE}
        # Those that found out that it is down were tried; whoever was refused was not.
        assert sum(record.attempt - 1 for record in records) <= payments.calls - payments.refused - JOBS
        await payments.dependency.close()

    on_queue(database, tmp_path, test)


async def is_down(payments: Payments) -> bool:
    return payments.dependency.state is outlast.State.DOWN


async def done(jobs: Jobs, count: int) -> bool:
    return (await jobs.counts())["default"].get("done", 0) >= count


def test_needs_that_are_declared_are_opened_with_the_service(database: str, tmp_path: Path) -> None:
    async def test(jobs: Jobs) -> None:
        payments, stock = outlast.Dependency("payments"), outlast.Dependency("stock")

        @jobs.handler("pay", needs=(payments, stock, jobs.db))
        async def pay(job: Job) -> None:
            return

        service = outlast.Service("worker")
        jobs.work(service)
        assert service.dependencies == [payments, stock, jobs.db]
        await asyncio.sleep(0)

    on_queue(database, tmp_path, test)
