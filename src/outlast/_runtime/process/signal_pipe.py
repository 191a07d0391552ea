"""Signals as bytes in a pipe: something that a selector, a poll or a thread can wait for."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]


class SignalPipe:
    """Has the number of each signal as soon as it arrives, also while the main thread is blocked.

    `install` and `close` are for the main thread; `read` and `ring` for any. The pipe is the one wake-up descriptor of the
    process, so there is one at a time. What does not fit into it (64 KiB on Linux) wakes nobody the more, and is dropped.
    """

    def __init__(self) -> None:
        # `fd` is readable when something has come.
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._before: dict[int, Any] = {}
        self._fd_before: int | None = None

    def install(self, handlers: Mapping[signal.Signals, Handler]) -> None:
        """Handle these signals: each comes to the pipe, and its handler is called between two bytecodes of the main thread."""
        self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number, handler in handlers.items():
            self._before[number] = signal.signal(number, handler)

    def read(self) -> bytes:
        """Return the numbers that came since the last call, in order, at most 4096 of them."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.fd, 4096)
        return b""

    def ring(self, number: int) -> None:
        """Put in a number that no signal has."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, bytes([number]))

    def close(self) -> None:
        """Put back what was there before."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        if self._fd_before is not None:
            signal.set_wakeup_fd(self._fd_before, warn_on_full_buffer=False)
        os.close(self.fd)
        os.close(self._write)
