"""One transaction on the store: its time, what it makes known to others, and statements with the types that apsw leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from outlast.procedures._model import StoreEvent, StoreEventKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    import apsw

EVENTS_KEPT: Final = 1_000

Row = tuple[Any, ...]


class Transaction:
    """Statements of one transaction. What it has to tell is written by `tell`, last."""

    def __init__(self, connection: apsw.Connection, now: float) -> None:
        self.now = now
        self.work = False
        """Whether something became due."""
        # The stub of apsw names a type that Python 3.11 does not have, and so leaves these open.
        self._connection: Any = connection
        self._paused: set[Row] | None = None
        self._events: list[tuple[StoreEventKind, str, str, str]] = []

    def rows(self, statement: str, *values: object) -> list[Row]:
        """Run a statement and return all its rows."""
        rows: list[Row] = self._connection.execute(statement, values).fetchall()
        return rows

    def row(self, statement: str, *values: object) -> Row | None:
        """Run a statement and return its first row, if there is one."""
        return next(iter(self.rows(statement, *values)), None)

    def run(self, statement: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""
        self._connection.execute(statement, values)
        changes: int = self._connection.changes()
        return changes

    def run_all(self, statement: str, values: Iterable[Row]) -> None:
        """Run a statement for each of many values."""
        self._connection.executemany(statement, values)

    def is_paused(self, kind: str, key: str) -> bool:
        """Return whether nothing is to be claimed of a key."""
        if self._paused is None:
            self._paused = set(self.rows("SELECT kind, key FROM outlast_procedures_pauses"))
        return bool(self._paused) and not self._paused.isdisjoint({("", ""), (kind, ""), (kind, key)})

    def event(self, what: StoreEventKind, kind: str = "", key: str = "", text: str = "") -> None:
        """Make something known to whoever reads the news."""
        self._events.append((what, kind, key, text))

    def tell(self) -> None:
        """Write the events, and that something is due."""
        if not self._events and not self.work:
            return
        row = self.row("UPDATE outlast_procedures_state SET number = number + ? RETURNING number", len(self._events) + self.work)
        number: int = row[0] if row is not None else 0
        if self.work:
            self.run("UPDATE outlast_procedures_state SET work_at = ?", number)
        first = number - self.work - len(self._events) + 1
        for at, (what, kind, key, text) in enumerate(self._events, first):
            self.run("INSERT INTO outlast_procedures_events VALUES (?, ?, ?, ?, ?)", at, what.value, kind, key, text)
        if self._events:
            self._forget()

    def events(self, after: int) -> tuple[StoreEvent, ...]:
        """Return the events after a number."""
        rows = self.rows("SELECT number, what, kind, key, text FROM outlast_procedures_events WHERE number > ? ORDER BY 1", after)
        return tuple(StoreEvent(number, StoreEventKind(what), kind, key, text) for number, what, kind, key, text in rows)

    def _forget(self) -> None:
        oldest_kept = self.row(
            "SELECT number FROM outlast_procedures_events ORDER BY number DESC LIMIT 1 OFFSET ?", EVENTS_KEPT - 1
        )
        if oldest_kept is None:
            return
        gone = self.rows("DELETE FROM outlast_procedures_events WHERE number < ? RETURNING number", oldest_kept[0])
        if gone:
            self.run("UPDATE outlast_procedures_state SET forgotten_to = ?", max(row[0] for row in gone))
