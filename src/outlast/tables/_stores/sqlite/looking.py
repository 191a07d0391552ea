"""Looks at what there is: names and values of tags, and what a table holds."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from outlast.tables._model import TableCounts
from outlast.tables._stores.sqlite.catalogue import fields_there, table
from outlast.tables._stores.sqlite.statements import quoted

if TYPE_CHECKING:
    from outlast.tables._stores.sqlite.statements import Row, Statements

POINTS_COUNTED: Final = 100_000
"""Points that are counted exactly: some milliseconds."""
SERIES_LOOKED_AT: Final = 10_000
"""Series whose oldest and newest points are looked for: the first and the last of so many."""
SAMPLED: Final = 20
"""Series whose points are counted for an estimate."""
POINTS_A_SAMPLE: Final = 5_000


def tag_names(st: Statements, name: str, prefix: str, count: int) -> list[str]:
    """See the port."""
    if not name:
        return _distinct(st, "SELECT min(tag) FROM outlast_tags WHERE tag", (), prefix, count)
    rows = st.rows(
        """
        SELECT g.tag FROM outlast_tables AS t JOIN outlast_tags AS g ON g.table_id = t.id AND g.tag >= ?
        WHERE t.name = ? ORDER BY g.tag LIMIT ?
        """,
        prefix,
        name,
        max(count, 0),
    )
    return _that_begin(rows, prefix)


def tag_values(st: Statements, tag: str, name: str, prefix: str, count: int) -> list[str]:
    """See the port."""
    if not name and not tag:
        return _distinct(st, "SELECT min(value) FROM outlast_tag_values WHERE value", (), prefix, count)
    if not name:
        return _distinct(st, "SELECT min(value) FROM outlast_tag_values WHERE tag = ? AND value", (tag,), prefix, count)
    found = st.row("SELECT id FROM outlast_tables WHERE name = ?", name)
    if found is None:
        return []
    tags = [tag] if tag else [row[0] for row in st.rows("SELECT tag FROM outlast_tags WHERE table_id = ?", found[0])]
    statement = "SELECT value FROM outlast_tag_values WHERE table_id = ? AND tag = ? AND value >= ? ORDER BY value LIMIT ?"
    values = {value for one in tags for value in _that_begin(st.rows(statement, found[0], one, prefix, max(count, 0)), prefix)}
    return heapq.nsmallest(count, values)


def _distinct(st: Statements, least: str, values: tuple[str, ...], prefix: str, count: int) -> list[str]:
    """Return different values by one seek into an index each, however often each stands there."""
    found: list[str] = []
    row = st.row(f"{least} >= ?", *values, prefix)
    while row is not None and row[0] is not None and row[0].startswith(prefix) and len(found) < count:
        found.append(row[0])
        row = st.row(f"{least} > ?", *values, row[0])
    return found


def _that_begin(rows: list[Row], prefix: str) -> list[str]:
    return [row[0] for row in rows if row[0].startswith(prefix)]


def counts(st: Statements, name: str) -> TableCounts | None:
    """See the port."""
    record = table(st, name)
    if record is None:
        return None
    [(of_series,)] = st.rows("SELECT count(*) FROM outlast_series WHERE table_id = ?", record.id)
    if fields_there(st, record) is None:
        return TableCounts(of_series, 0, is_exact=True, oldest_ns=None, newest_ns=None, stored_bytes=None)
    stored = f"main.{quoted(record.stored)}"
    [(points,)] = st.rows(f"SELECT count(*) FROM (SELECT 1 FROM {stored} LIMIT ?)", POINTS_COUNTED + 1)
    is_exact = points <= POINTS_COUNTED and of_series <= 2 * SERIES_LOOKED_AT
    if points > POINTS_COUNTED:
        points = max(points, _estimate(st, record.id, stored, of_series))
    oldest, newest = _ends(st, record.id, stored)
    return TableCounts(of_series, points, is_exact, oldest, newest, None)


def _ends(st: Statements, table_id: int, stored: str) -> tuple[int | None, int | None]:
    ends: list[int] = []
    for order in ("ASC", "DESC"):
        statement = f"""
            SELECT min((SELECT min(t.time) FROM {stored} AS t WHERE t.series = s.id)),
                   max((SELECT max(t.time) FROM {stored} AS t WHERE t.series = s.id))
            FROM (SELECT id FROM outlast_series WHERE table_id = ? ORDER BY id {order} LIMIT ?) AS s
        """
        ends += [end for end in st.rows(statement, table_id, SERIES_LOOKED_AT)[0] if end is not None]
    return (min(ends), max(ends)) if ends else (None, None)


def _estimate(st: Statements, table_id: int, stored: str, of_series: int) -> int:
    """Return about how many points there are, by series that lie evenly among all."""
    total = 0.0
    taken = min(SAMPLED, of_series)
    for number in range(taken):
        total += _points_of(st, table_id, stored, number * of_series // taken)
    return round(total / taken * of_series) if taken else 0


def _points_of(st: Statements, table_id: int, stored: str, place: int) -> float:
    """Return about how many points a series has: of many, those of its first stretch of time stand for the rest."""
    [(series,)] = st.rows("SELECT id FROM outlast_series WHERE table_id = ? ORDER BY id LIMIT 1 OFFSET ?", table_id, place)
    times = f"SELECT time FROM {stored} WHERE series = ? ORDER BY time LIMIT ?"
    [(seen, first, last)] = st.rows(f"SELECT count(*), min(time), max(time) FROM ({times})", series, POINTS_A_SAMPLE)
    if seen < POINTS_A_SAMPLE:
        return float(seen)
    [(end,)] = st.rows(f"SELECT max(time) FROM {stored} WHERE series = ?", series)
    return float(seen * (end - first) / max(last - first, 1))
