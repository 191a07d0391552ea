"""Tables that a system keeps for itself in PostgreSQL, in a schema of their own; made when they are first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

__all__ = ["make_table"]


_LOCK: Final = 0x6F75_746C_6173_7421 % 2**62
"""The advisory lock under which they are made: "outlast!" as a number. Two that create one at once would both fail."""


async def make_table(conn: psycopg.AsyncConnection[Any], schema: str, statement: LiteralString) -> None:
    """Make the schema and a table in it, in one transaction; nothing if they exist. `statement` has {schema} in it."""
    name = sql.Identifier(schema)
    async with conn.transaction():
        await conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
        await conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        await conn.execute(sql.SQL(statement).format(schema=name))
