"""Enqueueing asks an admission first, and a job that is refused by one comes back when it was told to."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast.admission import Concurrency, Queue, Rate, Reason, Refusal, Refused, Throttler, TooLargeError
from outlast.jobs import InvalidJobError, Job, Jobs, JobState, NewJob
from outlast.jobs._decide import Handling, after_fault
from outlast.postgres import Postgres
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

pytestmark = pytest.mark.expected_logs


class Connection:
    """Inserts what it is asked to, after `db.takes_s` seconds."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def execute(self, statement: object, columns: dict[str, list[Any]]) -> Connection:
        await asyncio.sleep(self.db.takes_s)
        self.rows = [(token, len(self.db.kinds) + index, True) for index, token in enumerate(columns["token"])]
        self.db.kinds += columns["kind"]
        return self

    async def fetchall(self) -> list[Any]:
        return self.rows


class Database(Postgres):
    """A database in memory, with the health of a real dependency."""

    def __init__(self) -> None:
        super().__init__("postgresql://nowhere.invalid/shop")
        self.kinds: list[str] = []
        self.takes_s = 0.0
        self.up = True

    async def probe(self) -> None:
        if not self.up:
            raise ConnectionRefusedError(111, "refused")

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        async with self.use("query"):
            yield Connection(self)

    def goes_away(self) -> None:
        self.up = False
        self.report(ConnectionRefusedError(111, "refused"))


