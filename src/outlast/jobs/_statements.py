"""Every SQL statement of the queue, composed once for a schema."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, LiteralString

from psycopg import sql

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _time(column: LiteralString) -> LiteralString:
    """Return SQL that reads a time as microseconds since 1970, brought into the years that Python has, for `at`.

    PostgreSQL's years go from 4714 BC to 294276, and there is infinity. A number is the same whatever `DateStyle` says.
    """
    bounded = "least(greatest(" + column + ", timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-30 00:00+00')"
    return "CASE WHEN " + column + " IS NOT NULL THEN (extract(epoch FROM " + bounded + ") * 1000000)::bigint END"


def at(micros: int | None) -> datetime | None:
    """Return the time that `_time` has read."""
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


ENQUEUE: Final = """
WITH new AS (
    INSERT INTO {schema}.jobs
        (token, queue, kind, payload, priority, run_at, deadline_at, unique_key, attempts_max)
    SELECT token, queue, kind, payload::json, priority,
        coalesce(run_at, now() + coalesce(delay_s, 0) * interval '1 second'),
        coalesce(deadline_at, now() + deadline_s * interval '1 second'),
        unique_key, attempts_max
    FROM unnest(%(token)s::uuid[], %(queue)s::text[], %(kind)s::text[], %(payload)s::text[], %(priority)s::int[],
        %(run_at)s::timestamptz[], %(delay_s)s::float8[], %(deadline_at)s::timestamptz[], %(deadline_s)s::float8[],
        %(unique_key)s::text[], %(attempts_max)s::int[])
        AS given(token, queue, kind, payload, priority, run_at, delay_s, deadline_at, deadline_s, unique_key, attempts_max)
    ON CONFLICT DO NOTHING
    RETURNING id, token
), told AS (
    SELECT pg_notify({channel}, '') FROM (SELECT 1 FROM new LIMIT 1) AS one
)
SELECT new.token::text, new.id, true FROM new LEFT JOIN told ON true
"""
"""One notification for all the jobs of a statement. Jobs whose key or token is there already return no row."""

FIND: Final = """
SELECT given.token::text, jobs.id, jobs.token = given.token
FROM unnest(%(token)s::uuid[], %(unique_key)s::text[]) AS given(token, unique_key)
JOIN {schema}.jobs ON jobs.token = given.token
    OR (jobs.unique_key = given.unique_key AND jobs.state IN ('available', 'running'))
"""

_MEETABLE: Final = """(deadline_at IS NULL
    OR deadline_at > now() + coalesce((%(run_s)s::jsonb ->> kind)::float8, 0) * interval '1 second')"""


@dataclass(frozen=True, slots=True)
class Picking:
    """A statement that picks some rows and changes them. `pick` alone returns the ids, and locks the rows."""

    verb: LiteralString
    pick: LiteralString
    whole: LiteralString


def _picking(verb: LiteralString, pick: LiteralString, change: LiteralString) -> Picking:
    return Picking(verb, pick, "WITH picked AS MATERIALIZED (" + pick + ") " + change)


ACQUIRE: Final = _picking(
    "acquired",
    """
    SELECT id FROM {schema}.jobs
    WHERE state = 'available' AND queue = %(queue)s AND run_at <= now() AND kind = ANY(%(kinds)s)
        AND id <> ALL(%(without)s::bigint[]) AND """
    + _MEETABLE
    + """
    ORDER BY priority DESC, run_at, id
    LIMIT %(count)s
    FOR UPDATE SKIP LOCKED
""",
    """
UPDATE {schema}.jobs SET state = 'running', worker = %(worker)s, attempt = least(attempt, 2147483646) + 1,
    started_at = now(), cancel_requested = false
