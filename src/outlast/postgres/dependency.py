"""A PostgreSQL server as a dependency: pooled connections that never hang, and one prober when it is away."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from outlast import Classifiers, ConfigurationError, Dependency, Fault, HealthPolicy, Kind, State, Stop, Stopping
from outlast.core.faults import Scope, attach
from outlast.postgres.classify import postgres_rule
from outlast.postgres.connection import Connection, DeadlineExceededError
from outlast.postgres.dsn import Dsn
from outlast.postgres.pacer import Pacer
from outlast.postgres.pool_log import install, ours
from outlast.postgres.probe import READ_ONLY, probe
from outlast.postgres.second_look import SLOW, driver_error, own_doing, says_read_only
from outlast.postgres.wire import UnsupportedLoginError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator

CANCELS_MAX: Final = 5
"""One cancel ends a dial, the next one the task that dialled; the others are spare."""
CLOSE_S_MAX: Final = 0.5
"""How long closing waits for the pool's own tasks; they have nothing to wait for themselves."""
ASK_S_MAX: Final = 1.0
"""How long the server has to let us in before a statement past its deadline counts against it, and how long that holds."""
TOO_MANY: Final = "53300"
MODEST_S: Final = 60.0
"""How long we use half the connections after the server had too many: as long as sustained health twice over."""


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
        """Describe the server; nothing is dialled before the first use. Raises `ConfigurationError`."""
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
        if writable and len(self.dsn.addresses) > 1:
            # Or the driver would take the first host that lets it in, a standby, which the probe had passed over.
            wanted["target_session_attrs"] = "read-write"
        self._conninfo = self.dsn.with_options(**wanted)
        self._pacer = Pacer()
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._live: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._dedicated: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._closing: set[asyncio.Future[None]] = set()
        self._dialing: set[asyncio.Task[Any]] = set()
        self._opening = asyncio.Lock()
        self._pools = 0
        self._refining = asyncio.Lock()
        self._answered_at = float("-inf")
        self._modest_size = connections_max
        self._modest_until = float("-inf")
        self.subscribe(self._on_change)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection for a block: committed at its end, rolled back when an exception leaves it.

        Raises `Unavailable` at once while the server is down, also to those who wait for a connection when it goes
        down. Waits at most `acquire_timeout_s` seconds for a connection that others use.
        """
        async with self.use("query"):
            with ours():
                pool, conn = await self._acquire()
            try:
                async with conn:
                    yield conn
            except Exception as exc:
                await self._look_again(exc, conn)
                raise
            finally:
                with ours():
                    if conn.epoch != self.epoch or not self.passable:
                        await conn.close()
                    await pool.putconn(conn)

    async def connect(self, *, autocommit: bool = True, operation_timeout_s: float | None = None) -> Connection:
        """Open a connection of one's own, outside the pool; close it yourself.

        Raises `Unavailable` at once while the server is down. Without `operation_timeout_s` its waits have no deadline.
        """
        async with self.use("connect"):
            conn = await self._dial(Connection, self._conninfo, {"autocommit": autocommit})
            conn.operation_timeout_s = operation_timeout_s
            self._dedicated.add(conn)
            return conn

    # What the runtime calls.

    async def probe(self) -> None:
        """Log in by the start-up message, which tells the SQLSTATE, and out again."""
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
        """Take note that the service ends: nothing is dialled while the server is down, and nobody waits for it."""
        super().stopping(stop)
        if not self.passable:
            self._abort_all()

    async def close(self) -> None:
        """Close every connection. Bounded: a frozen server is not waited for."""
        await super().close()
        self._give_up_pool()
        for task in tuple(self._closing):
            await asyncio.wait({task}, timeout=2 * CLOSE_S_MAX)
            task.cancel()
        self._abort_all()
        self.reopen()

    def counts(self, exc: BaseException) -> bool:
        """Whether the driver is at the bottom of it.

        What else fails inside a `connection()` block, a call to another service for one, says nothing about this server.
        """
        return not isinstance(exc, Exception) or driver_error(exc) is not None

    # Inside.

    async def _acquire(self) -> tuple[AsyncConnectionPool[Connection], Connection]:
        async with self._opening:
            if self._pool is None:
                self._pool = self._new_pool()
                await self._pool.open()
            pool = self._pool
            if pool.max_size < self.connections_max and self._size() == self.connections_max:
                await pool.resize(0, self.connections_max)
        try:
            return pool, await pool.getconn(self.acquire_timeout_s)
        except (PoolClosed, PoolTimeout):
            if not self.passable:
                raise self.unavailable() from None
            if self.is_stopping:
                msg = "no connection is opened any more"
                raise Stopping(msg) from None
            raise

    def _new_pool(self) -> AsyncConnectionPool[Connection]:
        """Make the pool of this epoch. Each outage ends one with all its connections; nothing reconnects behind it."""
        dependency = self
        self._pools += 1

        class Pooled(Connection):
            @classmethod
            async def connect(cls, conninfo: str = "", **options: Any) -> Any:  # noqa: ANN401 - psycopg's own type is wider
                return await dependency._dial_for_pool(pool, cls, conninfo, options)

        install()
        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._conninfo,
            connection_class=Pooled,
            min_size=0,
            max_size=self._size(),
            max_waiting=self.waiters_max,
            num_workers=2,
            # After a failure the prober decides when to dial again, not the pool.
            reconnect_timeout=0.0,
            name=f"outlast {self.name} {self._pools}",
            open=False,
        )
        return pool

    async def _dial_for_pool(
        self, pool: AsyncConnectionPool[Connection], cls: type[Connection], conninfo: str, options: dict[str, Any]
    ) -> Connection:
        """Dial on behalf of the pool. A failure ends the pool, so that whoever waits in it is let out."""
        task = asyncio.current_task()
        if not pool.get_stats().get("requests_waiting", 0):
            # It would replace a connection that broke off, which nobody needs yet.
            msg = "nobody waits for a connection"
            raise psycopg.OperationalError(msg)
        if task is not None:
            self._dialing.add(task)
        try:
            return await self._dial(cls, conninfo, options)
        except Stopping:
            if self._pool is not None and self._pool.get_stats().get("pool_size", 0) <= 1:
                # There is none to wait for, and none will come.
                self._give_up_pool()
            raise
        except asyncio.CancelledError:
            if task is not None:
                _cancel_again(task)
            raise
        except Exception as exc:
            self.report(exc, phase="connect")
            self._give_up_pool()
            raise
        finally:
            if task is not None:
                self._dialing.discard(task)

    async def _dial(self, cls: type[Connection], conninfo: str, options: dict[str, Any]) -> Connection:
        await self._pacer.turn()
        if self.is_stopping:
            # Whoever finishes now uses the connections there are.
            msg = "no connection is opened any more"
            raise Stopping(msg)
        if not self.passable:
            raise self.unavailable()
        epoch = self.epoch
        try:
            conn = await psycopg.AsyncConnection.connect.__func__(cls, conninfo, **options)  # type: ignore[attr-defined]
        except psycopg.Error as exc:
            await self._refine(exc)
            raise
        conn.operation_timeout_s = self.operation_timeout_s
        conn.epoch = epoch
        self._live.add(conn)
        return cast("Connection", conn)

    async def _refine(self, exc: psycopg.Error) -> None:
        """Find out what psycopg hides of a failure to connect: ask the server itself, once for all who failed."""
        async with self._refining:
            if self.is_stopping:
                return
            if not self.passable:
                if self.last is not None:
                    attach(exc, self.last)
                return
            try:
                async with asyncio.timeout(self.connect_timeout_s):
                    await self.probe()
            except Exception as told:  # noqa: BLE001 - whatever it is, it is classified
                attach(exc, self.classifiers.classify(told, source=self.name, phase="connect"))

    async def _look_again(self, exc: Exception, conn: Connection) -> None:
        """Attach the fault of what is this caller's doing alone, so that it takes nobody else down."""
        error = driver_error(exc)
        if error is None:
            return
        fault = own_doing(error, conn, writable=self.writable)
        if fault is None and isinstance(error, DeadlineExceededError) and await self._answers():
            fault = Fault(Kind.TRANSIENT, "timeout", str(error), scope=Scope.CALL, hint=SLOW)
        if fault is not None:
            attach(error, replace(fault, source=self.name))

    async def _answers(self) -> bool:
        """Whether the server lets us in, asked once for all who wonder at a time."""
        loop = asyncio.get_running_loop()
        async with self._refining:
            if self.is_stopping or not self.passable:
                return False
            if loop.time() - self._answered_at < ASK_S_MAX:
                return True
            try:
                async with asyncio.timeout(ASK_S_MAX):
                    await self.probe()
            except Exception:  # noqa: BLE001 - whatever it is, the server did not answer in time
                return False
            self._answered_at = loop.time()
            return True

    def _size(self) -> int:
        """How many connections we may have now."""
        modest = asyncio.get_running_loop().time() < self._modest_until
        return self._modest_size if modest else self.connections_max

    def _be_modest(self) -> None:
        """Use half the connections we have, for a while: the server had too many."""
        self._modest_size = max(1, sum(not conn.closed for conn in self._live) // 2)
        self._modest_until = asyncio.get_running_loop().time() + MODEST_S

    def _on_change(self, state: State, fault: Fault | None) -> None:
        if state is State.DOWN and fault is not None:
            if (self.last or fault).code == TOO_MANY:
                self._be_modest()
            self._give_up_pool()
            # These wait without a deadline: on a frozen server they would never notice.
            for conn in tuple(self._dedicated):
                conn.abort(fault)

    def _give_up_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None or pool.closed:
            return
        with ours():
            closing = asyncio.ensure_future(_end(pool))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        for task in [task for task in self._dialing if task is not asyncio.current_task()]:
            task.cancel()

    def _abort_all(self) -> None:
        ended = Fault(Kind.STOPPING, "stopping", "the service ended while the server did not answer", self.name)
        for conn in (*self._live, *self._dedicated):
            conn.abort(self.fault or ended)


def _cancel_again(worker: asyncio.Task[Any], times: int = CANCELS_MAX) -> None:
    """See that a worker of the pool ends: it takes the cancellation of its dial for a failure to connect, and goes on."""

    def cancel() -> None:
        if times > 0 and not worker.done():
            worker.cancel()
            _cancel_again(worker, times - 1)

    asyncio.get_running_loop().call_soon(cancel)


async def _end(pool: AsyncConnectionPool[Connection]) -> None:
    """Close a pool, and see that its tasks end: one that is cancelled while it dials takes that for a failure and goes on."""
    await pool.close(CLOSE_S_MAX / 2)
    for _ in range(CANCELS_MAX):
        workers = {task for task in asyncio.all_tasks() if task.get_name().startswith(f"{pool.name}-worker-")}
        if not workers:
            return
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers, timeout=CLOSE_S_MAX / 10)
