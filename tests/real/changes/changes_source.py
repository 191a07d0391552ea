"""What the tests of a change stream share: a server for logical replication, a database on it, a sink, a running stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg

import outlast
from outlast.changes import Changes, Insert
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from outlast.changes import Delivery, Sink
    from outlast.testing import PostgresServer

LOGICAL = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20"}
ITEM = "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount numeric)"


def ask(dsn: str, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def source_database(server: PostgresServer) -> Iterator[str]:
    """A database with a table; its slots are dropped at the end."""
    name = f"source_{uuid.uuid4().hex[:12]}"
    ask(server.dsn(), f"CREATE DATABASE {name}")
    try:
        ask(server.dsn(name), ITEM)
        yield server.dsn(name)
    finally:
        slots = f"FROM pg_replication_slots WHERE database = '{name}'"
        ask(server.dsn(), f"SELECT pg_terminate_backend(active_pid) {slots}")
        while ask(server.dsn(name), f"SELECT 1 {slots}"):
            ask(server.dsn(name), f"SELECT pg_drop_replication_slot(slot_name) {slots} AND NOT active")
            time.sleep(0.01)
        ask(server.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


class Memory:
    """A sink that remembers, slowly if told to, and refuses what the test wants."""

    def __init__(self) -> None:
        self.given: list[Delivery] = []
        self.complete = 0
        self.delay_s = 0.0
        self.refuse: Callable[[Delivery], Exception | None] = lambda _: None
        self.opened = 0

    @property
    def rows(self) -> list[int]:
        changes = (change for delivery in self.given for change in delivery.changes)
        return [int(str(change.new[0])) for change in changes if isinstance(change, Insert)]

    async def open(self, stream: str, epoch: int) -> int:
        self.opened += 1
        return 0

    async def write(self, delivery: Delivery) -> None:
        await asyncio.sleep(self.delay_s)
        if (error := self.refuse(delivery)) is not None:
            raise error
        self.given.append(delivery)
        self.complete = delivery.end_lsn or self.complete

    async def flush(self) -> int:
        return self.complete

    async def close(self) -> None:
        return


@contextlib.asynccontextmanager
async def running(dsn: str, sink: Sink, *, policy: outlast.HealthPolicy | None = None, **options: Any) -> AsyncIterator[Changes]:
    """Run a stream in a service; it must end in good order."""
    source = Postgres(dsn) if policy is None else Postgres(dsn, policy=policy)
    changes = Changes(source, "shop", sink=sink, **options)
    service, stop = outlast.Service("shop", deadline_s=5.0), outlast.Stop()
    changes.attach(service)
    life = asyncio.create_task(service.run(stop))
    try:
        yield changes
    finally:
        stop.fire("the test is over")
        assert await life == 0


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def streams(dsn: str) -> None:
    """Return when the slot is read."""
    active = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'shop' AND active"
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(ask, dsn, active):
            await asyncio.sleep(0.02)


async def insert(dsn: str, *ids: int) -> None:
    """One transaction for each."""
    await asyncio.to_thread(
        lambda: [ask(dsn, "INSERT INTO item SELECT %s, 'x', 1", (number,)) for number in ids],
    )
