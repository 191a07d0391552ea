"""The ground of a session: publication and slot, what their loss leads to, and the rows that were there first."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from outlast import ConfigurationError
from outlast.changes._sinks.poison import StreamOverError
from outlast.changes._sinks.port import Copying
from outlast.changes._slot.setup import drop_slot, set_up
from outlast.changes._slot.troubles import Meaning, ReplicationRule, lost_text
from outlast.extend import Once
from outlast.postgres.replication import format_lsn

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.changes._policies import SourcePolicy
    from outlast.changes._sinks.port import Sink
    from outlast.changes._snapshot.initial import InitialSnapshot
    from outlast.changes._snapshot.model import SnapshotState, SnapshotTarget
    from outlast.postgres import Postgres
    from outlast.postgres.replication import Replication

logger = logging.getLogger("outlast.changes")


@dataclass(frozen=True, slots=True)
class Ground:
    """The position and the rows that a session goes on from."""

    position: int
    """Of the sink."""
    target: SnapshotTarget | None = None
    """The taker of the rows that are read first; None: the sink cannot."""
    copied: SnapshotState | None = None
    """The state of that: which tables were read, under which snapshots."""
    reads_first: bool = False
    """Whether rows are still to be read before the stream may start."""

    @property
    def tables(self) -> dict[tuple[str, str], int]:
        """The tables of which the sink has what was committed before a position that the stream has still to pass."""
        tables = () if self.copied is None else self.copied.tables
        return {(each.schema, each.name): each.skip_until_lsn for each in tables if each.skip_until_lsn > self.position}


class Preparation:
    """Prepares the stream `name` of one process, session after session. What was named once is not named again."""

    def __init__(
        self,
        db: Postgres,
        name: str,
        sink: Sink,
        rule: ReplicationRule,
        source: SourcePolicy,
        initial: InitialSnapshot,
    ) -> None:
        """Describe it; nothing is dialled. Raises `ConfigurationError` if the sink cannot do what it would have to."""
        if source.takes_snapshots and not isinstance(sink, Copying):
            raise ConfigurationError(f"changes {name}: a {type(sink).__name__} takes no snapshot; a PostgresSink does")
        self.initial = initial
        self._db = db
        self._name = name
        self._sink = sink
        self._rule = rule
        self._publication, self._slot = rule.names.publication, rule.names.slot
        self._source = source
        self._once = Once()

    async def begin(self, replication: Replication, position: int) -> Ground:
        """Look for publication and slot; make them if that is allowed and loses nothing.

        Raises `StreamOverError` where going on would lose changes, `NotReadyError` with the exact SQL, and what the server does.
        """
        ground = Ground(position)
        if isinstance(self._sink, Copying):
            target = self._sink.snapshot_target()
            behind = position < target.copied_until
            ground = Ground(position, target, await target.progress.load(self._name) if behind else None)
        if self._source.tables is not None or not await self._is_there(replication):
            ground = await self._set_up(ground)
        due = ground.target is not None and ground.position == 0 and (self._source.snapshot or ground.target.due)
        return replace(ground, reads_first=due)

    async def read_first(self, replication: Replication, ground: Ground) -> Ground:
        """Read the rows that are there into the sink. Nobody may read the slot meanwhile. Raises what `InitialSnapshot` does."""
        assert ground.target is not None  # noqa: S101 - `reads_first` says so
        copied = await self.initial.read(replication, ground.target, self._name_blocker)
        return Ground(copied.origin_lsn, ground.target, copied)

    async def _is_there(self, replication: Replication) -> bool:
        """Return whether publication and slot are there: by the new session, since a pooled one may be broken."""
        state = await replication.slot_state(self._slot)
        query = sql.SQL("SELECT FROM pg_catalog.pg_publication WHERE pubname = {}").format(sql.Literal(self._publication))
        return state is not None and not state.is_lost and (await replication.conn.execute(query)).rowcount == 1

    async def _set_up(self, ground: Ground) -> Ground:
        create = self._source.create and ground.position == 0
        findings = await set_up(
            self._db, self._publication, self._slot, tables=self._source.tables, create=create, on_blocked=self._name_blocker
        )
        slot = findings.survey.slot
        if ground.position and slot is None:
            reason = f"the sink stands at {format_lsn(ground.position)}, and slot {self._slot} is gone"
            return await self._answer_loss(ground, Meaning.SLOT_MISSING, reason)
        if slot is not None and slot.is_lost:
            return await self._answer_loss(ground, Meaning.SLOT_LOST, lost_text(self._slot, slot.invalidation))
        findings.require()
        return ground

    async def _answer_loss(self, ground: Ground, meaning: Meaning, reason: str) -> Ground:
        if ground.target is None or self._source.lost == "stop":
            raise StreamOverError(self._rule.fault(meaning, reason=reason))
        if ground.position == 0 or ground.position < ground.target.copied_until:
            # It would be lost again.
            reason += ", and what was read from the tables was not caught up with yet"
            raise StreamOverError(self._rule.fault(meaning, reason=reason))
        logger.warning("changes %s: %s; all tables are read again", self._name, reason)
        # Before the sink forgets its position: a slot that is lost and a sink without one would end the stream.
        await drop_slot(self._db, self._slot)
        await ground.target.again()
        return await self._set_up(Ground(0, ground.target))

    def _name_blocker(self, fault: Fault) -> None:
        """Name who keeps a slot from being made, once, however often it is tried."""
        if self._once.news(subject=fault.hint):
            logger.info("changes %s: %s; %s", self._name, fault.reason, fault.hint)