FROM picked WHERE jobs.id = picked.id
RETURNING jobs.id, kind, payload::text, attempt, attempts_max, queue, priority, unique_key, """
    + _time("enqueued_at")
    + ", "
    + _time("deadline_at"),
)
"""Nothing in a row makes this fail, since one job must not stop the others: sums stay in range, times are read as `_time`
says, and the payload is text, to be decoded row by row."""

NEXT_RUN_AT: Final = """
SELECT extract(epoch FROM min(run_at) - now())::float8 FROM {schema}.jobs
WHERE state = 'available' AND queue = ANY(%(queues)s) AND run_at > now() AND run_at <= now() + interval '1 minute'
"""

RECORD: Final = """
UPDATE {schema}.jobs SET
    state = CASE WHEN outcome.state = 'available' AND cancel_requested THEN 'cancelled' ELSE outcome.state END,
    attempt = CASE WHEN give_back THEN greatest(jobs.attempt, 1) - 1 ELSE jobs.attempt END,
    run_at = CASE WHEN outcome.state = 'available' THEN now() + delay_s * interval '1 second' ELSE run_at END,
    finished_at = CASE WHEN outcome.state = 'available' AND NOT cancel_requested THEN NULL ELSE now() END,
    result = outcome.result::json,
    first_fault = CASE WHEN fault IS NULL OR give_back THEN first_fault ELSE coalesce(first_fault, fault::json) END,
    last_fault = CASE WHEN fault IS NULL OR give_back THEN last_fault ELSE fault::json END,
    worker = NULL
FROM unnest(%(id)s::bigint[], %(attempt)s::int[], %(worker)s::uuid[], %(state)s::text[], %(result)s::text[],
    %(fault)s::text[], %(delay_s)s::float8[], %(give_back)s::bool[])
    AS outcome(id, attempt, worker, state, result, fault, delay_s, give_back)
WHERE jobs.id = outcome.id AND jobs.attempt = outcome.attempt
    AND ((jobs.state = 'running' AND jobs.worker = outcome.worker) OR jobs.state = 'available')
RETURNING jobs.id, jobs.attempt
"""
"""Fenced: it matches an attempt that is still ours, or one that was taken from us and that nobody has begun again."""

LOCK_TIMEOUT: Final = "SELECT set_config('lock_timeout', %(value)s, true)"
"""For this transaction."""

HEARTBEAT: Final = """
INSERT INTO {schema}.workers (id, name, lease_until) VALUES (%(worker)s, %(name)s, now() + %(lease_s)s * interval '1 second')
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
"""

MINE: Final = "SELECT id, attempt, cancel_requested FROM {schema}.jobs WHERE state = 'running' AND worker = %(worker)s"

RESCUE: Final = _picking(
    "rescued",
    """
    SELECT jobs.id FROM {schema}.jobs LEFT JOIN {schema}.workers ON workers.id = jobs.worker
    WHERE jobs.state = 'running' AND jobs.id <> ALL(%(without)s::bigint[]) AND jobs.worker IS DISTINCT FROM %(worker)s
        AND greatest(coalesce(workers.lease_until, CASE WHEN jobs.started_at <= now() THEN jobs.started_at
                ELSE '-infinity' END + %(lease_s)s * interval '1 second'),
            pg_postmaster_start_time() + %(lease_s)s * interval '1 second') < now()
    ORDER BY jobs.id
    LIMIT %(count)s
    FOR UPDATE OF jobs SKIP LOCKED
""",
    """
UPDATE {schema}.jobs SET
    state = CASE WHEN cancel_requested THEN 'cancelled' WHEN attempt >= attempts_max THEN 'dead' ELSE 'available' END,
    finished_at = CASE WHEN cancel_requested OR attempt >= attempts_max THEN now() END,
    run_at = CASE WHEN attempt >= attempts_max THEN run_at ELSE now() END,
    first_fault = coalesce(first_fault, %(fault)s::json), last_fault = %(fault)s::json, worker = NULL
