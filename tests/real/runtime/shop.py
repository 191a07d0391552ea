"""The service that the tests of this folder run as a process of its own: jobs and a plain loop on one PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import sys

import outlast
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres

db = Postgres(os.environ["SHOP_DSN"])
jobs = Jobs(db, journal_path=os.environ["SHOP_JOURNAL"], lease_s=5.0)
service = outlast.Service("shop", deadline_s=3.0)


@jobs.handler("sleep")
async def sleep(job: Job) -> None:
    """Take the time that the job asks for."""
    await asyncio.sleep(job.payload["seconds"])


@service.loop(needs=db, workers=10)
async def ask(stop: outlast.Stop) -> None:
    """Keep ten connections busy."""
    async with db.connection() as conn:
        await conn.execute("SELECT pg_sleep(0.05)")


jobs.work(service, workers=50)

if __name__ == "__main__":
    code = outlast.run(service)
    sys.stderr.write(f"cancel requests: {db.cancels}\n")
    sys.exit(code)
