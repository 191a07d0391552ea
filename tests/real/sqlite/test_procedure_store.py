"""The store of procedures in a SQLite file keeps the promises of a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from procedure_store_contract import ProcedureStoreContract
from procedure_store_rig import StoreRig

from outlast.procedures._stores.clock import StoreClock
from outlast.procedures._stores.sqlite import SqliteStore
from outlast.sqlite import Sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


class MovedClock(StoreClock):
    def __init__(self, rig: SqliteRig) -> None:
        self._rig = rig
        super().__init__()

    def since_start(self) -> float:
        return super().since_start() + self._rig.moved_s


class SqliteRig(StoreRig):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "work.db"
        self.moved_s = 0.0

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await main()

        asyncio.run(limited())

    def store(self) -> SqliteStore:
        return SqliteStore(Sqlite(self.path), MovedClock(self))

    async def advance(self, seconds: float) -> None:
        self.moved_s += seconds


class TestASqliteStore(ProcedureStoreContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> SqliteRig:
        return SqliteRig(tmp_path)
