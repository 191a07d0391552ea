"""Creating a slot, which waits for every transaction that is open: bounded, and whoever it waits for is named once.

The server starts a slot at a moment it can decode from. Each transaction that had written something and was open when
the slot was asked for has to end first, and one that somebody forgot in a terminal blocks the creation for good.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors, sql

from outlast import Fault, OutlastError, Unavailable
from outlast.changes._slot.catalog import settle
from outlast.changes._slot.findings import create_slot as create_statement
from outlast.changes._slot.troubles import Meaning, fault_of
from outlast.extend import Once
from outlast.postgres import wait_on_purpose
from outlast.postgres.sessions import Session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from outlast.postgres import Postgres

logger = logging.getLogger("outlast.changes")

LOOK_S: Final = 0.5
"""The seconds between two questions to the server for whom a creation waits."""
NAMED_MAX: Final = 5
"""Of those who block one creation; each is named once."""
GRACE_S: Final = 5.0
"""The server ends the wait itself; the client's own deadline is that much later, for a server that is frozen."""
CONNECTION_CHECK: Final = "500ms"
"""The server notices within this time that we are gone: else it would make a slot that nobody reads, and keep WAL for it."""

_BLOCKERS: Final = """
SELECT pid, application_name, usename, xact_start, NULL, state
FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(%(pid)s))
UNION ALL
SELECT 0, '', owner, prepared, gid, 'prepared' FROM pg_prepared_xacts
WHERE transaction IN (SELECT transactionid FROM pg_locks
    WHERE pid = %(pid)s AND NOT granted AND locktype = 'transactionid')
LIMIT 5
"""


class SlotCreationError(OutlastError):
    """The slot was not created in time. `fault` says for whom the server waited; no slot is left behind."""

    def __init__(self, slot: str, wait_s: float, fault: Fault) -> None:
        super().__init__(f"replication slot {slot} was not created within {wait_s:g} s: {fault.reason}; {fault.hint}", fault)
        self.slot = slot
        self.wait_s = wait_s
        self.fault = fault


class Blockers:
    """The sessions that were found to block a creation, each once, in the order of being found."""

    def __init__(self, slot: str, on_blocked: Callable[[Fault], None] | None = None) -> None:
        """Name each by `on_blocked`, by default one INFO line each."""
        self.faults: list[Fault] = []
        self._slot = slot
        self._on_blocked = on_blocked
        self._once = Once()

    def found(self, session: Session, prepared: str | None, state: str) -> None:
        """Take one that blocks; it is named if it was not yet, and five at most are."""
        key = prepared if prepared is not None else str(session.pid)
        if len(self.faults) >= NAMED_MAX or not self._once.news(subject=key):
            return
        fault = _blocked(self._slot, session, prepared, state)
        self.faults.append(fault)
        if self._on_blocked is not None:
            self._on_blocked(fault)
        else:
            logger.info("changes: %s; %s", fault.reason, fault.hint)


def _blocked(slot: str, session: Session, prepared: str | None, state: str) -> Fault:
    if prepared is not None:
        statement = sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(prepared))
        who = f"prepared transaction {prepared} of user {session.user}, open since {_when(session)}"
    else:
        statement = sql.SQL("SELECT pg_terminate_backend({})").format(sql.Literal(session.pid))
        name = session.application or "no application name"
        user = f" of user {session.user}" if session.user else ""
        who = f"the transaction of pid {session.pid} ({name}{user}, {state or 'state unknown'}), open since {_when(session)}"
    reason = f"the creation of replication slot {slot} waits for {who}"
    return fault_of(Meaning.SLOT_WAITS, reason, (), f"let it end, or: {statement.as_string(None)}")


def _when(session: Session) -> str:
    return session.since.isoformat(timespec="seconds") if session.since else "an unknown time"


@asynccontextmanager
async def naming_blockers(
    db: Postgres, pid: int, slot: str, on_blocked: Callable[[Fault], None] | None = None
) -> AsyncGenerator[Blockers]:
    """Name whoever the server's process `pid` waits for, while the block runs: for a creation over any connection.

        async with naming_blockers(db, conn.info.backend_pid, "shop") as blockers:
            await conn.execute("CREATE_REPLICATION_SLOT ...")

    It asks every half second over a pooled connection. That it cannot ask is no reason to end the creation.
    """
    blockers = Blockers(slot, on_blocked)
    looking = asyncio.create_task(_look(db, pid, blockers), name=f"looking for who blocks slot {slot}")
    try:
        yield blockers
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def _look(db: Postgres, pid: int, blockers: Blockers) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        with suppress(psycopg.Error, Unavailable):
            async with db.connection() as conn:
                await settle(conn)
                rows = await (await conn.execute(_BLOCKERS, {"pid": pid})).fetchall()
            for number, application, user, since, prepared, state in rows:
                blockers.found(Session(number, application or "", user or "", since), prepared, state or "")


async def create_slot(
    db: Postgres,
    slot: str,
    *,
    failover: bool = False,
    wait_s: float = 60.0,
    on_blocked: Callable[[Fault], None] | None = None,
) -> bool:
    """Create the slot; False if somebody else made it meanwhile. Waits at most `wait_s` seconds for open transactions.

    Raises `SlotCreationError`, `Unavailable` and the driver's errors. After an error, and when it is cancelled, the server
    gives up too, within half a second: no slot that nobody reads is left to keep WAL for.
    """
    conn = await db.connect(operation_timeout_s=wait_s + GRACE_S)
    try:
        limits = {"client_connection_check_interval": CONNECTION_CHECK, "statement_timeout": f"{wait_s * 1000:.0f}"}
        await wait_on_purpose(conn, limits)
        async with naming_blockers(db, conn.info.backend_pid, slot, on_blocked) as blockers:
            try:
                await conn.execute(create_statement(slot, failover=failover))
            except errors.DuplicateObject:
                return False
            except errors.QueryCanceled as error:
                raise SlotCreationError(slot, wait_s, _last(blockers, error)) from error
        return True
    finally:
        await conn.close()


def _last(blockers: Blockers, error: psycopg.Error) -> Fault:
    if blockers.faults:
        return blockers.faults[-1]
    reason = f"the server ended the statement ({error.sqlstate})"
    return fault_of(Meaning.SLOT_WAITS, reason, (), "look for long transactions in pg_stat_activity")
