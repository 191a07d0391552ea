"""The tables of a publication, with their columns and rows, each cut into ranges: a bounded number, up front."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from outlast.changes._decoding.messages import Column, Relation, ReplicaIdentity
from outlast.changes._slot.catalog import TABLES_MAX
from outlast.changes._snapshot.model import Key, RangeState, TableState

if TYPE_CHECKING:
    import psycopg

SAMPLED_BLOCKS: Final = 50
"""Blocks of a table that are looked at for each range: sizes then differ by about 1/√50 × √2 = 20 %. Blocks, and not rows:
neighbours lie in one block, and often have neighbouring keys. A range of 100,000 rows has a thousand and more."""
ROW_BYTES: Final = 100
"""Supposed of a table that was never analysed."""

_TABLES: Final = """
SELECT class.oid::bigint, space.nspname, class.relname, class.relreplident, row ->> 'rowfilter',
    columns.names, columns.types, columns.mods, columns.keys, key.names, key.types,
    coalesce((SELECT sum(CASE WHEN each.reltuples >= 0 THEN each.reltuples ELSE pg_relation_size(each.oid) / %(row_bytes)s END)
        FROM pg_class AS each WHERE each.oid = class.oid AND class.relkind <> 'p'
            OR each.oid IN (SELECT relid FROM pg_partition_tree(class.oid) WHERE isleaf)), 0)::bigint,
    coalesce((SELECT sum(pg_relation_size(each.oid)) FROM pg_class AS each WHERE each.oid = class.oid AND class.relkind <> 'p'
        OR each.oid IN (SELECT relid FROM pg_partition_tree(class.oid) WHERE isleaf)), 0)::bigint
        / current_setting('block_size')::int,
    EXISTS (SELECT FROM pg_class AS each WHERE (each.oid = class.oid AND class.relkind <> 'p'
        OR each.oid IN (SELECT relid FROM pg_partition_tree(class.oid) WHERE isleaf))
        AND each.reltoastrelid <> 0 AND pg_relation_size(each.reltoastrelid) > 0),
    class.relkind = 'p'
FROM (SELECT to_jsonb(published) AS row FROM pg_publication_tables AS published WHERE pubname = %(publication)s) AS listed
JOIN pg_namespace AS space ON space.nspname = row ->> 'schemaname'
JOIN pg_class AS class ON class.relnamespace = space.oid AND class.relname = row ->> 'tablename'
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(attname::text ORDER BY attnum), '{}') AS names,
        coalesce(array_agg(atttypid::bigint ORDER BY attnum), '{}') AS types,
        coalesce(array_agg(atttypmod ORDER BY attnum), '{}') AS mods,
        coalesce(array_agg(class.relreplident = 'f' OR EXISTS (SELECT FROM pg_index
            WHERE indrelid = class.oid AND attnum = ANY(indkey::int2[])
                AND (indisprimary AND class.relreplident = 'd' OR indisreplident AND class.relreplident = 'i'))
            ORDER BY attnum), '{}') AS keys
    FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped
        AND (attgenerated = '' OR current_setting('server_version_num')::int >= 180000)
        AND (NOT row ? 'attnames' OR row -> 'attnames' ? attname::text)
) AS columns
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(attname::text ORDER BY place), '{}') AS names,
        coalesce(array_agg(format_type(atttypid, atttypmod) ORDER BY place), '{}') AS types
    FROM pg_index CROSS JOIN LATERAL unnest(indkey::int2[]) WITH ORDINALITY AS part(number, place)
    JOIN pg_attribute ON attrelid = indrelid AND attnum = part.number
    WHERE indrelid = class.oid AND indisprimary AND indisvalid AND place <= indnkeyatts
) AS key
ORDER BY space.nspname, class.relname LIMIT %(tables_max)s
"""
"""Column lists and row filters came with PostgreSQL 15; older servers have no such columns in the view. Columns that the source
generates may be published since 18, where the view has those that are; before, it has some that are not."""

_BOUNDS: Final = """
SELECT {texts} FROM (
    SELECT {columns}, row_number() OVER (ORDER BY {columns}) AS place, count(*) OVER () AS total
    FROM {table} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)
) AS sampled
WHERE place * {ranges} / total <> (place - 1) * {ranges} / total AND place < total
ORDER BY place LIMIT {limit}
"""


@dataclass(frozen=True, slots=True)
class PublishedRows:
    """A table as the publication publishes it."""

    relation: Relation
    filter: str | None
    """The condition on its rows, as the server's catalogue has it."""
    key: tuple[str, ...]
    """The columns of its primary key; () if it has none, or one that is not published."""
    key_types: tuple[str, ...]
    rows_estimated: int
    blocks: int = 0
    """Of its partitions together, if it has any."""
    large_values: bool = False
    """Whether it has values out of line (TOAST): an update that leaves one alone does not repeat it."""
    partitioned: bool = False

    @property
    def rows_of(self) -> sql.Composed:
        """Name its rows for a query: those of its partitions, and not those of children, which are published themselves."""
        only = sql.SQL("" if self.partitioned else "ONLY ")
        return sql.SQL("{}{}").format(only, sql.Identifier(self.relation.schema, self.relation.name))

    def copy(self, state: RangeState) -> sql.Composed:
        """Return the statement that reads what is left of a range, in the order of the key."""
        columns = sql.SQL(", ").join(map(sql.Identifier, self.relation.names))
        conditions = [self._compare(">", state.position or state.low), self._compare("<=", state.high)]
        if self.filter is not None:
            conditions.append(sql.SQL("({})").format(_catalogued(self.filter)))
        given = [each for each in conditions if each is not None]
        query = sql.SQL("SELECT {} FROM {}").format(columns, self.rows_of)
        if given:
            query += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(given)
        if self.key:
            query += sql.SQL(" ORDER BY ") + self._key_columns()
        return sql.SQL("COPY ({}) TO STDOUT").format(query)

    def bounds(self, ranges: int) -> sql.Composed:
        """Return the statement for keys that cut the table into about `ranges` parts of about the same size."""
        percent = min(100.0, 100.0 * SAMPLED_BLOCKS * ranges / max(1, self.blocks))
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.key)
        return sql.SQL(_BOUNDS).format(
            texts=texts,
            columns=self._key_columns(),
            table=self.rows_of,
            percent=sql.Literal(percent),
            ranges=sql.Literal(ranges),
            limit=sql.Literal(ranges - 1),
        )

    def _compare(self, operator: str, key: Key | None) -> sql.Composed | None:
        if key is None:
            return None
        values = [
            sql.SQL("{}::{}").format(sql.Literal(text), _catalogued(kind)) for text, kind in zip(key, self.key_types, strict=True)
        ]
        above = sql.SQL(">") if operator == ">" else sql.SQL("<=")
        return sql.SQL("({}) {} ({})").format(self._key_columns(), above, sql.SQL(", ").join(values))

    def _key_columns(self) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, self.key))


