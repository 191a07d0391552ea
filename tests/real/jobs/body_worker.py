"""A worker process whose handlers run in all three ways; each job writes to a log outside the database when it ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import outlast
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres

jobs = Jobs(Postgres(os.environ["WORKER_DSN"]), journal_path=os.environ["WORKER_JOURNAL"], lease_s=5.0)
service = outlast.Service("worker", deadline_s=5.0)
TIMEOUT_S = float(os.environ.get("WORKER_TIMEOUT_S", "30"))


def write(word: str, job: Job) -> None:
    """One write, so that lines of several processes do not mix."""
    log = os.open(os.environ["WORKER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"{word} {job.id} {job.attempt}\n".encode())
    os.close(log)


@jobs.handler("good")
async def good(job: Job) -> int:
    """Do nothing else."""
    write("good", job)
    return job.attempt


@jobs.handler("block", timeout_s=TIMEOUT_S)
def block(job: Job) -> int:
    """Block a thread for a second."""
    write("begun", job)
    time.sleep(1.0)
    write("block", job)
    return job.attempt


@jobs.handler("hang")
def hang(job: Job) -> int:
    """Block a thread until somebody opens the door."""
    write("begun", job)
    while not Path(job.payload).exists():
        time.sleep(0.05)
    write("hang", job)
    return job.attempt


@jobs.handler("finish")
async def finish(job: Job) -> int:
    """End in the middle of the outage: as soon as the database is known to be away."""
    write("begun", job)
    while jobs.db.passable:
        await asyncio.sleep(0.05)
    write("finish", job)
    return job.attempt


@jobs.handler("die", process=True, backoff=outlast.Backoff(0.01, 0.02))
def die(job: Job) -> int:
    """End the child process in the first attempt."""
    if job.attempt == 1:
        write("died", job)
        os._exit(3)
    write("die", job)
    return job.attempt


jobs.work(service, workers=20)

if __name__ == "__main__":
    sys.exit(outlast.run(service))
