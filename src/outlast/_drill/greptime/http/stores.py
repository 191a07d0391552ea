"""The stores of the arms that take metrics over HTTP: one for each arm, asked by the harness how much it holds."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

import psycopg

from outlast._drill.greptime.http.points import BUSY_S
from outlast._drill.greptime.stores import Look
from outlast._drill.lab.target import connect_direct, number
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

_POSTGRES: Final = "SELECT count(*), coalesce(sum(failures), 0) FROM outlast.procedures WHERE key LIKE '%broken%'"
_SQLITE: Final = "SELECT count(*), coalesce(sum(failures), 0) FROM outlast_procedures WHERE key LIKE '%broken%'"


class MetricsStore(Protocol):
    """A store of one arm. `place` is the path of its file, or its DSN."""

    place: str
    attempts: list[float]
    """The times at which failed attempts to make the table were seen that the arm had recorded."""

    def open(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Make it; leaving `stack` ends it. Return its version by its name."""
        ...

    def look(self) -> Look:
        """Ask it how much it holds. Called on one thread at a time."""
        ...


class MetricsInSqlite:
    """A file of SQLite in the folder of the arm."""

    def __init__(self) -> None:
        self.place = ""
        self.attempts: list[float] = []

    def open(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Choose its path: the arm makes it."""
        del stack
        self.place = str(directory / "metrics.db")
        return {"sqlite": sqlite3.sqlite_version}

    def look(self) -> Look:
        """Ask for the size of the file and its log, and the records."""
        size = sum(path.stat().st_size for path in Path(self.place).parent.glob("metrics.db*") if path.exists())
        records = failures = 0
        # There is no file yet, or an arm without such records.
        with contextlib.suppress(sqlite3.OperationalError), closing(sqlite3.connect(self.place, timeout=BUSY_S)) as db:
            ((records, failures),) = db.execute(_SQLITE).fetchall()
        _note(self.attempts, int(failures))
        return Look(time.monotonic(), size, records, alarm=False)


class MetricsInPostgres:
    """A PostgreSQL of the arm's own."""

    def __init__(self) -> None:
        self.place = ""
        self.attempts: list[float] = []
        self._conn: psycopg.Connection[tuple[object, ...]] | None = None

    def open(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Launch it."""
        del directory
        server = stack.enter_context(PostgresServer())
        self.place = server.dsn("postgres")
        self._conn = stack.enter_context(closing(connect_direct(self.place)))
        version = self._conn.info.server_version
        return {"postgres": f"{version // 10_000}.{version % 10_000}"}

    def look(self) -> Look:
        """Ask for the size of the database and the records."""
        assert self._conn is not None  # noqa: S101  it is open
        size = number(self._conn, "SELECT pg_database_size(current_database())")
        records = failures = 0
        with contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            ((records, failures),) = cast("list[tuple[int, int]]", self._conn.execute(_POSTGRES).fetchall())
        _note(self.attempts, int(failures))
        return Look(time.monotonic(), size, records, alarm=False)


def _note(attempts: list[float], failures: int) -> None:
    attempts.extend([time.monotonic()] * (failures - len(attempts)))
