"""A logical replication session: the commands of the walsender, and its stream.

psycopg has no replication of its own, but it logs in (`replication=database`), runs the commands as simple queries, and
lends its libpq connection for the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import psycopg
from psycopg import pq, sql
from psycopg.rows import dict_row

from outlast import ConfigurationError, Fault, Kind, Scope
from outlast.extend import attach
from outlast.postgres._connection import DeadlineExceededError
from outlast.postgres.replication._commands import (
    IDENTIFY,
    TIMEOUT_QUERY,
    CreatedSlot,
    System,
    create_slot_command,
    drop_slot_command,
    start_command,
)
from outlast.postgres.replication._dial import Keepalive, dial
from outlast.postgres.replication._lsn import parse_lsn
from outlast.postgres.replication._slots import Slot, read_slot
from outlast.postgres.replication._stream import CopyStream, shut_down

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

    from outlast.postgres._connection import Connection
    from outlast.postgres._dependency import Postgres
    from outlast.postgres.replication._dial import Rule

PHASE: Final = "replication"
"""The phase that rules are told: the same SQLSTATE means another thing here than in a query."""
BUFFER_BYTES_MAX: Final = 4 << 20
TIMEOUT_S_DEFAULT: Final = 60.0
"""PostgreSQL's default of wal_sender_timeout, for a session whose user switched it off: a server is given up in any case."""


class SlotWaitsError(DeadlineExceededError):
    """A slot could not be made in time: it waits for every transaction that was open before. The connection is closed."""


