"""Signals as something a selector can wait for."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_KEPT_MAX: Final = 256


class Alarm:
    """Keeps the signals that came, in order, and makes `fd` readable. Only for the main thread.

    What was ignored when we were started stays ignored, as `nohup` wants it. SIGCHLD only wakes.
    """

    def __init__(self) -> None:
        self._came: deque[int] = deque(maxlen=_KEPT_MAX)
        self._before: dict[int, Any] = {}
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._fd_before = -1

    @property
    def fd(self) -> int:
        """Readable when a signal has come."""
        return self._read.fileno()

    def install(self) -> None:
        """Begin to take signals, and remember the handlers that were there."""
        self._fd_before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN or number == signal.SIGCHLD:
                self._before[number] = signal.signal(number, self._keep)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number != signal.SIGCHLD:
            self._came.append(number)

    def taken(self) -> list[int]:
        """Return the signals that came since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            while self._read.recv(4096):
                pass
        came: list[int] = []
        while self._came:
            came.append(self._came.popleft())
        return came

    def uninstall(self) -> None:
        """Put back what was there."""
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd_before)
        self._read.close()
        self._write.close()
