"""Reading: points by series and time, newest points, tags and their values."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg import sql

from outlast.tables._model import FieldType
from outlast.tables._stores.postgres._catalogue import kept, present
from outlast.tables._stores.postgres._sessions import GONE, Said, rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from outlast.postgres import Connection, Postgres
    from outlast.tables._model import Range, Tags
    from outlast.tables._stores.port import ReadRow
    from outlast.tables._stores.postgres._catalogue import Column, Kept
    from outlast.tables._stores.postgres._sessions import Statements

_SERIES: Final = "SELECT id, tags FROM {schema}.table_series WHERE table_id = $1::bigint AND id >= $2::bigint"
_POINTS: Final = """
SELECT s.id, s.tags::text, d.* FROM ({series} ORDER BY id) AS s CROSS JOIN LATERAL (
    SELECT d.time, {columns} FROM {place} AS d WHERE d.series = s.id AND d.time <= $5::bigint
        AND d.time >= CASE WHEN s.id = $2::bigint THEN $3::bigint ELSE $4::bigint END {some}
    ORDER BY d.time LIMIT $6::bigint
) AS d ORDER BY s.id, d.time LIMIT $6::bigint
"""
"""By the index of each series; the first, in the middle of which the last page may have ended, begins at a time of its own."""
_NEWEST: Final = """
SELECT s.id, s.tags::text, d.* FROM ({series} ORDER BY id) AS s CROSS JOIN LATERAL (
    SELECT d.time, {columns} FROM {place} AS d WHERE d.series = s.id ORDER BY d.time DESC LIMIT 1
) AS d ORDER BY s.id LIMIT $3::bigint
"""
_TAG_NAMES: Final = """
SELECT DISTINCT g.tag FROM {schema}.table_tags AS g
WHERE ($1 = '' OR g.table_id = (SELECT id FROM {schema}.tables WHERE name = $1))
    AND g.tag >= $2 AND starts_with(g.tag, $2) ORDER BY g.tag LIMIT $3::bigint
