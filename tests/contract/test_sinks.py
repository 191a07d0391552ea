"""The contract of a sink of changes: one suite over every sink, that of the documentation among them.

A sink that keeps its position makes each transaction count exactly once, whatever is cut off in between; one that keeps
none lets each count at least once.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest

from outlast import Classifiers, Fault, Kind
from outlast.changes import (
    Column,
    FencedError,
    Insert,
    JsonLinesSink,
    PostgresSink,
    Relation,
    ReplicaIdentity,
    StdoutSink,
    Transaction,
    TransactionPart,
)
from outlast.changes._sinks.port import emptied
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.changes import Delivery, Sink

ITEM = Relation(1, "public", "item", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, is_key=True), Column("name", 25, -1, False)))
AT = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_OWNER, SECOND_OWNER = 1, 2
DOCUMENTED = Path(__file__).parents[2] / "docs" / "changes.md"
REFUSED = "refused"
"""The name that the table of the PostgreSQL sink does not take."""


class Store(Protocol):
    """Whatever a sink writes to, which outlives it."""

    keeps_position: bool

    def sink(self) -> Sink:
        """A new sink that writes there: that of the next owner, or of a process that was started again."""
        ...

    def ids(self) -> list[int]:
        """The rows that a reader counts, in their order."""
        ...

    async def close(self) -> None: ...


class Tables:
    keeps_position = True

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.db = Postgres(dsn, name="warehouse")
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE item (id bigint PRIMARY KEY, name text CHECK (name <> 'refused'))")

    def sink(self) -> Sink:
        return PostgresSink(self.db)

    def ids(self) -> list[int]:
        with psycopg.connect(self.dsn) as conn:
            return [number for (number,) in conn.execute("SELECT id FROM item ORDER BY id")]

    async def close(self) -> None:
        await self.db.close()


class File:
    keeps_position = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def sink(self) -> Sink:
        return JsonLinesSink(self.path)

    def ids(self) -> list[int]:
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        last = max((place for place, line in enumerate(lines) if line["op"] == "commit"), default=-1)
        return [int(line["new"]["id"]) for line in lines[: last + 1] if line["op"] == "insert"]

    async def close(self) -> None:
        return


class Output:
    keeps_position = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sink(self) -> Sink:
        return StdoutSink(self.descriptor)

    def ids(self) -> list[int]:
        lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return [int(line["new"]["id"]) for line in lines if line["op"] == "insert"]

    async def close(self) -> None:
        os.close(self.descriptor)


class Documented:
    """The least sink of the documentation. It prints how many changes came: here they are counted instead."""

    keeps_position = False

    def __init__(self) -> None:
        (sample,) = re.findall(r"```\w+\n(class Printing:.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
        self.count = 0
        self.names: dict[str, Any] = {"print": self._print}
        exec(sample, self.names)  # noqa: S102 - our own documentation

    def sink(self) -> Sink:
        made: Sink = self.names["Printing"]()
        return made

    def ids(self) -> list[int]:
        return list(range(1, self.count + 1))

    async def close(self) -> None:
        return

    def _print(self, count: int) -> None:
        self.count += count


STORES = ["PostgresSink", "JsonLinesSink", "StdoutSink", "documented"]


def store_of(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "PostgresSink":
            return Tables(request.getfixturevalue("database"))
        case "JsonLinesSink":
            return File(tmp_path / "changes.jsonl")
        case "StdoutSink":
            return Output(tmp_path / "output")
        case _:
            return Documented()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return store_of(request, tmp_path)


@pytest.fixture(params=[name for name in STORES if name in {"PostgresSink", "JsonLinesSink"}])
def keeping(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that keeps the position."""
    return store_of(request, tmp_path)


def row(number: int, name: str = "x") -> Insert:
    return Insert(ITEM, (str(number), name))


def transaction(lsn: int, *changes: Insert) -> Transaction:
    return Transaction(7, lsn, lsn + 10, AT, None, changes)


ONE, TWO, THREE = (transaction(100 * number, row(number)) for number in (1, 2, 3))
HALF = TransactionPart(8, 200, AT, None, 0, False, (row(2),), None)
REST = TransactionPart(8, 200, AT, None, 1, True, (row(3),), 210)


