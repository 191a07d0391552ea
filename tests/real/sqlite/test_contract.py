"""A SQLite file keeps the promises of adapters: refused, it is locked by another process; frozen, its thread is stuck."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from adapter_contract import Failure, PlainContract, PlainRig

from outlast import Kind, Scope
from outlast.sqlite import Sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

pytestmark = pytest.mark.expected_logs


class SqliteRig(PlainRig):
    secret = "hunter2 in a row"
    frozen = "timeout"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "work.db"
        self.adapters: list[Sqlite] = []
        self.other = apsw.Connection(str(self.path))
        self.other.pragma("journal_mode", "wal")
        self.other.execute("CREATE TABLE t(a PRIMARY KEY, b)")
        self.thawed = threading.Event()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await main()

        try:
            asyncio.run(limited())
        finally:
            self.heal()
            self.other.close()

    def adapter(self) -> Sqlite:
        self.adapters.append(Sqlite(self.path, timeout_s=0.6, probe_timeout_s=1.0))
        return self.adapters[-1]

    async def call(self, adapter: Sqlite) -> None:
        await adapter.write(lambda db: db.execute("INSERT OR REPLACE INTO t VALUES (0, ?)", (self.secret,)))

    def failures(self) -> dict[str, Failure]:
        async def locked(db: Sqlite) -> None:
            # Another process holds the lock past the deadline of one, and lets it go to those who come after.
            await self.call(db)
            self.other.execute("BEGIN IMMEDIATE")
            releasing = asyncio.create_task(self.release_for_the_probe(db))
            try:
                await db.write(lambda connection: connection.execute("DELETE FROM t"))
            finally:
                await releasing

        def statement(text: str, *values: object) -> Callable[[Sqlite], Any]:
            return lambda db: db.write(lambda connection: connection.execute(text, values))  # type: ignore[arg-type]

        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
        twice = "INSERT INTO t VALUES (7, ?), (7, ?)"
        return {
            "somebody holds the lock": Failure(locked, Kind.CONTENDED, Scope.CALL),
            "a constraint": Failure(statement(twice, self.secret, self.secret), Kind.REJECTED, Scope.CALL),
            "no such table": Failure(statement("SELECT * FROM none"), Kind.PERMANENT, Scope.CALL),
            "too few values": Failure(statement("SELECT ?, ?", 1), Kind.REJECTED, Scope.CALL),
            "slow": Failure(statement(numbers), Kind.TRANSIENT, Scope.CALL),
        }

    async def release_for_the_probe(self, db: Sqlite) -> None:
        first = None
        while first is None or db._writer._seat.call in {None, first}:
            first = first or db._writer._seat.call
            await asyncio.sleep(0.005)
        self.other.execute("COMMIT")

    def refuse(self) -> None:
        self.other.execute("BEGIN IMMEDIATE")

    def freeze(self) -> None:
        self.thawed = threading.Event()
        for adapter in self.adapters:
            adapter._writer._thread.start(self.thawed.wait)

    def heal(self) -> None:
        self.thawed.set()
        if self.other.in_transaction:
            self.other.execute("ROLLBACK")


class TestASqliteFile(PlainContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> SqliteRig:
        return SqliteRig(tmp_path)