"""
_TAG_VALUES: Final = """
SELECT DISTINCT v.value FROM (
    SELECT table_id, tag FROM {schema}.table_tags WHERE ($1 = '' OR tag = $1)
        AND ($2 = '' OR table_id = (SELECT id FROM {schema}.tables WHERE name = $2))
) AS g CROSS JOIN LATERAL (
    SELECT value FROM {schema}.table_tag_values AS v
    WHERE v.table_id = g.table_id AND v.tag = g.tag AND v.value >= $3 AND ($4 = '' OR v.value < $4) AND starts_with(v.value, $3)
    ORDER BY v.value LIMIT $5::bigint
) AS v ORDER BY v.value LIMIT $5::bigint
"""


class Reader:
    """Reads. A table that is not there has nothing."""

    def __init__(self, db: Postgres, said: Statements) -> None:
        self._db = db
        self._said = said

    async def read(self, ask: Range, after: tuple[int, int] | None, count: int) -> list[ReadRow]:
        """Return points; see the port."""
        series, time_ns = after or (0, ask.start_ns)
        first_ns = max(ask.start_ns, time_ns + 1) if after else ask.start_ns

        async def work(conn: Connection, table: Kept) -> list[ReadRow]:
            wanted = _columns(table, ask.fields)
            there = [column for column in wanted if column is not None]
            if not there:
                return []
            some = _any_of(there) if ask.fields else sql.SQL("")
            chosen, values = self._chosen(ask.tags, 7)
            text = sql.SQL(_POINTS).format(series=chosen, columns=_list(there), place=table.place, some=some)
            bounds = (table.record.id, series, first_ns, ask.start_ns, ask.end_ns, count)
            return _points(wanted, await rows(conn, Said(text, conn), *bounds, *values))

        return await self._of_table(ask.table, work)

    async def newest(self, name: str, tags: Mapping[str, tuple[str, ...]], count: int) -> list[ReadRow]:
        """Return the newest point of each series; see the port."""

        async def work(conn: Connection, table: Kept) -> list[ReadRow]:
            wanted = _columns(table, ())
            there = [column for column in wanted if column is not None]
            if not there:
                return []
            chosen, values = self._chosen(tags, 4)
            text = sql.SQL(_NEWEST).format(series=chosen, columns=_list(there), place=table.place)
            return _points(wanted, await rows(conn, Said(text, conn), table.record.id, 0, count, *values))

        return await self._of_table(name, work)

    async def _of_table(self, name: str, work: Callable[[Connection, Kept], Awaitable[list[ReadRow]]]) -> list[ReadRow]:
        """Read from a table; without the columns that somebody dropped by hand, if it has to be."""
        for is_careful in (False, True):
            with contextlib.suppress(*GONE):
                async with self._db.connection() as conn:
                    table = await kept(conn, self._said, name)
                    if table is not None and is_careful:
                        table = await present(conn, table)
                    return [] if table is None else await work(conn, table)
        return []

    async def series_of(self, ask: Range, after: int, count: int) -> list[tuple[int, Tags]]:
        """Return series by their tags; see the port."""
        async with self._db.connection() as conn:
            table = await kept(conn, self._said, ask.table)
            if table is None:
                return []
            chosen, values = self._chosen(ask.tags, 4)
            text = sql.SQL("SELECT s.id, s.tags::text FROM ({}) AS s ORDER BY s.id LIMIT $3::bigint").format(chosen)
            found = await rows(conn, Said(text, conn), table.record.id, after + 1, count, *values)
        return [(the_id, _tags(text)) for the_id, text in found]

    async def tag_names(self, table: str, prefix: str, count: int) -> list[str]:
        """Return names of tags; see the port."""
        return await self._texts(_TAG_NAMES, table, prefix, count)

    async def tag_values(self, tag: str, table: str, prefix: str, count: int) -> list[str]:
        """Return values of tags; see the port."""
        return await self._texts(_TAG_VALUES, tag, table, prefix, _behind(prefix), count)

    async def _texts(self, text: LiteralString, *values: object) -> list[str]:
        async with self._db.connection() as conn:
            return [row[0] for row in await rows(conn, self._said(text), *values)]

    def _chosen(self, tags: Mapping[str, tuple[str, ...]], place: int) -> tuple[sql.Composed, list[object]]:
        """Return the query of the series that have these tags, and its values, which begin at number `place`."""
        text = sql.Composed([sql.SQL(_SERIES).format(schema=sql.Identifier(self._said.schema))])
        values: list[object] = []
        for tag, of in tags.items():
            number = sql.Literal(place + len(values))
            values.append(tag)
            if of:
                text += sql.SQL(" AND tags ->> ${}::text = ANY(${}::text[])").format(number, sql.Literal(place + len(values)))
                values.append(list(of))
            else:
                text += sql.SQL(" AND tags ? ${}::text").format(number)
        return text, values


def _columns(table: Kept, fields: Sequence[str]) -> list[Column | None]:
    """Return the columns of these fields, or of all; None for one that is not there."""
    return [table.columns.get(name) for name in fields or [field.name for field in table.record.fields]]


def _list(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("d", name) for column in columns for name in column.names)


def _any_of(columns: Sequence[Column]) -> sql.Composed:
    each = [sql.SQL("{} IS NOT NULL").format(sql.Identifier("d", name)) for column in columns for name in column.names]
    return sql.SQL("AND ({})").format(sql.SQL(" OR ").join(each))


def _points(wanted: Sequence[Column | None], found: Sequence[tuple[Any, ...]]) -> list[ReadRow]:
    """Return rows of a query as points; the two columns of a NUMBER are one value."""
    is_plain = all(column is not None and column.field.type is not FieldType.NUMBER for column in wanted)
    points: list[ReadRow] = []
    last = 0
    tags: Tags = ()
    for the_id, text, time_ns, *values in found:
        if the_id != last:
            last, tags = the_id, _tags(text)
        points.append((the_id, tags, time_ns, tuple(values) if is_plain else _merged(wanted, values)))
    return points


def _merged(wanted: Sequence[Column | None], values: Sequence[Any]) -> tuple[Any, ...]:
    left = iter(values)
    merged: list[Any] = []
    for column in wanted:
        each = [next(left) for _ in column.names] if column is not None else []
        merged.append(next((value for value in each if value is not None), None))
    return tuple(merged)


def _tags(text: str) -> Tags:
    return tuple(sorted(json.loads(text).items()))


def _behind(prefix: str) -> str:
    """Return the first text behind all that begin with `prefix`, in the order of code points; "" if there is none."""
    while prefix and prefix[-1] == "\U0010ffff":
        prefix = prefix[:-1]
    if not prefix:
        return ""
    # Surrogates are no characters.
    return prefix[:-1] + ("\ue000" if prefix[-1] == "\ud7ff" else chr(ord(prefix[-1]) + 1))
