"""The store of tables in a SQLite file keeps the promises of a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from table_store_contract import TableStoreContract
from table_store_rig import TableStoreRig

from outlast.sqlite import Sqlite
from outlast.tables._stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


class SqliteRig(TableStoreRig):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "work.db"

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await main()

        asyncio.run(limited())

    def store(self) -> SqliteStore:
        return SqliteStore(Sqlite(self.path))

    async def by_hand(self, statement: str) -> None:
        connection = apsw.Connection(str(self.path))
        try:
            connection.execute(statement)
        finally:
            connection.close()


class TestASqliteStore(TableStoreContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> SqliteRig:
        return SqliteRig(tmp_path)