def _catalogued(text: str) -> sql.SQL:
    """Make SQL of what the server itself wrote into its catalogue: the name of a type, the condition of a publication."""
    return sql.SQL(text)  # pyright: ignore[reportArgumentType] # the server's own


async def published_rows(conn: psycopg.AsyncConnection[Any], publication: str) -> tuple[PublishedRows, ...]:
    """Return the tables of a publication, at most ten thousand. Partitions are listed unless it publishes via the root."""
    parameters = {"publication": publication, "row_bytes": ROW_BYTES, "tables_max": TABLES_MAX}
    rows = await (await conn.execute(_TABLES, parameters)).fetchall()
    return tuple(map(_published, rows))


def _published(row: tuple[Any, ...]) -> PublishedRows:
    oid, schema, name, identity, row_filter, names, types, mods, keys, key, key_types, rows, blocks, large, partitioned = row
    columns = tuple(Column(*each) for each in zip(names, types, mods, keys, strict=True))
    relation = Relation(oid, schema, name, ReplicaIdentity(identity), columns)
    usable = set(key) <= set(names)
    keyed = (tuple(key), tuple(key_types)) if usable else ((), ())
    return PublishedRows(relation, row_filter, *keyed, rows, blocks, large, partitioned)


async def plan_table(
    conn: psycopg.AsyncConnection[Any], table: PublishedRows, *, rows_per_range: int, ranges_max: int
) -> TableState:
    """Cut a table into ranges. Their number is at most `ranges_max`, whatever the table; a small sample decides where."""
    wanted = min(ranges_max, math.ceil(table.rows_estimated / rows_per_range))
    cuts: list[Key] = []
    if table.key and wanted > 1:
        cuts = [tuple(row) for row in await (await conn.execute(table.bounds(wanted))).fetchall()]
    lows: list[Key | None] = [None, *cuts]
    highs: list[Key | None] = [*cuts, None]
    ranges = tuple(RangeState(number, low, high) for number, (low, high) in enumerate(zip(lows, highs, strict=True)))
    relation = table.relation
    return TableState(relation.schema, relation.name, table.key, table.rows_estimated, ranges)
