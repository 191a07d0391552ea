"""The rows that were there before the slot: read into the sink first, once, by the owner of the stream.

The slot is made before, so nothing is missing in between: what was committed after the slot and before the snapshot comes in
the stream as well, and is left out there. The snapshot is that of a temporary slot, so that its position is known.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, Scope
from outlast.changes._sinks.poison import StreamOverError
from outlast.changes._slot.blockers import naming_blockers
from outlast.changes._snapshot.model import SnapshotState, Source
from outlast.changes._snapshot.reader import Snapshot
from outlast.postgres.replication import format_lsn

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.changes._policies import SourcePolicy
    from outlast.changes._slot.troubles import Names
    from outlast.changes._snapshot.model import SnapshotTarget
    from outlast.changes._snapshot.reader import TableProgress
    from outlast.postgres import Postgres
    from outlast.postgres.replication import Replication

SLOT_WAIT_S: Final = 60.0
"""For the transactions that are open; whoever they are is named, and then it is tried again."""
REMIND_S: Final = 10.0
"""The first line about how far it is; each further one after twice as long."""
logger = logging.getLogger("outlast.changes")


class InitialSnapshot:
    """Reads the tables of a publication for the stream `name`, and logs how far it is."""

    def __init__(self, db: Postgres, names: Names, name: str, source: SourcePolicy, *, schema: str) -> None:
        """Describe it; nothing is dialled."""
        self._db = db
        self._publication = names.publication
        self._slot = names.slot
        self._name = name
        self._source = source
        self._schema = schema
        self._snapshot: Snapshot | None = None

    @property
    def progress(self) -> tuple[TableProgress, ...]:
        """The progress of each table; () if this process has read none."""
        return () if self._snapshot is None else self._snapshot.progress()

    async def read(
        self, replication: Replication, target: SnapshotTarget, on_blocked: Callable[[Fault], None] | None = None
    ) -> SnapshotState:
        """Read what is left, and let the sink go on from where the slot stands; return the state that says what it has.

        Nobody may read the slot meanwhile: what is sent to somebody else does not come again, and is missing in the sink. That is
        noticed, and raises `StreamOverError`. Raises what the sink, the server and the snapshot raise: begin again then.
        """
        origin = await self._confirmed(replication)
        snapshot = self._snapshot = Snapshot(
            self._db,
            self._publication,
            stream=self._name,
            into=target,
            progress=target.progress,
            workers=self._source.snapshot_workers,
            keys_change=self._source.keys_change,
            schema=self._schema,
        )
        # Named after the session, so that one which another session has left behind is not in the way.
        temporary = f"{self._slot[:40]}_read_{replication.backend_pid}"
        async with naming_blockers(self._db, replication.backend_pid, temporary, on_blocked):
            made = await replication.create_slot(temporary, temporary=True, timeout_s=SLOT_WAIT_S)
        assert made.snapshot is not None  # noqa: S101 - exported unless asked otherwise
        logging_it = asyncio.create_task(self._log(snapshot), name=f"progress of the snapshot of {self._name}")
        try:
            tables = await snapshot.run(origin, Source(made.consistent_lsn, made.snapshot))
        finally:
            logging_it.cancel()
            await asyncio.wait({logging_it})
        await replication.drop_slot(temporary)
        if (now := await self._confirmed(replication)) != origin:
            reason = f"slot {self._slot} was read by somebody else while the tables were copied: it stands at {format_lsn(now)}"
            hint = f"end whoever reads it past the lock, drop it (outlast changes drop {self._slot}), and start again"
            raise StreamOverError(Fault(Kind.PERMANENT, "slot moved", reason, self._db.name, Scope.CALL, hint=hint))
        await target.finish(origin, tables)
        rows = sum(table.rows for table in tables)
        logger.info("changes %s: read %d tables, %d rows; what changed since follows", self._name, len(tables), rows)
        return SnapshotState(origin, tables)

    async def _confirmed(self, replication: Replication) -> int:
        state = await replication.slot_state(self._slot)
        return 0 if state is None else state.confirmed_lsn or 0

    async def _log(self, snapshot: Snapshot) -> None:
        pause_s = REMIND_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s *= 2
            tables = snapshot.progress()
            done = sum(table.ranges_done == table.ranges for table in tables)
            rows, estimated = sum(table.rows for table in tables), sum(table.rows_estimated for table in tables)
            logger.info(
                "changes %s: reading what is there: %d of %d tables, %d of about %d rows",
                self._name,
                done,
                len(tables),
                rows,
                max(rows, estimated),
            )
