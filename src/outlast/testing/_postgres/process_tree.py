"""The children of a process, found without a third-party package."""

import contextlib
import os
import signal
import subprocess

from outlast._runtime.process import proc as process_files


def children_of(pid: int) -> list[int]:
    """Return the process ids of those that live whose parent is `pid` now."""
    if process_files.readable():
        return [child.pid for child in process_files.children(pid)]
    return [child for child, parent in _pairs_from_ps() if parent == pid]


def signal_each(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process; one that is gone already is no failure."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _pairs_from_ps() -> list[tuple[int, int]]:
    command = ["ps", "-A", "-o", "pid=,ppid="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    rows = (line.split() for line in listing.stdout.splitlines())
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 2]
