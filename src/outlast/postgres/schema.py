"""Tables that a system keeps for itself in PostgreSQL, in a schema of their own, and the number of their format.

Each migration of a system raises its format by one. All systems record theirs in one table of the schema, `formats`, in the
transaction that changes the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg import errors, sql
from psycopg.rows import tuple_row

from outlast import Fault, Kind, Scope
from outlast.extend import NewerFormatError, attach
from outlast.postgres._settings import wait_on_purpose

if TYPE_CHECKING:
    import psycopg

__all__ = ["Tables"]

_LOCK: Final = 0x6F75_746C_6173_7421 % 2**62
"""The advisory lock under which every system's tables are made and changed: "outlast!" as a number. It never changes."""
LOCK_S_MAX: Final = 5
"""The longest that a migration waits for the lock of a table: whoever uses the table meanwhile waits behind it."""
_LOOK: Final = """
SELECT pg_catalog.to_regclass(%s) IS NOT NULL, EXISTS (SELECT FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = %s AND NOT attisdropped)
"""
_RECORDED: Final = "SELECT max(format) FROM {schema}.formats WHERE system = %s"
_CREATE: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.formats (
    system text NOT NULL,
    format integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system, format)
)
"""
_RECORD: Final = "INSERT INTO {schema}.formats (system, format) VALUES (%s, %s)"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one system, in every format that they ever had."""

    system: str
    """Its name in `formats` and in messages. It never changes."""
    migrations: tuple[LiteralString, ...]
    """Number n, from 1, makes format n of n - 1. Statements with {schema} in them; those that were released never change."""
    first_column: tuple[str, str]
    """A table and a column of format 1, by which tables are known that were made before formats were recorded."""

    async def format(self, conn: psycopg.AsyncConnection[Any], schema: str) -> int:
        """Return the number of the format that the tables have now; 0 when there are none. Reads only.

        Raises `NewerFormatError` (PERMANENT) for one that is newer than the newest of `migrations`.
        """
        table, column = self.first_column
        recorded: int | None = None
        names = [sql.Identifier(schema, each).as_string(conn) for each in ("formats", table)]
        async with conn.cursor(row_factory=tuple_row) as cursor:
            records, is_known = await (await cursor.execute(_LOOK, (*names, column))).fetchone() or (False, False)
            if records:
                await cursor.execute(_composed(_RECORDED, schema), (self.system,))
                ((recorded,),) = await cursor.fetchall()
        number = recorded or int(is_known)
        if number > len(self.migrations):
            reason = f"{self._place(conn, schema)} format {number}, this version knows up to {len(self.migrations)}"
            hint = "upgrade Outlast"
            fault = Fault(Kind.PERMANENT, "format", reason, scope=Scope.CALL, hint=hint)
            raise NewerFormatError(f"{reason}: {hint}", fault)
        return number

    async def migrate(self, conn: psycopg.AsyncConnection[Any], schema: str) -> int:
        """Make the schema and the tables, or bring them to the newest format; return how many migrations that took.

        All in one transaction, the one that `conn` is in if there is one. Any number of processes may call it at once: one works,
        the others wait for it. What is up to date costs two look-ups, and needs no right but to read. Raises `NewerFormatError`
        as `format` does, and the driver's errors, after which everything is as it was: 55P03 when a table was in use by somebody
        else for `LOCK_S_MAX` seconds.
        """
        newest = len(self.migrations)
        if await self.format(conn, schema) == newest:
            return 0
        async with conn.transaction():
            await wait_on_purpose(conn, local=True)
            await conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
            await wait_on_purpose(conn, {"lock_timeout": f"{LOCK_S_MAX}s"}, local=True)
            # Only now it holds: another process may have migrated while this one waited.
            before = await self.format(conn, schema)
            try:
                await conn.execute(_composed(_CREATE, schema))
                for number, statements in enumerate(self.migrations[before:], before + 1):
                    await conn.execute(_composed(statements, schema))
                    await conn.execute(_composed(_RECORD, schema), (self.system, number))
            except errors.InsufficientPrivilege as error:
                refusal = f"this role may not make it {newest}: {error.diag.message_primary}"
                reason = f"{self._place(conn, schema)} format {before}, and {refusal}"
                hint = "start it once as the owner of the tables, or grant CREATE on the database and on the schema"
                attach(error, Fault(Kind.PERMANENT, "42501", reason, scope=Scope.CALL, hint=hint))
                raise
        return newest - before

    def _place(self, conn: psycopg.AsyncConnection[Any], schema: str) -> str:
        return f"schema {schema} of {conn.info.dbname} has {self.system}"


def _composed(text: LiteralString, schema: str) -> sql.Composed:
    return sql.SQL(text).format(schema=sql.Identifier(schema))
