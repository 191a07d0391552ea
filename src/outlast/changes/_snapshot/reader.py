"""The initial snapshot: reads every published table once, consistent with the slot, and goes on after any interruption.

What a restart keeps, and what happens when the exported snapshot is gone, stands at the head of `model`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from psycopg import errors, sql

from outlast import ConfigurationError, Fault, Kind, Scope
from outlast.changes._decoding.messages import ReplicaIdentity
from outlast.changes._own_tables import OwnTables
from outlast.changes._slot.catalog import TABLES_MAX
from outlast.changes._snapshot.batches import copied_batches
from outlast.changes._snapshot.copy_text import parse_line
from outlast.changes._snapshot.model import (
    RangeState,
    SnapshotBatch,
    SnapshotGoneError,
    SnapshotState,
    Source,
    TableState,
    carried_over,
)
from outlast.changes._snapshot.plan import PublishedRows, plan_table, published_rows
from outlast.extend import attach
from outlast.postgres import wait_on_purpose

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from outlast.changes._snapshot.copy_text import Row
    from outlast.changes._snapshot.model import Key, SnapshotProgress, SnapshotSink
    from outlast.postgres import Connection, Postgres

_Name = tuple[str, str]
WORKERS_MAX: Final = 64
RANGES_MAX: Final = 10_000
_SETTINGS: Final = (
    "SET LOCAL client_encoding = 'UTF8'",
    # As the stream's text: independent of the role's own settings.
    "SET LOCAL datestyle = 'ISO'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL extra_float_digits = 3",
    "SET LOCAL bytea_output = 'hex'",
    # Rows that a policy hides would be missing without a word; like this the server refuses.
    "SET LOCAL row_security = off",
)


@dataclass(frozen=True, slots=True)
class TableProgress:
    """The progress of one table."""

    schema: str
    name: str
    rows: int
    rows_estimated: int
    ranges_done: int
    ranges: int


class Snapshot:
    """Reads the tables of a publication into a sink.

        snapshot = Snapshot(db, "pub", stream="shop", into=sink, progress=PostgresProgress(db))
        tables = await snapshot.run(slot.consistent_lsn, Source(slot.consistent_lsn, slot.snapshot))

    At most `workers` ranges are read at a time, each over a connection of its own; a table is cut into ranges of about
    `rows_per_range` rows, `ranges_max` at most. Memory: one batch for each worker, of `batch_rows` rows, or as many as make
    `batch_bytes` bytes and one row more. `keys_change`: whether a primary key may change, see `model`. Our own tables
    are left out, see `OwnTables`.
    """

    def __init__(
        self,
        db: Postgres,
        publication: str,
        *,
        stream: str,
        into: SnapshotSink,
        progress: SnapshotProgress,
        workers: int = 2,
        batch_rows: int = 50_000,
        batch_bytes: int = 4 << 20,
        rows_per_range: int = 100_000,
        ranges_max: int = 64,
        keys_change: bool = True,
        schema: str = "outlast",
    ) -> None:
        """Describe it; nothing is dialled. Raises `ConfigurationError`."""
        for name, value, most in (
            ("workers", workers, WORKERS_MAX),
            ("ranges_max", ranges_max, RANGES_MAX),
            ("batch_rows", batch_rows, 1_000_000),
            ("batch_bytes", batch_bytes, 1 << 30),
            ("rows_per_range", rows_per_range, 1 << 62),
        ):
            if not 1 <= value <= most:
                raise ConfigurationError(f"snapshot of {stream}: {name} must be between 1 and {most}, not {value}")
        self.db = db
        self.publication = publication
        self.stream = stream
        self._sink = into
        self._progress = progress
        self._workers = workers
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._rows_per_range, self._ranges_max = rows_per_range, ranges_max
        self._keys_change = keys_change
        self._left_out = OwnTables(schema, into)
        self._tables: dict[_Name, TableState] = {}
        self._beginning: dict[_Name, asyncio.Lock] = {}
        self._begun: set[_Name] = set()

    def progress(self) -> tuple[TableProgress, ...]:
        """Return the progress of each table. Estimates are the server's; a table may turn out larger or smaller."""
        return tuple(
            TableProgress(
                table.schema,
                table.name,
                table.rows,
                table.rows_estimated,
                sum(each.done for each in table.ranges),
                len(table.ranges),
            )
            for table in tuple(self._tables.values())  # It may be asked from any thread.
        )

    async def run(self, origin_lsn: int, source: Source) -> tuple[TableState, ...]:
        """Read what is left, for a slot whose consistent point is `origin_lsn`; return the tables, all of them done.

        `source` is the snapshot that was exported with the slot, or with another one made later. Whatever was kept for another
        `origin_lsn` is thrown away. Each table says which of the stream's changes to leave out (`skip_until_lsn`), and from
        where on its copy is right (`consistent_lsn`).

        Raises what the sink, the progress and the driver raise, and `SnapshotGoneError`; run it again then, under a new
        snapshot. Which tables go on where they stood, and which begin again, stands at the head of `model`.
        """
        tables = await self._plan(origin_lsn)
        left = deque(
            (tables[name], each.number) for name, table in self._tables.items() for each in table.ranges if not each.done
        )
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._workers, len(left))):
                    group.create_task(self._work(left, source))
        except BaseExceptionGroup as failures:
            # What ends one reader ends the others; the first failure is the cause.
            raise failures.exceptions[0] from None
        return tuple(self._tables.values())

    # Planning.

    async def _plan(self, origin_lsn: int) -> dict[_Name, PublishedRows]:
        kept = await self._progress.load(self.stream)
        if kept is not None and kept.origin_lsn != origin_lsn:
            kept = None
        planned: list[TableState] = []
        async with self.db.connection() as conn:
            with conn.deadline(None):
                await wait_on_purpose(conn, local=True)
                published = await published_rows(conn, self.publication)
                if len(published) >= TABLES_MAX:
                    most = f"{TABLES_MAX:,} tables or more, and fewer can be read; split it"
                    raise ConfigurationError(f"snapshot of {self.stream}: publication {self.publication} has {most}")
                tables = [each for each in published if each.relation not in self._left_out]
                for table in tables:
                    stored = None if kept is None else kept.table(*_name(table))
                    half = stored is not None and stored.begun and not stored.done
                    mixable = half and await self._mixable(table)
                    if stored is None or not carried_over(stored, table.key, mixable=mixable):
                        stored = await plan_table(conn, table, rows_per_range=self._rows_per_range, ranges_max=self._ranges_max)
                    planned.append(stored)
        state = SnapshotState(origin_lsn, tuple(planned))
        if kept is None:
            await self._sink.prepare([table.relation for table in tables])
        if state != kept:
            await self._progress.replace(self.stream, state)
        self._tables = {(each.schema, each.name): each for each in planned}
        self._begun = {name for name, each in self._tables.items() if each.begun}
        self._beginning = {name: asyncio.Lock() for name in self._tables}
        return {_name(table): table for table in tables}

    async def _mixable(self, table: PublishedRows) -> bool:
        """Return whether rows of two snapshots may come together in the table: the stream then puts them right."""
        if table.relation.replica_identity is not ReplicaIdentity.DEFAULT or (table.large_values and self._keys_change):
            return False
        return await self._sink.replaces(table.relation)

    # Reading.

    async def _work(self, left: deque[tuple[PublishedRows, int]], source: Source) -> None:
        """Read ranges until none is left, all of them in one transaction: the snapshot is imported once."""
        async with self._session(source) as conn:
            while left:
                table, number = left.popleft()
                await self._read(conn, table, number, source)

    @asynccontextmanager
    async def _session(self, source: Source) -> AsyncGenerator[Connection]:
        conn = await self.db.connect(operation_timeout_s=None)
        try:
            # Work of hours, in one transaction.
            await wait_on_purpose(conn)
            await conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                await conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(source.name)))
            except (errors.InvalidParameterValue, errors.UndefinedObject) as error:
                raise _gone(source, self.db.name) from error
            for setting in _SETTINGS:
                await conn.execute(setting)
            yield conn
            await conn.execute("COMMIT")
        finally:
            conn.pgconn.finish()

    async def _read(self, conn: Connection, table: PublishedRows, number: int, source: Source) -> None:
        await self._begin(table)
        state = self._tables[_name(table)].ranges[number].began(source)
        places = [table.relation.names.index(name) for name in table.key]
        await self._save(table, state)
        batches = copied_batches(conn, table.copy(state), rows_max=self._batch_rows, bytes_max=self._batch_bytes)
        try:
            async for lines in batches:
                await self._sink.write(SnapshotBatch(table.relation, lines, number))
                state = state.advanced(len(lines), _key_of(parse_line(lines[-1]), places))
                await self._save(table, state)
        finally:
            await batches.aclose()
        await self._save(table, replace(state, done=True))

    async def _begin(self, table: PublishedRows) -> None:
        """Let the sink drop what it has of the table, once, before any range of it is read."""
        name = _name(table)
        async with self._beginning[name]:
            if name not in self._begun:
                await self._sink.begin(table.relation)
                self._begun.add(name)

    async def _save(self, table: PublishedRows, state: RangeState) -> None:
        name = _name(table)
        await self._progress.save(self.stream, self._tables[name], state)
        self._tables[name] = self._tables[name].with_range(state)


def _name(table: PublishedRows) -> _Name:
    return table.relation.schema, table.relation.name


def _key_of(row: Row, places: list[int]) -> Key | None:
    # No part of a primary key is NULL.
    return tuple(row[place] or "" for place in places) if places else None


def _gone(source: Source, name: str) -> SnapshotGoneError:
    reason = f"the exported snapshot {source.name} is gone: the session that exported it has ended"
    error = SnapshotGoneError(reason)
    hint = "begin again under another one; what was read is kept"
    attach(error, Fault(Kind.TRANSIENT, "snapshot gone", reason, name, Scope.CALL, hint=hint))
    return error
