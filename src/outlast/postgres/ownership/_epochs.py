"""The fence: a number that every new owner of a name raises, and that is checked in the transaction that writes for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from outlast import Fault, Kind, OutlastError, Scope
from outlast.extend import attach
from outlast.postgres.schema import Tables

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from outlast.postgres.replication import Keepalive

_FIRST: Final = """
CREATE TABLE {schema}.change_epochs (
    stream text PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    taken_at timestamptz NOT NULL
)
"""
_SECOND: Final = """
ALTER TABLE {schema}.change_epochs RENAME TO epochs;
ALTER TABLE {schema}.epochs RENAME COLUMN stream TO name;
CREATE VIEW {schema}.change_epochs AS SELECT name AS stream, epoch, owner, taken_at FROM {schema}.epochs
"""
"""Streams are not the only ones that have an owner. Processes of a version that knows format 1 take and check the same epochs
through the view; without it they would make a table of their own, and begin at 1 again."""
TABLES: Final = Tables("ownership", (_FIRST, _SECOND), ("change_epochs", "taken_at"))
_TAKE: Final = """
INSERT INTO {schema}.epochs AS e (name, epoch, owner, taken_at) VALUES (%s, 1, %s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET epoch = e.epoch + 1, owner = excluded.owner, taken_at = excluded.taken_at
RETURNING epoch
"""
_CHECK: Final = """
SELECT epoch, owner, set_config('tcp_keepalives_idle', %s, true), set_config('tcp_keepalives_interval', %s, true),
    set_config('tcp_keepalives_count', %s, true), set_config('tcp_user_timeout', %s, true),
    set_config('idle_in_transaction_session_timeout', %s, true)
FROM {schema}.epochs WHERE name = %s FOR SHARE
"""
"""The row stays shared until the transaction ends, and the next owner waits for that. So its session has to end, too, when its
machine is gone: for the length of the transaction it gets the keepalives of the lock's session, and the time-out for what was
sent and is not acknowledged, since an answer under way is no idle connection, and no keepalive ends it. Where something between
the two answers for a machine that is gone, TCP finds nothing: then the server ends a transaction in which nothing happens for the
same time."""

FENCED_MAX: Final = 3
"""This often in a row is no coincidence."""


class FencedError(OutlastError):
    """Somebody else owns `name` now: what this one was about to write is written by the other. Roll back, and stand by.

    `theirs` is None when the name has no epoch any more.
    """

    def __init__(self, name: str, ours: int, theirs: int | None, owner: str) -> None:
        now = f"epoch {theirs} of {owner}" if theirs is not None else "gone from the table of epochs"
        reason = f"{name}: our epoch {ours} is over, it is {now}; roll back and stand by"
        super().__init__(reason, Fault(Kind.CONTENDED, "fenced", reason, scope=Scope.CALL))
        self.name = name
        self.ours = ours
        self.theirs = theirs


class Fences:
    """Counts how often in a row an owner was fenced although it held the lock all the time.

    Once is an owner that was slow to learn that it no longer is one. Again and again does not pass by itself: somebody writes to
    the same place under the same name without asking for the same lock, or the numbers of one side were put back.
    """

    def __init__(self, name: str, schema: str) -> None:
        self.count = 0
        self._name = name
        self._schema = schema

    @contextmanager
    def counted(self, lost: asyncio.Future[Fault]) -> Generator[None]:
        """Count a `FencedError` that leaves the block, unless `lost` is done: then the lock was not its own any more.

        From the third time on the error says what a person has to do (PERMANENT).
        """
        try:
            yield
        except FencedError as error:
            if not lost.done():
                self.count += 1
            if self.count >= FENCED_MAX:
                attach(error, self._fault(error))
            raise

    def written(self) -> None:
        """Start counting again: something of ours has become durable, so nobody was in the way."""
        self.count = 0

    def _fault(self, error: FencedError) -> Fault:
        reason = f"fenced {FENCED_MAX} times in a row, with the lock in hand: {error}"
        put_right = sql.SQL("UPDATE {}.epochs SET epoch = {} WHERE name = {}").format(
            sql.Identifier(self._schema), sql.Literal(error.theirs or 0), sql.Literal(self._name)
        )
        hint = (
            "another owner of this name writes to the same place, under another lock: give each a name of its own (name=...); "
            f"if none does, the epochs were put back by a restore or a failover: on the source, {put_right.as_string(None)}"
        )
        return Fault(Kind.PERMANENT, "fenced", reason, scope=Scope.CALL, hint=hint)


class Epochs:
    """The epoch of one name, in the table `epochs` of a schema, which is made when it is first needed."""

    def __init__(self, name: str, schema: str = "outlast") -> None:
        self.name = name
        self.schema = schema

    async def take(self, conn: psycopg.AsyncConnection[Any], owner: str) -> int:
        """Raise the epoch, in a transaction of its own, and return it. `conn` is in autocommit.

        It waits until the transactions that were fenced with the epoch before have ended. Raises `NewerFormatError` when the
        table has the format of a later version.
        """
        await TABLES.migrate(conn, self.schema)
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(self._sql(_TAKE), (self.name, owner))
            row = await cursor.fetchone()
        if row is None:
            raise psycopg.InternalError("RETURNING gave no row")
        return int(row[0])

    async def check(self, conn: psycopg.AsyncConnection[Any], epoch: int, keepalive: Keepalive) -> None:
        """Raise `FencedError` unless the epoch is still `epoch`; if it is, it stays so until the transaction of `conn` ends."""
        if conn.autocommit and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            raise RuntimeError(f"{self.name}: fence() needs a transaction: outside one it guards nothing")
        total_ms = str(keepalive.total_s * 1000)
        times = (str(keepalive.idle_s), str(keepalive.interval_s), str(keepalive.count), total_ms, total_ms)
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(self._sql(_CHECK), (*times, self.name))
            row = await cursor.fetchone()
        if row is None or row[0] != epoch:
            raise FencedError(self.name, epoch, *((row[0], row[1]) if row is not None else (None, "")))

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(schema=sql.Identifier(self.schema))
