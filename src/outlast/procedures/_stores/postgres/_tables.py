"""The tables of the store, and how they came to be.

`procedures` holds a row for each record. A step that is recorded changes no indexed column, so PostgreSQL can keep the new
version on the same page (HOT) while there is room: that is what the fill factor is for. Large payloads and bodies lie apart
(TOAST), and are not written again with the row. A row is in the index of what may be claimed only while it may be: claims scan
nothing else.
"""

from __future__ import annotations

from typing import Final

from outlast.postgres.schema import Tables

_FIRST: Final = """
CREATE TABLE {schema}.procedures (
    id text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'done', 'dead', 'cancelled', 'expired')),
    version integer NOT NULL,
    priority smallint NOT NULL,
    cancel_requested boolean NOT NULL DEFAULT false,
    token bigint NOT NULL DEFAULT 0,
    revivals integer NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    signals integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz,
    deadline_at timestamptz,
    began_at timestamptz,
    ended_at timestamptz,
    until_at timestamptz,
    owner text COLLATE "C",
    parked_on text COLLATE "C",
    waits_for text NOT NULL DEFAULT '',
    progress text NOT NULL DEFAULT '',
    locks text[] NOT NULL DEFAULT '{{}}',
    last_cause text,
    first_fault text,
    last_fault text,
    payload text NOT NULL,
    body text NOT NULL DEFAULT '',
    result text
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX procedures_key ON {schema}.procedures (kind, key) WHERE state IN ('queued', 'running', 'waiting', 'dead');
CREATE INDEX procedures_due ON {schema}.procedures (kind, priority, due_at, id)
    WHERE state IN ('queued', 'waiting') AND parked_on IS NULL AND due_at IS NOT NULL;
CREATE INDEX procedures_later ON {schema}.procedures (due_at)
    WHERE state IN ('queued', 'waiting') AND parked_on IS NULL AND due_at <> created_at;
CREATE INDEX procedures_parked ON {schema}.procedures (parked_on, priority DESC, due_at, id) WHERE parked_on IS NOT NULL;
CREATE INDEX procedures_running ON {schema}.procedures (owner) WHERE state = 'running';
CREATE INDEX procedures_deadline ON {schema}.procedures (deadline_at)
    WHERE state = 'queued' AND began_at IS NULL AND deadline_at IS NOT NULL;
CREATE INDEX procedures_ended ON {schema}.procedures (ended_at) WHERE state IN ('done', 'cancelled', 'expired');
CREATE INDEX procedures_ended_key ON {schema}.procedures (kind, key, ended_at) WHERE state IN ('done', 'cancelled', 'expired');
CREATE INDEX procedures_dead ON {schema}.procedures (ended_at, id) WHERE state = 'dead';
CREATE TABLE {schema}.procedure_runners (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    lease_s float8 NOT NULL,
    lease_until timestamptz NOT NULL
);
CREATE TABLE {schema}.procedure_locks (
    name text COLLATE "C" PRIMARY KEY,
    record text COLLATE "C" NOT NULL REFERENCES {schema}.procedures ON DELETE CASCADE
);
CREATE INDEX procedure_locks_record ON {schema}.procedure_locks (record);
CREATE TABLE {schema}.procedure_signals (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record text COLLATE "C" NOT NULL REFERENCES {schema}.procedures ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL,
    payload text NOT NULL
);
CREATE INDEX procedure_signals_record ON {schema}.procedure_signals (record, name, number);
CREATE TABLE {schema}.procedure_pauses (
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE TABLE {schema}.procedure_news (number bigint NOT NULL);
INSERT INTO {schema}.procedure_news VALUES (0);
CREATE TABLE {schema}.procedure_events (
    number bigint PRIMARY KEY,
    what text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    text text NOT NULL
);
"""

TABLES: Final = Tables("procedures", (_FIRST,), ("procedures", "parked_on"))
