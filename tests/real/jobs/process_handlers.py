"""Handlers for child processes: they are imported there, so they stand at the top level of a module."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outlast

if TYPE_CHECKING:
    from outlast.jobs import Job


def alive(pid: int) -> bool:
    """Whether a process lives; one that has ended, and that nobody has asked about, does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    return False


def describe(job: Job) -> dict[str, Any]:
    """Say what can be seen of a job, and of the process that it is in."""
    sys.stdout.write(f"written by job {job.id}\n")
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "job": [job.kind, job.payload, job.attempt, job.attempts_max, job.unique_key],
        "deadline": None if job.deadline_at is None else job.deadline_at.isoformat(),
        "sockets": sum("socket:" in str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()),
        "argv": sys.argv[0],
    }


def signals(job: Job) -> str:
    """Live on after the signals that a terminal or a service manager sends to all processes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return "alive"


def spin(job: Job) -> int:
    """Hold the interpreter, without a word of C, until somebody says in a file that it is enough."""
    turns = 0
    while not Path(job.payload).exists():
        turns += 1
    return turns


def hold(job: Job) -> None:
    """Hold the interpreter lock in C, for longer than anybody waits; a program of its own runs beside."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(job.payload).write_text(f"{os.getpid()} {child.pid}", encoding="ascii")
    ctypes.PyDLL(None).sleep(600)


def leave(job: Job) -> int:
    """End the process in the first attempt, in the way that the payload says."""
    if job.attempt > 1:
        return job.attempt
    match job.payload:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sys.exit":
            sys.exit(3)
        case "fork":
            if os.fork() == 0:
                return -1
            os.wait()
    return job.attempt


def fail(job: Job) -> Any:
    """Raise, or return, what the payload says."""
    match job.payload:
        case "bug":
            return {}["no such key"]
        case "refused":
            fault = outlast.Fault(outlast.Kind.TRANSIENT, "timeout", "t", "payments")
            raise outlast.Unavailable("payments", fault, 1.0, 7.0)
        case "reset":
            raise ConnectionResetError(104, "reset by peer")
        case "shop":
            raise LookupError("no such order")
        case "no json":
            return object()
        case "large":
            return "x" * 1_000_000
    return job.payload


def note(job: Job) -> Any:
    """Give the payload back."""
    return job.payload
