"""A stream of changes: its owner reads the slot and feeds the sink, everyone else stands by."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast import Classifiers, ConfigurationError, Fault, Link, Stop, Stopping
from outlast.changes._decoding.decoder import Decoder
from outlast.changes._decoding.spool import FileSpool
from outlast.changes._decoding.transactions import Assembler
from outlast.changes._ground import Preparation
from outlast.changes._own_tables import OwnTables
from outlast.changes._policies import DeliveryPolicy, OwnerPolicy, SourcePolicy
from outlast.changes._positions import Positions
from outlast.changes._pump import Pump, while_owner
from outlast.changes._shown import ShownChanges
from outlast.changes._sinks.iterator import Handing, iterate
from outlast.changes._sinks.poison import Poison, StreamOverError
from outlast.changes._sinks.port import needs_of
from outlast.changes._slot.catalog import check_names
from outlast.changes._slot.claim import Claim
from outlast.changes._slot.monitor import EVERY_S, Monitor
from outlast.changes._slot.troubles import Names, PublicationNotice, ReplicationRule
from outlast.changes._slot.watch import SlotState
from outlast.changes._snapshot.initial import InitialSnapshot
from outlast.extend import Once
from outlast.postgres.ownership import Fences, Standby, StandbyState, lock_key
from outlast.postgres.replication import Replication

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import psycopg

    from outlast import Dependency, Service
    from outlast.changes._ground import Ground
    from outlast.changes._sinks.port import Delivery, Sink
    from outlast.changes._snapshot.reader import TableProgress
    from outlast.postgres import Postgres


@dataclass(frozen=True, slots=True)
class _Session:
    """The resources of an owner, open while it is one."""

    replication: Replication
    ground: Ground
    lost: asyncio.Future[Fault]


class Changes:
    """One stream: the changes of a publication, read through a slot by one owner at a time, given to a sink.

        changes = Changes(db, "shop", sink=PostgresSink(warehouse))
        changes.attach(service)

    Any number of processes may run it: one owns it, the others stand by, blocked in the server, and take over when the owner
    is gone. `slot` and `name` (of the lock and the epoch) are called as the publication unless given. `source` says what is read,
    `delivery` how it comes to the sink, `owner` how the owner is watched. Faults never end the service: the stream waits as they
    demand.

    Without a sink, iterate: `async for transaction in changes.stream(stop)`.
    """

    def __init__(
        self,
        db: Postgres,
        publication: str,
        *,
        sink: Sink | None = None,
        slot: str = "",
        name: str = "",
        source: SourcePolicy | None = None,
        delivery: DeliveryPolicy | None = None,
        owner: OwnerPolicy | None = None,
    ) -> None:
        """Describe it; nothing is dialled. Raises `ConfigurationError`."""
        self.db = db
        self.publication = publication
        self.slot = slot or publication
        self.name = name or publication
        check_names(self.publication, self.slot)
        self.sink: Sink = Handing() if sink is None else sink
        self.source = source or SourcePolicy()
        self.delivery = delivery or DeliveryPolicy()
        self.owner = owner or OwnerPolicy()
        self.needs = _distinct(self.name, db, *needs_of(self.sink))
        """The dependencies that it cannot work without: the server it reads from, and those of the sink."""
        self.monitor = Monitor(db, self.slot, lock_key=lock_key(self.name), told_elsewhere=self._tells)
        self._rule = ReplicationRule(Names(self.slot, publication, db.dsn.user))
        initial = InitialSnapshot(db, self._rule.names, self.name, self.source, schema=self.owner.schema)
        self._preparation = Preparation(db, self.name, self.sink, self._rule, self.source, initial)
        rules = (self.delivery.classifiers or Classifiers()).also(db.classifiers).with_rule(self._rule)
        self.poison = Poison(self.name, rules, policy=self.delivery.poison, quarantine=self.delivery.quarantine)
        self.link = self._kept_up(rules)
        options = options_of(publication, streaming=self.delivery.streaming)
        self._claim = Claim(db, self.slot, self.name, options=options, rng=self.owner.rng or random.Random())
        self._fences = Fences(self.name, self.owner.schema)
        self._pump: Pump | None = None
        self._received, self._delivered, self._stop = 0, 0, Stop()
        self._owned, self._ended = asyncio.Event(), asyncio.Event()
        self._over: StreamOverError | None = None
        self._standby: Standby | None = None
        self._once = Once()
        """What its standbys said last: a loop that crashes and is restarted says nothing twice."""

    def _tells(self, state: SlotState) -> bool:
        """Return whether the stream itself logs a line for it: that the slot is lost, or that somebody else has it meanwhile."""
        return state is SlotState.LOST or (state is SlotState.LAGGING and self._claim.stands_by)

    # Figures.

    @property
    def received(self) -> int:
        """The number of changes that this process passed to its sink; some of them twice, if a session ended in between."""
        return self._received + (0 if self._pump is None else self._pump.received)

    @property
    def delivered(self) -> int:
        """The number of transactions that the sink of this process made durable."""
        return self._delivered + (0 if self._pump is None else self._pump.delivered)

    @property
    def positions(self) -> Positions:
        """The positions of the newest session of this process."""
        return Positions.begin() if self._pump is None else self._pump.positions

    @property
    def snapshot(self) -> tuple[TableProgress, ...]:
        """The progress of each table that was read first; () if this process has read none."""
        return self._preparation.initial.progress

    @property
    def epoch(self) -> int:
        """The number under which this process owns the stream, or owned it last; 0 before. It grows with each owner."""
        return 0 if self._standby is None else self._standby.epoch

    @property
    def ownership(self) -> StandbyState:
        """Whether this process owns the stream, or stands by."""
        return StandbyState.IDLE if self._standby is None else self._standby.state

    @property
    def over(self) -> Fault | None:
        """The reason why the stream has ended for this process, if it has: a person must act, and restart it."""
        return None if self._over is None else self._over.fault

    # Running it.

    def attach(self, service: Service, *, monitor: bool = True) -> None:
        """Let `service` keep the stream going, and watch over its slot."""
        if isinstance(self.sink, Handing):
            msg = f"changes {self.name} has no sink: give it one, or iterate over stream() in a loop of your own"
            raise ConfigurationError(msg)
        service.task(needs=self.needs, name=f"changes {self.name}")(self.run)
        service.show(ShownChanges(self))
        if monitor:
            service.loop(needs=self.db, name=f"monitor of slot {self.slot}")(self.watch)

    async def run(self, stop: Stop) -> None:
        """Stand by, own, stream, until the stop is fired. What was flushed by then is confirmed to the server.

        A stop ends it at once, but what the sink is doing has 2 s to finish.
        """
        owner = self.owner
        self._standby = Standby(self.db, self.name, schema=owner.schema, keepalive=owner.keepalive, stop=stop, once=self._once)
        self._stop = stop
        await self.link.run(stop)

    async def watch(self, stop: Stop) -> None:
        """Look once at the slot, and sleep until the next look: for a loop. Begins when this process becomes the owner."""
        async with stop.timeout(None):
            await self._owned.wait()
        report = await self.monitor.sample()
        await stop.sleep(report.look_again_s(EVERY_S))

    def stream(self, stop: Stop | None = None, *, after: int = 0) -> AsyncGenerator[Delivery]:
        """Iterate over the transactions, when this was made without a sink; large ones come in parts.

            async with contextlib.aclosing(changes.stream(stop)) as transactions:
                async for transaction in transactions:
                    ...

        At least once: asking for the next one says that the last one is durable. Whatever was not asked beyond comes again,
        also within the iteration when the session broke; a large transaction then begins again, with its first part. `after`
        is the position (`end_lsn`) that you stored with your data: what ends there or before does not come.

        It stands by while another process owns the stream, waits while the server is down, and ends when the stop is fired.
        Raises `StreamOverError` where going on would lose changes, and what is FATAL. One iteration at a time.
        """
        if not isinstance(self.sink, Handing):
            msg = f"changes {self.name} has a sink: attach() it to a service"
            raise ConfigurationError(msg)
        return iterate(self.sink, self.run, self._until_over, stop or Stop(), after)

    async def fence(self, conn: psycopg.AsyncConnection[object]) -> None:
        """Make sure, in the transaction that `conn` is in on the server we read from, that we are the owner until it ends.

        Raises `FencedError` otherwise: roll back.
        """
        if self._standby is None:
            raise RuntimeError(f"changes {self.name} does not run: it owns nothing")
        await self._standby.fence(conn)

    # Becoming the owner.

    def _kept_up(self, rules: Classifiers) -> Link[_Session]:
        return Link(
            f"changes {self.name}",
            dial=self._dial,
            serve=self._serve,
            classifiers=rules,
            dial_timeout_s=None,
            backoff=self.owner.backoff,
            needs=self.needs,
            rng=self.owner.rng,
        )

    @asynccontextmanager
    async def _dial(self) -> AsyncGenerator[_Session]:
        standby, stop = self._standby, self._stop
        assert standby is not None  # noqa: S101 - run() has made it
        # Who stands by, or is over, has said so: no reminder of what was before, unless something fails again.
        self.link.incident.forget_timer()
        if self._over is not None:
            # It was logged. Whoever stands by may try.
            await stop.wait()
            raise Stopping(stop.reason or "")
        await self._claim.until_worthwhile(stop)
        async with AsyncExitStack() as stack:
            lost = await stack.enter_async_context(standby)
            stack.enter_context(self._fences.counted(lost))
            async with while_owner(lost, stop, drain_s=0.0):
                stack.push_async_callback(self.sink.close)
                position = await self.sink.open(self.name, standby.epoch)
                replication = await Replication.connect(
                    self.db,
                    application_name=f"outlast changes {self.name}"[:63],
                    wal_sender_timeout_s=self.owner.timeout_s,
                    keepalive=self.owner.keepalive,
                    rule=self._rule,
                )
                stack.callback(lambda: replication.close(reset=lost.done()))
                replication.conn.add_notice_handler(PublicationNotice(self.name, self._rule.names))
                ground = await self._prepare(replication, position, stop)
                await self._claim.start(replication, ground.position, stop)
            yield _Session(replication, ground, lost)

    async def _prepare(self, replication: Replication, position: int, stop: Stop) -> Ground:
        try:
            ground = await self._preparation.begin(replication, position)
            self._owned.set()
            if ground.reads_first:
                await self._claim.until_free(replication, stop)
                ground = await self._preparation.read_first(replication, ground)
        except StreamOverError as error:
            self._end(error)
            raise
        return ground

    def _end(self, error: StreamOverError) -> None:
        """Record the error that is logged once, and after which this process does not try again by itself."""
        self._over = error
        self._ended.set()

    async def _until_over(self) -> Exception:
        await self._ended.wait()
        assert self._over is not None  # noqa: S101 - set in the same step
        return self._over

    # Being the owner.

    async def _serve(self, session: _Session, stop: Stop) -> None:
        self._received, self._delivered = self.received, self.delivered
        ground = session.ground
        self._pump = pump = Pump(self.sink, self.poison, ground.position, copied=ground.tables)
        left_out = OwnTables(self.owner.schema, self.sink)
        delivery = self.delivery
        decoder = Decoder(2 if delivery.streaming else 1, typed=delivery.typed, left_out=left_out)
        spool = FileSpool(delivery.spool_directory) if delivery.streaming else None
        assembler = Assembler(decoder, spool=spool)
        try:
            async with while_owner(session.lost, stop):
                await pump.run(session.replication, assembler, stop)
        except StreamOverError as error:
            self._end(error)
            raise
        finally:
            if pump.flushed:
                self._fences.written()
            assembler.close()
            if spool is not None:
                spool.close()
        await session.replication.finish()


def _distinct(name: str, *needs: Dependency) -> tuple[Dependency, ...]:
    """Return each once. Two of the same name would be taken for one another: a fault says only the name of its source."""
    found: dict[str, Dependency] = {}
    for need in needs:
        if found.setdefault(need.name, need) is not need:
            msg = (
                f"changes {name}: the server it reads from and the one its sink writes to are both called {need.name}; "
                "give one of them a name of its own: Postgres(dsn, name='warehouse')"
            )
            raise ConfigurationError(msg)
    return tuple(found.values())


def options_of(publication: str, *, streaming: bool) -> dict[str, str]:
    """Return the options of pgoutput: protocol 1 sends a transaction when it is committed, 2 may send it in pieces before."""
    options = {"proto_version": "2" if streaming else "1", "publication_names": '"' + publication.replace('"', '""') + '"'}
    return {**options, "streaming": "on"} if streaming else options
