"""The contents of a table in numbers; and its old points, which are deleted a batch at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, LiteralString

from psycopg import sql

from outlast.tables._model import TableCounts
from outlast.tables._stores.postgres._catalogue import kept
from outlast.tables._stores.postgres._sessions import AGAIN, GONE, SETTINGS, TRIES, Said, rows, run, transaction

if TYPE_CHECKING:
    from outlast.postgres import Connection, Postgres
    from outlast.tables._stores.postgres._catalogue import Kept
    from outlast.tables._stores.postgres._sessions import Statements

EXACT_BYTES_MAX: Final = 16 * 2**20
"""A table up to this size is counted: some 200,000 points, in some 20 ms."""
ENDS_MAX: Final = 10_000
"""The series that are asked for their oldest and newest point, 10 us each; with more of them nobody knows."""
CURSORS_MAX: Final = 20_000
_SERIES: Final = "SELECT count(*) FROM {schema}.table_series WHERE table_id = $1"
_EXACT: Final = "SELECT count(*), min(d.time), max(d.time) FROM {place} AS d"
_ENDS: Final = """
SELECT min(e.first), max(e.last) FROM {schema}.table_series AS s CROSS JOIN LATERAL (
    SELECT (SELECT d.time FROM {place} AS d WHERE d.series = s.id ORDER BY d.time LIMIT 1) AS first,
        (SELECT d.time FROM {place} AS d WHERE d.series = s.id ORDER BY d.time DESC LIMIT 1) AS last
) AS e WHERE s.table_id = $1
"""
_EXPIRE: Final = """
WITH gone AS (
    DELETE FROM {place} AS p WHERE p.ctid = ANY(ARRAY(
        SELECT d.ctid FROM (SELECT id FROM {schema}.table_series WHERE table_id = $1 AND id >= $2::bigint ORDER BY id) AS s
        CROSS JOIN LATERAL (
            SELECT d.ctid FROM {place} AS d WHERE d.series = s.id AND d.time < $3::bigint LIMIT $4::bigint
        ) AS d
        LIMIT $4::bigint
    )) RETURNING p.series
) SELECT count(*), max(series) FROM gone
"""
"""Old points are found by the key, series after series. An index of times alone would find them at once, and would cost each
point that is written; one of blocks (BRIN) keeps old times for blocks that were filled again."""


class Upkeep:
    """Counts and deletes."""

    def __init__(self, db: Postgres, said: Statements) -> None:
        self._db = db
        self._said = said
        self._reached: dict[int, int] = {}
        """By table, the series at which the last batch of old points ended."""

    async def counts(self, name: str) -> TableCounts | None:
        """Return what a table holds; see the port."""
        async with self._db.connection() as conn:
            table = await kept(conn, self._said, name)
            if table is None:
                return None
            [(series,)] = await rows(conn, self._said(_SERIES), table.record.id)
            place = table.place.as_string(conn)
            [(there, heap, whole)] = await rows(
                conn,
                "SELECT to_regclass($1) IS NOT NULL, pg_relation_size(to_regclass($1)), pg_total_relation_size(to_regclass($1))",
                place,
            )
            if not there:
                return TableCounts(series, 0, is_exact=True, oldest_ns=None, newest_ns=None, stored_bytes=0)
            if heap <= EXACT_BYTES_MAX:
                [(points, oldest, newest)] = await rows(conn, self._of(_EXACT, table, conn))
                return TableCounts(series, points, is_exact=True, oldest_ns=oldest, newest_ns=newest, stored_bytes=whole)
            oldest = newest = None
            if series <= ENDS_MAX:
                [(oldest, newest)] = await rows(conn, self._of(_ENDS, table, conn), table.record.id)
            points = await self._guess(conn, table)
            return TableCounts(series, points, is_exact=False, oldest_ns=oldest, newest_ns=newest, stored_bytes=whole)

    async def _guess(self, conn: Connection, table: Kept) -> int:
        """Return the planner's estimate: from the size that the table has now, and the density when it was last looked at."""
        text = Said(sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {}").format(table.place), conn)
        [(plan,)] = await rows(conn, text)
        [top] = json.loads(plan) if isinstance(plan, str) else plan
        return int(top["Plan"]["Plan Rows"])

    async def expire(self, name: str, before_ns: int, count: int) -> int:
        """Delete old points; see the port."""
        for left in reversed(range(TRIES)):
            try:
                async with transaction(self._db) as conn:
                    await run(conn, SETTINGS)
                    table = await kept(conn, self._said, name)
                    return 0 if table is None else await self._expire(conn, table, before_ns, count)
            except GONE:
                # It has no points any more: the next shape makes it again.
                return 0
            except AGAIN:
                if not left:
                    raise
        raise AssertionError

    async def _expire(self, conn: Connection, table: Kept, before_ns: int, count: int) -> int:
        """Delete from where the last batch ended to the last series, then from the first."""
        the_id, text = table.record.id, self._of(_EXPIRE, table, conn)
        start = self._reached.pop(the_id, 0)
        [(deleted, reached)] = await rows(conn, text, the_id, start, before_ns, count)
        if start and deleted < count:
            [(more, reached)] = await rows(conn, text, the_id, 0, before_ns, count - deleted)
            deleted += more
        if deleted >= count:
            if len(self._reached) >= CURSORS_MAX:
                self._reached.clear()
            self._reached[the_id] = reached or 0
        return int(deleted)

    def _of(self, text: LiteralString, table: Kept, conn: Connection) -> Said:
        composed = sql.SQL(text).format(place=table.place, schema=sql.Identifier(self._said.schema))
        return Said(composed, conn)
