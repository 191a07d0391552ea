"""Tables are made, widened and dropped: the table and its place in the catalogue in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import errors, sql

from outlast import Fault, Kind, Scope
from outlast.extend import attach
from outlast.postgres import wait_on_purpose
from outlast.tables._errors import NameTakenError
from outlast.tables._stores.names import stored_table
from outlast.tables._stores.postgres._catalogue import kept
from outlast.tables._stores.postgres._plan import OWN_COLUMNS, Plan
from outlast.tables._stores.postgres._sessions import AGAIN, SETTINGS, Said, rows, run, transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.postgres import Connection, Postgres
    from outlast.tables._model import FieldType, TableRecord
    from outlast.tables._stores.postgres._catalogue import Kept
    from outlast.tables._stores.postgres._sessions import Statements

LOCK_S: Final = 1
"""The longest that a change of a table waits for those who use it: all others who come meanwhile wait behind it."""
ROUNDS: Final = 5
DROP_S: Final = 60.0
"""A table with a million series takes some ten seconds to go from the catalogue."""
LOOK_AGAIN: Final = (
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateColumn,
    errors.DuplicateObject,
    errors.DuplicateSchema,
    *AGAIN,
)
"""Somebody else was quicker: with the same name here, or in PostgreSQL's own catalogue."""
KINDS: Final[Mapping[str, str]] = {
    "r": "a table",
    "p": "a partitioned table",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "i": "an index",
    "I": "an index",
    "S": "a sequence",
    "c": "a type",
    "t": "a type",
}
"""By pg_class.relkind; "t" stands for what has a name among types only."""
_LOCK: Final = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 7019276))"
"""One name of a table at a time. The number keeps these locks apart from those of others."""
_THERE: Final = """
SELECT c.relkind::text, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
    AND NOT a.attisdropped), (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
UNION ALL
SELECT 't', '{}', 0 FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = $1 AND t.typname = $2 AND t.typtype <> 'c' AND t.typelem = 0
LIMIT 1
"""
_OURS: Final = "SELECT EXISTS (SELECT FROM {schema}.tables WHERE data_schema = $1 AND stored = $2 AND name <> $3)"
_HAS_SCHEMA: Final = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
_NEW: Final = "INSERT INTO {schema}.tables (name, data_schema, stored, retention_s) VALUES ($1, $2, $3, $4::float8) RETURNING id"
_FIELD: Final = """
INSERT INTO {schema}.table_fields (table_id, number, name, stored, type, base, other)
SELECT $1::bigint, coalesce((SELECT max(number) FROM {schema}.table_fields WHERE table_id = $1::bigint), 0) + g.place, g.name,
    g.stored, g.type, g.base, g.other
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
    AS g(name, stored, type, base, other, place)
"""
_WIDEN: Final = "UPDATE {schema}.table_fields SET type = 'number', other = $3 WHERE table_id = $1 AND name = $2"
_CHANGED: Final = "UPDATE {schema}.tables SET version = version + 1 WHERE id = $1"
_DROPPED: Final = "DELETE FROM {schema}.tables WHERE id = $1"


