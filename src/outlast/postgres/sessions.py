"""What every session of ours sets on the server, and how to find ours again there."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.postgres.connection import Connection

CLIENT_CHECK_MS: Final = 1000
"""How often the server looks whether we are still there while it works or waits for us."""
CLIENT_CHECK_SINCE: Final = 140_000
"""The first version of the server that can."""
_LOOK: Final = f"SELECT pg_catalog.set_config('client_connection_check_interval', '{CLIENT_CHECK_MS}', false)".encode()
_AGES: Final = (
    "SELECT pid, extract(epoch FROM clock_timestamp() - backend_start)::float8"
    " FROM pg_catalog.pg_stat_activity WHERE pid = ANY(%s) AND backend_start IS NOT NULL"
)
"""`backend_start` is NULL in what belongs to another role, which is none of ours."""
_READS_MAX: Final = 8
"""How often an idle connection's socket is read before it is lent: a notice, a changed setting, then the end."""


async def look_for_us(conn: Connection) -> None:
    """Have the server look whether we are still there.

    A statement after the login, and no option of the start-up message: there a server before 14, one on a platform that
    cannot look, and a pooler would refuse the login. Where the server cannot, it finds out when it writes to us.
    """
    if conn.pgconn.server_version < CLIENT_CHECK_SINCE:
        return
    try:
        await conn.execute(_LOOK)
    except psycopg.DatabaseError:
        if conn.closed:
            raise


async def ages(conn: psycopg.AsyncConnection[Any], pids: Sequence[int]) -> dict[int, float]:
    """Return the age in seconds of those sessions, by process id, that the server still has."""
    cursor = await conn.execute(_AGES, (list(pids),))
    return {int(pid): float(age_s) for pid, age_s in await cursor.fetchall()}


def is_sound(conn: Connection) -> bool:
    """Whether a connection that lay idle is still open and between two transactions. Waits for nothing."""
    try:
        for _ in range(_READS_MAX):
            if not _is_readable(conn.pgconn.socket):
                break
            conn.pgconn.consume_input()
        else:
            return False
    except (psycopg.Error, OSError, ValueError):
        return False
    return conn.pgconn.status == pq.ConnStatus.OK and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
