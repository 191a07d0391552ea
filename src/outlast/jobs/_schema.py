"""The tables, made by numbered migrations that may run from several processes at once, any number of times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from outlast.postgres import wait_on_purpose

if TYPE_CHECKING:
    import psycopg

LOCK: Final = 0x6F75_746C_6A6F_6273 % 2**62
"""The advisory lock under which migrations run: "outljobs" as a number."""

_FIRST: Final = """
CREATE TABLE {schema}.jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token uuid NOT NULL UNIQUE,
    queue text NOT NULL,
    kind text NOT NULL,
    payload json,
    state text NOT NULL DEFAULT 'available'
        CHECK (state IN ('available', 'running', 'done', 'dead', 'cancelled', 'expired')),
    priority integer NOT NULL,
    run_at timestamptz NOT NULL,
    deadline_at timestamptz,
    unique_key text,
    attempt integer NOT NULL DEFAULT 0,
    attempts_max integer NOT NULL CHECK (attempts_max > 0),
    worker uuid,
    cancel_requested boolean NOT NULL DEFAULT false,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    result json,
    first_fault json,
    last_fault json
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX jobs_available ON {schema}.jobs (queue, priority DESC, run_at, id) WHERE state = 'available';
CREATE INDEX jobs_running ON {schema}.jobs (worker) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_unique_key ON {schema}.jobs (unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('available', 'running');
CREATE INDEX jobs_deadline ON {schema}.jobs (deadline_at) WHERE state = 'available' AND deadline_at IS NOT NULL;
CREATE INDEX jobs_finished ON {schema}.jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE {schema}.workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)
"""Number n is the n-th, from 1. One that was released never changes."""


async def migrate(conn: psycopg.AsyncConnection[Any], schema: str) -> int:
    """Bring the schema to the newest version, in one transaction; gives how many migrations were needed."""
    name = sql.Identifier(schema)
    await wait_on_purpose(conn, local=True)
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    await conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
    await conn.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.migrations "
            "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(name)
    )
    cursor = await conn.execute(sql.SQL("SELECT coalesce(max(version), 0) FROM {}.migrations").format(name))
    row = await cursor.fetchone()
    version: int = row[0] if row else 0
    for number, text in enumerate(MIGRATIONS[version:], version + 1):
        await conn.execute(sql.SQL(text).format(schema=name))  # pyright: ignore[reportArgumentType] # our own constant
        await conn.execute(sql.SQL("INSERT INTO {}.migrations (version) VALUES (%s)").format(name), (number,))
    return len(MIGRATIONS) - version