class Shaper:
    """Changes tables, one name at a time among all processes."""

    def __init__(self, db: Postgres, said: Statements, data_schema: str) -> None:
        self._db = db
        self._said = said
        self._data_schema = data_schema

    async def make_schema(self) -> None:
        """Make the schema of the data tables, if it is not there: only then the right to do so is needed."""
        for _ in range(ROUNDS):
            try:
                async with transaction(self._db) as conn:
                    await self._make_schema(conn)
            except LOOK_AGAIN:
                continue
            return

    async def shape(self, name: str, fields: Mapping[str, FieldType], fields_max: int, retention_s: float | None) -> TableRecord:
        """Make a table and its fields; see the port."""
        last: Exception | None = None
        for _ in range(ROUNDS):
            try:
                async with transaction(self._db) as conn:
                    await self._lock(conn, name)
                    return (await self._shape(conn, name, fields, fields_max, retention_s)).record
            except LOOK_AGAIN as error:
                last = error
        raise last or AssertionError

    async def drop(self, name: str) -> bool:
        """Drop a table; return whether there was one."""
        async with transaction(self._db) as conn:
            await self._lock(conn, name)
            table = await kept(conn, self._said, name)
            if table is None:
                return False
            there = await rows(conn, _THERE, table.data_schema, table.record.stored)
            with conn.deadline(DROP_S):
                if there and there[0][0] in {"r", "p"}:
                    await run(conn, Said(sql.SQL("DROP TABLE {}").format(table.place), conn))
                await run(conn, self._said(_DROPPED), table.record.id)
            return True

    async def _lock(self, conn: Connection, name: str) -> None:
        await run(conn, SETTINGS)
        await wait_on_purpose(conn, local=True)
        await run(conn, _LOCK, f"{self._said.schema} {name}")
        await wait_on_purpose(conn, {"lock_timeout": f"{LOCK_S}s"}, local=True)

    async def _make_schema(self, conn: Connection) -> None:
        [(is_there,)] = await rows(conn, _HAS_SCHEMA, self._data_schema)
        if is_there:
            return
        make = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._data_schema))
        await self._permitted(conn, make, f"schema {self._data_schema}", "CREATE on the database")

    async def _shape(
        self, conn: Connection, name: str, wanted: Mapping[str, FieldType], fields_max: int, retention_s: float | None
    ) -> Kept:
        """Do it, under the lock of the name."""
        before = await kept(conn, self._said, name)
        schema = before.data_schema if before else self._data_schema
        stored = before.record.stored if before else await self._free_name(conn, name)
        there = await rows(conn, _THERE, schema, stored)
        none: tuple[str, list[str], int] = ("", [], 0)
        kind, attributes, used = there[0] if there else none
        if there and (before is None or kind not in {"r", "p"} or not set(OWN_COLUMNS) <= set(attributes)):
            raise _taken(name, f"{schema}.{stored}", KINDS.get(kind, "something"))
        plan = Plan(before, wanted, fields_max, attributes, used)
        if before is not None and there and not plan.is_change:
            return before
        if not there:
            await self._make_schema(conn)
        the_id = before.record.id if before else await self._new(conn, name, stored, retention_s)
        place = sql.Identifier(schema, stored)
        change = plan.alter(place) if there else plan.create(place, the_id)
        if change is not None:
            await self._permitted(
                conn, change, f"table {schema}.{stored}", f"CREATE on schema {schema}, and ownership of the table"
            )
        await self._record(conn, the_id, plan)
        after = await kept(conn, self._said, name)
        if after is None:
            msg = f"table {name} was recorded, and is not there"
            raise errors.SerializationFailure(msg)
        return after

    async def _free_name(self, conn: Connection, name: str) -> str:
        taken: set[str] = set()
        while True:
            stored = stored_table(name, lambda each: each not in taken)
            [(is_others,)] = await rows(conn, self._said(_OURS), self._data_schema, stored, name)
            if not is_others:
                return stored
            taken.add(stored)

    async def _new(self, conn: Connection, name: str, stored: str, retention_s: float | None) -> int:
        [(the_id,)] = await rows(conn, self._said(_NEW), name, self._data_schema, stored, retention_s)
        return int(the_id)

    async def _record(self, conn: Connection, the_id: int, plan: Plan) -> None:
        added = plan.added
        if added:
            await run(
                conn,
                self._said(_FIELD),
                the_id,
                [column.field.name for column in added],
                [column.field.stored for column in added],
                [column.field.type.value for column in added],
                [column.base.value for column in added],
                [column.other for column in added],
            )
        for column in plan.widened:
            await run(conn, self._said(_WIDEN), the_id, column.field.name, column.other)
        await run(conn, self._said(_CHANGED), the_id)

    async def _permitted(self, conn: Connection, change: sql.Composable, what: str, right: str) -> None:
        """Change it; say which right is missing, where one is."""
        try:
            await run(conn, Said(change, conn))
        except errors.InsufficientPrivilege as error:
            reason = f"{what} cannot be made or changed by the role {conn.info.user}: {error.diag.message_primary}"
            hint = f"grant the role {conn.info.user} {right}"
            attach(error, Fault(Kind.PERMANENT, "42501", reason, self._db.name, Scope.CALL, hint=hint))
            raise


def _taken(name: str, place: str, kind: str) -> NameTakenError:
    message = f"table {name!r} cannot be made: {place} is {kind} that is none of the tables of metrics"
    hint = f"rename or drop {place}, let the metrics have a schema of their own, or write to a table of another name"
    return NameTakenError(message, hint=hint)
