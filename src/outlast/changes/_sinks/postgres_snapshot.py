"""The rows of an initial snapshot, written into tables of PostgreSQL by the owner of the stream and by nobody else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, LiteralString

from psycopg import errors, sql

from outlast import Fault, Kind, OutlastError, Scope
from outlast.changes._sinks.row_statements import RowStatements
from outlast.changes._sinks.table_statements import columns_of
from outlast.changes._sinks.tables import read_tables
from outlast.changes._snapshot.copy_text import without
from outlast.changes._snapshot.progress import PostgresProgress
from outlast.extend import attach
from outlast.postgres import wait_on_purpose
from outlast.postgres.ownership import FencedError
from outlast.postgres.replication import TEXT_SETTINGS, format_lsn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from outlast.changes._decoding.messages import Relation
    from outlast.changes._sinks.postgres import PostgresSink
    from outlast.changes._sinks.row_statements import Naming
    from outlast.changes._sinks.table_statements import TableStatements
    from outlast.changes._snapshot.model import SnapshotBatch, TableState
    from outlast.postgres import Connection

_FENCE: Final = "SELECT epoch, filled FROM {schema}.change_positions WHERE stream = %s FOR SHARE"
"""Shared until the transaction ends: the next owner, who changes the row, waits for that."""
_BEGIN: Final = """
UPDATE {schema}.change_positions SET lsn = '0/0', copied_until = '0/0', mixed_until = '0/0', filled = true, snapshot_due = true
WHERE stream = %s
"""
_FINISH: Final = """
UPDATE {schema}.change_positions SET lsn = %s::pg_lsn, copied_until = %s::pg_lsn, mixed_until = %s::pg_lsn, snapshot_due = false,
    updated_at = clock_timestamp()
