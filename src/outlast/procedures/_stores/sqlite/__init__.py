"""The store of procedures in a SQLite file."""

from __future__ import annotations

from outlast.procedures._stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
