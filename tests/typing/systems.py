"""Jobs, changes and the PostgreSQL adapter, as a service uses them. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from contextlib import aclosing
from typing import assert_never, assert_type

import outlast
from outlast.changes import (
    Change,
    Changes,
    Copying,
    Delete,
    Delivery,
    DeliveryPolicy,
    Insert,
    JsonLinesSink,
    Message,
    OwnerPolicy,
    PostgresSink,
    Quarantine,
    Sink,
    SourcePolicy,
    Transaction,
    TransactionPart,
    Truncate,
    Update,
)
from outlast.jobs import EnqueueResult, Job, JobRecord, Jobs, NewJob
from outlast.postgres import Connection, Postgres

db = Postgres("postgresql://localhost/shop", connections_max=20, writable=True)
service = outlast.Service("shop")
a_dependency: outlast.Dependency = db


async def connections() -> None:
    async with db.connection() as conn:
        assert_type(conn, Connection)
        await conn.execute("SELECT 1")
    own = await db.connect(operation_timeout_s=5.0)
    await own.close()
    await db.ready(timeout_s=1.0)


# Jobs: a handler keeps its type, plain or not.

jobs = Jobs(db, journal_path="journal", lease_s=60.0)


@jobs.handler("pay", needs=db, attempts_max=3)
async def pay(job: Job) -> dict[str, int]:
    return {"attempt": job.attempt}


@jobs.handler("primes", process=True, timeout_s=60.0)
def primes(job: Job) -> int:
    return job.id


async def enqueue() -> None:
    assert_type(await jobs.enqueue("pay", {"order": 17}, delay_s=1.0, unique_key="17"), EnqueueResult)
    assert_type(await jobs.enqueue_many([NewJob("pay")]), list[EnqueueResult])
    assert_type(await jobs.list(kind="pay"), list[JobRecord])


def called_as_before(job: Job) -> int:
    return assert_type(primes(job), int)


jobs.work(service, workers=50, queues=("default",))


# Changes: a sink of one's own fulfils the port by its methods alone.


class Printing:
    def __init__(self) -> None:
        self.complete = 0

    async def open(self, stream: str, epoch: int) -> int:
        return len(stream) * epoch

    async def write(self, delivery: Delivery) -> None:
        assert_type(delivery, Transaction | TransactionPart)
        for change in delivery.changes:
            about(change)

    async def flush(self) -> int:
        return self.complete

    async def close(self) -> None: ...


def about(change: Change) -> str:
    match change:
        case Insert() | Update() | Delete():
            return change.relation.name
        case Truncate():
            return "all"
        case Message():
            return change.prefix
        case _:
            assert_never(change)


sinks: list[Sink] = [Printing(), PostgresSink(db), JsonLinesSink("changes.jsonl")]
copies: Copying = PostgresSink(db)

changes = Changes(
    db,
    "shop",
    sink=Printing(),
    source=SourcePolicy(lost="snapshot"),
    delivery=DeliveryPolicy(poison="skip", quarantine=Quarantine("q.jsonl")),
    owner=OwnerPolicy(schema="shop"),
)
changes.attach(service)
assert_type(changes.epoch, int)
assert_type(changes.over, outlast.Fault | None)


async def iterate(stop: outlast.Stop) -> None:
    async with aclosing(Changes(db, "shop").stream(stop)) as transactions:
        async for transaction in transactions:
            assert_type(transaction, Transaction | TransactionPart)
