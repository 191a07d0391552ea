"""Sessions of a server: who holds a slot or an advisory lock that somebody waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg

__all__ = ["Session", "holder", "lock_holder"]


_OF_SLOT: Final = """
SELECT s.active_pid, a.application_name, a.usename::text, a.backend_start
FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s AND s.active_pid IS NOT NULL
"""
_OF_LOCK: Final = """
SELECT l.pid, a.application_name, a.usename::text, a.backend_start
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND l.classid = ((%s::bigint >> 32) & 4294967295)::oid AND l.objid = (%s::bigint & 4294967295)::oid
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody's connection. What this user may not see of it is empty or None."""

    pid: int
    application: str = ""
    user: str = ""
    since: datetime | None = None
    """When it connected; for one that blocks, when its transaction began."""

    def __str__(self) -> str:
        """Name it as an operator looks for it."""
        who = f" of user {self.user}" if self.user else ""
        since = f", since {self.since.isoformat(timespec='seconds')}" if self.since else ""
        return f"pid {self.pid} ({self.application or 'no application name'}{who}{since})"


async def holder(conn: psycopg.AsyncConnection[Any], slot: str) -> Session | None:
    """Who streams from a slot now; None when nobody does."""
    return await _one(conn, _OF_SLOT.encode(), (slot,))


async def lock_holder(conn: psycopg.AsyncConnection[Any], key: int) -> Session | None:
    """Who holds the advisory lock `key` (64 bits, signed) of this database now; None when nobody does."""
    return await _one(conn, _OF_LOCK.encode(), (key, key))


async def _one(conn: psycopg.AsyncConnection[Any], query: bytes, parameters: tuple[int | str, ...]) -> Session | None:
    async with conn.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query, parameters)
        row = await cursor.fetchone()
    if row is None:
        return None
    pid, application, user, since = row
    return Session(pid, application or "", user or "", since)
