"""A replication slot as the server has it: one query, whose row is read by its names, over any kind of session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from psycopg import pq, sql
from psycopg.rows import tuple_row

from outlast.postgres.replication._lsn import parse_lsn
from outlast.postgres.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

_SLOT: Final = sql.SQL("""
SELECT pg_catalog.to_jsonb(s) || pg_catalog.jsonb_build_object('application_name', a.application_name, 'usename', a.usename,
    'backend_start', a.backend_start, 'inactive_s', CASE WHEN s.active_pid IS NULL THEN extract(epoch FROM
        pg_catalog.clock_timestamp() - (pg_catalog.to_jsonb(s) ->> 'inactive_since')::pg_catalog.timestamptz) END) AS slot
FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = {}
""")
"""As JSON, since every version of the server has other columns, and times in it mean the same whatever DateStyle is. Without
parameters, since a walsender speaks the simple protocol only."""
_CLEAR: Final = "SELECT pg_catalog.pg_stat_clear_snapshot()"


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of pg_replication_slots, and who reads it. What the server's version does not have is None."""

    name: str
    plugin: str | None
    """None: a physical slot."""
    database: str | None
    holder: Session | None
    """The session that streams from it now."""
    confirmed_lsn: int | None
    """Up to where the consumer has everything."""
    restart_lsn: int | None
    """From where the server keeps WAL for it."""
    wal_status: str
    """"reserved" (so too while it is being made), "extended", "unreserved" or "lost"."""
    safe_wal_bytes: int | None
    """The bytes that may still be written before WAL of it is removed; None: there is no limit."""
    inactive_s: float | None
    """For how long nobody has read it (PostgreSQL 17); None: somebody does, or it is not known."""
    temporary: bool
    two_phase: bool
    failover: bool
    """Whether it is carried over to a standby (PostgreSQL 17)."""
    invalidation: str | None
    """The reason why nothing can be read from it any more (PostgreSQL 16), as the server calls it."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be read from it any more."""
        return self.wal_status == "lost" or self.invalidation is not None


async def read_slot(conn: psycopg.AsyncConnection[Any], name: str) -> Slot | None:
    """Return the slot as it is now, also within a transaction; None when there is no such slot."""
    if conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        # Within a transaction the server shows activity as it was when first asked; the holder may be newer.
        await conn.execute(_CLEAR)
    async with conn.cursor(row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(slot_query(name))).fetchone()
    return None if row is None else slot_of(row[0])


def slot_query(name: str) -> sql.Composed:
    """Compose the query for one row with one column, `slot`."""
    return _SLOT.format(sql.Literal(name))


def slot_of(row: Mapping[str, Any]) -> Slot:
    """Read the column `slot` of `slot_query`."""
    pid, since = row.get("active_pid"), row.get("backend_start")
    started = None if since is None else datetime.fromisoformat(since)
    confirmed, restart = row.get("confirmed_flush_lsn"), row.get("restart_lsn")
    return Slot(
        name=row["slot_name"],
        plugin=row.get("plugin"),
        database=row.get("database"),
        holder=None if pid is None else Session(pid, row.get("application_name") or "", row.get("usename") or "", started),
        confirmed_lsn=None if confirmed is None else parse_lsn(confirmed),
        restart_lsn=None if restart is None else parse_lsn(restart),
        wal_status=row.get("wal_status") or "reserved",
        safe_wal_bytes=row.get("safe_wal_size"),
        inactive_s=row.get("inactive_s"),
        temporary=bool(row.get("temporary")),
        two_phase=bool(row.get("two_phase")),
        failover=bool(row.get("failover")),
        invalidation=row.get("invalidation_reason") or ("conflict" if row.get("conflicting") else None),
    )