class Replication:
    """A walsender session, to be used by one task.

        async with await Replication.connect(db) as session:
            slot = await session.create_slot("shop")
            await session.start("shop", slot.consistent_lsn, {"proto_version": "1", "publication_names": "shop"})
            async for batch in session.batches():
                session.confirm(await store(batch))

    Leaving the block closes the connection at once, as a cancel anywhere does; `finish` first says goodbye. Status updates
    are sent at half of `wal_sender_timeout` however slow the consumer is. A server that is frozen or cut off ends the stream
    with `DeadlineExceededError` after that timeout.
    """

    def __init__(self, db: Postgres, conn: Connection, *, timeout_s: float, rule: Rule | None) -> None:
        """Use `connect` instead."""
        self.db = db
        self.conn = conn
        self.timeout_s = timeout_s
        """The session's wal_sender_timeout, in seconds, as the server has it."""
        self.stream: CopyStream | None = None
        """Once `start` has returned."""
        self._rule = rule

    @classmethod
    async def connect(
        cls,
        db: Postgres,
        *,
        application_name: str = "outlast replication",
        wal_sender_timeout_s: float = 6.0,
        keepalive: Keepalive | None = None,
        operation_timeout_s: float | None = 10.0,
        rule: Rule | None = None,
    ) -> Self:
        """Log in as a walsender of the database that the DSN names.

        Raises `Unavailable` at once while the server is down. `rule` is asked before those of `db` what a failure means, with
        the phase "connect" or "replication". Of the settings those in the DSN win. `operation_timeout_s` is for each command,
        not for the stream.
        """
        if wal_sender_timeout_s < 1:
            raise ConfigurationError(f"wal_sender_timeout_s must be at least 1, not {wal_sender_timeout_s}")
        conn = await dial(
            db,
            application_name=application_name,
            keepalive=keepalive or Keepalive(),
            settings={"wal_sender_timeout": str(round(wal_sender_timeout_s * 1000))},
            options={"replication": "database", "client_encoding": "UTF8"},
            rule=rule,
            operation_timeout_s=operation_timeout_s,
        )
        # The sixth time psycopg would prepare a command, in the protocol that a walsender does not speak.
        conn.prepare_threshold = None
        session = cls(db, conn, timeout_s=wal_sender_timeout_s, rule=rule)
        try:
            rows = await session._command(TIMEOUT_QUERY)
        except BaseException:
            session.close()
            raise
        session.timeout_s = (rows[0]["ms"] if rows else 0) / 1000 or TIMEOUT_S_DEFAULT
        return session

    async def __aenter__(self) -> Self:
        """Return the session."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it at once."""
        self.close()

    def close(self, *, reset: bool = False) -> None:
        """Close the connection, without waiting for the server; it notices within milliseconds. Safe to call twice.

        `reset`: also where nothing comes back from it, see `shut_down`.
        """
        if self.stream is not None:
            self.stream.close(reset=reset)
        else:
            shut_down(self.conn.pgconn, reset=reset)
            self.conn.pgconn.finish()

    @property
    def server_version(self) -> int:
        """As libpq has it: 150018 is 15.18."""
        return self.conn.pgconn.server_version

    @property
    def backend_pid(self) -> int:
        """The process of the server that serves this session."""
        return self.conn.pgconn.backend_pid

    # Commands, before the stream.

    async def identify(self) -> System:
        """Ask the server who it is and where it stands."""
        row = (await self._command(IDENTIFY))[0]
        return System(str(row["systemid"]), int(row["timeline"]), parse_lsn(row["xlogpos"]), str(row["dbname"]))

    async def create_slot(
        self,
        name: str,
        *,
        plugin: str = "pgoutput",
        snapshot: Literal["export", "nothing"] = "export",
        failover: bool = False,
        two_phase: bool = False,
        temporary: bool = False,
        timeout_s: float | None = None,
    ) -> CreatedSlot:
        """Make a slot. It waits until every transaction that was open when it began has ended: `timeout_s` bounds that.

        Past the deadline (`SlotWaitsError`), or cancelled, the connection is closed, and the server drops the unfinished slot
        within a second or two.
        """
        command = create_slot_command(
            self.server_version,
            name,
            plugin,
            snapshot=snapshot,
            failover=failover,
            two_phase=two_phase,
            temporary=temporary,
        )
        async with self._used():
            try:
                with self.conn.deadline(timeout_s):
                    rows = await self._rows(command)
            except DeadlineExceededError:
                reason = f"slot {name} was not made within {timeout_s:g} s: a transaction that was open before has not ended"
                error = SlotWaitsError(reason)
                attach(error, Fault(Kind.CONTENDED, "55P03", reason, scope=Scope.CALL))
                raise error from None
        row = rows[0]
        return CreatedSlot(str(row["slot_name"]), parse_lsn(row["consistent_point"]), row["snapshot_name"])

    async def drop_slot(self, name: str, *, wait: bool = False) -> None:
        """Drop a slot, and with it the promise that its changes are kept. With `wait`, wait until nobody uses it."""
        await self._command(drop_slot_command(name, wait=wait))

    async def slot_state(self, name: str) -> Slot | None:
        """Return what the server knows of a slot; None when there is no such slot."""
        async with self._used():
            return await read_slot(self.conn, name)

    async def start(
        self, slot: str, lsn: int = 0, options: Mapping[str, str] | None = None, *, buffer_bytes_max: int = BUFFER_BYTES_MAX
    ) -> None:
        """Begin to stream from `lsn`, or from where the slot was confirmed, whichever is later. `options` are the plugin's.

        Then no more commands: `batches`, `confirm` and `finish` are for the stream.
        """
        command = start_command(slot, lsn, options or {})
        async with self._used():
            cursor = await self.conn.execute(command)
            if cursor.pgresult is None or cursor.pgresult.status != pq.ExecStatus.COPY_BOTH:
                raise psycopg.OperationalError(f"START_REPLICATION of slot {slot} did not start a stream")
            self.stream = CopyStream(
                self.conn,
                timeout_s=self.timeout_s,
                start_lsn=lsn,
                buffer_bytes_max=buffer_bytes_max,
                on_failure=self._report,
            )

    # The stream.

    async def next_batch(self) -> Sequence[bytes]:
        """Return what has come, as soon as something has: the messages of the output plugin.

        Empty when only a keepalive came. Raises what ended the stream, with its fault attached. Cancelled, it loses nothing.
        """
        return await self._streaming().next()

    async def batches(self) -> AsyncGenerator[Sequence[bytes]]:
        """Yield batches until the stream ends, which raises. A cancel in here closes the session, a `break` does not."""
        stream = self._streaming()
        while True:
            try:
                batch = await stream.next()
            except asyncio.CancelledError:
                self.close()
                raise
            yield batch

    @property
    def received_lsn(self) -> int:
        """The end in the log of the last message that came, even if no batch has returned it yet."""
        return self._streaming().received_lsn

    @property
    def keepalive_lsn(self) -> int:
        """The position up to which the server had read when it sent the last keepalive before the end of the last batch; or 0.

        It may be confirmed when everything received until then is durable: there is nothing for us in between.
        """
        return self._streaming().keepalive_lsn

    def confirm(self, flushed_lsn: int, applied_lsn: int | None = None) -> None:
        """Confirm to the server what is durable here. See `CopyStream.confirm`."""
        self._streaming().confirm(flushed_lsn, applied_lsn)

    async def finish(self, timeout_s: float = 2.0) -> bool:
        """End the stream so that the last confirmed position is taken; return whether the server said so in time."""
        return await self._streaming().finish(timeout_s)

    # Inside.

    def _streaming(self) -> CopyStream:
        if self.stream is None:
            raise RuntimeError("the session does not stream: call start() first")
        return self.stream

    @contextlib.asynccontextmanager
    async def _used(self) -> AsyncGenerator[None]:
        """Guard a command: refused while the server is down; our rule is the first to classify its failure."""
        async with self.db.use(PHASE):
            try:
                yield
            except psycopg.Error as exc:
                self._explain(exc)
                raise

    def _explain(self, exc: psycopg.Error) -> None:
        fault: Fault | None = self._rule(exc, PHASE) if self._rule is not None else None
        if fault is not None:
            attach(exc, fault)

    def _report(self, exc: psycopg.Error) -> None:
        self._explain(exc)
        self.db.report(exc, phase=PHASE, epoch=self.conn.epoch)

    async def _command(self, command: sql.SQL | sql.Composed) -> list[dict[str, Any]]:
        """Run one command in the simple protocol, the only one that a walsender speaks."""
        async with self._used():
            return await self._rows(command)

    async def _rows(self, command: sql.SQL | sql.Composed) -> list[dict[str, Any]]:
        async with self.conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(command)
            return await cursor.fetchall() if cursor.description is not None else []
