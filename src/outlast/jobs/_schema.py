"""The tables of the queue, and how they came to be."""

from __future__ import annotations

from typing import Final

from outlast.postgres.schema import Tables

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

TABLES: Final = Tables("jobs", (_FIRST,), ("jobs", "attempts_max"))
