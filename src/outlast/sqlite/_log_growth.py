"""The growth of the write-ahead log: a reader that does not end keeps SQLite from using it again."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import apsw

from outlast.extend import Once, size_text

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("outlast.sqlite")

LOOK_APART_S: Final = 1.0


class LogGrowth:
    """Watches the size of the log beside the writer's transactions. In the writer's thread only, but for `log_bytes`."""

    def __init__(self, path: Path, name: str, bytes_max: int) -> None:
        self._log = path.with_name(f"{path.name}-wal")
        self._name = name
        self._bytes_max = bytes_max
        self._said = Once()
        self._looked_at = float("-inf")
        self.log_bytes = 0
        """As it was seen last, from any thread."""
        self.is_held = False
        """Whether a reader kept it from being used again, when it was looked at last."""

    def look(self, connection: apsw.Connection) -> None:
        """Look at the log, once a second at most; where it is too large move it into the file, and say so if that fails."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_APART_S:
            return
        self._looked_at = now
        self.log_bytes = self._size()
        self.is_held = self.log_bytes > self._bytes_max and not self._emptied(connection)
        if self.is_held:
            if self._said.news():
                logger.warning(
                    "%s: its write-ahead log has %s (limit %s) and cannot be used again: a reader, of any process, has not ended "
                    "its transaction; find it with `fuser` on the file, and end it",
                    self._name,
                    size_text(self.log_bytes),
                    size_text(self._bytes_max),
                )
        elif self._said.clear():
            logger.info("%s: its write-ahead log is used again, it has %s", self._name, size_text(self.log_bytes))

    def _emptied(self, connection: apsw.Connection) -> bool:
        try:
            # It waits for nobody: the writer has no call now, so its busy handler says no at once.
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        except apsw.Error:
            # A full or broken disk: the next transaction meets it, and says it.
            return True
        self.log_bytes = self._size()
        return True

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0
