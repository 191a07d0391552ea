"""The store in PostgreSQL, for any number of processes on any number of machines."""

from __future__ import annotations

from outlast.tables._stores.postgres._store import PostgresStore

__all__ = ["PostgresStore"]
