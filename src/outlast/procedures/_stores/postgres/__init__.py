"""The store in PostgreSQL, for any number of runners on any number of machines."""

from __future__ import annotations

from outlast.procedures._stores.postgres._store import PostgresStore

__all__ = ["PostgresStore"]
