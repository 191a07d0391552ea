"""PostgreSQL as a dependency: `Postgres`, and the rule that classifies what psycopg 3 and asyncpg raise."""

from __future__ import annotations

from outlast.postgres._classify import postgres_rule
from outlast.postgres._connection import Connection, DeadlineExceededError
from outlast.postgres._dependency import Postgres
from outlast.postgres._dsn import redact_dsn
from outlast.postgres._pool.pool import NoConnectionError

__all__ = ["Connection", "DeadlineExceededError", "NoConnectionError", "Postgres", "postgres_rule", "redact_dsn"]
