"""SQL of the store: submissions, records, runners, what an operator does, and news. `_claiming.py` has what picks rows.

All times are the server's. A statement that begins after another of its transaction sees what was committed in between.
"""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg import sql

from outlast.procedures._stores.postgres._rows import COLUMNS

EVENTS_KEPT: Final = 2_000
LIVE: Final = "('queued', 'running', 'waiting')"
KEYED: Final = "('queued', 'running', 'waiting', 'dead')"
ENDED: Final = "('done', 'cancelled', 'expired')"


def paused(record: LiteralString) -> LiteralString:
    """Return the condition that this record, its kind, or everything is paused."""
    kinds = "(p.key = '' AND p.kind IN ('', " + record + ".kind))"
    keys = "(p.kind = " + record + ".kind AND p.key = " + record + ".key)"
    return "EXISTS (SELECT FROM {schema}.procedure_pauses p WHERE " + kinds + " OR " + keys + ")"


_GIVEN: Final = (
    """
WITH given AS MATERIALIZED (
    SELECT g.*, g.claim AND g.delay_s <= 0 AND g.locks = '[]' AND NOT """
    + paused("g")
    + """ AS begins
    FROM unnest(%(id)s::text[], %(kind)s::text[], %(key)s::text[], %(version)s::int[], %(priority)s::int[], %(payload)s::text[],
        %(locks)s::text[], %(delay_s)s::float8[], %(deadline_s)s::float8[], %(claim)s::bool[])
        AS g(id, kind, key, version, priority, payload, locks, delay_s, deadline_s, claim)
), """
)
NEW_RUNNER: Final = """INSERT INTO {schema}.procedure_runners (id, name, lease_s, lease_until)
    SELECT %(runner)s, '', 0, '-infinity'
    WHERE NOT EXISTS (SELECT FROM {schema}.procedure_runners WHERE id = %(runner)s) ON CONFLICT DO NOTHING
"""
"""A runner that claims before its first heartbeat has no lease, but a row: by it, what it has is found."""

SUBMIT: Final = (
    _GIVEN
    + """made AS (
    INSERT INTO {schema}.procedures AS r
        (id, kind, key, state, version, priority, payload, locks, due_at, deadline_at, token, owner, began_at)
    SELECT id, kind, key, CASE WHEN begins THEN 'running' ELSE 'queued' END, version, priority, payload,
        ARRAY(SELECT jsonb_array_elements_text(locks::jsonb)), now() + delay_s * interval '1 second',
        now() + deadline_s * interval '1 second', begins::int, CASE WHEN begins THEN %(runner)s END,
        CASE WHEN begins THEN now() END
    FROM given ORDER BY kind, key
    ON CONFLICT DO NOTHING
    RETURNING """
    + COLUMNS
    + """
), seen AS (
    """
    + NEW_RUNNER
    + """)
SELECT 'made', made.* FROM made
UNION ALL
SELECT CASE WHEN r.id = given.id THEN 'made' WHEN r.state <> 'dead' THEN 'live' WHEN r.until_at > now() THEN 'failing'
    ELSE 'due' END, """
    + COLUMNS
    + """
FROM given CROSS JOIN LATERAL (
    SELECT * FROM {schema}.procedures WHERE kind = given.kind AND key = given.key AND state IN """
    + KEYED
    + """
    UNION ALL
    SELECT * FROM {schema}.procedures WHERE id = given.id AND state IN """
    + ENDED
    + """
) AS r
"""
)
"""It sees what was there before it began as it was; whoever finds nothing does it again."""

REVIVE: Final = (
    _GIVEN
    + """dead AS MATERIALIZED (
    SELECT r.id AS old, given.* FROM given JOIN {schema}.procedures r ON r.kind = given.kind AND r.key = given.key
    WHERE r.state = 'dead' AND r.until_at <= now() ORDER BY r.id FOR UPDATE OF r
), gone AS (
    DELETE FROM {schema}.procedure_signals s USING dead WHERE s.record = dead.old
), seen AS (
    """
    + NEW_RUNNER
    + """)
UPDATE {schema}.procedures AS r SET
    state = CASE WHEN begins THEN 'running' ELSE 'queued' END, version = dead.version, priority = dead.priority,
    payload = dead.payload, locks = ARRAY(SELECT jsonb_array_elements_text(dead.locks::jsonb)),
    due_at = now() + delay_s * interval '1 second', deadline_at = now() + deadline_s * interval '1 second',
    token = r.token + begins::int, owner = CASE WHEN begins THEN %(runner)s END, began_at = CASE WHEN begins THEN now() END,
    ended_at = NULL, until_at = NULL, body = '', result = NULL, progress = '', waits_for = '', deaths = 0,
    cancel_requested = false,
    revivals = r.revivals + 1, signals = 0, first_fault = CASE WHEN r.failures > 0 THEN r.first_fault END,
    last_fault = CASE WHEN r.failures > 0 THEN r.last_fault END, last_cause = CASE WHEN r.failures > 0 THEN r.last_cause END
FROM dead WHERE r.id = dead.old
RETURNING 'revived', """
    + COLUMNS
)

