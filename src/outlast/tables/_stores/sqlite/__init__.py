"""The store of tables in a SQLite file."""

from __future__ import annotations

from outlast.tables._stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
