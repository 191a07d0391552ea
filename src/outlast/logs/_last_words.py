"""Lines for a standard stream that perhaps nobody reads: written within a bounded time, or not at all."""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S: Final = 0.5
"""The time that a last word may take. A reader that is only slow takes it within milliseconds."""
STDERR: Final = 2


def bounded(act: Callable[[], object], seconds: float = WAIT_S) -> bool:
    """Call `act` in a thread of its own, and wait at most `seconds`; return whether it has ended. What it raises is dropped.

    There is no safe way to write from the thread that must not wait. O_NONBLOCK belongs to the open file and not to the
    descriptor: setting it would change it for the shell and for every process that shares the file. And a write may block
    although `poll` has found room, because another process has taken the room meanwhile. Nobody needs to wait for this thread:
    the end of the process leaves it behind.

    May be called from a signal handler. That is why it uses `_thread`: the handler may have interrupted `threading` while that
    holds its lock.
    """
    helper = Helper.start()
    return helper is not None and helper.does(act, seconds)


class Helper:
    """A thread that waits for one act. When the interpreter ends, Python 3.12 starts none any more: have one before."""

    def __init__(self) -> None:
        """Not yet a thread; see `start`."""
        self._act: Callable[[], object] = bool
        self._begun, self._done = _thread.allocate_lock(), _thread.allocate_lock()
        self._begun.acquire()
        self._done.acquire()

    @classmethod
    def start(cls) -> Helper | None:
        """Return one that waits, or None where no thread can be had."""
        helper = cls()
        try:
            _thread.start_new_thread(helper._run, ())
        except RuntimeError:
            return None
        return helper

    def _run(self) -> None:
        with self._begun, contextlib.suppress(BaseException):
            self._act()
        self._done.release()

    def does(self, act: Callable[[], object], seconds: float) -> bool:
        """Let it call `act`, once in its life; return whether that has ended within `seconds`."""
        self._act = act
        self._begun.release()
        return self._done.acquire(timeout=seconds)


def say(text: str, seconds: float = WAIT_S) -> bool:
    """Write a line, or several, to standard error past every buffer and lock; return whether that took at most `seconds`.

    At most `PIPE_BUF` bytes at a time: such a write to a pipe is whole or does not happen.
    """
    data = f"{text}\n".encode(errors="backslashreplace")
    written = 0

    def write() -> None:
        nonlocal written
        # Without room the thread ends here: where the process lives on, no thread may be left behind for each line.
        while written < len(data) and _has_room(STDERR, seconds):
            written += os.write(STDERR, data[written : written + select.PIPE_BUF])

    helper = Helper.start()
    if helper is None:
        # Rather a write that may hang, where another process takes the room meanwhile, than a count that nobody hears of.
        with contextlib.suppress(OSError):
            write()
    else:
        helper.does(write, seconds)
    return written == len(data)


def _has_room(fd: int, seconds: float) -> bool:
    room = select.poll()
    room.register(fd, select.POLLOUT)
    return bool(room.poll(seconds * 1000))


def flush_streams(helper: Helper, seconds: float = 0.2) -> bool:
    """Flush standard output and standard error, for at most `seconds`; return whether the process can end by itself.

    The interpreter flushes them when it ends, and would wait forever for a reader that has stopped. So a stream without
    room is sent to /dev/null from here on: what is left in its buffer is lost. False means that another thread stands in a
    write and holds the stream; then the interpreter cannot end, and the process has to leave.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if _let_go(stream, seconds)]
    return helper.does(lambda: deque(stream.flush() for stream in streams), seconds)


def _let_go(stream: TextIO, seconds: float) -> bool:
    """Send a stream without room to /dev/null; return whether it has a file at all, and so may hang."""
    try:
        fd = stream.fileno()
        if not _has_room(fd, seconds):
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(null, fd)
            os.close(null)
    except (AttributeError, OSError, ValueError):
        # There is none, or it is closed.
        return False
    return True