LOCK_ROWS: Final = "SELECT FROM {schema}.procedures WHERE id = ANY(%(id)s) ORDER BY id FOR UPDATE"

TAKE_SIGNALS: Final = """
WITH gone AS (
    DELETE FROM {schema}.procedure_signals s
    USING unnest(%(id)s::text[], %(token)s::bigint[], %(body)s::text[], %(name)s::text[], %(count)s::int[])
            AS g(id, token, body, name, count)
        JOIN {schema}.procedures r ON r.id = g.id AND r.token = g.token AND r.state = 'running' AND r.body <> g.body
        CROSS JOIN LATERAL (SELECT number FROM {schema}.procedure_signals
            WHERE record = g.id AND name = g.name ORDER BY number LIMIT g.count) AS oldest
    WHERE s.number = oldest.number
    RETURNING s.record
)
UPDATE {schema}.procedures r SET signals = r.signals - taken.count
FROM (SELECT record, count(*) AS count FROM gone GROUP BY record) AS taken WHERE r.id = taken.record
"""
"""A write that is repeated, since its reply was lost, has the same body: no second signal is taken for it."""

RECORD: Final = (
    """
UPDATE {schema}.procedures r SET
    state = g.state, body = g.body, progress = g.progress, deaths = 0,
    result = CASE WHEN g.state IN """
    + LIVE
    + """ THEN r.result ELSE g.result END,
    waits_for = CASE WHEN g.state = 'waiting' THEN g.waits_for ELSE '' END,
    first_fault = coalesce(r.first_fault, g.fault), last_fault = coalesce(g.fault, r.last_fault),
    last_cause = coalesce(g.cause, r.last_cause),
    owner = CASE WHEN g.state = 'running' THEN r.owner END,
    failures = CASE g.state WHEN 'dead' THEN g.failures WHEN 'done' THEN 0 ELSE r.failures END,
    until_at = CASE WHEN g.state = 'dead' THEN now() + g.until_s * interval '1 second' END,
    due_at = CASE WHEN g.state = 'running' THEN r.due_at
        WHEN g.state NOT IN ('queued', 'waiting') THEN NULL
        WHEN r.cancel_requested AND NOT g.cancel_known THEN now()
        WHEN g.state = 'waiting' AND g.waits_for <> ''
            AND EXISTS (SELECT FROM {schema}.procedure_signals s WHERE s.record = r.id AND s.name = g.waits_for) THEN now()
        ELSE now() + g.due_s * interval '1 second' END,
    ended_at = CASE WHEN g.state NOT IN """
    + LIVE
    + """ THEN now() END
FROM unnest(%(id)s::text[], %(token)s::bigint[], %(state)s::text[], %(body)s::text[], %(result)s::text[], %(fault)s::text[],
        %(cause)s::text[], %(due_s)s::float8[], %(waits_for)s::text[], %(failures)s::int[], %(until_s)s::float8[],
        %(progress)s::text[], %(cancel_known)s::bool[])
    AS g(id, token, state, body, result, fault, cause, due_s, waits_for, failures, until_s, progress, cancel_known)
WHERE r.id = g.id AND r.token = g.token AND r.state = 'running'
RETURNING r.id, r.state NOT IN """
    + LIVE
    + """ AND r.locks <> '{{}}', r.state IN ('queued', 'waiting') AND r.due_at <= now()
"""
)
"""Fenced by the token. Returns the id, whether it held locks, and whether it is due again."""

RELEASE: Final = """
DELETE FROM {schema}.procedure_locks l
USING (SELECT name FROM {schema}.procedure_locks WHERE record = ANY(%(id)s) ORDER BY name FOR UPDATE) AS held
WHERE l.name = held.name RETURNING l.name
"""
"""In the order of the names, as all who want several: so they never wait for each other in a circle."""

