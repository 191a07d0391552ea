"""Sessions of a server: who holds an advisory lock, and how many wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg

__all__ = ["Session", "lock_holder", "lock_waiters"]

_OF_KEY: Final = sql.SQL("""l.locktype = 'advisory' AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND l.classid = ((%(key)s::bigint >> 32) & 4294967295)::oid AND l.objid = (%(key)s::bigint & 4294967295)::oid""")
"""The two halves of a key of 64 bits, as pg_locks shows them; `objsubid` is 2 for a lock that has two keys of 32."""
_HOLDER: Final = sql.SQL("""
SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''), a.backend_start
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND {} LIMIT 1
""").format(_OF_KEY)
_WAITERS: Final = sql.SQL("SELECT count(*) FROM pg_catalog.pg_locks l WHERE NOT l.granted AND {}").format(_OF_KEY)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody's connection. What this user may not see of it is empty or None."""

    pid: int
    application: str = ""
    user: str = ""
    since: datetime | None = None
    """The time at which it connected; for one that blocks, at which its transaction began."""

    def __str__(self) -> str:
        """Name it as an operator looks for it."""
        who = f" of user {self.user}" if self.user else ""
        since = f", since {self.since.isoformat(timespec='seconds')}" if self.since else ""
        return f"pid {self.pid} ({self.application or 'no application name'}{who}{since})"


async def lock_holder(conn: psycopg.AsyncConnection[Any], key: int) -> Session | None:
    """Return who holds the advisory lock `key` (64 bits, signed) of this database now; None when nobody does."""
    row = await _one(conn, _HOLDER, key)
    return None if row is None else Session(*row)


async def lock_waiters(conn: psycopg.AsyncConnection[Any], key: int) -> int:
    """Return how many sessions wait for the advisory lock `key` of this database now."""
    row = await _one(conn, _WAITERS, key)
    return 0 if row is None else int(row[0])


async def _one(conn: psycopg.AsyncConnection[Any], query: sql.Composed, key: int) -> tuple[Any, ...] | None:
    async with conn.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query, {"key": key})
        return await cursor.fetchone()
