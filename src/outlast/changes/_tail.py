"""A look at what changes from now on, through a slot that lives as long as the look: nothing is kept or left behind."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from outlast.changes._decoding.decoder import Decoder
from outlast.changes._decoding.transactions import Assembler
from outlast.changes._own_tables import OwnTables
from outlast.changes._pump import Pump
from outlast.changes._sinks.poison import Poison
from outlast.changes._slot.troubles import Names, ReplicationRule
from outlast.changes._stream import options_of
from outlast.postgres.replication import Replication

if TYPE_CHECKING:
    from outlast import Stop
    from outlast.changes._sinks.port import Sink
    from outlast.postgres import Postgres


async def tail(db: Postgres, publication: str, sink: Sink, stop: Stop, *, typed: bool = False, schema: str = "outlast") -> None:
    """Pass to `sink` what is published from now on, until the stop is fired; our own tables in `schema` are left out.

    The slot is temporary: the server drops it with the session, also when this process is killed. So a session that ends is
    the end: raises the driver's errors, with their faults. Nobody else's stream is touched.
    """
    slot = f"outlast_tail_{os.getpid()}_{secrets.token_hex(4)}"
    rule = ReplicationRule(Names(slot, publication, db.dsn.user))
    async with await Replication.connect(db, application_name="outlast changes tail", rule=rule) as session:
        created = await session.create_slot(slot, temporary=True, snapshot="nothing")
        await session.start(slot, created.consistent_lsn, options_of(publication, streaming=False))
        await sink.open(slot, 0)
        assembler = Assembler(Decoder(1, typed=typed, left_out=OwnTables(schema)))
        try:
            poison = Poison(slot, db.classifiers)
            await Pump(sink, poison, created.consistent_lsn).run(session, assembler, stop)
        finally:
            assembler.close()
            await sink.close()