BEAT: Final = """
WITH lease AS (
    INSERT INTO {schema}.procedure_runners (id, name, lease_s, lease_until)
    VALUES (%(runner)s, %(name)s, %(lease_s)s, now() + %(lease_s)s * interval '1 second')
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, lease_s = excluded.lease_s, lease_until = excluded.lease_until
)
SELECT id, token, cancel_requested, signals FROM {schema}.procedures WHERE state = 'running' AND owner = %(runner)s
"""
LEAVE: Final = "UPDATE {schema}.procedure_runners SET lease_s = 0, lease_until = '-infinity' WHERE id = %(runner)s"

FIND: Final = "SELECT " + COLUMNS + " FROM {schema}.procedures r WHERE id = ANY(%(id)s)"
FIND_KEYS: Final = (
    "SELECT "
    + COLUMNS
    + """
FROM unnest(%(kind)s::text[], %(key)s::text[]) AS g(kind, key) CROSS JOIN LATERAL (
    SELECT * FROM (
        (SELECT * FROM {schema}.procedures WHERE kind = g.kind AND key = g.key AND state IN """
    + KEYED
    + """)
        UNION ALL
        (SELECT * FROM {schema}.procedures WHERE kind = g.kind AND key = g.key AND state IN """
    + ENDED
    + """ ORDER BY ended_at DESC, id DESC LIMIT 1)
    ) AS both_kinds ORDER BY state IN """
    + KEYED
    + """ DESC LIMIT 1
) AS r
"""
)
LIST: Final = (
    "SELECT "
    + COLUMNS
    + """ FROM {schema}.procedures r
WHERE (%(states)s::text[] IS NULL OR state = ANY(%(states)s)) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(key)s::text IS NULL OR key = %(key)s) AND (%(before)s::text IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(count)s
"""
)
COUNTS: Final = """
SELECT kind, state, count(*), extract(epoch FROM now() - min(due_at) FILTER (
    WHERE state IN ('queued', 'waiting') AND due_at <= now()))::float8
FROM {schema}.procedures GROUP BY kind, state
"""

CANCEL: Final = (
    """
WITH old AS MATERIALIZED (
    SELECT id, state, began_at, cancel_requested FROM {schema}.procedures WHERE id = %(id)s FOR UPDATE
), changed AS (
    UPDATE {schema}.procedures r SET
        state = CASE WHEN never THEN 'cancelled' ELSE r.state END, ended_at = CASE WHEN never THEN now() END,
        parked_on = CASE WHEN never THEN NULL ELSE r.parked_on END, cancel_requested = true,
        due_at = CASE WHEN never THEN NULL WHEN r.state IN ('queued', 'waiting') THEN now() ELSE r.due_at END
    FROM (SELECT id, began_at IS NULL AS never FROM old WHERE NOT cancel_requested AND state IN """
    + LIVE
    + """) AS o WHERE r.id = o.id RETURNING r.id, r.state, r.due_at
)
SELECT coalesce(changed.state, old.state), changed.id IS NOT NULL, changed.state IN ('queued', 'waiting')
FROM old LEFT JOIN changed USING (id)
"""
)
SIGNAL: Final = (
    """
WITH old AS MATERIALIZED (SELECT id, state, signals FROM {schema}.procedures WHERE id = %(id)s FOR UPDATE), kept AS (
    INSERT INTO {schema}.procedure_signals (record, name, payload)
    SELECT id, %(name)s, %(payload)s FROM old WHERE state IN """
    + LIVE
    + """ AND signals < %(most)s RETURNING record
), changed AS (
    UPDATE {schema}.procedures r SET signals = r.signals + 1,
        due_at = CASE WHEN r.state = 'waiting' AND r.waits_for = %(name)s THEN now() ELSE r.due_at END
    FROM kept WHERE r.id = kept.record RETURNING r.id, r.state = 'waiting' AND r.waits_for = %(name)s AS woken
)
SELECT old.state, changed.id IS NOT NULL, coalesce(changed.woken, false)
FROM old LEFT JOIN changed USING (id) WHERE old.state IN """
    + LIVE
)

EXTEND: Final = """
WITH given AS MATERIALIZED (
    SELECT r.id, g.seconds FROM unnest(%(id)s::text[], %(seconds)s::float8[]) AS g(id, seconds)
    JOIN {schema}.procedures r USING (id) WHERE r.state = 'queued' AND r.began_at IS NULL AND r.deadline_at IS NOT NULL
    ORDER BY r.id FOR UPDATE OF r
)
UPDATE {schema}.procedures r SET deadline_at = CASE WHEN seconds IS NOT NULL
    THEN greatest(r.deadline_at, now() + seconds * interval '1 second') END
FROM given WHERE r.id = given.id
"""

