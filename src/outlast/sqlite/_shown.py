"""A SQLite file as its operators see it: figures, health, and the act that ends its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.extend import Act, Figure, Lag, SystemHealth, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.sqlite._dependency import Sqlite


class ShownSqlite:
    """The port of `outlast.extend` for one file. Threads of the endpoint's read it; it opens nothing."""

    system = "sqlite"

    def __init__(self, db: Sqlite) -> None:
        self._db = db

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._db.name

    def figures(self) -> Sequence[Figure]:
        """Return its size, that of its log, and what was done with it."""
        size, done = self._db.size(), self._db.done
        return [
            Figure.gauge("file", "Bytes of the file.", size.file_bytes, unit=Unit.BYTES),
            Figure.gauge("log", "Bytes of its write-ahead log, as it was seen last.", size.log_bytes, unit=Unit.BYTES),
            Figure.gauge("log_held", "1 while a reader keeps the log from being used again.", float(size.log_is_held)),
            Figure.counter("commits", "Transactions that were committed, reads too.", done.commits),
            Figure.counter("rollbacks", "Transactions that were rolled back.", done.rollbacks),
            Figure.counter("restarts", "Transactions that lost a race and began again.", done.restarts),
        ]

    def health(self) -> SystemHealth:
        """Return how it is: not known before the first transaction."""
        db = self._db
        since = db.health.opened_at
        if db.is_lost:
            return SystemHealth(False, "lost", db.fault, since)
        if not db.passable:
            return SystemHealth(False, db.fault.code if db.fault is not None else "down", db.fault, since)
        if not db.done.commits:
            return SystemHealth(None, "not used yet", None)
        return SystemHealth(True, "log held" if db.size().log_is_held else "well", None)

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> Sequence[Act]:
        """Return the act by which a file that has ended is used again."""
        text = "Asks a file whose use was ended by an error whether it can be written again. Mend it first."
        return [Act("use the file again", text, self._use_again, concerns=int(self._db.is_lost))]

    async def _use_again(self) -> int:
        if not self._db.is_lost:
            return 0
        self._db.try_again()
        return 1
