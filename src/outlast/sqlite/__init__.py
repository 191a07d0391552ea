"""SQLite as a dependency: one file, threads of its own, whole transactions."""

from __future__ import annotations

from outlast.sqlite._dependency import Sqlite, SqliteSize
from outlast.sqlite._faults import sqlite_rule

__all__ = ["Sqlite", "SqliteSize", "sqlite_rule"]
