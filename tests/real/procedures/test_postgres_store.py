"""The store in PostgreSQL keeps the promises of a store of procedures, on a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from procedure_store_contract import ProcedureStoreContract
from procedure_store_rig import StoreRig
from psycopg import sql

from outlast.postgres import Postgres
from outlast.procedures._stores.postgres import PostgresStore
from outlast.procedures._stores.postgres._statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TIMES = {
    "procedures": ("created_at", "due_at", "deadline_at", "began_at", "ended_at", "until_at"),
    "procedure_runners": ("lease_until",),
}
SCHEMA = "outlast"


class PostgresRig(StoreRig):
    """Time passes by moving all that is stored into the past."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.stores: list[PostgresStore] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await main()

        asyncio.run(limited())

    def store(self) -> PostgresStore:
        store = PostgresStore(Postgres(self.dsn), schema=SCHEMA)
        # The server has just been started: leases would not end before it has run for as long as one.
        store._said = store._listener._said = Statements(SCHEMA, "'-infinity'::timestamptz")
        self.stores.append(store)
        return store

    async def advance(self, seconds: float) -> None:
        for store in self.stores:
            store._looked_at = store._looked_at and store._looked_at - seconds
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as conn:
            for table, columns in TIMES.items():
                moves = sql.SQL(", ").join(
                    sql.SQL("{0} = {0} - {1} * interval '1 second'").format(sql.Identifier(column), seconds) for column in columns
                )
                await conn.execute(sql.SQL("UPDATE {} SET {}").format(sql.Identifier(SCHEMA, table), moves))


class TestTheStoreInPostgres(ProcedureStoreContract):
    walks, steps, races = 1, 70, 100

    @pytest.fixture
    def rig(self, database: str) -> PostgresRig:
        return PostgresRig(database)


@pytest.mark.long
class TestTheStoreInPostgresAtLength(TestTheStoreInPostgres):
    walks, steps, races = 5, 400, 1_000
