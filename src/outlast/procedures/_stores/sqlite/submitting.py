"""Submissions, claims and leases: who has what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from outlast.procedures._model import LIVE, Mine, NewRecord, ProcedureRecord, ProcedureState, Submission, Submitted
from outlast.procedures._stores import rules
from outlast.procedures._stores.sqlite import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from outlast.procedures._stores.sqlite.transaction import Transaction

_BY_KEY: Final = f"{rows.SELECT} WHERE kind = ? AND key = ? AND {rows.HOLDS_KEY}"
_BY_ID: Final = f"{rows.SELECT} WHERE id = ?"
_BY_IDS: Final = f"{rows.SELECT} WHERE id IN (SELECT value FROM json_each(?))"
_HELD: Final = "SELECT 1 FROM json_each({0}) l JOIN outlast_procedures_locks h ON h.name = l.value WHERE h.id <> {1}"
_MAY_BE_CLAIMED: Final = f"""
    id NOT IN (SELECT value FROM json_each(?)) AND (locks IS NULL OR NOT EXISTS ({_HELD.format("p.locks", "p.id")}))
    AND NOT EXISTS (SELECT 1 FROM outlast_procedures_pauses q WHERE q.kind = p.kind AND q.key = p.key)
"""
_DUE: Final = f"""
    SELECT priority, due_at, id FROM outlast_procedures p INDEXED BY outlast_procedures_due
    WHERE state IN ('queued', 'waiting') AND due_at IS NOT NULL AND kind = ? AND priority = ? AND due_at <= ?
    AND (began_at IS NOT NULL OR deadline_at IS NULL OR deadline_at > ?) AND {_MAY_BE_CLAIMED}
    ORDER BY due_at, id LIMIT ?
"""
"""Of one kind and priority, so that what is held back of one kind is not looked at when another is asked for."""
_LEFT_BY_THE_DEAD: Final = f"""
    SELECT priority, due_at, id FROM outlast_procedures p INDEXED BY outlast_procedures_running
    WHERE state = 'running' AND owner IN (SELECT id FROM outlast_procedures_runners WHERE lease_until <= ?)
    AND kind IN (SELECT value FROM json_each(?)) AND {_MAY_BE_CLAIMED} ORDER BY priority DESC, due_at, id
"""
_CLAIM: Final = """
    UPDATE outlast_procedures SET state = 'running', token = ?, owner = ?, began_at = ?, deaths = ?, waits_for = '' WHERE id = ?
