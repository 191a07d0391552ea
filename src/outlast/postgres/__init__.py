"""PostgreSQL as a dependency: `Postgres`, and the rule that classifies what psycopg 3 and asyncpg raise.

Beside it: `outlast.postgres.replication`, `.ownership`, `.schema` and `.sessions`, for systems that need more than statements.
"""

from __future__ import annotations

from outlast.postgres._classify import postgres_rule
from outlast.postgres._connection import Connection, DeadlineExceededError
from outlast.postgres._dependency import Postgres
from outlast.postgres._dsn import redact_dsn
from outlast.postgres._pool.pool import NoConnectionError
from outlast.postgres._second_look import SLOW, own_doing
from outlast.postgres._settings import wait_on_purpose

__all__ = [
    "SLOW",
    "Connection",
    "DeadlineExceededError",
    "NoConnectionError",
    "Postgres",
    "own_doing",
    "postgres_rule",
    "redact_dsn",
    "wait_on_purpose",
]
