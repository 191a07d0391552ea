"""Keeps an arm's queue filled, so that every loop always has work, without ever piling up more than a few seconds of it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._drill.coder.stores import JobStore
    from outlast._drill.lab.target import PostgresTarget

_TICK_S = 0.1
_BACKLOG_LOOPS = 4
_BACKLOG_MIN = 200
_BACKLOG_S = 1.0
"""The backlog aims at four jobs a loop, 200 at least, or one second of work at the present rate if that is more."""


class Feeder:
    """A thread that enqueues past the proxy. Paused while the harness's own way to the server is cut off."""

    def __init__(self, store: JobStore, target: PostgresTarget, loops: int, ended: Callable[[], int]) -> None:
        """Feed `store` for `loops` loops; `ended` says how many jobs have been worked off so far."""
        self.enqueued = 0
        self._store = store
        self._target = target
        self._loops = loops
        self._ended = ended
        self._ended_before = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._paused = False
        self._failure: BaseException | None = None
        self._conn: psycopg.Connection[tuple[object, ...]] | None = None
        self._thread = threading.Thread(target=self._run, name="drill-feeder", daemon=True)

    def start(self) -> None:
        """Enqueue the first backlog, then keep it up in the background."""
        self._top_up(max(_BACKLOG_MIN, _BACKLOG_LOOPS * self._loops))
        self._thread.start()

    def pause(self) -> None:
        """Stop enqueueing; return when no enqueue is in progress and the connection is closed."""
        with self._lock:
            self._paused = True
            self._close()

    def resume(self) -> None:
        """Go on enqueueing."""
        with self._lock:
            self._paused = False

    def stop(self) -> None:
        """End the thread; raises what it failed with, if it failed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(_TICK_S):
                with self._lock:
                    if not self._paused:
                        self._step()
        except BaseException as exc:  # noqa: BLE001  raised again by stop()
            self._failure = exc

    def _step(self) -> None:
        ended = self._ended()
        rate = (ended - self._ended_before) / _TICK_S
        self._ended_before = ended
        aim = max(_BACKLOG_MIN, _BACKLOG_LOOPS * self._loops, int(rate * _BACKLOG_S))
        missing = aim - (self.enqueued - ended)
        if missing >= aim // 4:
            self._top_up(missing)

    def _top_up(self, count: int) -> None:
        if self._conn is None:
            self._conn = self._target.connect()
        self._store.enqueue(self._conn, self.enqueued + 1, self.enqueued + count)
        self.enqueued += count

    def _close(self) -> None:
        if self._conn is not None:
            with contextlib.suppress(psycopg.Error):
                self._conn.close()
            self._conn = None
