"""The arm *outlast* of the electric drill: `outlast.changes` with its default settings."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING

import outlast
from outlast._drill.electric.arms.stream_service import NAME
from outlast._drill.lab.arm.built import run_built
from outlast._drill.lab.worklog import STREAM_LOOP
from outlast.changes import Changes, Insert
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast._drill.lab.arm.service import ArmSettings
    from outlast._drill.lab.worklog import WorkLog
    from outlast.changes import Transaction, TransactionPart


class LogSink:
    """Writes each change into the work log. The slot keeps the position, so that changes may come twice after a fault."""

    def __init__(self, work_log: WorkLog) -> None:
        self._work_log = work_log
        self._lsn = 0

    async def open(self, stream: str, epoch: int) -> int:
        """Return 0: it has no position of its own."""
        del stream, epoch
        self._lsn = 0
        return 0

    async def write(self, delivery: Transaction | TransactionPart) -> None:
        """Note the changes."""
        for change in delivery.changes:
            if isinstance(change, Insert):
                self._work_log.end(STREAM_LOOP, int(str(change.new[0])))
        self._lsn = delivery.end_lsn or self._lsn

    async def flush(self) -> int:
        """Return the last position: the changes are in the file already."""
        return self._lsn

    async def close(self) -> None:
        """Do nothing: no file is kept open."""


def build(settings: ArmSettings, work_log: WorkLog) -> outlast.Service:
    """Return the service: the stream, and as many ticking loops as the other arms have."""
    db = Postgres(settings.dsn, rng=random.Random(settings.seed))
    service = outlast.Service("drill")
    Changes(db, NAME, sink=LogSink(work_log)).attach(service)
    for number in range(settings.loops):
        service.loop(name=f"tick {number}")(_tick(number, settings.work_s, work_log))
    return service


def _tick(number: int, work_s: float, work_log: WorkLog) -> Callable[[outlast.Stop], Awaitable[None]]:
    async def tick(stop: outlast.Stop) -> None:
        del stop
        await asyncio.sleep(work_s)
        work_log.end(number, 0)

    return tick


if __name__ == "__main__":
    sys.exit(run_built(build))
