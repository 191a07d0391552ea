"""Points too old, and tables that are dropped, cleaned away a little at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast.tables._stores.sqlite.catalogue import fields_there, table
from outlast.tables._stores.sqlite.statements import quoted

if TYPE_CHECKING:
    from outlast.tables._stores.sqlite.statements import Statements

SERIES_A_STEP: Final = 2_000
"""Series that one step of expiring looks at, some microseconds each."""
ROWS_A_STEP: Final = 2_000
"""Rows that one step deletes: some milliseconds to some ten, in which nobody else can write."""

_OF_VALUES: Final = """
    DELETE FROM outlast_series_tags WHERE (value_id, series) IN (
        SELECT value_id, series FROM outlast_series_tags
        WHERE value_id IN (SELECT id FROM outlast_tag_values WHERE table_id = ?) LIMIT ?
    )
"""
_OF_TABLE: Final = (
    _OF_VALUES,
    "DELETE FROM outlast_tag_values WHERE id IN (SELECT id FROM outlast_tag_values WHERE table_id = ? LIMIT ?)",
    """
    DELETE FROM outlast_tags WHERE (table_id, tag) IN (SELECT table_id, tag FROM outlast_tags WHERE table_id = ? LIMIT ?)
    """,
    "DELETE FROM outlast_series WHERE id IN (SELECT id FROM outlast_series WHERE table_id = ? LIMIT ?)",
)
"""All that the catalogue has of a dropped table; the tags of its series first, for they are found by the values."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The end of one step."""

    points: int
    after: int | None
    """The series after which the next step begins; None: all series were seen."""


def expire(st: Statements, name: str, before_ns: int, count: int, after: int) -> Expired:
    """Delete up to `count` points older than `before_ns`, but not too many at once, from the next series after `after`."""
    count = min(count, ROWS_A_STEP)
    record = table(st, name)
    if record is None or fields_there(st, record) is None:
        return Expired(0, None)
    stored = quoted(record.stored)
    look = f"""
        SELECT s.id, EXISTS (SELECT 1 FROM main.{stored} AS t WHERE t.series = s.id AND t.time < ?)
        FROM outlast_series AS s WHERE s.table_id = ? AND s.id > ? ORDER BY s.id LIMIT ?
    """
    delete = f"""
        DELETE FROM main.{stored} WHERE series = ?1 AND time < coalesce(
            (SELECT t.time FROM main.{stored} AS t WHERE t.series = ?1 AND t.time < ?2 ORDER BY t.time LIMIT 1 OFFSET ?3), ?2
        )
    """
    found = st.rows(look, before_ns, record.id, after, SERIES_A_STEP)
    points = 0
    for series, has_old in found:
        if has_old:
            points += st.run(delete, series, before_ns, count - points)
        if points >= count:
            # It may have more.
            return Expired(points, series - 1)
    return Expired(points, found[-1][0] if len(found) == SERIES_A_STEP else None)


def clear_some(st: Statements) -> bool:
    """Delete some of what is left of a dropped table; return whether there may be more."""
    found = st.row("SELECT table_id, stored FROM outlast_tables_dropped ORDER BY table_id LIMIT 1")
    if found is None:
        return False
    table_id, stored = found
    if stored:
        # One with few rows is dropped at once.
        last = st.row(f"SELECT series, time FROM main.{quoted(stored)} ORDER BY series, time LIMIT 1 OFFSET ?", ROWS_A_STEP - 1)
        if last is not None:
            # Two statements, for SQLite uses the key for each of them, and for none that compares pairs.
            st.run(f"DELETE FROM main.{quoted(stored)} WHERE series < ?", last[0])
            st.run(f"DELETE FROM main.{quoted(stored)} WHERE series = ? AND time <= ?", *last)
            return True
        st.run(f"DROP TABLE main.{quoted(stored)}")
        st.run("UPDATE outlast_tables_dropped SET stored = '' WHERE table_id = ?", table_id)
    for statement in _OF_TABLE:
        if st.run(statement, table_id, ROWS_A_STEP) == ROWS_A_STEP:
            return True
    st.run("DELETE FROM outlast_tables_dropped WHERE table_id = ?", table_id)
    return True
