"""SQL of the store that picks rows and changes them: claims, deadlines, what is old.

Each is put together of a part that picks, and locks what it picks, and a part that changes it, so that a row which cannot be
changed (a trigger of the user's refuses it) is found and left out. See `_careful.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString

from outlast.procedures._stores.postgres._rows import COLUMNS
from outlast.procedures._stores.postgres._statements import ENDED, NEW_RUNNER, paused

_WITH: Final = "WITH picked AS MATERIALIZED ("
SPARE: Final = 100
"""Rows that are looked at beyond the count that is asked for: others may be claiming the first of them."""
AHEAD: Final = 1_000
"""Rows that are looked over at once for those that wait for a lock."""
WAKE: Final = 8
"""Rows that are woken when a lock is free: the first in order; more than one, since a kind may be held."""


@dataclass(frozen=True, slots=True)
class Picking:
    """A statement that picks some rows and changes them: all that it finds, or `these`, of a list of ids."""

    verb: LiteralString
    pick: LiteralString
    whole: LiteralString
    these: LiteralString


def _picking(verb: LiteralString, pick: LiteralString, pick_these: LiteralString, change: LiteralString) -> Picking:
    return Picking(verb, pick, _WITH + pick + ") " + change, _WITH + pick_these + ") " + change)


_OVER: Final = """greatest(d.lease_until, {started} + d.lease_s * interval '1 second') < now()"""
"""A lease runs from the server's own start at the earliest: after an outage everyone has time to renew it."""
_IN_TIME: Final = "(began_at IS NOT NULL OR deadline_at IS NULL OR deadline_at > now())"
_WANTED: Final = "id <> ALL(%(without)s::text[]) AND " + _IN_TIME + " AND NOT " + paused("c")
_PICKED: Final = "r.id, r.token, r.locks, r.began_at IS NOT NULL AS begun, r.priority, r.due_at"
_ORDER: Final = "CASE WHEN %(oldest)s THEN 0 ELSE r.priority END DESC, r.due_at, r.id"

_DUE: Final = (
    "SELECT "
    + _PICKED
    + """ FROM (
    SELECT c.id, c.token, c.state FROM (
        SELECT kind FROM unnest(%(kinds)s::text[]) AS k(kind)
        WHERE NOT EXISTS (SELECT FROM {schema}.procedure_pauses p WHERE p.key = '' AND p.kind IN ('', k.kind))
    ) AS k CROSS JOIN (VALUES (2), (1), (0)) AS p(priority) CROSS JOIN LATERAL (
        SELECT id, token, state FROM {schema}.procedures c
        WHERE kind = k.kind AND priority = p.priority AND state IN ('queued', 'waiting') AND parked_on IS NULL
            AND due_at IS NOT NULL AND due_at <= now() AND """
    + _WANTED
    + """
        ORDER BY due_at, id LIMIT %(window)s
    ) AS c
    UNION ALL
    SELECT c.id, c.token, c.state FROM {schema}.procedure_runners d CROSS JOIN LATERAL (
        SELECT id, token, state FROM {schema}.procedures c
        WHERE state = 'running' AND owner = d.id AND kind = ANY(%(kinds)s::text[]) AND """
    + _WANTED
    + """ LIMIT %(window)s
    ) AS c WHERE """
    + _OVER
    + """
) AS due JOIN {schema}.procedures r ON r.id = due.id
WHERE r.token = due.token AND r.state = due.state AND r.parked_on IS NULL
ORDER BY """
    + _ORDER
    + """ LIMIT %(count)s FOR UPDATE OF r SKIP LOCKED"""
)
"""Of each kind and priority the first in order, by the index alone; then the first of these that nobody else is claiming."""
_DUE_THESE: Final = (
    "SELECT "
    + _PICKED
    + """ FROM {schema}.procedures r
WHERE id = ANY(%(id)s::text[]) AND """
    + _IN_TIME
    + " AND NOT "
    + paused("r")
    + """
    AND (state IN ('queued', 'waiting') AND parked_on IS NULL AND due_at <= now()
        OR state = 'running' AND EXISTS (SELECT FROM {schema}.procedure_runners d WHERE d.id = r.owner AND """
    + _OVER
    + """))
FOR UPDATE OF r SKIP LOCKED"""
)
_PLACE: Final = "array_position(%(id)s::text[], r.id)"


def _claim(order: LiteralString) -> LiteralString:
    return (
        """, took AS (
    INSERT INTO {schema}.procedure_locks (name, record)
    SELECT w.name, r.id FROM picked r CROSS JOIN LATERAL unnest(r.locks) AS w(name) WHERE NOT r.begun
    ORDER BY w.name, """
        + order
        + """
    ON CONFLICT DO NOTHING RETURNING record
), seen AS (
    """
        + NEW_RUNNER
        + """), changed AS (
    UPDATE {schema}.procedures r SET state = 'running', owner = %(runner)s, token = r.token + 1,
        deaths = r.deaths + (r.state = 'running')::int, began_at = coalesce(r.began_at, now()), waits_for = ''
    FROM picked WHERE r.id = picked.id
        AND (picked.begun OR cardinality(picked.locks) = (SELECT count(*) FROM took WHERE took.record = r.id))
    RETURNING """
        + COLUMNS
        + """
)
SELECT r.id, changed.* FROM picked r LEFT JOIN changed ON changed.id = r.id ORDER BY """
        + order
    )


