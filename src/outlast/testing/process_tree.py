"""The children of a process, found without a third-party package."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

_PROC = Path("/proc")


def children_of(pid: int) -> list[int]:
    """Return the process ids whose parent is `pid` now."""
    pairs = _pairs_from_proc() if (_PROC / "self" / "stat").exists() else _pairs_from_ps()
    return [child for child, parent in pairs if parent == pid]


def signal_each(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process; one that is gone already is no failure."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _pairs_from_proc() -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            # The command name stands in parentheses and may itself hold spaces and parentheses.
            pairs.append((int(entry.name), int(stat.rpartition(")")[2].split()[1])))
    return pairs


def _pairs_from_ps() -> list[tuple[int, int]]:
    command = ["ps", "-A", "-o", "pid=,ppid="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    rows = (line.split() for line in listing.stdout.splitlines())
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 2]
