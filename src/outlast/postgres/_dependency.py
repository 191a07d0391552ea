"""A PostgreSQL server as a dependency: pooled connections that never hang, and one prober when it is away."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import psycopg

from outlast import (
    Classifiers,
    ConfigurationError,
    Dependency,
    Fault,
    HealthPolicy,
    Kind,
    Scope,
    State,
    Stop,
    Stopping,
    Unavailable,
)
from outlast.extend import Pacer, attach
from outlast.postgres import _settings as sessions
from outlast.postgres._classify import postgres_rule
from outlast.postgres._connection import Connection, DeadlineExceededError
from outlast.postgres._dsn import Dsn
from outlast.postgres._login.probe import READ_ONLY, probe
from outlast.postgres._login.wire import UnsupportedLoginError
from outlast.postgres._pool.endings import Endings
from outlast.postgres._pool.pool import Connector, Pool
from outlast.postgres._pool.side import Side
from outlast.postgres._second_look import SLOW, driver_error, own_doing, says_read_only

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Callable, Sequence

CLOSE_S_MAX: Final = 0.3
"""The longest that closing waits for statements that were given up to end on the server: milliseconds, unless it does not
answer."""
ASK_S_MAX: Final = 1.0
"""The time in which the server has to let us in, or a statement past its deadline counts against it; a good answer holds for the
same time. It is also the limit for asking why a login was refused: those who wait for a connection wait for that answer."""
TOO_MANY: Final = "53300"
MODEST_S: Final = 60.0
"""For this long half the connections are used after the server had too many: twice the time of sustained health."""
LIFE_S: Final = 3600.0
"""The age up to which a pooled connection is lent again, spread by a tenth: a server's memory for a session only grows."""
CLIENT_CHECK: Final = "client_connection_check_interval"
"""Left alone where the DSN sets it."""
NO_MORE: Final = "no connection is opened any more"


