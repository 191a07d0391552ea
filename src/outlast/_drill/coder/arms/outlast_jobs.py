"""The arm *outlast*: `outlast.jobs` with its default settings."""

from __future__ import annotations

import asyncio
import functools
import random
import sys
from typing import TYPE_CHECKING

import outlast
from outlast._drill.coder.arms import ledger
from outlast._drill.lab.arm.built import run_built
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from outlast._drill.lab.arm.service import ArmSettings
    from outlast._drill.lab.worklog import WorkLog

KIND = "drill_job"
PAYMENT_KIND = "drill_payment"


def build(settings: ArmSettings, work_log: WorkLog) -> outlast.Service:
    """Return the service: as many workers as the other arms have loops, a handler that needs a second service, the ledger."""
    db = Postgres(settings.dsn, rng=random.Random(settings.seed))
    payments = outlast.Dependency("payments", probe=functools.partial(_pay, settings.payments_port))
    jobs = Jobs(db, journal_path=settings.state / "outcomes.journal")
    service = outlast.Service("drill")

    @jobs.handler(KIND)
    async def drill_job(job: Job) -> None:
        number = int(job.payload["job"])
        work_log.start(job.worker, number)
        await asyncio.sleep(settings.work_s)
        work_log.end(job.worker, number)

    @jobs.handler(PAYMENT_KIND, needs=payments)
    async def drill_payment(job: Job) -> None:
        number = int(job.payload["job"])
        work_log.start(job.worker, number)
        async with payments.use():
            await _pay(settings.payments_port)
        work_log.end(job.worker, number)

    @service.loop(needs=db, workers=ledger.LOOPS, every_s=ledger.PAUSE_S)
    async def keep_ledger(stop: outlast.Stop) -> None:
        del stop
        async with db.connection() as conn:
            await ledger.write(conn)

    jobs.work(service, workers=settings.loops)
    return service


async def _pay(port: int) -> None:
    """Ask the second service for its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if not await reader.readline():
            msg = "the payments service closed the connection without an answer"
            raise ConnectionResetError(msg)
    finally:
        writer.close()


if __name__ == "__main__":
    sys.exit(run_built(build))
