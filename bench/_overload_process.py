"""A server process of `overload.py`, `admission.py`, `streams_http.py` and the benches of tables, and its processor time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    port: int
    pid: int

    @property
    def resident_mib(self) -> float:
        """Return the memory that it holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def server(arm: str, dsn: str | None = None) -> AbstractContextManager[Running]:
    """Run the server of an arm until the block ends; with `dsn` it stores its orders there."""
    return listening("_overload_server.py", arm, *([] if dsn is None else ["--dsn", dsn]))


@contextmanager
def listening(program: str, arm: str, *arguments: str) -> Iterator[Running]:
    """Run one arm of a program of this folder, which says when it listens, until the block ends."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, str(HERE / program), arm, "--port", str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("listening"):
            sys.exit(f"bench: the server of {arm} did not start")
        try:
            yield Running(port, process.pid)
        finally:
            process.kill()


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that a process has spent, user and system, of all its threads."""
    # The clock of another process has the number that clock_getcpuclockid(3) makes of its id.
    return time.clock_gettime((~pid << 3) | 2)
