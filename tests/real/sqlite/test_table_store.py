"""The store of tables in a SQLite file keeps the promises of a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from table_store_contract import TableStoreContract
from table_store_processes import ProcessContract, ProcessRig

from outlast.sqlite import Sqlite
from outlast.tables._stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


class SqliteRig(ProcessRig):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "work.db"
        self.place = str(self.path)

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

    def check(self) -> None:
        connection = apsw.Connection(str(self.path))
        try:
            assert connection.pragma("integrity_check") == "ok"
            for wrong in WRONG:
                assert connection.execute(wrong).fetchall() == []
        finally:
            connection.close()


WRONG = (
    # Tables that nobody knows of, and those that are known and not there.
    """
    SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
        AND (name NOT LIKE 'outlast_%' OR name LIKE 'outlast_dropped_%')
        AND name NOT IN (SELECT stored FROM outlast_tables UNION ALL SELECT stored FROM outlast_tables_dropped)
    """,
    "SELECT stored FROM outlast_tables WHERE stored NOT IN (SELECT name FROM sqlite_schema)",
    "SELECT * FROM outlast_columns WHERE table_id NOT IN (SELECT id FROM outlast_tables)",
    # Series, values and their counts that do not agree.
    """
    SELECT table_id FROM outlast_series WHERE table_id NOT IN (
        SELECT id FROM outlast_tables UNION ALL SELECT table_id FROM outlast_tables_dropped
    )
    """,
    """
    SELECT * FROM outlast_tags AS g WHERE table_id IN (SELECT id FROM outlast_tables) AND value_count <> (
        SELECT count(*) FROM outlast_tag_values AS v WHERE v.table_id = g.table_id AND v.tag = g.tag
    )
    """,
    """
    SELECT s.id, s.tags FROM outlast_series AS s WHERE table_id IN (SELECT id FROM outlast_tables) AND (
        SELECT json_group_array(v.tag || '=' || v.value ORDER BY v.tag) FROM outlast_series_tags AS t
        JOIN outlast_tag_values AS v ON v.id = t.value_id AND v.table_id = s.table_id WHERE t.series = s.id
    ) <> (SELECT json_group_array(key || '=' || value ORDER BY key) FROM json_each(s.tags))
    """,
)


class TestASqliteStore(TableStoreContract, ProcessContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> SqliteRig:
        return SqliteRig(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1_800)
class TestASqliteStoreAtLength(TestASqliteStore):
    walks, steps, kills, racers, races = 20, 400, 300, 8, 200
