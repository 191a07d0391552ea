"""The catalogue as it is read: tables with their columns."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from outlast.tables._model import FieldRecord, FieldType, TableRecord
from outlast.tables._stores.postgres._sessions import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.postgres import Connection
    from outlast.tables._stores.postgres._sessions import Statements

SQL_TYPES: Final[Mapping[FieldType, sql.SQL]] = {
    FieldType.INTEGER: sql.SQL("bigint"),
    FieldType.FLOAT: sql.SQL("double precision"),
    FieldType.STRING: sql.SQL("text"),
    FieldType.BOOLEAN: sql.SQL("boolean"),
}
_KEPT: Final = """
SELECT t.id, t.name, t.data_schema, t.stored, t.retention_s, extract(epoch FROM t.created_at)::float8, t.version,
    coalesce((SELECT json_agg(json_build_array(f.name, f.stored, f.type, f.base, f.other) ORDER BY f.number)::text
        FROM {schema}.table_fields f WHERE f.table_id = t.id), '[]')
FROM {schema}.tables t"""
BY_NAME: Final = _KEPT + " WHERE t.name = $1"
BY_ID: Final = _KEPT + " WHERE t.id = ANY($1::bigint[])"
AFTER: Final = _KEPT + " WHERE t.name > $1 ORDER BY t.name LIMIT $2::bigint"

_THERE: Final = """
SELECT a.attname::text FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A field as it lies in its table: `stored` is a column of type `base`, and `other`, of a NUMBER, one of the other type."""

    field: FieldRecord
    base: FieldType
    other: str | None = None

    @property
    def integers(self) -> str:
        """The column of the integers of a NUMBER."""
        return self.field.stored if self.base is FieldType.INTEGER or self.other is None else self.other

    @property
    def floats(self) -> str:
        """The column of the doubles of a NUMBER."""
        return self.field.stored if self.base is FieldType.FLOAT or self.other is None else self.other

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns: those of a NUMBER with the integers first."""
        return tuple(name for name, _ in self.typed)

    @property
    def typed(self) -> tuple[tuple[str, FieldType], ...]:
        """Its columns with their types: those of a NUMBER with the integers first."""
        if self.other is None:
            return ((self.field.stored, self.base),)
        return ((self.integers, FieldType.INTEGER), (self.floats, FieldType.FLOAT))

    def widened(self, other: str) -> Column:
        """Return it as a NUMBER with `other` for what it could not hold."""
        return Column(replace(self.field, type=FieldType.NUMBER), self.base, other)


@dataclass(frozen=True, slots=True)
class Kept:
    """A table as the catalogue has it, at one version."""

    record: TableRecord
    data_schema: str
    version: int
    columns: Mapping[str, Column]

    @property
    def place(self) -> sql.Identifier:
        """The name of its data table."""
        return sql.Identifier(self.data_schema, self.record.stored)

    def agrees(self, record: TableRecord, fields: Sequence[str]) -> bool:
        """Return whether these fields are here what they are in `record`."""
        then = {field.name: field for field in record.fields}
        return all(name in self.columns and self.columns[name].field == then.get(name) for name in fields)


async def kept(conn: Connection, said: Statements, name: str) -> Kept | None:
    """Return a table by its name; None if there is none."""
    found = await rows(conn, said(BY_NAME), name)
    return _kept(found[0]) if found else None


async def kept_by_id(conn: Connection, said: Statements, ids: Sequence[int]) -> dict[int, Kept]:
    """Return tables by their ids; those that are not there are left out."""
    return {row[0]: _kept(row) for row in await rows(conn, said(BY_ID), list(ids))}


async def kept_after(conn: Connection, said: Statements, after: str, count: int) -> list[Kept]:
    """Return tables in the order of their names."""
    return [_kept(row) for row in await rows(conn, said(AFTER), after, count)]


async def present(conn: Connection, table: Kept) -> Kept:
    """Return a table with those columns alone that it really has."""
    there = {name for (name,) in await rows(conn, _THERE, table.data_schema, table.record.stored)}
    columns = {name: column for name, column in table.columns.items() if there.issuperset(column.names)}
    return replace(table, columns=columns)


def _kept(row: Sequence[Any]) -> Kept:
    the_id, name, data_schema, stored, retention_s, created_at, version, fields = row
    columns = [
        Column(FieldRecord(field, column, FieldType(kind)), FieldType(base), other)
        for field, column, kind, base, other in json.loads(fields)
    ]
    record = TableRecord(the_id, name, stored, tuple(column.field for column in columns), retention_s, created_at)
    return Kept(record, data_schema, version, {column.field.name: column for column in columns})