WHERE stream = %s
"""
_UNIQUE: Final = """
SELECT count(*) FROM pg_index WHERE indrelid = to_regclass(%s) AND (indisunique OR indisexclusion) AND NOT indisprimary
"""


_TEMPORARY: Final = sql.Identifier("pg_temp", "outlast_rows")


class TargetNotEmptyError(OutlastError):
    """A table that a first snapshot would replace has rows that are not of this stream."""


class PostgresSnapshot:
    """Takes the snapshot for `sink`, as owner number `epoch` of `stream`. Every transaction is fenced. See `SnapshotTarget`."""

    def __init__(self, sink: PostgresSink, naming: Naming, stream: str, epoch: int) -> None:
        self.progress = PostgresProgress(sink.db, schema=sink.schema, transaction=self._transaction)
        self._sink = sink
        self._naming = naming
        self._stream = stream
        self._epoch = epoch
        keepalive = sink.keepalive
        # A transaction that an owner left open on a machine that is gone must not keep the next one waiting.
        self._settings = (
            TEXT_SETTINGS
            | {"client_encoding": "UTF8", "xmloption": "content"}
            | keepalive.of_server()
            | {"tcp_user_timeout": str(keepalive.total_s * 1000)}
        )

    @property
    def schema(self) -> str:
        """The schema of the sink's own tables."""
        return self._sink.schema

    @property
    def due(self) -> bool:
        """Whether everything is to be read: it was begun, or is to be read again, and is not finished."""
        return self._sink.snapshot_due

    @property
    def copied_until(self) -> int:
        """Up to which position changes come that a snapshot has brought already; 0 if there was none."""
        return self._sink.copied_until

    async def prepare(self, relations: Sequence[Relation]) -> None:
        """Make sure that what the first snapshot would replace is empty. Raises `TargetNotEmptyError`."""
        async with self._transaction() as conn:
            row = await (await conn.execute(self._sql(_FENCE), (self._stream,))).fetchone()
            if row is not None and row[1]:
                return
            for table in await self._tables(conn, relations):
                found = await conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table.target), ())
                if found.rowcount:
                    raise _not_empty(table, self._sink.db.name)
            await conn.execute(self._sql(_BEGIN), (self._stream,))

    async def replaces(self, relation: Relation) -> bool:
        """Return whether an older row can be replaced by a newer one whatever else is there: not with another unique index."""
        async with self._transaction() as conn:
            name = sql.Identifier(*self._naming(relation)).as_string(conn)
            row = await (await conn.execute(_UNIQUE, (name,))).fetchone()
        return row == (0,)

    async def begin(self, relation: Relation) -> None:
        """Empty the table. What refers to it by a foreign key keeps it from being truncated; then its rows are deleted."""
        async with self._transaction() as conn:
            (table,) = await self._tables(conn, [relation])
            try:
                async with conn.transaction():
                    await conn.execute(sql.SQL("TRUNCATE {}").format(table.target), ())
            except (errors.FeatureNotSupported, errors.InsufficientPrivilege):
                with conn.deadline(None):
                    await conn.execute(sql.SQL("DELETE FROM {}").format(table.target), ())

    async def write(self, batch: SnapshotBatch) -> None:
        """Write the rows and commit: by COPY, by way of a temporary table if some of them are there already."""
        async with self._transaction() as conn:
            (table,) = await self._tables(conn, [batch.relation])
            data = b"".join(without(batch.lines, table.left_out))
            try:
                async with conn.transaction():
                    await _copy(conn, sql.Identifier(*self._naming(batch.relation)), table.names, data)
            except errors.UniqueViolation:
                # Without the constraints of the table itself, and without what it generates.
                make = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0")
                await conn.execute(make.format(_TEMPORARY, columns_of(table.names), table.identifier), ())
                await _copy(conn, _TEMPORARY, table.names, data)
                for statement in table.upserts_from(_TEMPORARY):
                    await conn.execute(statement, ())

    async def again(self) -> None:
        """Forget the position and what was read; what is in the tables is replaced."""
        await self.progress.forget(self._stream)
        async with self._transaction() as conn:
            await conn.execute(self._sql(_BEGIN), (self._stream,))
        self._sink.go_on_from(0, 0, 0)

    async def finish(self, origin_lsn: int, tables: Sequence[TableState]) -> None:
        """Let the stream go on from `origin_lsn`."""
        copied_until = max((table.consistent_lsn for table in tables), default=0)
        mixed_until = max((table.consistent_lsn for table in tables if not table.skip_until_lsn), default=0)
        async with self._transaction() as conn:
            positions = map(format_lsn, (origin_lsn, copied_until, mixed_until))
            await conn.execute(self._sql(_FINISH), (*positions, self._stream))
        self._sink.go_on_from(origin_lsn, copied_until, mixed_until)

    async def _tables(self, conn: Connection, relations: Sequence[Relation]) -> list[TableStatements]:
        """Look at what is written to; a transaction of its own has no use for what an earlier one saw."""
        names = list(map(self._naming, relations))
        rows = RowStatements(self._naming)
        rows.learn(names, await read_tables(conn, names))
        return list(map(rows.table, relations))

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Connection]:
        """Open a transaction in which nobody else becomes the owner. Raises `FencedError` if somebody has."""
        async with self._sink.db.connection() as conn:
            await wait_on_purpose(conn, self._settings, local=True)
            row = await (await conn.execute(self._sql(_FENCE), (self._stream,))).fetchone()
            if row is None or row[0] != self._epoch:
                raise FencedError(self._stream, self._epoch, None if row is None else int(row[0]), "another owner")
            yield conn

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(schema=sql.Identifier(self._sink.schema))


async def _copy(conn: Connection, table: sql.Identifier, names: Sequence[str], data: bytes) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(table, sql.SQL(", ").join(map(sql.Identifier, names)))
    async with conn.cursor() as cursor, cursor.copy(statement) as copying:
        await copying.write(data)


def _not_empty(table: TableStatements, source: str) -> TargetNotEmptyError:
    name, target = (each.as_string(None).replace("%%", "%") for each in (table.identifier, table.target))
    reason = f"table {name} is not empty, and an initial snapshot would replace what it holds"
    hint = f"TRUNCATE {target}; or write into another table (naming=); or leave out snapshot=True"
    error = TargetNotEmptyError(f"{source}: {reason}; {hint}")
    attach(error, Fault(Kind.PERMANENT, "not empty", reason, source, Scope.CALL, hint=hint))
    return error
