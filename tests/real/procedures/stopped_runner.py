"""A runner whose one step writes down, outside the store, that it was begun and done; at its end it says what memory it took."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import outlast
from outlast.postgres import Postgres
from outlast.procedures import Procedure, Procedures, Run

service = outlast.Service("runner", deadline_s=5.0)
work = Procedure("work")
STEP_S = float(os.environ["RUNNER_STEP_S"])
LEASE_S = float(os.environ.get("RUNNER_LEASE_S", "30"))


def write(word: str, run: Run) -> None:
    log = os.open(os.environ["RUNNER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"{word} {run.key} {run.token}\n".encode())
    os.close(log)


@work.step
async def note(run: Run) -> str:
    """Take the time that it is told to."""
    write("begun", run)
    await asyncio.sleep(STEP_S)
    write("done", run)
    return run.key


procedures = Procedures(Postgres(os.environ["RUNNER_DSN"]), [work], journal_path=os.environ["RUNNER_JOURNAL"], lease_s=LEASE_S)
procedures.attach(service)

if __name__ == "__main__":
    code = outlast.run(service)
    # Of this program alone: `ru_maxrss` counts what its parent had when it was started, too.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sys.stdout.write(f"maxrss {next(line.split()[1] for line in status if line.startswith('VmHWM'))}\n")
    sys.stdout.flush()
    sys.exit(code)
