"""The number of sessions that the arm has on its server: counted by a session of the harness, while the fault lasts."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from outlast._drill.lab.looker import Looker
from outlast._drill.lab.target import HARNESS_NAME

if TYPE_CHECKING:
    from outlast._drill.lab.target import PostgresTarget

_EVERY_S: Final = 0.1
_SESSIONS: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    " AND application_name <> %(harness)s"
)


class SessionCount(Looker):
    """A thread that counts the sessions ten times a second; a context manager."""

    def __init__(self, target: PostgresTarget) -> None:
        super().__init__("drill-sessions")
        self.peak = 0
        """The most there were at once."""
        self._target = target

    def look(self) -> None:
        """Count until the end. A server that lets nobody else in is what is being measured: that is raised."""
        with closing(self._target.connect()) as conn:
            while self.goes_on(_EVERY_S):
                for (count,) in conn.execute(_SESSIONS, {"harness": HARNESS_NAME}):
                    self.peak = max(self.peak, int(str(count)))
