"""The catalogue: how its tables came to be, one format after another, and what it says of the tables of points."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import apsw

from outlast.extend import NewerFormatError
from outlast.tables._errors import NameTakenError
from outlast.tables._model import FieldRecord, FieldType, TableRecord
from outlast.tables._stores.names import FieldPlan, ascii_folded, plan_fields, stored_table
from outlast.tables._stores.sqlite.statements import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.tables._stores.sqlite.statements import Row, Statements

_FIRST: Final = (
    # An id that was dropped must not come again: whoever still has it must see that the table is gone.
    """
    CREATE TABLE outlast_tables (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, stored TEXT NOT NULL COLLATE NOCASE UNIQUE,
        retention_s REAL, created_at REAL NOT NULL
    )
    """,
    """
    CREATE TABLE outlast_columns (
        table_id INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, stored TEXT NOT NULL, type TEXT NOT NULL,
        PRIMARY KEY (table_id, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE outlast_series (
        id INTEGER PRIMARY KEY, table_id INTEGER NOT NULL, tags TEXT NOT NULL, UNIQUE (table_id, tags)
    )
    """,
    "CREATE INDEX outlast_series_of_table ON outlast_series (table_id)",
    """
    CREATE TABLE outlast_tags (
        table_id INTEGER NOT NULL, tag TEXT NOT NULL, value_count INTEGER NOT NULL, PRIMARY KEY (table_id, tag)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX outlast_tags_of_all ON outlast_tags (tag)",
    """
    CREATE TABLE outlast_tag_values (
        id INTEGER PRIMARY KEY, table_id INTEGER NOT NULL, tag TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (table_id, tag, value)
    )
    """,
    "CREATE INDEX outlast_tag_values_of_tag ON outlast_tag_values (tag, value)",
    "CREATE INDEX outlast_tag_values_of_all ON outlast_tag_values (value)",
    """
    CREATE TABLE outlast_series_tags (
        value_id INTEGER NOT NULL, series INTEGER NOT NULL, PRIMARY KEY (value_id, series)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE outlast_tables_dropped (table_id INTEGER PRIMARY KEY, stored TEXT NOT NULL)",
)
FORMATS: Final = (_FIRST,)
"""The statements that lead from each format to the next. What is released is never changed: a change is one more."""

FIELDS_A_STEP: Final = 8
"""Fields that one transaction adds to a table that is there. For each, SQLite reads the definitions of all tables again: that
takes 60 ms where there are 10,000 tables, and nobody else can write meanwhile."""
DROPPED_AT_ONCE: Final = 2_000
"""Points of a table that is dropped at once. To put a larger one aside takes 150 ms where there are 10,000 tables."""

_STATE: Final = """
    CREATE TABLE IF NOT EXISTS outlast_tables_state (
        one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, version INTEGER NOT NULL
    )
"""
VERSION: Final = "SELECT version FROM outlast_tables_state"
"""Another one after each change of a table or its fields: what was read before it may be old."""
_CHANGED: Final = "UPDATE outlast_tables_state SET version = version + 1"
_TABLE: Final = "SELECT id, name, stored, retention_s, created_at FROM outlast_tables"
_COLUMNS: Final = """
    SELECT table_id, name, stored, type FROM outlast_columns WHERE table_id IN (SELECT value FROM json_each(?))
    ORDER BY table_id, position
"""
_TYPES: Final = {kind.value: kind for kind in FieldType}


def bring_up(st: Statements, path: object) -> None:
    """Make the catalogue or bring it to the newest format. Raises `NewerFormatError`; then nothing was changed."""
    st.run(_STATE)
    row = st.row("SELECT format FROM outlast_tables_state")
    found: int = 0 if row is None else row[0]
    if found > len(FORMATS):
        raise NewerFormatError(
            f"tables: {path} has a catalogue of format {found}, and this version of Outlast knows up to {len(FORMATS)}: "
            "install the version that wrote it, or a later one"
        )
    for statements in FORMATS[found:]:
        for statement in statements:
            st.run(statement)
    st.run("INSERT OR IGNORE INTO outlast_tables_state VALUES (1, 0, 0)")
    if found < len(FORMATS):
        st.run("UPDATE outlast_tables_state SET format = ?", len(FORMATS))


def tables(st: Statements, after: str, count: int) -> list[TableRecord]:
    """See the port."""
    return _records(st, st.rows(f"{_TABLE} WHERE name > ? ORDER BY name LIMIT ?", after, max(count, 0)))


def table(st: Statements, name: str) -> TableRecord | None:
    """See the port."""
    return next(iter(_records(st, st.rows(f"{_TABLE} WHERE name = ?", name))), None)


def table_of_id(st: Statements, the_id: int) -> TableRecord | None:
    """Return the table of an id, if it is still there."""
    return next(iter(_records(st, st.rows(f"{_TABLE} WHERE id = ?", the_id))), None)


def _records(st: Statements, rows: list[Row]) -> list[TableRecord]:
    fields: dict[int, list[FieldRecord]] = {row[0]: [] for row in rows}
    for table_id, name, stored, kind in st.rows(_COLUMNS, json.dumps(list(fields))):
        fields[table_id].append(FieldRecord(name, stored, _TYPES[kind]))
    return [TableRecord(row[0], row[1], row[2], tuple(fields[row[0]]), row[3], row[4]) for row in rows]


def shape(
    st: Statements, name: str, wanted: Mapping[str, FieldType], fields_max: int, retention_s: float | None, now: float
) -> tuple[TableRecord, bool]:
    """Make a table, or some of the fields that it lacks; return what it is then, and whether it may get more.

    See the port's `shape`.
    """
    known = table(st, name)
    record = known or _recorded(st, name, retention_s, now)
    more = False
    if known is not None:
        has = {field.name for field in known.fields}
        later = set([field for field in wanted if field not in has][FIELDS_A_STEP:])
        more = bool(later) and len(has) + FIELDS_A_STEP < fields_max
        wanted = {field: kind for field, kind in wanted.items() if field not in later}
    columns, is_ours = _columns(st, record.stored)
    if columns and (known is None or not is_ours):
        raise _taken(st, record)
    plan = plan_fields(record.fields, wanted, fields_max, ascii_folded, columns)
    is_made = _make(st, record, plan, columns)
    first = len(record.fields)
    st.run_all(
        "INSERT INTO outlast_columns VALUES (?, ?, ?, ?, ?)",
        [(record.id, first + place, new.name, new.stored, new.type.value) for place, new in enumerate(plan.added)],
    )
    for wide in plan.widened:
        st.run("UPDATE outlast_columns SET type = ? WHERE table_id = ? AND name = ?", wide.type.value, record.id, wide.name)
    if is_made or plan.widened:
        st.run(_CHANGED)
    return TableRecord(record.id, record.name, record.stored, plan.fields, record.retention_s, record.created_at), more


def fields_there(st: Statements, record: TableRecord) -> list[FieldRecord] | None:
    """Return the fields whose columns are there; None if the table of the points is not.

    Somebody may have dropped it by hand, or put another in its place. The next shape puts that right.
    """
    columns, is_ours = _columns(st, record.stored)
    present = {ascii_folded(column) for column in columns}
    return [field for field in record.fields if ascii_folded(field.stored) in present] if is_ours else None


def _columns(st: Statements, stored: str) -> tuple[list[str], bool]:
    """Return the columns of what has a name, and whether it is made as ours are: it is no view, and no other table."""
    found = st.rows("SELECT name, pk FROM pragma_table_info(?, 'main')", stored)
    return [row[0] for row in found], {("series", 1), ("time", 2)} <= set(found)


def _recorded(st: Statements, name: str, retention_s: float | None, now: float) -> TableRecord:
    stored = stored_table(name, lambda stored: st.row("SELECT 1 FROM outlast_tables WHERE stored = ?", stored) is None)
    insert = "INSERT INTO outlast_tables (name, stored, retention_s, created_at) VALUES (?, ?, ?, ?) RETURNING id"
    [(the_id,)] = st.rows(insert, name, stored, retention_s, now)
    return TableRecord(the_id, name, stored, (), retention_s, now)


def _make(st: Statements, record: TableRecord, plan: FieldPlan, columns: list[str]) -> bool:
    """Make the table of the points or what it lacks, though somebody dropped it by hand; return whether anything was made."""
    if not columns:
        fields = "".join(f", {quoted(field.stored)}" for field in plan.fields)
        key = "series INTEGER NOT NULL, time INTEGER NOT NULL"
        _define(
            st, record, f"CREATE TABLE main.{quoted(record.stored)} ({key}{fields}, PRIMARY KEY (series, time)) WITHOUT ROWID"
        )
        return True
    present = {ascii_folded(column) for column in columns}
    missing = [field.stored for field in plan.fields if ascii_folded(field.stored) not in present]
    for column in missing:
        _define(st, record, f"ALTER TABLE main.{quoted(record.stored)} ADD COLUMN {quoted(column)}")
    return bool(missing)


def _define(st: Statements, record: TableRecord, statement: str) -> None:
    try:
        st.run(statement)
    except apsw.SQLError as error:
        raise _taken(st, record, error) from error


def _taken(st: Statements, record: TableRecord, error: apsw.SQLError | None = None) -> Exception:
    """Return the error of a name that somebody else has; `error` if nobody has it."""
    found = st.row("SELECT type, name FROM main.sqlite_schema WHERE name = ? COLLATE NOCASE AND type <> 'trigger'", record.stored)
    if found is None and error is not None:
        return error
    kind, name = found or ("table", record.stored)
    message = f"table {record.name!r} cannot be made: the file has a {kind} {name!r} that is none of the tables of metrics"
    return NameTakenError(message, hint=f"rename or drop the {kind} {name!r}, or write to a table of another name")


def set_retention(st: Statements, name: str, retention_s: float | None) -> bool:
    """See the port."""
    return st.run("UPDATE outlast_tables SET retention_s = ? WHERE name = ?", retention_s, name) > 0


def begin_drop(st: Statements, name: str) -> bool:
    """Take a table out of the catalogue and free its name; `cleaning.clear_some` does the rest. Return whether there was one."""
    found = table(st, name)
    if found is None:
        return False
    st.run("INSERT INTO outlast_tables_dropped VALUES (?, ?)", found.id, _put_aside(st, found))
    st.run("DELETE FROM outlast_columns WHERE table_id = ?", found.id)
    st.run("DELETE FROM outlast_tables WHERE id = ?", found.id)
    st.run(_CHANGED)
    return True


def _put_aside(st: Statements, record: TableRecord) -> str:
    """Return the name under which a table's points wait to be deleted, "" if there is nothing to delete any more.

    To drop a table costs time by its size, and nobody could write meanwhile.
    """
    stored = quoted(record.stored)
    if not _columns(st, record.stored)[1]:
        # Somebody has dropped it by hand, and may have put something of theirs there.
        return ""
    if st.row(f"SELECT 1 FROM main.{stored} LIMIT 1 OFFSET ?", DROPPED_AT_ONCE) is None:
        st.run(f"DROP TABLE main.{stored}")
        return ""
    aside = f"outlast_dropped_{record.id}"
    # Else SQLite rewrites the views of others that read the table, and fails for any view that is broken.
    st.run("PRAGMA legacy_alter_table = ON")
    try:
        st.run(f"ALTER TABLE main.{stored} RENAME TO {quoted(aside)}")
    finally:
        st.run("PRAGMA legacy_alter_table = OFF")
    return aside
