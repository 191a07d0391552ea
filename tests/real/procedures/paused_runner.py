"""A runner in a process of its own, which a test stops in the middle of a step and lets go on.

It is given a store, a journal and a log. Each step appends a line to the log as it begins, ends, or is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from killed_runner import database

import outlast
from outlast.procedures import Procedure, Procedures, Run

LEASE_S = 1.0


def work(log: str) -> Procedure:
    made = Procedure("work", attempts_max=5)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(what: str, run: Run) -> None:
        os.write(file, json.dumps({"what": what, "pid": os.getpid(), "id": run.id, "token": run.token}).encode() + b"\n")

    @made.step
    async def hold(run: Run) -> int:
        note("begin", run)
        try:
            # The first who has it holds it until it is stopped, and long after.
            await asyncio.sleep(60.0 if run.payload == "long" and run.token == 1 else 0.01)
        except asyncio.CancelledError:
            note("cancelled", run)
            raise
        note("end", run)
        return run.token

    return made


async def run(store: str, journal: str, log: str) -> None:
    db = database(store)
    procedures = Procedures(db, [work(log)], journal_path=journal, lease_s=LEASE_S, poll_s=0.1)
    service, stop = outlast.Service("paused", deadline_s=5.0), outlast.Stop()
    procedures.attach(service)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.fire, "told to")
    await service.run(stop)
    await db.close()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
