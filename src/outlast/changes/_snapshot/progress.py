"""The stores for the state of a snapshot: in memory, or in a table of PostgreSQL."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from outlast.changes._snapshot.model import RangeState, SnapshotState, Source, TableState
from outlast.postgres.replication import format_lsn, parse_lsn
from outlast.postgres.schema import Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from outlast.postgres import Connection, Postgres

_FIRST: Final = """
CREATE TABLE {schema}.snapshot_ranges (
    stream text NOT NULL,
    origin pg_lsn NOT NULL,
    place integer NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    key_columns text[] NOT NULL,
    rows_estimated bigint NOT NULL,
    number integer NOT NULL,
    low text[],
    high text[],
    position text[],
    rows bigint NOT NULL,
    done boolean NOT NULL,
    source_lsn pg_lsn,
    source_name text,
    mixed boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, table_schema, table_name, number)
)
"""
RANGES: Final = Tables("changes snapshots", (_FIRST,), ("snapshot_ranges", "mixed"))
_LOAD: Final = """
SELECT origin::text, place, table_schema, table_name, key_columns, rows_estimated,
    number, low, high, position, rows, done, source_lsn::text, source_name, mixed
FROM {schema}.snapshot_ranges WHERE stream = %s ORDER BY place, number
"""
_INSERT: Final = """
INSERT INTO {schema}.snapshot_ranges (stream, origin, place, table_schema, table_name, key_columns, rows_estimated,
    number, low, high, position, rows, done, source_lsn, source_name, mixed)
VALUES (%s, %s::pg_lsn, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::pg_lsn, %s, %s)
"""
_SAVE: Final = """
UPDATE {schema}.snapshot_ranges SET position = %s, rows = %s, done = %s, source_lsn = %s::pg_lsn, source_name = %s,
    mixed = %s, updated_at = now()
WHERE stream = %s AND table_schema = %s AND table_name = %s AND number = %s
"""
_FORGET: Final = "DELETE FROM {schema}.snapshot_ranges WHERE stream = %s"


class PostgresProgress:
    """Keeps it in the table `snapshot_ranges` of a schema, which is made when it is first needed.

    Primary keys of the source stand in it: guard it like the source. `transaction` lends a connection for a transaction, by
    default `db.connection`.
    """

    def __init__(
        self,
        db: Postgres,
        *,
        schema: str = "outlast",
        transaction: Callable[[], AbstractAsyncContextManager[Connection]] | None = None,
    ) -> None:
        """Describe it; nothing is dialled."""
        self.db = db
        self.schema = schema
        self._transaction = transaction or db.connection

    async def load(self, stream: str) -> SnapshotState | None:
        """Return what was kept; None if there is no such table yet."""
        async with self._transaction() as conn:
            if not await RANGES.format(conn, self.schema):
                return None
            cursor = await conn.execute(sql.SQL(_LOAD).format(schema=sql.Identifier(self.schema)), (stream,))
            rows = await cursor.fetchall()
        if not rows:
            return None
        tables = tuple(_table(list(group)) for _, group in groupby(rows, key=lambda row: row[1]))
        return SnapshotState(parse_lsn(rows[0][0]), tables)

    async def replace(self, stream: str, state: SnapshotState) -> None:
        """Keep this instead, in one transaction; makes the table if it is not there."""
        rows = [
            (
                *(stream, format_lsn(state.origin_lsn), place, table.schema, table.name, list(table.key), table.rows_estimated),
                *(each.number, _listed(each.low), _listed(each.high), *_changing(each)),
            )
            for place, table in enumerate(state.tables)
            for each in table.ranges
        ]
        async with self._transaction() as conn, conn.cursor() as cursor:
            await RANGES.migrate(conn, self.schema)
            await cursor.execute(sql.SQL(_FORGET).format(schema=sql.Identifier(self.schema)), (stream,))
            await cursor.executemany(sql.SQL(_INSERT).format(schema=sql.Identifier(self.schema)), rows)

    async def save(self, stream: str, table: TableState, state: RangeState) -> None:
        """Keep the new state of one range."""
        place = (stream, table.schema, table.name, state.number)
        async with self._transaction() as conn:
            await conn.execute(sql.SQL(_SAVE).format(schema=sql.Identifier(self.schema)), (*_changing(state), *place))

    async def forget(self, stream: str) -> None:
        """Drop it."""
        async with self._transaction() as conn:
            if await RANGES.format(conn, self.schema):
                await conn.execute(sql.SQL(_FORGET).format(schema=sql.Identifier(self.schema)), (stream,))


def _table(rows: list[tuple[Any, ...]]) -> TableState:
    _, _, schema, name, key, estimated, *_ = rows[0]
    return TableState(schema, name, tuple(key), estimated, tuple(_range(row) for row in rows))


def _range(row: tuple[Any, ...]) -> RangeState:
    number, low, high, position, count, done, lsn, source_name, mixed = row[6:]
    source = None if lsn is None else Source(parse_lsn(lsn), source_name)
    return RangeState(number, _key(low), _key(high), _key(position), count, done, source, mixed)


def _key(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _listed(key: tuple[str, ...] | None) -> list[str] | None:
    return None if key is None else list(key)


def _changing(state: RangeState) -> tuple[Any, ...]:
    """Return what changes of a range while it is read, in the order of both statements."""
    source = state.source
    of_source = (None, None) if source is None else (format_lsn(source.lsn), source.name)
    return _listed(state.position), state.rows, state.done, *of_source, state.mixed