def run(store: Store, act: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await act()
        finally:
            await store.close()

    asyncio.run(main())


async def session(store: Store, *deliveries: Delivery, epoch: int = FIRST_OWNER, flush: bool = True) -> tuple[int, int]:
    """Write what is beyond the position of a new sink, as a stream does; return where it began and what is durable then."""
    sink = store.sink()
    try:
        began = durable = await sink.open("shop", epoch)
        for delivery in deliveries:
            if delivery.commit_lsn >= began:
                await sink.write(delivery)
        if flush:
            durable = await sink.flush()
    finally:
        await sink.close()
    return began, durable


def test_a_new_sink_begins_at_the_beginning(store: Store) -> None:
    async def act() -> None:
        assert await session(store) == (0, 0)

    run(store, act)


def test_the_position_is_the_end_of_the_last_whole_transaction_that_was_flushed(store: Store) -> None:
    async def act() -> None:
        assert await session(store, ONE, TWO) == (0, 210)
        assert store.ids() == [1, 2]
        kept = 210 if store.keeps_position else 0
        assert await session(store) == (kept, kept)

    run(store, act)


def test_what_was_written_and_not_flushed_comes_again_and_counts(store: Store) -> None:
    async def act() -> None:
        await session(store, ONE)
        await session(store, ONE, TWO, flush=False)
        began, durable = await session(store, ONE, TWO, THREE)
        assert durable == 310
        # A file may have kept a commit that nobody has waited for: then it is durable, and not written again.
        assert began in ({110, 210} if store.keeps_position else {0})
        ids = store.ids()
        assert (ids == [1, 2, 3]) if store.keeps_position else len(ids) >= 3

    run(store, act)


def test_after_a_crash_between_the_flush_and_the_confirmation_nothing_counts_twice(keeping: Store) -> None:
    """The server was never told, and sends both again."""

    async def act() -> None:
        await session(keeping, ONE, TWO)
        assert await session(keeping, ONE, TWO, THREE) == (210, 310)
        assert keeping.ids() == [1, 2, 3]

    run(keeping, act)


def test_between_two_parts_of_a_transaction_nothing_becomes_durable(store: Store) -> None:
    async def act() -> None:
        sink = store.sink()
        await sink.open("shop", FIRST_OWNER)
        await sink.write(ONE)
        assert await sink.flush() == 110
        await sink.write(HALF)
        assert await sink.flush() == 110
        await sink.close()
        if store.keeps_position:
            assert store.ids() == [1]
        assert (await session(store, HALF, REST))[1] == 210
        ids = store.ids()
        assert (ids == [1, 2, 3]) if store.keeps_position else len(ids) >= 3

    run(store, act)


def test_a_transaction_without_changes_moves_the_position(store: Store) -> None:
    """It was refused too often, and is in the quarantine."""

    async def act() -> None:
        assert await session(store, ONE, emptied(TWO)) == (0, 210)
        assert store.ids() == [1]

    run(store, act)


def test_a_sink_may_be_closed_with_work_half_done_and_opened_again(store: Store) -> None:
    async def act() -> None:
        sink = store.sink()
        for _ in range(3):
            await sink.open("shop", FIRST_OWNER)
            await sink.write(HALF)
            await sink.close()
        await sink.open("shop", FIRST_OWNER)
        for delivery in (ONE, HALF, REST):
            await sink.write(delivery)
        assert await sink.flush() == 210
        await sink.close()

    run(store, act)


# Two owners.


def test_a_former_owner_is_fenced_by_the_epoch_of_the_next(database: str) -> None:
    store = Tables(database)

    async def act() -> None:
        former, later = store.sink(), store.sink()
        await former.open("shop", FIRST_OWNER)
        await former.write(ONE)
        assert await former.flush() == 110
        assert await later.open("shop", SECOND_OWNER) == 110
        await former.write(TWO)
        with pytest.raises(FencedError):
            await former.flush()
        await former.close()
        with pytest.raises(FencedError):
            await former.open("shop", FIRST_OWNER)
        await former.close()
        await later.write(THREE)
        assert await later.flush() == 310
        await later.close()
        assert store.ids() == [1, 3]

    run(store, act)


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    store = File(tmp_path / "changes.jsonl")

    async def act() -> None:
        first, second = store.sink(), store.sink()
        await first.open("shop", FIRST_OWNER)
        with pytest.raises(BlockingIOError) as caught:
            await second.open("shop", SECOND_OWNER)
        fault = Classifiers().classify(caught.value)
        assert (fault.kind, fault.code) == (Kind.CONTENDED, "file in use")
        await second.close()
        await first.close()
        await second.open("shop", SECOND_OWNER)
        await second.close()

    run(store, act)


# Refusals.


def test_a_refused_transaction_leaves_nothing_and_the_next_session_may_pass_over_it(database: str) -> None:
    store = Tables(database)
    bad = transaction(200, row(2), row(9, REFUSED))

    async def refuse() -> Fault:
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            await session(store, bad)
        return store.db.classifiers.classify(caught.value)

    async def act() -> None:
        await session(store, ONE)
        assert (await refuse()).kind is Kind.REJECTED
        assert store.ids() == [1]
        assert await session(store, emptied(bad), THREE) == (110, 310)
        assert store.ids() == [1, 3]

    run(store, act)
