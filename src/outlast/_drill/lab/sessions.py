"""The number of sessions that the arm has on its server: counted by a session of the harness, while the fault lasts."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final, Self

import psycopg

from outlast._drill.lab.target import HARNESS_NAME

if TYPE_CHECKING:
    from types import TracebackType

    from outlast._drill.lab.target import PostgresTarget

_EVERY_S: Final = 0.1
_SESSIONS: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    " AND application_name <> %(harness)s"
)


class SessionCount:
    """A thread that counts the sessions ten times a second; a context manager."""

    def __init__(self, target: PostgresTarget) -> None:
        self.peak = 0
        """The most there were at once."""
        self._target = target
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="drill-sessions", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and exc is None:
            raise self._failure

    def _run(self) -> None:
        try:
            with closing(self._target.connect()) as conn:
                while not self._stop.wait(_EVERY_S):
                    for (count,) in conn.execute(_SESSIONS, {"harness": HARNESS_NAME}):
                        self.peak = max(self.peak, int(str(count)))
        except psycopg.Error as error:
            # A server that lets nobody else in is what is being measured: it must not pass for a quiet one.
            self._failure = error
