"""Tables of a test's own in PostgreSQL: what the suite of the stores is run with there, and short ways to look behind them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo
from table_store_processes import ProcessRig

from outlast.postgres import Postgres
from outlast.tables._stores.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

WRONG = (
    # Tables that nobody knows of, and those that are known and not there.
    """
    SELECT relname FROM pg_class WHERE relnamespace = 'metrics'::regnamespace AND relkind = 'r'
        AND relname NOT IN (SELECT stored FROM outlast.tables)
    """,
    "SELECT stored FROM outlast.tables WHERE to_regclass(format('%I.%I', data_schema, stored)) IS NULL",
    # Columns likewise.
    """
    SELECT t.name, f.name, c.name FROM outlast.tables t JOIN outlast.table_fields f ON f.table_id = t.id
    CROSS JOIN LATERAL (VALUES (f.stored), (f.other)) AS c(name) WHERE c.name IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass(format('%I.%I', t.data_schema, t.stored)) AND a.attname = c.name
    )
    """,
    # Values of tags and their counts that do not agree with the series.
    """
    SELECT table_id, tag, value_count FROM outlast.table_tags EXCEPT
    SELECT table_id, tag, count(*) FROM outlast.table_tag_values GROUP BY 1, 2
    """,
    """
    SELECT table_id, tag, value FROM outlast.table_tag_values EXCEPT
    SELECT s.table_id, e.key, e.value FROM outlast.table_series s CROSS JOIN LATERAL jsonb_each_text(s.tags) AS e
    """,
    """
    SELECT s.table_id, e.key, e.value FROM outlast.table_series s CROSS JOIN LATERAL jsonb_each_text(s.tags) AS e EXCEPT
    SELECT table_id, tag, value FROM outlast.table_tag_values
    """,
)


@contextlib.contextmanager
def shared_database(base: str) -> Iterator[str]:
    """Make a database for many tests: each empties it, which costs a tenth of a new one."""
    name = f"outlast_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(base, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield make_conninfo(base, dbname=name)
    finally:
        with psycopg.connect(base, autocommit=True) as conn:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def emptied(dsn: str, *, whole: bool = False) -> str:
    """Drop all that the test before has left; the empty catalogue too, for a test of how it is made (`whole`)."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET client_min_messages = warning")
        conn.execute("DROP SCHEMA IF EXISTS metrics, public CASCADE")
        conn.execute("CREATE SCHEMA public")
        if whole:
            conn.execute("DROP SCHEMA IF EXISTS outlast CASCADE")
        elif conn.execute("SELECT to_regclass('outlast.tables') IS NOT NULL").fetchall() == [(True,)]:
            conn.execute("DELETE FROM outlast.tables")
    return dsn


class PostgresRig(ProcessRig):
    def __init__(self, dsn: str) -> None:
        self.place = dsn

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await main()

        asyncio.run(limited())

    def store(self) -> PostgresStore:
        return PostgresStore(Postgres(self.place))

    def store_of(self, user: str) -> PostgresStore:
        """Make the store of another role."""
        return PostgresStore(Postgres(make_conninfo(self.place, user=user)))

    async def by_hand(self, statement: str) -> None:
        await self.ask(statement)

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as somebody else would; return its rows."""
        async with await psycopg.AsyncConnection.connect(self.place, autocommit=True) as conn:
            await conn.execute("SET search_path = metrics")
            cursor = await conn.execute(statement.encode())
            return await cursor.fetchall() if cursor.description is not None else []

    def check(self) -> None:
        with psycopg.connect(self.place) as conn:
            for wrong in WRONG:
                assert conn.execute(wrong.encode()).fetchall() == [], wrong
