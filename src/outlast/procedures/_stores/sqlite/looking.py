"""Records, counts and news, as they are read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from outlast.procedures._model import Counts, KeyOf, News, ProcedureRecord, ProcedureState
from outlast.procedures._stores.sqlite import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.procedures._stores.sqlite.transaction import Transaction

_BY_IDS: Final = f"{rows.SELECT} WHERE id IN (SELECT value FROM json_each(?))"
_HOLDER: Final = f"{rows.SELECT} WHERE kind = ? AND key = ? AND {rows.HOLDS_KEY}"
_ENDED_LAST: Final = f"""
    {rows.SELECT} WHERE kind = ? AND state IN ('done', 'cancelled', 'expired') AND key = ? ORDER BY ended_at DESC, id DESC LIMIT 1
"""
_COUNTS: Final = """
    SELECT kind, state, count(*) FROM outlast_procedures INDEXED BY outlast_procedures_kinds GROUP BY kind, state
"""
_NEXT_DUE: Final = """
    WITH RECURSIVE
    due AS (SELECT kind, priority, due_at FROM outlast_procedures WHERE state IN ('queued', 'waiting') AND due_at IS NOT NULL),
    kinds(kind) AS (
        SELECT min(kind) FROM due UNION ALL
        SELECT (SELECT min(kind) FROM due WHERE due.kind > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL
    ),
    priorities(priority) AS (VALUES (0), (1), (2))
    SELECT min((
        SELECT min(due_at) FROM due WHERE due.kind = kinds.kind AND due.priority = priorities.priority AND due_at > ?
    )) FROM kinds CROSS JOIN priorities WHERE kinds.kind IS NOT NULL
"""
"""One step in the index for each kind and priority: what is due is not counted through."""


def find(tx: Transaction, ids: Sequence[str]) -> list[ProcedureRecord | None]:
    """See the port."""
    found = {row[0]: rows.record_of(row, tx.now) for row in tx.rows(_BY_IDS, json.dumps(list(ids)))}
    return [found.get(the_id) for the_id in ids]


def find_keys(tx: Transaction, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
    """See the port."""
    found = (tx.row(_HOLDER, *of) or tx.row(_ENDED_LAST, *of) for of in keys)
    return [None if row is None else rows.record_of(row, tx.now) for row in found]


def records(
    tx: Transaction, states: Sequence[ProcedureState], kind: str | None, key: str | None, before: str | None, count: int
) -> list[ProcedureRecord]:
    """See the port."""
    conditions = {
        "id < ?": before,
        "kind = ?": kind,
        "key = ?": key,
        "state IN (SELECT value FROM json_each(?))": json.dumps([state.value for state in states]) if states else None,
    }
    asked = {condition: value for condition, value in conditions.items() if value is not None}
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    found = tx.rows(f"{rows.SELECT} {where} ORDER BY id DESC LIMIT ?", *asked.values(), count)
    return [rows.record_of(row, tx.now) for row in found]


def counts(tx: Transaction) -> Counts:
    """See the port."""
    held = tx.rows(_COUNTS)
    oldest = next_due_at(tx, 0.0)
    waited_s = max(0.0, tx.now - oldest) if oldest is not None else 0.0
    return Counts({(kind, state): number for kind, state, number in held}, waited_s)


def next_due_at(tx: Transaction, after: float) -> float | None:
    """Return the first time after `after` at which something becomes due."""
    [(due_at,)] = tx.rows(_NEXT_DUE, after)
    return due_at  # type: ignore[no-any-return]


def news(tx: Transaction, after: int | None, looked_at: float) -> tuple[News, float | None]:
    """Return what is new, and when the next thing becomes due after this moment."""
    row = tx.row("SELECT number, work_at, forgotten_to FROM outlast_procedures_state")
    number, work_at, forgotten_to = row or (0, 0, 0)
    if after is None:
        return News(number), None
    became_due = next_due_at(tx, looked_at)
    work = work_at > after or (became_due is not None and became_due <= tx.now)
    events = tx.events(after) if number > after else ()
    return News(number, events, lost=after < forgotten_to, work=work), next_due_at(tx, tx.now)
