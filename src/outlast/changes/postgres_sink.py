"""A sink that writes the same rows into tables of PostgreSQL, with the position in the same transaction: exactly once."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, LiteralString, TypeAlias

import psycopg
from psycopg import errors, sql

from outlast import Fault, Kind, Scope
from outlast.changes.epochs import FencedError
from outlast.changes.messages import UNCHANGED, Delete, Insert, Relation, ReplicaIdentity, Truncate, Update
from outlast.core.faults import attach, attached
from outlast.postgres.connection import DeadlineExceededError
from outlast.postgres.replication_dial import Keepalive, dial
from outlast.postgres.replication_lsn import format_lsn, parse_lsn
from outlast.postgres.second_look import SLOW, own_doing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from outlast.changes.messages import Change, Value
    from outlast.changes.sink import Delivery
    from outlast.postgres import Connection, Postgres

    Statement = tuple[sql.Composed, tuple[Value, ...]]

Naming: TypeAlias = "Callable[[Relation], tuple[str, str]]"
_CREATE: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.change_positions (
    stream text PRIMARY KEY,
    lsn pg_lsn NOT NULL,
    epoch bigint NOT NULL,
    updated_at timestamptz NOT NULL
)
"""
_TAKE: Final = """
INSERT INTO {schema}.change_positions AS p (stream, lsn, epoch, updated_at) VALUES (%s, '0/0', %s, clock_timestamp())
ON CONFLICT (stream) DO UPDATE SET epoch = greatest(p.epoch, excluded.epoch) RETURNING lsn::text, epoch
"""
_MOVE: Final = """
UPDATE {schema}.change_positions SET lsn = %s::pg_lsn, updated_at = clock_timestamp() WHERE stream = %s AND epoch = %s
"""
_ASK: Final = "SELECT epoch FROM {schema}.change_positions WHERE stream = %s"
IDLE_S_MAX: Final = 60
"""How long a transaction of the sink may wait for the next part of a large one, which a slow source or network delays. It ends
what an owner left half done where TCP finds nothing, because something between answers for a machine that is gone."""
_LOCK: Final = 0x6F75_746C_706F_7369 % 2**62
"""The advisory lock under which the table is made: "outlposi" as a number. Two that create it at once would both fail."""


def same_name(relation: Relation) -> tuple[str, str]:
    """Write into the table of the same schema and name."""
    return relation.schema, relation.name


