"""Cleaning up, a little at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.procedures._model import Sweep, Swept

if TYPE_CHECKING:
    from outlast.procedures._stores.sqlite.transaction import Transaction

_EXPIRE: Final = """
    UPDATE outlast_procedures SET state = 'expired', due_at = NULL, ended_at = ?1 WHERE id IN (
        SELECT id FROM outlast_procedures INDEXED BY outlast_procedures_deadline
        WHERE state = 'queued' AND began_at IS NULL AND deadline_at IS NOT NULL AND deadline_at <= ?1
        ORDER BY deadline_at LIMIT ?2
    )
"""
_DELETE: Final = """
    DELETE FROM outlast_procedures WHERE id IN (
        SELECT id FROM outlast_procedures INDEXED BY outlast_procedures_ended
        WHERE state = ? AND ended_at IS NOT NULL AND ended_at <= ? ORDER BY ended_at, id LIMIT ?
    )
"""
_DEAD: Final = """
    SELECT count(*) FROM outlast_procedures INDEXED BY outlast_procedures_ended WHERE state = 'dead' AND ended_at IS NOT NULL
"""
_RUNNERS_KEPT_S: Final = 3_600.0
_FORGET_RUNNERS: Final = """
    DELETE FROM outlast_procedures_runners WHERE lease_until <= ? AND id NOT IN (
        SELECT owner FROM outlast_procedures WHERE state = 'running' AND owner IS NOT NULL
    )
"""


def sweep(tx: Transaction, what: Sweep) -> Swept:
    """See the port."""
    expired = tx.run(_EXPIRE, tx.now, what.batch)
    deleted = 0
    for state in ("done", "cancelled", "expired"):
        if what.done_keep_s is not None and deleted < what.batch:
            deleted += tx.run(_DELETE, state, tx.now - what.done_keep_s, what.batch - deleted)
    dead_deleted = 0
    if what.dead_keep_s is not None:
        dead_deleted = tx.run(_DELETE, "dead", tx.now - what.dead_keep_s, what.batch)
    [(dead,)] = tx.rows(_DEAD)
    beyond = max(0, min(dead - what.dead_max, what.batch - dead_deleted))
    if beyond:
        dead_deleted += tx.run(_DELETE, "dead", tx.now, beyond)
    tx.run(_FORGET_RUNNERS, tx.now - _RUNNERS_KEPT_S)
    return Swept(expired, deleted, dead_deleted, more=what.batch in {expired, deleted, dead_deleted})
