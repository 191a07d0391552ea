"""Statements on a connection, with the types that apsw leaves open, and names quoted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import apsw

    from outlast.tables._model import Tags

Row = tuple[Any, ...]


class Statements:
    """Statements of one transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        # The stub of apsw names a type that Python 3.11 does not have, and so leaves these open.
        self._connection: Any = connection

    def rows(self, statement: str, *values: object) -> list[Row]:
        """Run a statement and return all its rows."""
        rows: list[Row] = self._connection.execute(statement, values).fetchall()
        return rows

    def row(self, statement: str, *values: object) -> Row | None:
        """Run a statement that has one row at most, and return it."""
        return next(iter(self.rows(statement, *values)), None)

    def run(self, statement: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""
        self._connection.execute(statement, values)
        changes: int = self._connection.changes()
        return changes

    def run_all(self, statement: str, values: Iterator[Any] | Iterable[Any]) -> None:
        """Run a statement for each of many values; of an iterator, those after a failure are left in it."""
        self._connection.executemany(statement, values)


def quoted(name: str) -> str:
    """Return a name as it stands in a statement. Every name that is not of this package comes into one by this."""
    return '"' + name.replace('"', '""') + '"'


def tags_text(tags: Tags) -> str:
    """Write tags so that equal ones have equal texts."""
    return json.dumps(dict(tags), ensure_ascii=False, separators=(",", ":"))


def tags_of(text: str) -> Tags:
    """Read tags."""
    return tuple(json.loads(text).items())