class PostgresSink:
    """Mirrors the changes into tables that exist there, under the same names unless `naming` gives others.

    An insert of a row that is there replaces it, a delete of one that is not does nothing: what a snapshot has read already
    may come again. That needs a primary key or unique index over the columns of the replica identity. Each `flush` commits
    the rows together with the position, in `schema.change_positions`, and only while the epoch is still ours: a former owner
    that comes back is refused by the row it must update.

    Truncates are carried out. Values are sent as the text that PostgreSQL wrote (leave `typed` off). The session is watched by
    TCP as the lock's is (`keepalive`), so that what an owner left half done on a machine that is gone does not keep the next
    one waiting.
    """

    def __init__(
        self, db: Postgres, *, schema: str = "outlast", naming: Naming = same_name, keepalive: Keepalive | None = None
    ) -> None:
        """Describe it; nothing is dialled."""
        self.db = db
        self.needs = (db,)
        self.keepalive = keepalive or Keepalive()
        self.schema = schema
        self._naming = naming
        self._stream = ""
        self._epoch = 0
        self._conn: Connection | None = None
        self._complete_lsn = 0
        self._durable_lsn = 0
        self._statements: dict[tuple[object, ...], sql.Composed] = {}

    async def open(self, stream: str, epoch: int) -> int:
        """Take the stream over as owner number `epoch`; gives the position of the last commit."""
        conn = self._conn = await dial(
            self.db,
            application_name=f"outlast sink {stream}"[:63],
            keepalive=self.keepalive,
            settings={
                "tcp_user_timeout": str(self.keepalive.total_s * 1000),
                "idle_in_transaction_session_timeout": str(IDLE_S_MAX * 1000),
            },
            operation_timeout_s=self.db.operation_timeout_s,
        )
        self._stream, self._epoch = stream, epoch
        async with self._used(conn):
            try:
                row = await self._take(conn)
            except (errors.UndefinedTable, errors.InvalidSchemaName):
                async with conn.transaction():
                    await conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
                    await conn.execute(self._sql(_CREATE))
                row = await self._take(conn)
            await conn.set_autocommit(False)
        lsn, newest = ("0/0", epoch) if row is None else row
        if newest != epoch:
            raise FencedError(stream, epoch, newest, "another owner")
        self._complete_lsn = self._durable_lsn = parse_lsn(lsn)
        return self._durable_lsn

    async def write(self, delivery: Delivery) -> None:
        """Carry the changes out, in a transaction that `flush` commits."""
        conn = self._open_connection()
        async with self._used(conn), conn.pipeline(), conn.cursor() as cursor:
            for statement, rows in self._grouped(delivery.changes):
                await cursor.executemany(statement, rows)
        if delivery.end_lsn is not None:
            self._complete_lsn = delivery.end_lsn

    async def flush(self) -> int:
        """Commit, with the position. Between two parts of one transaction nothing is committed."""
        if self._complete_lsn == self._durable_lsn:
            return self._durable_lsn
        conn, complete = self._open_connection(), self._complete_lsn
        async with self._used(conn):
            async with conn.cursor() as cursor:
                await cursor.execute(self._sql(_MOVE), (format_lsn(complete), self._stream, self._epoch))
                moved = cursor.rowcount
            if moved != 1:
                await conn.rollback()
                raise FencedError(self._stream, self._epoch, await self._newest(conn), "another owner")
            await conn.commit()
        self._durable_lsn = complete
        return complete

    async def _take(self, conn: Connection) -> tuple[str, int] | None:
        async with conn.cursor() as cursor:
            await cursor.execute(self._sql(_TAKE), (self._stream, self._epoch))
            return await cursor.fetchone()

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
            await conn.close()

    # Inside.

    def _open_connection(self) -> Connection:
        if self._conn is None:
            msg = "the sink is not open"
            raise RuntimeError(msg)
        return self._conn

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(schema=sql.Identifier(self.schema))

    def _grouped(self, changes: Iterable[Change]) -> Iterable[tuple[sql.Composed, list[tuple[Value, ...]]]]:
        """Runs of changes that are one statement with many rows; the order stays."""
        made = (statement for change in changes for statement in self._of(change))
        for _, group in groupby(made, key=lambda pair: id(pair[0])):
            pairs = list(group)
            yield pairs[0][0], [values for _, values in pairs]

    def _of(self, change: Change) -> Iterable[Statement]:
        match change:
            case Insert():
                yield self._upsert(change.relation), change.new
            case Update():
                yield from self._update(change)
            case Delete():
                old = change.old_as_dict()
                yield self._delete(change.relation, tuple(old)), tuple(old.values())
            case Truncate():
                tables = sql.SQL(", ").join(self._table(relation) for relation in change.relations)
                restart = sql.SQL(" RESTART IDENTITY" if change.restart_identity else "")
                yield sql.SQL("TRUNCATE {}{}").format(tables, restart), ()
            case _:
                return

    def _update(self, change: Update) -> Iterable[Statement]:
        relation, old = change.relation, change.old_as_dict()
        new = {name: value for name, value in change.as_dict().items() if value is not UNCHANGED}
        complete = len(new) == len(relation.names)
        keys = {name: old[name] for name in (relation.key_names or tuple(old))}
        same = all(new.get(name) == value for name, value in keys.items())
        if complete and same and relation.key_names and relation.replica_identity is not ReplicaIdentity.FULL:
            yield self._upsert(relation), change.new
            return
        yield self._set(relation, tuple(new), tuple(keys)), (*new.values(), *keys.values())

    def _table(self, relation: Relation) -> sql.Identifier:
        return sql.Identifier(*self._naming(relation))

    def _made(self, key: tuple[object, ...], make: Callable[[], sql.Composed]) -> sql.Composed:
        """One object for each statement, so that runs of it are found by identity, and no more than some thousands of them."""
        if key not in self._statements:
            if len(self._statements) >= STATEMENTS_MAX:
                self._statements.clear()
            self._statements[key] = make()
        return self._statements[key]

    def _upsert(self, relation: Relation) -> sql.Composed:
        def make() -> sql.Composed:
            columns = [sql.Identifier(name) for name in relation.names]
            insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
                self._table(relation), _list(columns), _list([sql.Placeholder()] * len(columns))
            )
            if not relation.key_names or relation.replica_identity is ReplicaIdentity.FULL:
                return insert
            rest = [sql.Identifier(name) for name in relation.names if name not in relation.key_names]
            sets = [sql.SQL("{0} = excluded.{0}").format(name) for name in rest]
            action = sql.SQL("UPDATE SET {}").format(_list(sets)) if sets else sql.SQL("NOTHING")
            keys = [sql.Identifier(name) for name in relation.key_names]
            return sql.SQL("{} ON CONFLICT ({}) DO {}").format(insert, _list(keys), action)

        return self._made(("upsert", relation), make)

    def _set(self, relation: Relation, names: tuple[str, ...], keys: tuple[str, ...]) -> sql.Composed:
        def make() -> sql.Composed:
            sets = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in names]
            return sql.SQL("UPDATE {} SET {} WHERE {}").format(self._table(relation), _list(sets), _where(relation, keys))

        return self._made(("set", relation, names, keys), make)

    def _delete(self, relation: Relation, keys: tuple[str, ...]) -> sql.Composed:
        return self._made(
            ("delete", relation, keys),
            lambda: sql.SQL("DELETE FROM {} WHERE {}").format(self._table(relation), _where(relation, keys)),
        )


STATEMENTS_MAX: Final = 2_000


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _where(relation: Relation, keys: tuple[str, ...]) -> sql.Composed:
    # A replica identity of its own has no NULLs, and `=` finds it by its index.
    identified = relation.replica_identity in {ReplicaIdentity.DEFAULT, ReplicaIdentity.INDEX}
    equal = sql.SQL("{} = {}" if identified else "{} IS NOT DISTINCT FROM {}")
    return sql.SQL(" AND ").join(equal.format(sql.Identifier(name), sql.Placeholder()) for name in keys)
