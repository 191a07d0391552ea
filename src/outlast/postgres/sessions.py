"""Sessions of ours that wait on purpose, and what keeps a role's or a database's time-outs from ending such a wait.

A standby waits for the lock of its owner, a slot for the transactions that were open before it, a snapshot is held by an idle
transaction, a listener hears nothing for days. `ALTER ROLE … SET statement_timeout = '30s'` is common, and means none of
them. So every session that waits on purpose lifts the time-outs for itself, and what bounds it is written where it waits: our
own deadline, TCP, or the stop.

Behind a pooler that gives each transaction another server, a setting of a session does not stay with us, and neither does a
lock, a listener, or a stream. So those sessions belong on the direct DSN. What waits inside one transaction of a pooled
connection lifts them for that transaction (`local`), and may go through a pooler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

TIMEOUTS: Final[Mapping[str, int]] = {
    "statement_timeout": 0,
    "lock_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 140_000,
    "transaction_timeout": 170_000,
}
"""What ends a session that waits or is idle, by the first version of the server that knows it. To lift one needs no right."""


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
    """The settings that lift the time-outs which this version of the server knows."""
    return {name: "0" for name, since in TIMEOUTS.items() if server_version >= since}
