"""The acts of people and of other processes: cancels, signals, pauses, an end to a backoff."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from outlast.procedures._model import LIVE, Pause, ProcedureState, Signal, StoreEventKind
from outlast.procedures._stores.bounds import PAUSES_MAX, SIGNALS_MAX, pauses_full, signals_full
from outlast.procedures._stores.sqlite import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.procedures._stores.sqlite.transaction import Transaction

CLEARED_AT_ONCE: Final = 500
"""Dead records that one transaction clears: the writer is let go in between."""


def cancel(tx: Transaction, the_id: str) -> ProcedureState | None:
    """See the port."""
    row = tx.row("SELECT state, began_at, cancel_requested FROM outlast_procedures WHERE id = ?", the_id)
    if row is None:
        return None
    state = ProcedureState(row[0])
    if state not in LIVE or row[2]:
        return state
    if row[1] is None:
        tx.run(
            "UPDATE outlast_procedures SET state = 'cancelled', cancel_requested = 1, due_at = NULL, ended_at = ? WHERE id = ?",
            tx.now,
            the_id,
        )
        state = ProcedureState.CANCELLED
    elif state is ProcedureState.RUNNING:
        tx.run("UPDATE outlast_procedures SET cancel_requested = 1 WHERE id = ?", the_id)
    else:
        tx.run("UPDATE outlast_procedures SET cancel_requested = 1, due_at = ? WHERE id = ?", tx.now, the_id)
        tx.work = True
    tx.event(StoreEventKind.CANCEL, text=the_id)
    return state


def signal(tx: Transaction, the_id: str, name: str, payload_json: str) -> ProcedureState | None:
    """See the port."""
    row = tx.row("SELECT state, waits_for, signals FROM outlast_procedures WHERE id = ?", the_id)
    if row is None or (state := ProcedureState(row[0])) not in LIVE:
        return None
    signals = rows.signals_of(row[2])
    if len(signals) >= SIGNALS_MAX:
        raise signals_full(the_id, name)
    text = rows.signals_text((*signals, Signal(name, payload_json)))
    tx.run("UPDATE outlast_procedures SET signals = ? WHERE id = ?", text, the_id)
    if state is ProcedureState.WAITING and row[1] == name:
        tx.run("UPDATE outlast_procedures SET due_at = ? WHERE id = ?", tx.now, the_id)
        tx.work = True
    tx.event(StoreEventKind.SIGNAL, text=the_id)
    return state


def pause(tx: Transaction, what: Pause) -> None:
    """See the port."""
    [(count,)] = tx.rows("SELECT count(*) FROM outlast_procedures_pauses")
    if count >= PAUSES_MAX and what not in pauses(tx):
        raise pauses_full(what)
    if tx.run("INSERT OR IGNORE INTO outlast_procedures_pauses VALUES (?, ?)", what.kind, what.key):
        tx.event(StoreEventKind.PAUSED, what.kind, what.key)


def resume(tx: Transaction, what: Pause) -> bool:
    """See the port."""
    if not tx.run("DELETE FROM outlast_procedures_pauses WHERE kind = ? AND key = ?", what.kind, what.key):
        return False
    tx.work = True
    tx.event(StoreEventKind.RESUMED, what.kind, what.key)
    return True


def pauses(tx: Transaction) -> list[Pause]:
    """See the port."""
    return [Pause(kind, key) for kind, key in tx.rows("SELECT kind, key FROM outlast_procedures_pauses ORDER BY 1, 2")]


def clear_some(
    tx: Transaction, after: str, is_chosen: Callable[[str, str, dict[str, Any] | None], bool]
) -> tuple[int, str | None]:
    """Clear those of the next few failing records that are chosen; return how many, and the id to go on after, if any."""
    found = tx.rows(
        "SELECT id, kind, key, last_fault FROM outlast_procedures INDEXED BY outlast_procedures_failing "
        "WHERE state = 'dead' AND failures > 0 AND id > ? ORDER BY id LIMIT ?",
        after,
        CLEARED_AT_ONCE,
    )
    chosen = [row[0] for row in found if is_chosen(row[1], row[2], None if row[3] is None else json.loads(row[3]))]
    tx.run_all("UPDATE outlast_procedures SET failures = 0, until_at = ? WHERE id = ?", [(tx.now, one) for one in chosen])
    return len(chosen), found[-1][0] if len(found) == CLEARED_AT_ONCE else None
