"""The meaning of signals to a service that is a process."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from outlast._core.phases import EXIT_QUIT
from outlast._runtime.process.last_resort import LastResort, leave
from outlast._runtime.process.signal_pipe import SignalPipe
from outlast._runtime.process.standstill import Standstill

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

STOPPED_BY: Final = (signal.SIGTERM, signal.SIGINT)
QUIT_S: Final = 1.0
"""SIGQUIT is carried out by the main thread; if that does not get to it in a second, by the last resort."""


class Signals:
    """TERM and INT stop the service, a second one hurries it, QUIT ends the process at once with exit code 131.

    The thread of the last resort sees a signal as soon as it arrives, also while the main thread is blocked. `on_signal` is
    called on the event loop. Only for the main thread; elsewhere nothing is installed.
    """

    def __init__(self, name: str, deadline_s: float, on_signal: Callable[[signal.Signals], None]) -> None:
        self.name = name
        self.arrived_at: float | None = None
        """The time at which the first TERM or INT arrived, on the monotonic clock. Written by the last resort's thread alone."""
        self.clock = Standstill()
        self.last_resort = LastResort(name, deadline_s, self.clock, self._arrived)
        self._on_signal = on_signal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pipe: SignalPipe | None = None

    def start(self) -> None:
        """Install the handlers for the running event loop, and start the thread."""
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            return
        self._pipe = SignalPipe()
        self._pipe.install({**dict.fromkeys(STOPPED_BY, self._stop), signal.SIGQUIT: self._quit})
        self.last_resort.start(self._pipe)

    def close(self) -> None:
        """End the thread, and take the handlers off again."""
        self.last_resort.close()
        if self._pipe is not None:
            self._pipe.close()

    # On the main thread, between two bytecodes.

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(number))

    def _quit(self, _number: int, _frame: FrameType | None) -> None:
        text = f"{self.name} left at once on SIGQUIT: nothing was drained, flushed or closed"
        leave(EXIT_QUIT, text, threading.main_thread().ident)

    # In the thread of the last resort.

    def _arrived(self, number: int) -> None:
        """Note a signal as it arrives."""
        if number in STOPPED_BY:
            self.arrived_at = self.arrived_at or time.monotonic()
            self.last_resort.begin()
            # The kernel may have interrupted another thread: the main thread has to wake up to run the handler.
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_nothing)
        elif number == signal.SIGQUIT:
            self.last_resort.leave_in(QUIT_S, EXIT_QUIT)


def _nothing() -> None:
    """Do nothing: the call itself wakes the event loop."""