class Postgres(Dependency):
    """A PostgreSQL server.

        db = Postgres("postgresql://localhost/shop")
        async with db.connection() as conn:
            await conn.execute("SELECT 1")

    `connection()` raises `Unavailable` at once while the server is down; in a loop that `needs` it, just let that out.
    At most `connections_max` connections are pooled, opened when first needed and never more than eight in 100 ms. All of them
    are given up when the server goes down, when it turns read-only (25006) and when it has too many (53300).
    Each wait for the server ends after `operation_timeout_s` seconds; that counts against the server only when it does not
    let us in within another second, else against the statement alone. `writable=False` accepts a read-only server.
    """

    def __init__(
        self,
        dsn: str,
        *,
        name: str = "postgres",
        connections_max: int = 10,
        connect_timeout_s: float = 5.0,
        operation_timeout_s: float | None = 10.0,
        acquire_timeout_s: float = 30.0,
        application_name: str = "outlast",
        writable: bool = True,
        policy: HealthPolicy | None = None,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is dialled before the first use. Raises `ConfigurationError` for a DSN or a number that cannot work."""
        if connections_max < 1:
            msg = f"{name}: connections_max must be at least 1, not {connections_max}"
            raise ConfigurationError(msg)
        rules = (classifiers or Classifiers()).also(Classifiers([postgres_rule]))
        super().__init__(name, classifiers=rules, policy=policy, rng=rng, probe_timeout_s=connect_timeout_s)
        self.dsn = Dsn.parse(dsn)
        self.connections_max = connections_max
        self.connect_timeout_s = connect_timeout_s
        self.operation_timeout_s = operation_timeout_s
        self.acquire_timeout_s = acquire_timeout_s
        self.writable = writable
        # libpq takes whole seconds and nothing below two.
        timeout = max(2, round(connect_timeout_s))
        wanted: dict[str, str | int] = {"connect_timeout": timeout, "application_name": application_name}
        # Or texts of a database in SQL_ASCII come as bytes.
        wanted["client_encoding"] = "UTF8"
        if writable and len(self.dsn.addresses) > 1:
            # Or the driver would take the first host that lets it in, a standby, which the probe had passed over.
            wanted["target_session_attrs"] = "read-write"
        self._conninfo = self.dsn.with_options(**wanted)
        self._pacer = Pacer()
        self._pool: Pool[Connection] | None = None
        self._side: Side | None = None
        self._endings = Endings(self._pacer, lambda: self.passable, self._ages)
        self._dedicated: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._probing = asyncio.Lock()
        """Held while a session is open in the place of the probe, by the probe or by `_ages`."""
        self._refining = asyncio.Lock()
        """Held by the one who asks why a login failed, for all whose logins failed meanwhile."""
        self._modest_size = connections_max
        self._modest_until = float("-inf")
        self.subscribe(self._on_change)

    @property
    def cancels(self) -> int:
        """The number of cancel requests that were sent to the server, for statements that were given up."""
        return self._endings.cancels

    @property
    def unended(self) -> int:
        """The number of statements that were given up and have not ended on the server, as far as is known."""
        return len(self._endings)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection for a block: committed at its end, rolled back when an exception leaves it.

        Raises `Unavailable` at once while the server is down, also to those who wait for a connection when it goes
        down. Waits at most `acquire_timeout_s` seconds for a connection that others use, then raises `NoConnectionError`
        (OVERLOADED); at once where waiting is useless, since none of the statements that were given up has ended.
        """
        async with self.use("query"):
            pool = self._own_pool()
            conn = await self._take(pool)
            try:
                async with conn:
                    yield conn
            except Exception as exc:
                await self._look_again(exc, conn)
                raise
            finally:
                pool.give_back(conn)

    async def connect(self, *, autocommit: bool = True, operation_timeout_s: float | None = None) -> Connection:
        """Open a connection of one's own, outside the pool; close it yourself.

        Raises `Unavailable` at once while the server is down. Without `operation_timeout_s` its waits have no deadline.
        Two are dialled at a time; a statement that was given up on such a connection counts as being dialled until it has ended.
        """
        async with self.use("connect"):
            side = self._own_side()
            place = await side.enter(self.acquire_timeout_s)
            try:
                await self._pacer.turn()
                conn = await self._dial()
            finally:
                side.leave(place)
            await conn.set_autocommit(autocommit)
            conn.operation_timeout_s = operation_timeout_s
            conn.on_given_up = lambda given_up: self._given_up_aside(side, given_up)
            self._dedicated.add(conn)
            return conn

    # What the runtime calls.

    async def probe(self) -> None:
        """Log in by the start-up message, which shows the SQLSTATE, and log out again. One at a time."""
        async with self._probing:
            await self._pacer.turn()
            with contextlib.suppress(UnsupportedLoginError):
                if not self.dsn.service:
                    await probe(self.dsn, writable=self.writable)
                    return
            await self._pacer.turn()
            conn = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            try:
                if self.writable and says_read_only(conn):
                    msg = "the server lets us in but is read-only"
                    error = ConnectionError(msg)
                    attach(error, READ_ONLY)
                    raise error
            finally:
                conn.pgconn.finish()

    def stopping(self, stop: Stop) -> None:
        """Record that the service ends: nothing is dialled while the server is down, and nobody waits for it."""
        super().stopping(stop)
        if not self.passable:
            self._abort_all()

    async def close(self) -> None:
        """Close every connection, and ask the server to end their statements. A frozen server is not waited for."""
        self._abort_all()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(self._refusal)
        if self._side is not None:
            self._side.refuse(self._refusal)
        await self._endings.close(CLOSE_S_MAX)
        # A lock belongs to the event loop in which somebody waited for it; the next use may be in another one.
        self._probing, self._refining = asyncio.Lock(), asyncio.Lock()
        await super().close()

    def counts(self, exc: BaseException) -> bool:
        """Return whether the error, or one of its causes, is the driver's.

        Whatever else fails inside a `connection()` block, a call to another service for one, says nothing about this server.
        """
        return not isinstance(exc, Exception) or driver_error(exc) is not None

    # Inside.

    async def _take(self, pool: Pool[Connection]) -> Connection:
        try:
            return await pool.take(self.acquire_timeout_s)
        except psycopg.Error:
            if not self.passable:
                raise self.unavailable() from None
            raise

    def _own_pool(self) -> Pool[Connection]:
        if self._pool is None or self._pool.loop is not asyncio.get_running_loop():
            connector = Connector(
                name=self.name,
                waiters_max=self.waiters_max,
                limit=self._size,
                dial=self._dial_for_pool,
                dial_refusal=self._dial_refusal,
                dial_failed=self._dial_failed,
                fits=self._fits,
                let_go=Connection.end,
            )
            self._pool = Pool(connector)
        return self._pool

    def _own_side(self) -> Side:
        if self._side is None or self._side.loop is not asyncio.get_running_loop():
            self._side = Side(self.name)
        return self._side

    async def _dial_for_pool(self, pool: Pool[Connection]) -> Connection | None:
        await self._pacer.turn()
        if not pool.is_wanted():
            return None
        conn = await self._dial()
        conn.expires_at = conn.opened_at + LIFE_S * self.rng.uniform(0.9, 1.1)
        conn.on_given_up = lambda given_up: self._given_up(pool, given_up)
        conn.belongs_to(pool)
        return conn

    def _dial_failed(self, exc: BaseException) -> bool:
        if isinstance(exc, Stopping | Unavailable):
            return False
        self.report(exc, phase="connect")
        return True

    def _fits(self, conn: Connection) -> bool:
        young = asyncio.get_running_loop().time() < conn.expires_at
        return young and self.passable and conn.epoch == self.epoch and sessions.is_sound(conn)

    async def _dial(self) -> Connection:
        """Open a connection, with autocommit off, which belongs to nobody yet. It was the caller's turn."""
        if (refusal := self._dial_refusal()) is not None:
            raise refusal()
        epoch = self.epoch
        try:
            conn = await Connection.connect(self._conninfo, autocommit=True)
        except psycopg.Error as exc:
            if len(self.dsn.addresses) > 1 or not isinstance(exc, psycopg.errors.ConnectionTimeout):
                await self._refine(exc)
            raise
        conn.operation_timeout_s = self.connect_timeout_s
        conn.add_notice_handler(conn.hear)
        try:
            if CLIENT_CHECK not in self.dsn.get("options"):
                await sessions.look_for_us(conn)
            await conn.set_autocommit(False)
        except BaseException:
            conn.end()
            raise
        conn.operation_timeout_s = self.operation_timeout_s
        conn.epoch = epoch
        conn.opened_at = asyncio.get_running_loop().time()
        conn.before_cancel = self._endings.sent
        return conn

    def _dial_refusal(self) -> Callable[[], Exception] | None:
        """Return what to refuse with when nothing may be dialled: whoever finishes then uses the connections there are."""
        return None if self.passable and not self.is_stopping else self._refusal

    def _refusal(self) -> Exception:
        return Stopping(NO_MORE) if self.passable else self.unavailable()

    def _given_up(self, pool: Pool[Connection], conn: Connection) -> None:
        token = self._endings.take(conn, pool.ended, watch=conn.aborted_for is None)
        pool.give_up(conn, token)

    def _given_up_aside(self, side: Side, conn: Connection) -> None:
        side.give_up(self._endings.take(conn, side.ended, watch=conn.aborted_for is None))

    async def _ages(self, pids: Sequence[int]) -> dict[int, float]:
        """Ask the server which of these sessions it still has. Uses the place of the probe."""
        async with asyncio.timeout(2 * ASK_S_MAX), self._probing:
            await self._pacer.turn()
            conn = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            try:
                return await sessions.ages(conn, pids)
            finally:
                conn.pgconn.finish()

    async def _refine(self, exc: psycopg.Error) -> None:
        """Attach the SQLSTATE that psycopg hides of a failure to connect: ask the server itself, once for all who failed."""
        async with self._refining:
            if self.is_stopping:
                return
            if not self.passable:
                if self.last is not None:
                    attach(exc, self.last)
                return
            try:
                async with asyncio.timeout(min(ASK_S_MAX, self.connect_timeout_s)):
                    await self.probe()
            except TimeoutError:
                # The reason is not known, and others wait for the answer; the prober goes on asking.
                return
            except Exception as told:  # noqa: BLE001 - whatever it is, it is classified
                attach(exc, self.classifiers.classify(told, source=self.name, phase="connect"))

    async def _look_again(self, exc: Exception, conn: Connection) -> None:
        """Attach the fault of what this caller alone has brought about, so that it takes nobody else down."""
        error = driver_error(exc)
        if error is None:
            return
        fault = own_doing(error, conn, writable=self.writable)
        if fault is None and isinstance(error, DeadlineExceededError):
            if await self.answers(ASK_S_MAX):
                fault = Fault(Kind.TRANSIENT, "timeout", str(error), scope=Scope.CALL, hint=SLOW)
            elif self.is_stopping:
                # During a stop nobody is asked, so nobody knows; the statement is ended on the server like all others.
                fault = Fault(Kind.TRANSIENT, "timeout", str(error), scope=Scope.CALL)
        if fault is not None:
            attach(error, replace(fault, source=self.name))

    def _size(self) -> int:
        """Return how many connections we may have now."""
        modest = asyncio.get_running_loop().time() < self._modest_until
        return self._modest_size if modest else self.connections_max

    def _be_modest(self) -> None:
        """Use half the connections that we have for `MODEST_S` seconds: the server had too many."""
        self._modest_size = max(1, len(self._pool.places.connections if self._pool is not None else ()) // 2)
        self._modest_until = asyncio.get_running_loop().time() + MODEST_S

    def _on_change(self, state: State, fault: Fault | None) -> None:
        if state is not State.DOWN or fault is None:
            self._endings.back()
            return
        if (self.last or fault).code == TOO_MANY:
            self._be_modest()
        # Those who wait are told first; nothing below waits either.
        if self._side is not None:
            self._side.refuse(self.unavailable)
        if self._pool is not None:
            self._pool.clear(self.unavailable)
        # These wait without a deadline: on a frozen server they would never notice.
        for conn in tuple(self._dedicated):
            conn.abort(fault)

    def _abort_all(self) -> None:
        ended = Fault(Kind.STOPPING, "stopping", "the service ended while the server did not answer", self.name)
        pooled = self._pool.places.connections if self._pool is not None else ()
        for conn in (*pooled, *self._dedicated):
            conn.abort(self.fault or ended)
