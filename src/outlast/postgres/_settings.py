"""The settings of our sessions on the server, and the queries that find them there again.

A standby waits for the lock of its owner, a slot for the transactions that were open before it, a snapshot is held by an idle
transaction, a listener hears nothing for days. `ALTER ROLE … SET statement_timeout = '30s'` is common, and is meant for none of
them. So every session that waits on purpose lifts the time-outs for itself, and the place where it waits says what bounds it: our
own deadline, TCP, or the stop.

Behind a pooler that assigns each transaction to another server, a setting of a session does not stay with us, and neither does a
lock, a listener, or a stream. So those sessions belong on the direct DSN. Whatever waits inside one transaction of a pooled
connection lifts the time-outs for that transaction (`local`), and may go through a pooler.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq, sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.postgres._connection import Connection

TIMEOUTS: Final[Mapping[str, int]] = {
    "statement_timeout": 0,
    "lock_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 140_000,
    "transaction_timeout": 170_000,
}
"""The settings that end a session that waits or is idle, by the first version of the server that knows them. No right is needed
to lift one."""
CLIENT_CHECK_MS: Final = 1000
"""The interval at which the server looks whether we are still there while it works or waits for us."""
CLIENT_CHECK_SINCE: Final = 140_000
"""The first version of the server that can."""
_LOOK: Final = f"SELECT pg_catalog.set_config('client_connection_check_interval', '{CLIENT_CHECK_MS}', false)".encode()
_AGES: Final = (
    "SELECT pid, extract(epoch FROM clock_timestamp() - backend_start)::float8"
    " FROM pg_catalog.pg_stat_activity WHERE pid = ANY(%s) AND backend_start IS NOT NULL"
)
"""`backend_start` is NULL in what belongs to another role, which is none of ours."""
_READS_MAX: Final = 8
"""The most reads of an idle connection's socket before it is lent: a notice, a changed setting, then the end."""


async def wait_on_purpose(
    conn: psycopg.AsyncConnection[Any], settings: Mapping[str, str] | None = None, *, local: bool = False
) -> None:
    """Lift every time-out of the session, whoever has set it; `settings` are set as well, and win. In one statement.

    `local`: for the transaction that `conn` is in, and not for the session.
    """
    wanted = lifted(conn.pgconn.server_version) | dict(settings or {})
    each = [
        sql.SQL("pg_catalog.set_config({}, {}, {})").format(sql.Literal(name), sql.Literal(value), sql.Literal(local))
        for name, value in wanted.items()
    ]
    # Without parameters: a walsender speaks the simple protocol only.
    await conn.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(each)))


def lifted(server_version: int) -> dict[str, str]:
    """Return the settings that lift the time-outs which this version of the server knows."""
    return {name: "0" for name, since in TIMEOUTS.items() if server_version >= since}


async def look_for_us(conn: Connection) -> None:
    """Make the server look whether we are still there.

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
    """Return whether a connection that lay idle is still open and between two transactions. Waits for nothing."""
    try:
        for _ in range(_READS_MAX):
            if not _is_readable(conn.pgconn.socket):
                break
            conn.pgconn.consume_input()
        else:
            return False
        # What was read is parsed by this: a server that ends a session says so, and closes it a moment later.
        conn.pgconn.is_busy()
    except (psycopg.Error, OSError, ValueError):
        return False
    if conn.told_to_end:
        return False
    return conn.pgconn.status == pq.ConnStatus.OK and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
