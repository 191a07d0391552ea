"""A program with two jobs in child processes, to be killed: their handlers stand in the program itself."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from pathlib import Path

from outlast.jobs import Job
from outlast.jobs._importable import Home
from outlast.jobs._processes import ChildProcesses


def hang(job: Job) -> None:
    """Say who it is, and wait, with the interpreter lock or without."""
    with Path(job.payload).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    if job.id == 1:
        ctypes.PyDLL(None).sleep(600)
    time.sleep(600)


async def main() -> None:
    """Have two at once."""
    children = ChildProcesses(lambda: {"hang": Home("__main__", "hang")}, result_bytes_max=1_000)
    await asyncio.gather(*(children.run(Job(number, "hang", sys.argv[1], 1, 3), None) for number in (1, 2)))


if __name__ == "__main__":
    asyncio.run(main())
