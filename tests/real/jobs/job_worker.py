"""A worker process of the crash tests: each job writes to a log outside the database when it ends."""

from __future__ import annotations

import asyncio
import os
import sys

import outlast
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres

db = Postgres(os.environ["WORKER_DSN"])
jobs = Jobs(db, journal_path=os.environ["WORKER_JOURNAL"], lease_s=float(os.environ.get("WORKER_LEASE_S", "1.0")))
service = outlast.Service("worker", deadline_s=3.0)


def write(word: str, job: Job) -> None:
    """One write, so that lines of several processes do not mix."""
    log = os.open(os.environ["WORKER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"{word} {job.id} {job.attempt}\n".encode())
    os.close(log)


@jobs.handler("sleep", attempts_max=50)
async def sleep(job: Job) -> dict[str, int]:
    """Take the time that the job asks for."""
    write("start", job)
    await asyncio.sleep(job.payload["seconds"])
    write("end", job)
    return {"attempt": job.attempt}


@jobs.handler("note")
async def note(job: Job) -> dict[str, int]:
    """Do nothing, and say what for."""
    write("start", job)
    return {"number": job.payload}


@jobs.handler("odd")
async def odd(job: Job) -> dict[str, float]:
    """Return what no JSON is."""
    write("start", job)
    return {"score": float("nan")}


jobs.work(service, workers=10)

if __name__ == "__main__":
    sys.exit(outlast.run(service))
