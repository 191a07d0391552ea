"""The points that a store holds, read past the server that wrote them; and what stands in the way of a table.

The collectors have plain names for tables and fields, which `outlast.tables` stores as they are.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA: Final = "metrics"
"""The schema of the tables of `outlast.tables` in PostgreSQL, unless it is told another."""
BUSY_S: Final = 30.0
_TABLES_POSTGRES: Final = "SELECT table_name FROM information_schema.columns WHERE table_schema = 'metrics' AND column_name = 'n'"
_TABLES_SQLITE: Final = (
    "SELECT m.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table' AND c.name = 'n'"
)
_GUARD: Final = """
CREATE OR REPLACE FUNCTION public.drill_guard() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() LIKE '%broken%' THEN
        RAISE EXCEPTION 'permission denied for table broken' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
CREATE EVENT TRIGGER drill_guard ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.drill_guard();
"""


def is_postgres(place: str) -> bool:
    """Return whether the place is a DSN, and not the path of a file."""
    return "://" in place


def stored_points(place: str) -> dict[str, list[int]]:
    """Return the numbers of all points, by table. Raises what the driver raises."""
    if is_postgres(place):
        with psycopg.connect(place, autocommit=True) as conn:
            names = [str(name) for (name,) in conn.execute(_TABLES_POSTGRES)]
            found: dict[str, list[int]] = {}
            for name in names:
                rows = conn.execute(sql.SQL("SELECT n FROM {}").format(sql.Identifier(SCHEMA, name)))
                found[name] = [int(number) for (number,) in rows if number is not None]
            return found
    with closing(sqlite3.connect(place, timeout=BUSY_S)) as db:
        names = [str(name) for (name,) in db.execute(_TABLES_SQLITE)]
        return {name: _numbers(db.execute(f'SELECT n FROM "{name}"')) for name in names}  # noqa: S608  names of the drill's own


def _numbers(rows: Iterable[tuple[int | None]]) -> list[int]:
    return [number for (number,) in rows if number is not None]


def take_name(place: str, table: str) -> None:
    """Make a view of that name, so that no table can have it."""
    schema = (f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",) if is_postgres(place) else ()
    _carry_out(place, *schema, f"CREATE VIEW {_name(place, table)} AS SELECT 1 AS one")


def free_name(place: str, table: str) -> None:
    """Drop the view."""
    _carry_out(place, f"DROP VIEW {_name(place, table)}")


def deny(place: str) -> None:
    """Let nobody make the table `broken` in that PostgreSQL."""
    _carry_out(place, _GUARD)


def permit(place: str) -> None:
    """Let it be made."""
    _carry_out(place, "DROP EVENT TRIGGER drill_guard")


def _name(place: str, table: str) -> str:
    return f'{SCHEMA}."{table}"' if is_postgres(place) else f'"{table}"'


def _carry_out(place: str, *statements: str) -> None:
    if is_postgres(place):
        with psycopg.connect(place, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())
        return
    with closing(sqlite3.connect(place, timeout=BUSY_S, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