FROM picked WHERE jobs.id = picked.id
RETURNING jobs.id
""",
)
"""A lease runs from the server's own start at the earliest: after an outage everyone has time to report. A start that is yet
to come, or none, is a row of another program: it has no lease, and no sum that could leave the range."""

FORGET_WORKERS: Final = """
DELETE FROM {schema}.workers WHERE lease_until < now() - interval '1 hour'
    AND NOT EXISTS (SELECT 1 FROM {schema}.jobs WHERE worker = workers.id AND state = 'running')
"""

LEAVE: Final = "DELETE FROM {schema}.workers WHERE id = %(worker)s"

EXPIRE: Final = _picking(
    "dropped",
    """
    SELECT id FROM {schema}.jobs
    WHERE state = 'available' AND deadline_at IS NOT NULL AND id <> ALL(%(without)s::bigint[]) AND NOT """
    + _MEETABLE
    + """
    ORDER BY deadline_at LIMIT %(count)s FOR UPDATE SKIP LOCKED
""",
    "UPDATE {schema}.jobs SET state = 'expired', finished_at = now() FROM picked WHERE jobs.id = picked.id RETURNING jobs.id",
)

PURGE: Final = _picking(
    "deleted",
    """
    SELECT id FROM {schema}.jobs
    WHERE id <> ALL(%(without)s::bigint[]) AND finished_at < now() - %(age_s)s * interval '1 second' AND state = ANY(%(states)s)
    ORDER BY finished_at LIMIT %(count)s FOR UPDATE SKIP LOCKED
""",
    "DELETE FROM {schema}.jobs USING picked WHERE jobs.id = picked.id RETURNING jobs.id",
)

CANCEL: Final = """
WITH changed AS (
    UPDATE {schema}.jobs SET
        state = CASE WHEN state = 'available' THEN 'cancelled' ELSE state END,
        finished_at = CASE WHEN state = 'available' THEN now() END,
        cancel_requested = true
    WHERE id = %(id)s AND state IN ('available', 'running')
    RETURNING state
)
SELECT state, pg_notify({channel}, 'cancel') FROM changed
"""

RETRY: Final = """
WITH changed AS (
    UPDATE {schema}.jobs SET state = 'available', run_at = now(), attempt = 0, finished_at = NULL, result = NULL,
        deadline_at = CASE WHEN deadline_at < now() THEN NULL ELSE deadline_at END, cancel_requested = false
    WHERE id = %(id)s AND state IN ('dead', 'cancelled', 'expired')
    RETURNING id
)
SELECT id, pg_notify({channel}, '') FROM changed
"""

LIST: Final = (
    "SELECT id, kind, queue, state, payload::text, priority, attempt, attempts_max, "
    + ", ".join([_time("run_at"), _time("enqueued_at"), _time("deadline_at"), _time("started_at"), _time("finished_at")])
    + """, unique_key, result::text, first_fault::text, last_fault::text
FROM {schema}.jobs
WHERE (%(id)s::bigint IS NULL OR id = %(id)s) AND (%(state)s::text IS NULL OR state = %(state)s)
    AND (%(queue)s::text IS NULL OR queue = %(queue)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
ORDER BY id DESC LIMIT %(count)s
"""
)

COUNTS: Final = "SELECT queue, state, count(*) FROM {schema}.jobs GROUP BY queue, state ORDER BY queue, state"


class Statements:
    """The statements above for one schema."""

    def __init__(self, schema: str) -> None:
        """`schema` may be a name of any spelling: it is quoted."""
        self.schema = schema
        self.channel = f"{schema}_jobs"
        self._composed: dict[str, sql.Composed] = {}

    def __call__(self, text: LiteralString) -> sql.Composed:
        """Return a statement of this file for this schema."""
        composed = self._composed.get(text)
        if composed is None:
            composed = sql.SQL(text).format(schema=sql.Identifier(self.schema), channel=sql.Literal(self.channel))
            self._composed[text] = composed
        return composed

    def listen(self) -> sql.Composed:
        """Return the statement that subscribes to the channel."""
        return sql.SQL("LISTEN {}").format(sql.Identifier(self.channel))
