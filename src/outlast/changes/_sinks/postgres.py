"""A sink that writes the same rows into tables of PostgreSQL, with the position in the same transaction: exactly once."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, LiteralString

import psycopg
from psycopg import pq, sql

from outlast import Fault, Kind, Scope
from outlast.changes._sinks.postgres_snapshot import PostgresSnapshot
from outlast.changes._sinks.row_statements import Naming, RowStatements, same_name
from outlast.changes._sinks.tables import VERSIONS, TableChangedError, read_tables
from outlast.extend import attach, attached
from outlast.postgres import SLOW, DeadlineExceededError, own_doing
from outlast.postgres.ownership import FencedError
from outlast.postgres.replication import Keepalive, dial, format_lsn, parse_lsn, shut_down
from outlast.postgres.schema import Tables

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from outlast.changes._sinks.port import Delivery
    from outlast.changes._sinks.tables import Name
    from outlast.postgres import Connection, Postgres

_FIRST: Final = """
CREATE TABLE {schema}.change_positions (
    stream text PRIMARY KEY,
    lsn pg_lsn NOT NULL,
    epoch bigint NOT NULL,
    filled boolean NOT NULL DEFAULT false,
    snapshot_due boolean NOT NULL DEFAULT false,
    copied_until pg_lsn NOT NULL DEFAULT '0/0',
    mixed_until pg_lsn NOT NULL DEFAULT '0/0',
    updated_at timestamptz NOT NULL
)
"""
"""`filled`: what is in the tables came from this stream. `snapshot_due`: it is to be read again, or has half been.
`copied_until`: up to there changes come that a snapshot has brought already; those of mixed tables up to `mixed_until`, and
not left out."""
POSITIONS: Final = Tables("changes positions", (_FIRST,), ("change_positions", "mixed_until"))
_TAKE: Final = """
INSERT INTO {schema}.change_positions AS p (stream, lsn, epoch, updated_at) VALUES (%s, '0/0', %s, clock_timestamp())
ON CONFLICT (stream) DO UPDATE SET epoch = greatest(p.epoch, excluded.epoch)
RETURNING lsn::text, epoch, copied_until::text, mixed_until::text, snapshot_due
"""
_MOVE: Final = """
UPDATE {schema}.change_positions SET lsn = %s::pg_lsn, filled = true, updated_at = clock_timestamp()
WHERE stream = %s AND epoch = %s
RETURNING {versions}
"""
_ASK: Final = "SELECT epoch FROM {schema}.change_positions WHERE stream = %s"
IDLE_S_MAX: Final = 60
"""The longest wait of a transaction of the sink for the next part of a large one, which a slow source or network delays. It ends
what an owner left half done where TCP finds nothing, because something between answers for a machine that is gone."""


class PostgresSink:
    """Mirrors the changes into tables that exist there, under the same names unless `naming` returns others.

    An insert of a row that is there replaces it, a delete of one that is not does nothing: what a snapshot has read already
    may come again. That needs a primary key or unique index over the columns of the replica identity. Each `flush` commits
    the rows together with the position, in `schema.change_positions`, and only while the epoch is still ours: a former owner
    that comes back is refused by the row it must update.

    What the tables are like is looked at when they are first written to, and again before each commit, under the locks of what
    was written: one that was changed in between costs a session, and nothing else.

    Truncates are carried out, each of its own table. Values are sent as the text that PostgreSQL wrote (leave `typed` off). The
    session is watched by TCP as the lock's is (`keepalive`), so that what an owner left half done on a machine that is gone does
    not keep the next one waiting.
    """

    def __init__(
        self, db: Postgres, *, schema: str = "outlast", naming: Naming = same_name, keepalive: Keepalive | None = None
    ) -> None:
        """Describe it; nothing is dialled."""
        self.db = db
        self.needs = (db,)
        self.keepalive = keepalive or Keepalive()
        self.schema = schema
        self._rows = RowStatements(naming)
        self._written: set[Name] = set()
        """The tables that were written to since the last commit."""
        self._stream = ""
        self._epoch = 0
        self._conn: Connection | None = None
        self._complete_lsn = 0
        self._durable_lsn = 0
        self._mixed_until = 0
        self.copied_until = 0
        """Up to which position changes come that a snapshot has brought already."""
        self.snapshot_due = False
        """Whether everything is to be read again, since it was begun and not finished."""

    async def open(self, stream: str, epoch: int) -> int:
        """Take the stream over as owner number `epoch`; return the position of the last commit."""
        conn = self._conn = await dial(
            self.db,
            application_name=f"outlast sink {stream}"[:63],
            keepalive=self.keepalive,
            settings={
                "tcp_user_timeout": str(self.keepalive.total_s * 1000),
                "idle_in_transaction_session_timeout": str(IDLE_S_MAX * 1000),
                # A table is looked at as it is by then, and not as it was when the transaction began.
                "default_transaction_isolation": r"read\ committed",
                # A document and a fragment are both values of the type.
                "xmloption": "content",
            },
            operation_timeout_s=self.db.operation_timeout_s,
        )
        self._stream, self._epoch = stream, epoch
        self._rows.forget()
        self._written.clear()
        async with self._used(conn):
            await POSITIONS.migrate(conn, self.schema)
            async with conn.cursor() as cursor:
                await cursor.execute(self._sql(_TAKE), (self._stream, self._epoch))
                row = await cursor.fetchone()
            await conn.set_autocommit(False)
        lsn, newest, copied_until, mixed_until, due = row or ("0/0", epoch, "0/0", "0/0", False)
        if newest != epoch:
            raise FencedError(stream, epoch, newest, "another owner")
        self._complete_lsn = self._durable_lsn = parse_lsn(lsn)
        self.copied_until, self._mixed_until, self.snapshot_due = parse_lsn(copied_until), parse_lsn(mixed_until), due
        return self._durable_lsn

    async def write(self, delivery: Delivery) -> None:
        """Carry the changes out, in a transaction that `flush` commits."""
        conn, names = self._open_connection(), self._rows.names(delivery.changes)
        async with self._used(conn):
            if unknown := self._rows.unknown(names):
                self._rows.learn(unknown, await read_tables(conn, unknown))
            self._written.update(names)
            async with conn.pipeline(), conn.cursor() as cursor:
                for statement, rows in self._rows.grouped(delivery.changes, again=delivery.commit_lsn < self._mixed_until):
                    await cursor.executemany(statement, rows)
        if delivery.end_lsn is not None:
            self._complete_lsn = delivery.end_lsn

    async def flush(self) -> int:
        """Commit, with the position. Between two parts of one transaction nothing is committed."""
        if self._complete_lsn == self._durable_lsn:
            return self._durable_lsn
        conn, complete = self._open_connection(), self._complete_lsn
        seen = self._rows.seen(self._written)
        oids = "{" + ",".join(str(0 if table is None else table.oid) for table in seen.values()) + "}"
        async with self._used(conn):
            async with conn.cursor() as cursor:
                await cursor.execute(self._sql(_MOVE), (format_lsn(complete), self._stream, self._epoch, oids))
                row = await cursor.fetchone()
            if row is None:
                await conn.rollback()
                raise FencedError(self._stream, self._epoch, await self._newest(conn), "another owner")
            found: dict[Name, str | None] = dict(zip(seen, row[0], strict=True))
            # One that was not there when it was looked at, and could be written, was made in between.
            if changed := [name for name, table in seen.items() if table is None or table.version != found[name]]:
                await conn.rollback()
                raise TableChangedError(changed)
            await conn.commit()
        self._written.clear()
        self._durable_lsn = complete
        return complete

    def snapshot_target(self) -> PostgresSnapshot:
        """Return what takes an initial snapshot for the stream that is open, fenced by its epoch."""
        return PostgresSnapshot(self, self._rows.naming, self._stream, self._epoch)

    def go_on_from(self, lsn: int, copied_until: int, mixed_until: int) -> None:
        """Record what a snapshot has made durable; 0: it is due."""
        self._complete_lsn = self._durable_lsn = lsn
        self.copied_until, self._mixed_until, self.snapshot_due = copied_until, mixed_until, lsn == 0

    @asynccontextmanager
    async def _used(self, conn: Connection) -> AsyncGenerator[None]:
        """Guard a use of the server: refused while it is down, and what fails is classified as its own affair or ours."""
        async with self.db.use("query"):
            try:
                yield
            except psycopg.Error as exc:
                fault = own_doing(exc, conn, writable=self.db.writable)
                if fault is None and attached(exc) is None and conn.epoch != self.db.epoch:
                    # The outage that ended this session is over already.
                    fault = replace(self.db.classifiers.classify(exc), scope=Scope.CALL)
                if isinstance(exc, DeadlineExceededError):
                    fault = Fault(Kind.TRANSIENT, "timeout", str(exc), scope=Scope.CALL, hint=SLOW)
                if fault is not None:
                    attach(exc, replace(fault, source=self.db.name))
                raise

    async def _newest(self, conn: Connection) -> int | None:
        async with conn.cursor() as cursor:
            await cursor.execute(self._sql(_ASK), (self._stream,))
            row = await cursor.fetchone()
        await conn.rollback()
        return None if row is None else int(row[0])

    async def close(self) -> None:
        """Roll back what was not flushed, and close the connection."""
        conn, self._conn = self._conn, None
        if conn is not None:
            if conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                # The next owner waits for its end.
                shut_down(conn.pgconn, reset=True)
            await conn.close()

    # Inside.

    def _open_connection(self) -> Connection:
        if self._conn is None:
            msg = "the sink is not open"
            raise RuntimeError(msg)
        return self._conn

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(schema=sql.Identifier(self.schema), versions=sql.SQL(VERSIONS))
