"""PostgreSQL as a dependency: `Postgres`, and the rule that classifies what psycopg 3 and asyncpg raise."""

from __future__ import annotations

from outlast.postgres.classify import postgres_rule
from outlast.postgres.connection import Connection, DeadlineExceededError
from outlast.postgres.dependency import Postgres
from outlast.postgres.dsn import redact_dsn
from outlast.postgres.pool import NoConnectionError

__all__ = ["Connection", "DeadlineExceededError", "NoConnectionError", "Postgres", "postgres_rule", "redact_dsn"]
