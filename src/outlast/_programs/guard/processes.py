"""The program as a process of its own session: started without a shell, reaped, and everything it started found and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast._programs.guard.supervisor import NOT_EXECUTABLE, NOT_FOUND
from outlast._runtime.process import proc as process_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outlast._runtime.process.signal_pipe import Handler

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
"""Of linux/prctl.h."""


FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
"""Signals that the program gets when the guard does."""


def handlers() -> Mapping[signal.Signals, Handler]:
    """Return a handler that does nothing for each signal that is to reach the guard: what is forwarded, and SIGCHLD.

    What was ignored when we were started stays ignored, as `nohup` wants it.
    """
    taken = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    return dict.fromkeys((*taken, signal.SIGCHLD), lambda _number, _frame: None)


class NotStartedError(Exception):
    """The program could not be started: the exit code a shell would give, and the reason in one line."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _prctl() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        call = ctypes.PyDLL(None).prctl
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_ulong)
    call.restype = ctypes.c_int
    return call


_PRCTL: Final = _prctl()


def ensure_standard_descriptors() -> None:
    """Open /dev/null where stdin, stdout or stderr was closed: a log file must not become somebody's stdout."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, and all below are taken already.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)


def adopt_orphans() -> bool:
    """Become the parent of every descendant that loses its own (Linux); return whether that worked."""
    return _PRCTL is not None and _PRCTL(_PR_SET_CHILD_SUBREAPER, 1) == 0


def _end_with_the_guard() -> None:
    """Ask the kernel, between fork and exec, for a SIGTERM when the guard is gone, even by SIGKILL.

    The function was bound before the fork; nothing is imported and no lock is taken here.
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Program:
    """One run of the program. Its stdin is ours; its stdout and stderr are pipes that we read."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it in a session and process group of its own; raises NotStartedError."""
        try:
            self._process = subprocess.Popen(
                list(command),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                preexec_fn=_end_with_the_guard if _PRCTL is not None else None,  # noqa: PLW1509 - see there
            )
        except FileNotFoundError as error:
            raise NotStartedError(NOT_FOUND, _why_not_found(command[0])) from error
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise NotStartedError(NOT_EXECUTABLE, f"cannot run {command[0]!r}: {reason}") from error
        self.pid = self._process.pid
        self.outputs: list[int] = [pipe.fileno() for pipe in (self._process.stdout, self._process.stderr) if pipe is not None]
        for fd in self.outputs:
            os.set_blocking(fd, False)
            _widen(fd)

    def is_open(self, index: int) -> bool:
        """Return whether our end of its stdout (0) or stderr (1) is open."""
        pipe = (self._process.stdout, self._process.stderr)[index]
        return pipe is not None and not pipe.closed

    def close(self, index: int) -> None:
        """Close our end of its stdout (0) or stderr (1)."""
        pipe = (self._process.stdout, self._process.stderr)[index]
        if pipe is not None:
            pipe.close()

    def send(self, number: int, *, group: bool) -> None:
        """Send a signal to it, or to its group; one that is gone already is no failure."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self.pid, number)
            elif self._process.returncode is None:
                os.kill(self.pid, number)

    def note_end(self, status: int) -> None:
        """Keep what `reap` found, so that the process is not waited for again."""
        self._process.returncode = status


def _why_not_found(name: str) -> str:
    if os.sep not in name:
        return f"cannot run {name!r}: there is no such program on PATH"
    return (
        f"cannot run {name!r}: there is no such file"
        if not Path(name).exists()
        else f"cannot run {name!r}: its interpreter is missing"
    )


def _widen(fd: int) -> None:
    """Let the pipe hold 1 MiB where the system allows it, so that a burst does not wait for us."""
    if sys.platform.startswith("linux"):
        import fcntl  # noqa: PLC0415 - not on every system

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)


def reap() -> dict[int, int]:
    """Take note of every child that has ended, adopted ones included: process id and exit code, or minus the signal's number."""
    found: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found[pid] = os.waitstatus_to_exitcode(status)
    return found


def descendants(root: int) -> list[int]:
    """Return the living processes below `root`; without a /proc of ours none, and a group is all that can be signalled."""
    if not process_files.readable():
        return []
    with contextlib.suppress(OSError):
        return [process.pid for process in process_files.below([root])]
    return []


def sweep(group: int, number: int) -> None:
    """Send a signal to all that the program started: our descendants wherever they went; its group where there is no /proc."""
    below = descendants(os.getpid())
    if group in below or not process_files.readable():
        # While its leader is there, the group's number cannot belong to anybody else; no fork escapes a signal to a group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for pid in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group not in below or os.getpgid(pid) != group:
                os.kill(pid, number)


def cpu_s_of(pids: Sequence[int]) -> dict[int, float]:
    """Return the processor seconds used so far by each process that can be read."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    found: dict[int, float] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            seen = process_files.stat(pid)
            if seen is not None:
                found[pid] = seen.cpu_ticks / ticks_per_s
    return found
