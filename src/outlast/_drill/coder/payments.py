"""A second thing that jobs need: a service on a port of its own, away for the middle half of a run."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final, Self

from outlast.testing import free_port

if TYPE_CHECKING:
    from types import TracebackType

ANSWER: Final = b"paid\n"
AWAY_FROM: Final = 0.25
AWAY_UNTIL: Final = 0.75
"""It is away between these parts of the run: it goes before or during the fault, and is back after it or late in it."""
_ACCEPT_S: Final = 0.05


class Payments:
    """A thread that answers whoever connects, but for the middle half of `run_s` seconds: then nobody listens."""

    def __init__(self, run_s: float) -> None:
        """Describe it; `with` starts it, `begin` starts the run's clock."""
        self.port = free_port()
        self._run_s = run_s
        self._begun = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drill-payments", daemon=True)
        self._clock = threading.Thread(target=self._keep_time, name="drill-payments-clock", daemon=True)
        self._away = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._clock.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._begun.set()
        self._thread.join()
        self._clock.join()

    def begin(self) -> None:
        """Begin the run of which it is away for the middle half."""
        self._begun.set()

    def leave(self) -> None:
        """Listen no more."""
        self._away.set()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._away.clear()

    def _keep_time(self) -> None:
        self._begun.wait()
        if not self._stop.wait(self._run_s * AWAY_FROM):
            self.leave()
            self._stop.wait(self._run_s * (AWAY_UNTIL - AWAY_FROM))
            self.come_back()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._away.is_set():
                self._stop.wait(_ACCEPT_S)
                continue
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen()
                listener.settimeout(_ACCEPT_S)
                self._serve(listener)

    def _serve(self, listener: socket.socket) -> None:
        while not (self._stop.is_set() or self._away.is_set()):
            with contextlib.suppress(TimeoutError):
                conn, _ = listener.accept()
                with conn, contextlib.suppress(OSError):
                    conn.sendall(ANSWER)
