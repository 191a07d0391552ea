"""The arm *outlast*: `outlast.jobs` with its default settings."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING

import outlast
from outlast.drill.arms.built import run_built
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from outlast.drill.arms.service import ArmSettings
    from outlast.drill.worklog import WorkLog

KIND = "drill_job"


def build(settings: ArmSettings, work_log: WorkLog) -> outlast.Service:
    """The service: one handler, as many worker loops as the other arms have loops."""
    db = Postgres(settings.dsn, rng=random.Random(settings.seed))
    jobs = Jobs(db, journal_path=settings.state / "outcomes.journal")
    service = outlast.Service("drill")

    @jobs.handler(KIND)
    async def drill_job(job: Job) -> None:
        number = int(job.payload["job"])
        work_log.start(job.worker, number)
        await asyncio.sleep(settings.work_s)
        work_log.end(job.worker, number)

    jobs.work(service, workers=settings.loops)
    return service


if __name__ == "__main__":
    sys.exit(run_built(build))
