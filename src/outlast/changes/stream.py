"""A stream of changes: who owns it reads the slot and feeds the sink, everyone else stands by."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from outlast import Classifiers, ConfigurationError, Fault, Kind, Stop, Stopping
from outlast.changes.faults import Meaning, Names, ReplicationRule
from outlast.changes.holders import holder
from outlast.changes.messages import Message, format_lsn
from outlast.changes.monitor import EVERY_S, Monitor
from outlast.changes.pgoutput import Decoder
from outlast.changes.positions import Positions
from outlast.changes.quarantine import Trouble
from outlast.changes.setup import set_up
from outlast.changes.sink import emptied
from outlast.changes.spool import FileSpool
from outlast.changes.standby import Standby, lock_key
from outlast.changes.survey import check_names
from outlast.changes.transactions import Assembler, TransactionPart
from outlast.core.faults import attach
from outlast.link import Link
from outlast.postgres.replication import Replication

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import AsyncGenerator

    from outlast import Service
    from outlast.changes.quarantine import Quarantine
    from outlast.changes.sink import Delivery, Sink
    from outlast.postgres import Postgres
    from outlast.postgres.replication_dial import Keepalive

LOOK_S: Final = (0.005, 0.5)
"""The first and the longest pause between two looks at a slot that somebody reads: an owner that died leaves it within
milliseconds, one that bypassed the lock may keep it for hours."""
ATTEMPTS_MAX: Final = 3
logger = logging.getLogger("outlast")


class RefusedError(Exception):
    """The sink keeps refusing a transaction, and the policy is to stop there."""


@dataclass(frozen=True, slots=True)
class _Session:
    """What is open while this is the owner."""

    replication: Replication
    position: int
    lost: asyncio.Future[Fault]


class Changes:
    """One stream: the changes of a publication, read through a slot by one owner at a time, given to a sink.

        changes = Changes(db, "shop", sink=PostgresSink(warehouse))
        changes.attach(service)

    Any number of processes may run it: one owns it, the others stand by, blocked in the server, and take over when the owner
    is gone. `slot` and `name` (of the lock and the epoch) are called as the publication unless given. `create`: make the
    publication (of `tables`, or of all) and the slot if they are missing, but a slot never for a sink that has a position: the
    changes in between would be lost unnoticed. `streaming`: have large transactions sent while they are in progress
    (protocol 2), kept in `spool_directory` until they are committed.

    A transaction that the sink refuses three times in a row goes into `quarantine` and is skipped (`poison="skip"`), or ends
    the stream for this process with one ERROR ("stop"). Faults never end the service: the stream waits as they demand.
    """

    def __init__(
        self,
        db: Postgres,
        publication: str,
        *,
        sink: Sink,
        slot: str = "",
        name: str = "",
        create: bool = True,
        tables: tuple[str, ...] | None = None,
        typed: bool = False,
        streaming: bool = False,
        spool_directory: str | os.PathLike[str] | None = None,
        poison: Literal["stop", "skip"] = "stop",
        quarantine: Quarantine | None = None,
        wal_sender_timeout_s: float = 6.0,
        keepalive: Keepalive | None = None,
        schema: str = "outlast",
        classifiers: Classifiers | None = None,
    ) -> None:
        """Describe it; nothing is dialled. Raises `ConfigurationError`."""
        self.db = db
        self.publication = publication
        self.slot = slot or publication
        self.name = name or publication
        check_names(self.publication, self.slot)
        if poison == "skip" and quarantine is None:
            msg = f"changes {self.name}: poison='skip' needs a quarantine: what is skipped must be somewhere"
            raise ConfigurationError(msg)
        self.sink = sink
        self.monitor = Monitor(db, self.slot, lock_key=lock_key(self.name))
        self.received = 0
        """How many changes were given to the sink by this process."""
        self.positions = Positions.begin()
        self._create = create
        self._tables = tables
        self._typed = typed
        self._streaming = streaming
        self._spool_directory = spool_directory
        self._poison = poison
        self._quarantine = quarantine
        self._timeout_s = wal_sender_timeout_s
        self._keepalive = keepalive
        self._schema = schema
        self._rule = ReplicationRule(Names(self.slot, publication, db.dsn.user))
        self._classifiers = (classifiers or Classifiers()).also(db.classifiers).with_rule(self._rule)
        self._trouble = Trouble()
        self._within = False
        """Whether the sink has a part of a transaction whose rest is to come: nothing is flushed then."""
        self._unflushed = 0
        """Whole transactions that the sink has and that are not flushed; the last one was committed at `_newest_lsn`."""
        self._newest_lsn = 0
        self._has_owned = False
        self._stop = Stop()
        self._ended: Fault | None = None
        self._standby: Standby | None = None
        self._told = ""
        self.link = Link(
            f"changes {self.name}", dial=self._dial, serve=self._serve, classifiers=self._classifiers, dial_timeout_s=None
        )

    def attach(self, service: Service, *, monitor: bool = True) -> None:
        """Have `service` keep the stream going, and watch over its slot."""
        service.needs(self.db)
        service.task(needs=self.db, name=f"changes {self.name}")(self.run)
        if monitor:
            service.loop(needs=self.db, name=f"monitor of slot {self.slot}")(self._watch)

    async def run(self, stop: Stop) -> None:
        """Stand by, own, stream, until the stop is fired. What was flushed by then is confirmed to the server."""
        self._standby = Standby(self.db, self.name, schema=self._schema, keepalive=self._keepalive, stop=stop)
        self._stop = stop
        await self.link.run(stop)

    async def _watch(self, stop: Stop) -> None:
        """Look after the slot from the first time on that this process was its owner, also while it cannot stream."""
        if not self._has_owned:
            await stop.sleep(EVERY_S)
            return
        report = await self.monitor.sample()
        await stop.sleep(report.look_again_s(EVERY_S))

    # Becoming the owner.

    @asynccontextmanager
    async def _dial(self) -> AsyncGenerator[_Session]:
        standby, stop = self._standby, self._stop
        assert standby is not None  # noqa: S101 - run() has made it
        if self._ended is not None:
            await stop.wait()
            raise Stopping(stop.reason or "")
        async with standby as lost:
            try:
                position = await self.sink.open(self.name, standby.epoch)
                await self._prepare(position)
                async with await Replication.connect(
                    self.db,
                    application_name=f"outlast changes {self.name}"[:63],
                    wal_sender_timeout_s=self._timeout_s,
                    keepalive=self._keepalive,
                    rule=self._rule,
                ) as replication:
                    await self._start(replication, position, stop)
                    # Whoever lost the lock must not go on: what it has written is fenced, and what it reads is another's.
                    lost.add_done_callback(lambda _: replication.close())
                    yield _Session(replication, position, lost)
            finally:
                await self.sink.close()

    async def _prepare(self, position: int) -> None:
        """See that publication and slot are there; make them if that is allowed and loses nothing."""
        create = self._create and position == 0
        findings = await set_up(self.db, self.publication, self.slot, tables=self._tables, create=create)
        slot = findings.survey.slot
        if position and slot is None:
            reason = f"the sink stands at {format_lsn(position)}, and slot {self.slot} is gone"
            raise self._final(self._rule.fault(Meaning.SLOT_MISSING, reason=reason))
        if slot is not None and slot.is_lost:
            reason = f"slot {self.slot} has lost the log it needs"
            raise self._final(self._rule.fault(Meaning.SLOT_LOST, reason=reason))
        findings.require()
        self._has_owned = True

    def _final(self, fault: Fault) -> RefusedError:
        """Make an error that is told once, and after which this process does not try again by itself."""
        self._ended = fault = replace(fault, kind=Kind.PERMANENT, source=self.name)
        error = RefusedError(fault.reason)
        attach(error, fault)
        return error

    async def _start(self, replication: Replication, position: int, stop: Stop) -> None:
        """Start the stream; while somebody who bypassed the lock reads the slot, look now and then whether he still does."""
        pause_s = LOOK_S[0]
        while (state := await replication.slot_state(self.slot)) is not None and state.active_pid is not None:
            if pause_s >= LOOK_S[1]:
                await self._tell_holder()
            await stop.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_S[1])
        options = {"proto_version": "2" if self._streaming else "1", "publication_names": f'"{self.publication}"'}
        if self._streaming:
            options["streaming"] = "on"
        await replication.start(self.slot, position, options)
        self._say("streaming", f"changes {self.name}: streaming from {format_lsn(position)}")

    async def _tell_holder(self) -> None:
        async with self.db.connection() as conn:
            session = await holder(conn, self.slot)
        if session is not None:
            self._say(
                f"held by {session.pid} {session.since}",
                f"changes {self.name}: standing by, slot {self.slot} is read by {session}",
            )

    def _say(self, what: str, line: str) -> None:
        """Tell a change of state, once."""
        if what != self._told:
            self._told = what
            logger.info("%s", line)

    # Being the owner.

    async def _serve(self, session: _Session, stop: Stop) -> None:
        self.positions = Positions.begin(session.position)
        self._within, self._unflushed = False, 0
        decoder = Decoder(2 if self._streaming else 1, typed=self._typed)
        spool = FileSpool(self._spool_directory) if self._streaming else None
        assembler = Assembler(decoder, spool=spool)
        try:
            await self._pump(session.replication, assembler, stop)
        except Exception:
            if session.lost.done():
                fault = session.lost.result()
                error = ConnectionError(fault.reason)
                attach(error, fault)
                raise error from None
            raise
        finally:
            assembler.close()
        await session.replication.finish()

    async def _pump(self, replication: Replication, assembler: Assembler, stop: Stop) -> None:
        """Read batches and feed the sink; the position is confirmed when the sink calls it durable."""
        while True:
            try:
                async with stop.timeout(None):
                    batch = await replication.next_batch()
            except Stopping:
                # Everything whole is flushed already.
                return
            for _, _, _, payload in batch:
                for unit in assembler.feed(payload):
                    if not isinstance(unit, Message):
                        await self._give(unit)
                if stop.requested:
                    break
            if not (self._within or (stop.requested and not self.positions.pending)):
                await self._flush()
            self.positions = self.positions.keepalive(replication.keepalive_lsn)
            replication.confirm(self.positions.confirmable)

    async def _give(self, delivery: Delivery) -> None:
        if delivery.commit_lsn < self.positions.confirmable and not self._within:
            # Durable already; after a restart the server may send it again.
            return
        careful = delivery.commit_lsn <= self._trouble.careful_until
        if not self._within and self.positions.pending and (careful or isinstance(delivery, TransactionPart)):
            await self._flush()
        delivery = await self._checked(delivery)
        try:
            await self.sink.write(delivery)
        except Exception as exc:
            self._refused(delivery.commit_lsn, exc)
            raise
        self._within = delivery.end_lsn is None
        self._newest_lsn = delivery.commit_lsn
        self.received += len(delivery.changes)
        if delivery.end_lsn is not None:
            self._unflushed += 1
            self.positions = self.positions.transaction(delivery.end_lsn)

    async def _flush(self) -> None:
        if not self.positions.pending:
            return
        try:
            durable = await self.sink.flush()
        except Exception as exc:
            if self._unflushed == 1:
                self._refused(self._newest_lsn, exc)
            else:
                # Which one it was is found out next time, one by one.
                self._trouble.careful_until = self.positions.received
            raise
        self._unflushed = 0
        self.positions = self.positions.stored(durable)

    # What the sink refuses.

    def _refused(self, commit_lsn: int, exc: Exception) -> None:
        """Count a refusal of this very transaction; the next session tries it again."""
        fault = self._classifiers.classify(exc, source=self.name)
        if fault.kind in {Kind.REJECTED, Kind.BUG}:
            self._trouble.refused(commit_lsn, fault)

    async def _checked(self, delivery: Delivery) -> Delivery:
        """The delivery, or what is left of one that was refused too often: an empty one, once it is in quarantine."""
        trouble = self._trouble
        if delivery.commit_lsn != trouble.commit_lsn or trouble.count < ATTEMPTS_MAX or trouble.fault is None:
            return delivery
        where = f"transaction {delivery.xid} at {format_lsn(delivery.commit_lsn)}"
        if self._quarantine is not None:
            await self._quarantine.take(delivery, trouble.fault)
        if self._poison == "stop":
            kept = f"; it is kept in {self._quarantine.path}" if self._quarantine is not None else ""
            reason = f"the sink refused {where} {trouble.count} times: {trouble.fault.code}{kept}"
            hint = "put right what it refuses, then restart; or let poison='skip' pass over such transactions"
            raise self._final(Fault(Kind.PERMANENT, "poison", reason, self.name, hint=hint))
        if not isinstance(delivery, TransactionPart) or delivery.first:
            logger.error(
                "changes %s: skipped %s, which the sink refused %d times: %s", self.name, where, trouble.count, trouble.fault.code
            )
        return emptied(delivery)