CLAIM: Final = Picking(
    "claimed",
    _DUE,
    _WITH + _DUE + ")" + _claim(_ORDER),
    _WITH + _DUE_THESE + ")" + _claim(_PLACE),
)
"""Returns each row that was picked: the id alone if another record holds one of its locks."""

UNLOCK: Final = "DELETE FROM {schema}.procedure_locks WHERE record = ANY(%(id)s)"
"""Of those that did not get all their locks."""
_PARK: Final = """), held AS MATERIALIZED (
    SELECT l.name, l.record FROM {schema}.procedure_locks l
    WHERE l.name = ANY(ARRAY(SELECT unnest(locks) FROM picked WHERE NOT begun)) ORDER BY l.name FOR SHARE
)
UPDATE {schema}.procedures r SET parked_on = held.name
FROM picked JOIN held ON held.name = ANY(picked.locks) WHERE r.id = picked.id AND NOT picked.begun AND held.record <> r.id
"""
PARK: Final = _WITH + _DUE + _PARK
PARK_THESE: Final = _WITH + _DUE_THESE + _PARK
"""Takes those that wait for a lock out of the index of what is due. The lock cannot be released in between: whoever does that
waits for this share of it, and then sees who is to be woken."""
WAKE_UP: Final = (
    """
WITH first AS MATERIALIZED (
    SELECT c.id FROM unnest(%(name)s::text[]) AS n(name) CROSS JOIN LATERAL (
        SELECT id FROM {schema}.procedures c WHERE parked_on = n.name AND NOT """
    + paused("c")
    + """ AND """
    + _IN_TIME
    + """ ORDER BY priority DESC, due_at, id LIMIT %(wake)s
    ) AS c
)
UPDATE {schema}.procedures r SET parked_on = NULL FROM first WHERE r.id = first.id AND r.parked_on IS NOT NULL RETURNING r.id
"""
)
FREE_LOCKS: Final = """
WITH RECURSIVE names(name) AS (
    (SELECT parked_on FROM {schema}.procedures WHERE parked_on IS NOT NULL ORDER BY parked_on LIMIT 1)
    UNION ALL
    SELECT (SELECT parked_on FROM {schema}.procedures WHERE parked_on > names.name ORDER BY parked_on LIMIT 1)
    FROM names WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
    AND NOT EXISTS (SELECT FROM {schema}.procedure_locks l WHERE l.name = names.name) LIMIT %(count)s
"""
"""The locks that some wait for and nobody holds: those who were woken could not be claimed, or the holder was deleted."""

_THESE: Final = "SELECT id FROM {schema}.procedures WHERE id = ANY(%(id)s::text[])"
EXPIRE: Final = _picking(
    "expired",
    """SELECT id FROM {schema}.procedures
    WHERE state = 'queued' AND began_at IS NULL AND deadline_at IS NOT NULL AND deadline_at <= now()
        AND id <> ALL(%(without)s::text[])
    ORDER BY deadline_at LIMIT %(count)s FOR UPDATE SKIP LOCKED""",
    _THESE + " AND state = 'queued' AND began_at IS NULL AND deadline_at <= now() FOR UPDATE SKIP LOCKED",
    """UPDATE {schema}.procedures r SET state = 'expired', ended_at = now(), due_at = NULL, parked_on = NULL
    FROM picked WHERE r.id = picked.id RETURNING r.id""",
)
_DELETE: Final = "DELETE FROM {schema}.procedures r USING picked WHERE r.id = picked.id RETURNING r.id"
DELETE_ENDED: Final = _picking(
    "deleted",
    """SELECT id FROM {schema}.procedures WHERE state IN """
    + ENDED
    + """ AND ended_at <= now() - %(age_s)s * interval '1 second' AND id <> ALL(%(without)s::text[])
    ORDER BY ended_at LIMIT %(count)s FOR UPDATE SKIP LOCKED""",
    _THESE + " AND state IN " + ENDED + " FOR UPDATE SKIP LOCKED",
    _DELETE,
)
DELETE_DEAD: Final = _picking(
    "deleted",
    """SELECT id FROM {schema}.procedures WHERE state = 'dead'
        AND ended_at <= now() - %(age_s)s * interval '1 second' AND id <> ALL(%(without)s::text[])
    ORDER BY ended_at, id LIMIT %(count)s FOR UPDATE SKIP LOCKED""",
    _THESE + " AND state = 'dead' FOR UPDATE SKIP LOCKED",
    _DELETE,
)
DELETE_TOO_MANY: Final = _picking(
    "deleted",
    """SELECT r.id FROM (SELECT id FROM {schema}.procedures WHERE state = 'dead' ORDER BY ended_at DESC, id DESC
        OFFSET %(most)s LIMIT %(count)s) AS over JOIN {schema}.procedures r ON r.id = over.id
    WHERE r.state = 'dead' AND r.id <> ALL(%(without)s::text[]) FOR UPDATE OF r SKIP LOCKED""",
    _THESE + " AND state = 'dead' FOR UPDATE SKIP LOCKED",
    _DELETE,
)
FORGET_RUNNERS: Final = """
DELETE FROM {schema}.procedure_runners d WHERE lease_until < now() - interval '1 hour'
    AND NOT EXISTS (SELECT FROM {schema}.procedures WHERE state = 'running' AND owner = d.id) RETURNING id
"""
