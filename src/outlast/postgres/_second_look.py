"""A second look at an exception: whether the server is at fault, or only the one who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import psycopg
from psycopg import pq

from outlast import Fault, Kind, Scope
from outlast.extend import attached, clean

if TYPE_CHECKING:
    from outlast.postgres._connection import Connection

CAUSES_MAX: Final = 8
"""The depth to which the causes of an exception are searched for the driver's own."""
_ALIVE: Final = (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)
"""A session that waits for the next statement: whatever failed, it is not the connection."""

SLOW: Final = "the server answers others: the statement is slow or waits for a lock; see conn.deadline()"
_OWN_READ_ONLY: Final = "the transaction was opened read-only, the server is not"
_MEANT_READ_ONLY: Final = "this dependency was made with writable=False"


def driver_error(exc: BaseException, depth: int = CAUSES_MAX) -> psycopg.Error | None:
    """Return what psycopg raised: the exception, one of its members, or what it was raised from; None if there is nothing."""
    if depth == 0 or isinstance(exc, psycopg.Error):
        return exc if isinstance(exc, psycopg.Error) else None
    members = cast("BaseExceptionGroup[BaseException]", exc).exceptions if isinstance(exc, BaseExceptionGroup) else ()
    causes = (*members, exc.__cause__) if exc.__cause__ is not None else members
    return next((error for cause in causes if (error := driver_error(cause, depth - 1)) is not None), None)


def own_doing(error: psycopg.Error, conn: Connection, *, writable: bool) -> Fault | None:
    """Return the fault of an error that the caller alone brought about; None when the server may be at fault.

    Three errors look like an outage and are none: a write in a transaction that was opened read-only, one on a
    server that is meant to be only read, and what the driver refuses to send on a connection that is alive.
    """
    fault = attached(error)
    if fault is not None:
        return None
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        if not writable:
            return _rejected("25006", error, _MEANT_READ_ONLY)
        return _rejected("25006", error, _OWN_READ_ONLY) if says_writable(conn) else None
    if type(error) is psycopg.OperationalError and conn.pgconn.transaction_status in _ALIVE:
        return _rejected("driver", error, "")
    return None


def says_writable(conn: psycopg.AsyncConnection[object]) -> bool:
    """Return whether the server reported (as it does since version 14) that it and the session can write."""
    return {_reported(conn, "in_hot_standby"), _reported(conn, "default_transaction_read_only")} == {"off"}


def says_read_only(conn: psycopg.AsyncConnection[object]) -> bool:
    """Return whether the server reported that it, or the session, cannot write."""
    return "on" in {_reported(conn, "in_hot_standby"), _reported(conn, "default_transaction_read_only")}


def _reported(conn: psycopg.AsyncConnection[object], name: str) -> str | None:
    value = None if conn.closed else conn.pgconn.parameter_status(name.encode())
    return None if value is None else value.decode()


def _rejected(code: str, error: psycopg.Error, hint: str) -> Fault:
    lines = str(error).strip().splitlines()
    return Fault(Kind.REJECTED, code, clean(lines[0] if lines else type(error).__name__), scope=Scope.CALL, hint=hint)