"""
_PRIORITIES: Final = (2, 1, 0)


def submit(tx: Transaction, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
    """See the port."""
    if any(one.claim for one in new):
        _know(tx, runner)
    return [_submit(tx, one, runner) for one in new]


def _submit(tx: Transaction, new: NewRecord, runner: str) -> Submitted:
    now = tx.now
    row = tx.row(_BY_KEY, new.kind, new.key)
    if row is None:
        record = _begun(tx, new, rules.made(new, now), runner)
        if tx.run(rows.INSERT, *rows.row_of(record)):
            return Submitted(Submission.CREATED, _made(tx, record, new))
        return Submitted(Submission.CREATED, _existing(tx, new.id))
    held = rows.record_of(row, now)
    if (repeated := row if held.id == new.id else tx.row(_BY_ID, new.id)) is not None:
        return Submitted(Submission.CREATED, rows.record_of(repeated, now))
    if held.state in LIVE:
        return Submitted(Submission.JOINED, _joined(tx, held, new))
    if held.until_at is not None and held.until_at > now:
        return Submitted(Submission.FAILING, held)
    record = _begun(tx, new, rules.revived(held, new, now), runner)
    tx.run(rows.REPLACE, *rows.row_of(record), record.id)
    return Submitted(Submission.REVIVED, _made(tx, record, new))


def _existing(tx: Transaction, the_id: str) -> ProcedureRecord:
    row = tx.row(_BY_ID, the_id)
    assert row is not None  # noqa: S101 - its insertion was refused because it is there
    return rows.record_of(row, tx.now)


def _made(tx: Transaction, record: ProcedureRecord, new: NewRecord) -> ProcedureRecord:
    if record.state is ProcedureState.RUNNING:
        _take_locks(tx, record)
    elif new.delay_s <= 0:
        tx.work = True
    return record


def _begun(tx: Transaction, new: NewRecord, record: ProcedureRecord, runner: str) -> ProcedureRecord:
    """Return it as claimed by `runner`, if it is to be and may be."""
    is_due = new.delay_s <= 0 and (new.deadline_s is None or new.deadline_s > 0)
    if not new.claim or not is_due or tx.is_paused(record.kind, record.key):
        return record
    if record.locks and tx.row(_HELD.format("?", "?"), rows.locks_text(record.locks), record.id) is not None:
        return record
    return rules.claimed(record, runner, tx.now)


def _joined(tx: Transaction, held: ProcedureRecord, new: NewRecord) -> ProcedureRecord:
    longer = rules.living_longer(held, new.deadline_s, tx.now)
    if longer.deadline_at != held.deadline_at:
        tx.run("UPDATE outlast_procedures SET deadline_at = ? WHERE id = ?", longer.deadline_at, held.id)
    return longer


def claim(
    tx: Transaction, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool, without: Sequence[str]
) -> list[ProcedureRecord]:
    """See the port."""
    _know(tx, runner)
    # A kind that is paused is not asked for; keys that are, the statements leave out.
    asked = [kind for kind in dict.fromkeys(kinds) if not tx.is_paused(kind, "")]
    claimed: dict[str, ProcedureRecord] = {}
    # Of those that need one lock the first gets it: the others are passed over, and more is looked for.
    while asked and len(claimed) < count:
        left_out = json.dumps([*without, *claimed])
        found = _claimable(tx, asked, left_out, count - len(claimed), oldest_first=oldest_first)
        taken = [record for record in found if _take_locks(tx, record)]
        claimed |= {record.id: rules.claimed(record, runner, tx.now) for record in taken}
        if len(taken) == len(found):
            break
    values = ((one.token, runner, one.began_at, one.deaths, one.id) for one in claimed.values())
    tx.run_all(_CLAIM, values)
    return list(claimed.values())


def _claimable(tx: Transaction, kinds: Sequence[str], without: str, count: int, *, oldest_first: bool) -> list[ProcedureRecord]:
    now = tx.now
    found = tx.rows(_LEFT_BY_THE_DEAD, now, json.dumps(kinds), without)
    for priority in _PRIORITIES:
        if not oldest_first and sum(row[0] >= priority for row in found) >= count:
            break
        for kind in kinds:
            found += tx.rows(_DUE, kind, priority, now, now, without, count)
    found.sort(key=lambda row: (0 if oldest_first else -row[0], row[1], row[2]))
    ids = [row[2] for row in found[:count]]
    read = {row[0]: rows.record_of(row, now) for row in tx.rows(_BY_IDS, json.dumps(ids))}
    return [read[the_id] for the_id in ids]


def _take_locks(tx: Transaction, record: ProcedureRecord) -> bool:
    """Take all locks of a record; return False, and take none, if another has one of them."""
    if not record.locks:
        return True
    names = rows.locks_text(record.locks)
    if tx.row(_HELD.format("?", "?"), names, record.id) is not None:
        return False
    tx.run("INSERT OR IGNORE INTO outlast_procedures_locks SELECT value, ? FROM json_each(?)", record.id, names)
    return True


def _know(tx: Transaction, runner: str) -> None:
    """Make a runner known, without a lease: what it claims is not lost if it never comes to its first beat."""
    tx.run("INSERT OR IGNORE INTO outlast_procedures_runners VALUES (?, '', 0)", runner)


def beat(tx: Transaction, runner: str, name: str, lease_s: float) -> dict[str, Mine]:
    """See the port."""
    tx.run("INSERT OR REPLACE INTO outlast_procedures_runners VALUES (?, ?, ?)", runner, name, tx.now + lease_s)
    tx.run("UPDATE outlast_procedures_state SET seen_at = ?", tx.now)
    mine = tx.rows(
        "SELECT id, token, cancel_requested, signals FROM outlast_procedures WHERE state = 'running' AND owner = ?", runner
    )
    return {the_id: Mine(token, bool(cancel), len(rows.signals_of(signals))) for the_id, token, cancel, signals in mine}


def leave(tx: Transaction, runner: str) -> None:
    """See the port."""
    tx.run("UPDATE outlast_procedures_runners SET lease_until = 0 WHERE id = ?", runner)
    tx.work = True


def extend(tx: Transaction, deadlines: Iterable[tuple[str, float | None]]) -> None:
    """See the port."""
    statement = """
        UPDATE outlast_procedures SET deadline_at = max(deadline_at, ? + ?)
        WHERE id = ? AND state = 'queued' AND began_at IS NULL AND deadline_at IS NOT NULL
    """
    # With NULL in it the sum and the maximum are NULL: no deadline.
    tx.run_all(statement, [(tx.now, seconds, the_id) for the_id, seconds in deadlines])