CLEAR: Final = """
WITH picked AS MATERIALIZED (
    SELECT id FROM {schema}.procedures WHERE state = 'dead' AND (until_at > now() OR failures > 0)
        AND (%(kind)s = '' OR kind = %(kind)s) AND (%(key)s = '' OR key = %(key)s)
        AND (%(cause)s::text IS NULL OR last_cause = %(cause)s)
    ORDER BY id LIMIT %(count)s FOR UPDATE
)
UPDATE {schema}.procedures r SET until_at = now(), failures = 0 FROM picked WHERE r.id = picked.id RETURNING r.id
"""

PAUSE: Final = """
INSERT INTO {schema}.procedure_pauses (kind, key) SELECT %(kind)s, %(key)s
WHERE (SELECT count(*) FROM {schema}.procedure_pauses) < %(most)s ON CONFLICT DO NOTHING RETURNING kind
"""
IS_PAUSED: Final = "SELECT FROM {schema}.procedure_pauses WHERE kind = %(kind)s AND key = %(key)s"
RESUME: Final = "DELETE FROM {schema}.procedure_pauses WHERE kind = %(kind)s AND key = %(key)s RETURNING kind"
PAUSES: Final = "SELECT kind, key FROM {schema}.procedure_pauses ORDER BY kind, key"

EVENT: Final = """
WITH counted AS (
    UPDATE {schema}.procedure_news SET number = number + 1 RETURNING number
), written AS (
    INSERT INTO {schema}.procedure_events (number, what, kind, key, text)
    SELECT number, %(what)s, %(kind)s, %(key)s, %(text)s FROM counted
), trimmed AS (
    DELETE FROM {schema}.procedure_events e USING counted WHERE e.number <= counted.number - %(kept)s
)
SELECT pg_notify({channel}, number::text) FROM counted
"""
"""The row of the number is locked until the end of the transaction: events are committed in the order of their numbers."""
NEWEST: Final = "SELECT number FROM {schema}.procedure_news"
NEWS: Final = """
SELECT n.number, (SELECT min(number) FROM {schema}.procedure_events), e.number, e.what, e.kind, e.key, e.text
FROM {schema}.procedure_news n LEFT JOIN LATERAL (
    SELECT * FROM {schema}.procedure_events WHERE number > %(after)s AND number <= n.number ORDER BY number LIMIT 1000
) AS e ON true ORDER BY e.number
"""
_LATER: Final = "state IN ('queued', 'waiting') AND parked_on IS NULL AND due_at <> created_at"
DUE: Final = (
    """
SELECT extract(epoch FROM now())::float8,
    coalesce((SELECT min(due_at) FROM {schema}.procedures WHERE """
    + _LATER
    + """ AND due_at > to_timestamp(%(since)s)) <= now(), false),
    (SELECT extract(epoch FROM min(due_at) - now())::float8 FROM {schema}.procedures WHERE """
    + _LATER
    + """ AND due_at > now())
"""
)
"""The server's time, whether something became due by its time since then, and in how many seconds the next will."""
WORK: Final = "SELECT pg_notify({channel}, 'work')"


class Statements:
    """The statements of the store for one schema."""

    def __init__(self, schema: str, started: LiteralString = "pg_postmaster_start_time()") -> None:
        """`schema` may be a name of any spelling: it is quoted. No lease is over before it could be renewed after `started`."""
        self.schema = schema
        self.started = sql.SQL(started)
        # PostgreSQL cuts names to 63 bytes, but refuses to notify a channel whose name is longer.
        self.channel = f"{schema}_procedures".encode()[:63].decode("utf-8", "ignore")
        self._composed: dict[str, sql.Composed] = {}

    def __call__(self, text: LiteralString) -> sql.Composed:
        """Return a statement of this package for this schema."""
        composed = self._composed.get(text)
        if composed is None:
            composed = sql.SQL(text).format(
                schema=sql.Identifier(self.schema), channel=sql.Literal(self.channel), started=self.started
            )
            self._composed[text] = composed
        return composed

    def listen(self) -> sql.Composed:
        """Return the statement that subscribes to the channel."""
        return sql.SQL("LISTEN {}").format(sql.Identifier(self.channel))
