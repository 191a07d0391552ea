"""One connection, as every connection of ours is set up: what its behaviour depends on is set here, on each."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import apsw

from outlast import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

JOURNAL_BYTES_MAX: Final = 64 << 20
"""The size to which SQLite cuts a write-ahead log that is used again from its beginning."""
STEPS: Final = 10_000
"""Steps of SQLite's machine between two questions whether to go on: a millisecond or less."""

# SQLite has one temporary folder for a process, and it must not change while a statement runs that may use it.
_temporary = threading.Lock()
_placed: list[str] = []


def connect(path: Path, *, create: bool, is_over: Callable[[], bool], wait: Callable[[int], bool]) -> apsw.Connection:
    """Open a connection in the calling thread. Raises errors of apsw, and `ConfigurationError` where there can be no WAL.

    `wait(n)` is asked while somebody else has a lock; `is_over()` every millisecond of a statement's work.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_handler(wait)
        _place_temporary_files(connection, str(path.parent))
        _set_wal(connection, path, wait)
        # FULL syncs at each commit: what was committed is there after a power cut. In WAL mode, NORMAL may lose the last.
        pragma(connection, "synchronous", "full")
        pragma(connection, "foreign_keys", "on")
        pragma(connection, "trusted_schema", "off")
        pragma(connection, "journal_size_limit", JOURNAL_BYTES_MAX)
        # Whoever leaves one with `with connection` gets one that writers need: deferred ones cannot be upgraded.
        connection.transaction_mode = "IMMEDIATE"
        connection.set_progress_handler(is_over, STEPS)
    except BaseException:
        connection.close(True)
        raise
    return connection


def _set_wal(connection: apsw.Connection, path: Path, wait: Callable[[int], bool]) -> None:
    if _journal_mode(connection, wait) != "wal":
        raise ConfigurationError(f"sqlite {path}: there is no write-ahead log on this file system; put the file on a local disk")


def _journal_mode(connection: apsw.Connection, wait: Callable[[int], bool]) -> object:
    """Ask for a write-ahead log; return the mode that holds."""
    for attempts in itertools.count():
        try:
            return pragma(connection, "journal_mode", "wal")
        except apsw.BusyError:
            # Of several that open a new file at once, SQLite asks no busy handler here: each has a lock that another waits for.
            if not wait(attempts):
                raise
    raise AssertionError


def execute(connection: apsw.Connection, statement: str) -> None:
    """Run a statement that returns nothing."""
    connection.execute(statement)  # pyright: ignore[reportUnknownMemberType] - the stub names a type of Python 3.12


def pragma(connection: apsw.Connection, name: str, value: int | str | None = None) -> Any:  # noqa: ANN401 - what it has
    """Set or read a pragma."""
    if value is None:
        return connection.pragma(name)  # pyright: ignore[reportUnknownMemberType] - as below
    return connection.pragma(name, value)  # pyright: ignore[reportUnknownMemberType] - the stub names a type of Python 3.12


def temporary_folder() -> str:
    """Return the folder of SQLite's temporary files in this process; "" before a store was opened."""
    return _placed[0] if _placed else ""


def _place_temporary_files(connection: apsw.Connection, folder: str) -> None:
    """Let large sorts and new indices lie beside the first store of the process, and not on the disk of /var/tmp."""
    with _temporary:
        if not _placed or not Path(_placed[0]).is_dir():
            pragma(connection, "temp_store_directory", folder)
            _placed[:] = [folder]
