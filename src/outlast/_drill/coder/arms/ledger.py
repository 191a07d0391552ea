"""The ledger of every arm but procrastinate, beside its jobs: four loops that count in one row and enter a line in a table.

The row is what the fault `row-lock` locks, the table is what has no room under `tablespace-full`. Both are met by these
statements alone: the jobs need neither.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

LOOPS: Final = 4
PAUSE_S: Final = 0.1
DEADLINE_S: Final = 3.0
"""The deadline of a loop's statements in seconds, the wait for a connection included."""

CREATE: Final = """
CREATE TABLE drill_total (id integer PRIMARY KEY, turns bigint NOT NULL);
INSERT INTO drill_total VALUES (1, 0);
CREATE TABLE drill_ledger (at timestamptz NOT NULL DEFAULT clock_timestamp(), line text NOT NULL);
"""
COUNT: Final = "UPDATE drill_total SET turns = turns + 1 WHERE id = 1"
ENTER: Final = "INSERT INTO drill_ledger (line) VALUES (repeat('x', 1000))"
"""Seven lines fill a page, so that a full disk is met within a moment."""


async def write(conn: psycopg.AsyncConnection[Any]) -> None:
    """Count, and enter a line, in one transaction; raises TimeoutError after the deadline."""
    async with asyncio.timeout(DEADLINE_S), conn.transaction():
        await conn.execute(COUNT)
        await conn.execute(ENTER)
