"""Transactions of the store: with the settings that its promises depend on, whatever the server, role or database has set."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import errors, pq, sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from outlast.postgres import Connection, Postgres

    Rows = list[tuple[Any, ...]]

AGAIN: Final = (errors.DeadlockDetected, errors.SerializationFailure)
"""The server broke a circle of waits by ending this transaction: the next try is another matter."""
GONE: Final = (errors.UndefinedTable, errors.UndefinedColumn)
"""Somebody dropped it by hand, or between two statements."""
TRIES: Final = 3
LOCK_MS: Final = "1500"
"""The longest that a write waits for a lock: somebody's VACUUM FULL or CREATE INDEX of one table holds the others up so long.
More than `deadlock_timeout`, 1 s, so that of two that wait for each other the server ends one."""
SETTINGS: Final = (
    """SELECT pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, true),
    pg_catalog.set_config('lock_timeout', '"""
    + LOCK_MS
    + """ms', true), pg_catalog.set_config('statement_timeout', '0', true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', '0', true)"""
)
"""For this transaction: what is committed is durable, and nothing but our own deadlines ends it."""


@asynccontextmanager
async def transaction(db: Postgres) -> AsyncGenerator[Connection]:
    """Lend a connection in a transaction of which each statement sees what others have committed before it.

    Committed at the end of the block, rolled back when an exception leaves it. It sets nothing else: see SETTINGS.
    """
    async with db.connection() as conn:
        # An attribute of the driver's, which begins the transaction with it: nothing is sent for it.
        await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        try:
            yield conn
        except BaseException:
            if not conn.closed:
                await conn.rollback()
            raise
        else:
            await conn.commit()
        finally:
            if not conn.closed:
                await conn.set_isolation_level(None)


@asynccontextmanager
async def pipelined(conn: Connection) -> AsyncGenerator[None]:
    """Send statements without waiting for the one before. The first error is raised; what it aborted is no news."""
    failed: BaseException | None = None
    try:
        async with conn.pipeline():
            try:
                yield
            except BaseException as exc:  # noqa: BLE001 - raised below
                # psycopg would log that the statements behind it were aborted.
                failed = exc
    except psycopg.Error as exc:
        failed = failed or exc
    if conn.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        # A server that died in the middle of it: there is nothing that could be said on this connection any more.
        conn.end()
    if failed is not None:
        raise failed


async def run(conn: Connection, text: Said | LiteralString, *values: object) -> psycopg.AsyncRawCursor[tuple[Any, ...]]:
    """Run one statement with $1, $2 for its values. In a pipeline nobody waits for its end."""
    cursor = psycopg.AsyncRawCursor(conn, row_factory=tuple_row)
    await cursor.execute(bytes(text) if isinstance(text, Said) else text, values, binary=True)
    return cursor


async def rows(conn: Connection, text: Said | LiteralString, *values: object) -> Rows:
    """Run a query as `run` does; return its rows, which come in binary: every digit is there."""
    return await (await run(conn, text, *values)).fetchall()


class Said:
    """A statement that was composed. The names in it are quoted, and `%` means nothing in it."""

    __slots__ = ("_text",)

    def __init__(self, text: sql.Composable, conn: Connection | None = None) -> None:
        self._text = text.as_bytes(conn)

    def __bytes__(self) -> bytes:
        return self._text


class Statements:
    """The statements over the catalogue, composed once each."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._said: dict[str, Said] = {}

    def __call__(self, text: LiteralString) -> Said:
        """Return the text with the schema in it, for {schema}."""
        said = self._said.get(text)
        if said is None:
            said = self._said[text] = Said(sql.SQL(text).format(schema=sql.Identifier(self.schema)))
        return said