def run(test: Callable[[Jobs, Database, outlast.Admission], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        db = Database()
        await db.open()
        admission = outlast.Admission("enqueue", memory=None, rng=random.Random(5), **options)
        await test(Jobs(db, admission=admission), db, admission)
        assert repr(admission) == "<Admission enqueue, 0 under way, 0 waiting, 0 parked>"
        await db.close()

    run_virtual(main())


def test_jobs_of_one_kind_above_their_rate_are_refused_and_others_are_not() -> None:
    async def test(jobs: Jobs, db: Database, admission: outlast.Admission) -> None:
        for _ in range(2):
            await jobs.enqueue("pay")
        with pytest.raises(Refused) as refused:
            await jobs.enqueue("pay")
        assert (refused.value.reason, refused.value.dependency) == (Reason.RATE, "enqueue")
        await jobs.enqueue("mail")
        await jobs.enqueue("pay", queue="other")
        assert db.kinds == ["pay", "pay", "mail", "pay"]
        await asyncio.sleep(refused.value.retry_after_s)
        await jobs.enqueue("pay")

    run(test, key_rate=Rate(0.5, burst=2))


def test_many_jobs_cost_as_many_tokens_and_are_let_in_all_or_none() -> None:
    async def test(jobs: Jobs, db: Database, admission: outlast.Admission) -> None:
        await jobs.enqueue_many([NewJob("pay")] * 3)
        with pytest.raises(Refused):
            await jobs.enqueue_many([NewJob("pay")] * 3)
        await jobs.enqueue_many([NewJob("pay")] * 2)
        with pytest.raises(TooLargeError):
            await jobs.enqueue_many([NewJob("pay")] * 6)
        # A batch asks as what most of it is.
        await jobs.enqueue_many([NewJob("pay"), NewJob("mail"), NewJob("mail")])
        assert len(db.kinds) == 8

    run(test, key_rate=Rate(0.001, burst=5))


def test_what_is_no_job_and_what_is_part_of_a_transaction_of_the_callers_costs_nothing() -> None:
    async def test(jobs: Jobs, db: Database, admission: outlast.Admission) -> None:
        assert await jobs.enqueue_many([]) == []
        with pytest.raises(InvalidJobError):
            await jobs.enqueue("")
        conn: Any = Connection(db)
        for _ in range(3):
            await jobs.enqueue("pay", conn=conn)
        await jobs.enqueue("pay")
        with pytest.raises(Refused):
            await jobs.enqueue("pay")

    run(test, rate=Rate(0.001, burst=1))


def test_while_the_database_is_away_its_first_cause_is_told_and_no_token_and_no_slot_is_used() -> None:
    async def test(jobs: Jobs, db: Database, admission: outlast.Admission) -> None:
        db.goes_away()
        waiting = [asyncio.create_task(jobs.enqueue("pay", wait_s=60.0)) for _ in range(5)]
        await asyncio.sleep(0.01)
        for _ in range(5):
            with pytest.raises(outlast.Unavailable) as refused:
                await jobs.enqueue("pay")
            assert (type(refused.value), refused.value.fault.code) == (outlast.Unavailable, "ECONNREFUSED")
        assert repr(admission) == "<Admission enqueue, 0 under way, 0 waiting, 0 parked>"
        db.up = True
        await asyncio.gather(*waiting)
        assert db.kinds == ["pay"] * 5

    run(test, rate=Rate(0.001, burst=5))


def test_what_is_under_way_when_the_service_stops_may_still_enqueue_what_follows() -> None:
    async def test(jobs: Jobs, db: Database, admission: outlast.Admission) -> None:
        service, stop = outlast.Service("shop"), outlast.Stop()
        admission.attach(service)
        running = asyncio.create_task(service.run(stop))
        await service.until_ready()
        db.takes_s = 0.05
        # Two are at it, one waits for its turn.
        first = [asyncio.create_task(jobs.enqueue("pay")) for _ in range(3)]
        await asyncio.sleep(0.01)
        stop.fire("enough")
        await asyncio.gather(*first, jobs.enqueue("pay"))
        assert await running == 0
        assert len(db.kinds) == 4

    two = Concurrency(limit_min=2, limit_start=2, limit_max=2)
    run(test, concurrency=two, queue=Queue(interval_s=10.0))


@pytest.mark.parametrize("throttled", [False, True], ids=["plain", "throttled"])
def test_five_attempts_at_a_peer_that_refuses_are_five_calls_never_sooner_than_it_asked_for(*, throttled: bool) -> None:
    """The number that docs/admission.md names. What the throttle refuses costs neither the peer a call nor the job an attempt."""

    async def main() -> list[float]:
        loop, called_at, attempt, local = asyncio.get_running_loop(), list[float](), 1, 0
        rng = random.Random(5)
        throttler = Throttler("peer", rng=rng)
        busy = outlast.Fault(outlast.Kind.OVERLOADED, "HTTP 429", "busy", "peer", outlast.Scope.CALL, retry_after_s=3.0)

        async def handle() -> None:
            async with throttler.call() if throttled else nullcontext():
                called_at.append(loop.time())
                raise outlast.OutlastError("the peer answered 429", busy)

        while True:
            try:
                await handle()
            except outlast.OutlastError as exc:
                fault = outlast.Classifiers().classify(exc)
                outcome = after_fault(Job(7, "pay", None, attempt, 5), fault, exc, Handling(), "db", rng)
            local += outcome.give_back
            if outcome.state == JobState.DEAD.value:
                assert (local > 0) is throttled
                return called_at
            attempt += not outcome.give_back
            assert outcome.delay_s is not None
            await asyncio.sleep(outcome.delay_s)

    called_at = run_virtual(main())
    assert len(called_at) == 5
    assert all(after - before >= 3.0 for before, after in pairwise(called_at))


@pytest.mark.parametrize("retry_after_s", [0.2, 30.0])
def test_a_job_whose_work_is_refused_comes_back_after_the_time_it_was_told_and_it_costs_no_attempt(retry_after_s: float) -> None:
    """One layer tries again: the job. What its handler calls is asked once an attempt."""
    job = Job(7, "pay", None, 1, 5)
    refused = Refused("peer", Refusal(Reason.CONCURRENCY, 21.0, 20.0, retry_after_s))
    fault = outlast.Classifiers().classify(refused)
    outcome = after_fault(job, fault, refused, Handling(), "db", random.Random(5))
    assert (outcome.state, outcome.give_back) == (JobState.AVAILABLE.value, True)
    assert outcome.delay_s is not None
    assert max(1.0, retry_after_s) <= outcome.delay_s <= 1.5 * max(1.0, retry_after_s)
