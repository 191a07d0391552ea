"""One owner of a name, and others that stand by, blocked in the server and woken by it.

The owner holds a session-level advisory lock. A standby waits for it inside `pg_advisory_lock`: it asks nothing while it
waits, and has the lock some milliseconds after the owner's session ends. The owner itself learns of a lost session later
than the server does, so each new owner raises an epoch in a table, and a transaction that writes for the owner checks it
(`fence`).

TCP reports to each side that the machine of the other is gone, unless something between them answers in its place. So the owner
asks the lock's session for a sign of life all the time, and the server ends a session from which no question comes.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import logging
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import psycopg

from outlast import Fault, Kind, Scope, Stop
from outlast.extend import Once, attach, attached, clean
from outlast.postgres.ownership._epochs import Epochs
from outlast.postgres.replication import Keepalive, dial, shut_down
from outlast.postgres.sessions import lock_holder

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from outlast.postgres import Connection, Postgres
    from outlast.postgres.sessions import Session

logger = logging.getLogger("outlast.postgres")
LOCK_QUERY: Final = b"SELECT pg_catalog.pg_advisory_lock(%s)"
TRY_QUERY: Final = b"SELECT pg_catalog.pg_try_advisory_lock(%s)"
BEAT_S: Final = 0.5
"""The seconds between two questions of the owner: a quarter of the shortest keepalive there is. The owner gives up one keepalive
after the last answer. The server waits one keepalive beyond the next question: one that is late by less, because the event loop
was blocked, loses nothing."""
BEAT: Final = b""
"""An empty query: it is answered, and nothing is done for it."""
SILENCE_QUERY: Final = b"SELECT pg_catalog.set_config('idle_session_timeout', %s, false)"
SILENCE_SINCE: Final = 140_000
"""The first version of the server that ends an idle session. An older one learns of a lost owner by TCP alone."""


class StandbyState(enum.Enum):
    """The state of a standby. Only `Standby` sets it, and it dies with the process; the epoch outlives it."""

    IDLE = "idle"
    """It does not take part: it was not entered, or was left."""
    WAITING = "waiting"
    """It asks for the lock; while somebody else holds that, it is blocked in the server."""
    OWNER = "owner"
    """It holds the lock, under an epoch of its own."""
    LOST = "lost"
    """The session that waited for the lock or held it is gone."""


TRANSITIONS: Final = {
    (StandbyState.IDLE, StandbyState.WAITING): "entered",
    (StandbyState.WAITING, StandbyState.OWNER): "the lock is ours, the epoch is raised",
    (StandbyState.WAITING, StandbyState.LOST): "the session broke while it waited",
    (StandbyState.WAITING, StandbyState.IDLE): "cancelled or stopped",
    (StandbyState.OWNER, StandbyState.LOST): "the session broke while it held the lock",
    (StandbyState.OWNER, StandbyState.IDLE): "left; the lock passes to the next",
    (StandbyState.LOST, StandbyState.IDLE): "left",
}
"""Every change there is, and what causes it."""


class Standby:
    """One member of the group that wants to own `name`. Entering waits until it is the owner; one entry at a time, any number in
    turn.

        standby = Standby(db, "shop")
        async with standby as lost:        # returns as the owner
            ...                            # end when the future `lost` is done
            await standby.fence(conn)      # in the transaction that writes

    One INFO line when it has to stand by, with the session that owns it, and one when it takes over; however often a loop enters
    it again, no line comes twice. `keepalive` bounds how long the lock stays with an owner of whom nothing is heard: whose
    machine is gone, whose process stands still, or whose event loop is blocked for longer. No other owner loses the lock, and
    such a one is fenced. Entering raises `Unavailable` while the server is down, `Stopping` at once when `stop` is fired, and
    what the driver raises when the session breaks. Lock and epoch belong to the database that the DSN names, and to the name
    alone: where systems share a database, the name says of which system it is. All methods belong to one event loop's thread.
    """

    def __init__(
        self,
        db: Postgres,
        name: str,
        *,
        schema: str = "outlast",
        keepalive: Keepalive | None = None,
        owner: str = "",
        on_lost: Callable[[Fault], None] = lambda _: None,
        stop: Stop | None = None,
        once: Once | None = None,
    ) -> None:
        """Nothing is dialled yet. `owner` is its name in the table of epochs: host and process by default.

        `on_lost` is called, on the event loop, in the step in which the loss of the lock's session is noticed. It must be quick.
        `once` remembers what was said last: share it between standbys that follow one another, and no line comes twice.
        """
        self.db = db
        self.name = name
        self.key = lock_key(name)
        self.epochs = Epochs(name, schema)
        self.keepalive = keepalive or Keepalive()
        self.owner = owner or f"{socket.gethostname()} pid {os.getpid()}"
        self.state = StandbyState.IDLE
        self.epoch = 0
        """The epoch under which it owns, or owned last; 0 before."""
        self._once = once or Once()
        self._on_lost = on_lost
        self._stop = stop or Stop()
        self._conn: Connection | None = None
        self._descriptor = -1
        self._asked_at: float | None = None
        """The time at which the question was sent whose answer is awaited."""
        self._beat_timer: asyncio.TimerHandle | None = None
        self._lost: asyncio.Future[Fault] | None = None

    async def __aenter__(self) -> asyncio.Future[Fault]:
        """Wait until this is the owner. Return a future that is done, with the reason, when it no longer is."""
        self._enter(StandbyState.WAITING)
        try:
            async with self._stop.timeout(None):
                conn = self._conn = await self._dial()
                await self._end_in_silence(conn)
                if not await self._try(conn):
                    await self._stand_by(conn)
                # Under the lock, on the lock's own session: if that is gone, so is the chance to raise the epoch.
                # A transaction of the last owner may keep it waiting; TCP ends that one as well when its machine is gone.
                with conn.deadline(None):
                    before, self.epoch = self.epoch, await self.epochs.take(conn, self.owner)
        except psycopg.Error as exc:
            if attached(exc) is None:
                # The trouble of this session alone: the next login tells whether the server is there.
                attach(exc, replace(self.db.classifiers.classify(exc, source=self.db.name), scope=Scope.CALL))
            self._enter(StandbyState.LOST)
            self._close()
            self._enter(StandbyState.IDLE)
            raise
        except BaseException:
            self._close()
            self._enter(StandbyState.IDLE)
            raise
        self._enter(StandbyState.OWNER)
        # Lost, and nobody has owned it meanwhile: the incident of whoever uses it logs that it goes on.
        if self._once.said() != "lost" or self.epoch != before + 1:
            self._say("owner", "%s: taken over, epoch %d", self.name, self.epoch)
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        self._descriptor = conn.pgconn.socket
        loop.add_reader(self._descriptor, self._heard)
        self._beat()
        return self._lost

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock, without waiting for the server: the next owner has it within milliseconds."""
        self._close()
        self._enter(StandbyState.IDLE)

    async def fence(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Check, in the transaction that `conn` is in, that nobody has taken over; nobody can until that transaction ends.

        Raises `FencedError` if somebody has. Call it in the transaction that writes, at any point before its commit.
        """
        await self.epochs.check(conn, self.epoch, self.keepalive)

    # Inside.

    async def _dial(self) -> Connection:
        return await dial(
            self.db,
            application_name=f"outlast standby {self.name}"[:63],
            keepalive=self.keepalive,
            # What it writes is small and read at once: only a machine that is gone lets it wait.
            settings={"tcp_user_timeout": str(self.keepalive.total_s * 1000)},
            operation_timeout_s=self.db.operation_timeout_s,
        )

    async def _end_in_silence(self, conn: Connection) -> None:
        """Make the server end the session when no question comes. One that waits for the lock is not idle there."""
        if conn.pgconn.server_version >= SILENCE_SINCE:
            await conn.execute(SILENCE_QUERY, (f"{round(1000 * (self.keepalive.total_s + BEAT_S))}ms",))

    async def _try(self, conn: Connection) -> bool:
        row = await (await conn.execute(TRY_QUERY, (self.key,))).fetchone()
        return row is not None and bool(row[0])

    async def _stand_by(self, conn: Connection) -> None:
        """Wait in the server until the lock is ours. This wait has no deadline: TCP ends it when the server's machine is gone."""
        holder = await lock_holder(conn, self.key)
        self._say(f"standby {_identity(holder)}", "%s: standing by, it belongs to %s", self.name, holder or "somebody else")
        with conn.deadline(None):
            await conn.execute(LOCK_QUERY, (self.key,))

    def _heard(self) -> None:
        """Read what came on the session of the lock: an answer, its end, or a notice."""
        conn = self._conn
        if conn is None:
            return
        try:
            conn.pgconn.consume_input()
            while (notification := conn.pgconn.notifies()) is not None:
                del notification
            while self._asked_at is not None and not conn.pgconn.is_busy():
                if conn.pgconn.get_result() is None:
                    self._asked_at = None
            if conn.pgconn.transaction_status != psycopg.pq.TransactionStatus.UNKNOWN:
                return
            reason = "its session ended"
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "its session ended"
        self._lose(reason)

    def _beat(self) -> None:
        """Ask for a sign of life, unless one is awaited: then judge the silence."""
        # An answer that has come counts, however late it is read: this process may have stood still, and an event loop may call
        # timers before readers.
        self._heard()
        conn = self._conn
        if conn is None:
            return
        loop = asyncio.get_running_loop()
        if self._asked_at is None:
            self._asked_at = loop.time()
            try:
                conn.pgconn.send_query(BEAT)
                conn.pgconn.flush()
            except psycopg.Error as error:
                self._lose(str(error).strip())
                return
        elif loop.time() - self._asked_at >= self.keepalive.total_s - BEAT_S:
            self._lose(f"no answer within {self.keepalive.total_s} s")
            return
        self._beat_timer = loop.call_later(BEAT_S, self._beat)

    def _lose(self, reason: str) -> None:
        reason = clean(f"the lock of {self.name} is lost: {reason}")
        fault = Fault(Kind.TRANSIENT, "lock lost", reason, scope=Scope.CALL)
        lost = self._lost
        self._close(reset=True)
        self._enter(StandbyState.LOST)
        # Whoever waits for `lost` logs it, with what follows from it.
        self._once.news("lost")
        logger.debug("%s: lost, no longer the owner: %s", self.name, fault.reason)
        if lost is not None and not lost.done():
            lost.set_result(fault)
        self._on_lost(fault)

    def _close(self, *, reset: bool = False) -> None:
        conn, self._conn = self._conn, None
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor = -1
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._beat_timer = self._asked_at = None
        if conn is not None:
            shut_down(conn.pgconn, reset=reset)
            conn.pgconn.finish()

    def _enter(self, state: StandbyState) -> None:
        if state is self.state:
            return
        if (self.state, state) not in TRANSITIONS:
            raise RuntimeError(f"standby {self.name} cannot go from {self.state.value} to {state.value}: enter it once at a time")
        self.state = state

    def _say(self, what: str, line: str, *values: object) -> None:
        """Log a change of state; what was said last is not said again."""
        if self._once.news(what):
            logger.info(line, *values)


def lock_key(name: str) -> int:
    """Return the advisory lock of a name: a signed 64-bit number that is the same everywhere.

    It never changes: processes of two versions with different keys would both be owners. So the salt is that of the first system
    that had owners.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"outlast.changes").digest()
    return int.from_bytes(digest, "big", signed=True)


def _identity(holder: Session | None) -> str:
    return "" if holder is None else f"{holder.pid} {holder.since}"
