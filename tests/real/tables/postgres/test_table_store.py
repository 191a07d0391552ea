"""The store of tables in PostgreSQL keeps the promises of a store, on a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from table_store_contract import TableStoreContract
from table_store_rig import TableStoreRig

from outlast.postgres import Postgres
from outlast.tables._stores.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class PostgresRig(TableStoreRig):
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await main()

        asyncio.run(limited())

    def store(self) -> PostgresStore:
        return PostgresStore(Postgres(self.dsn))

    async def by_hand(self, statement: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as conn:
            await conn.execute("SET search_path = metrics")
            await conn.execute(statement.encode())


class TestAPostgresStore(TableStoreContract):
    @pytest.fixture
    def rig(self, database: str) -> PostgresRig:
        return PostgresRig(database)
