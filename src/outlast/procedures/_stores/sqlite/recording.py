"""The writes of runners, fenced by their token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from outlast.procedures._model import FINAL, ProcedureState, Recorded, RecordWrite
from outlast.procedures._stores.sqlite import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.procedures._model import Signal
    from outlast.procedures._stores.sqlite.transaction import Row, Transaction

_READ: Final = """
    SELECT cancel_requested, signals, locks, first_fault, last_fault, body FROM outlast_procedures
    WHERE id = ? AND state = 'running' AND token = ?
"""
_STEP: Final = """
    UPDATE outlast_procedures
    SET body = ?, progress = ?, signals = ?, first_fault = ?, last_fault = ?, deaths = 0 WHERE id = ?
"""
_WAIT: Final = """
    UPDATE outlast_procedures
    SET body = ?, progress = ?, signals = ?, first_fault = ?, last_fault = ?, deaths = 0,
        state = ?, owner = NULL, due_at = ?, waits_for = ? WHERE id = ?
"""
_END: Final = """
    UPDATE outlast_procedures
    SET body = ?, progress = ?, signals = ?, first_fault = ?, last_fault = ?, deaths = 0,
        state = ?, owner = NULL, due_at = NULL, result = ?, ended_at = ?, until_at = ?, failures = ifnull(?, failures)
    WHERE id = ?
"""


def record(tx: Transaction, writes: Sequence[RecordWrite]) -> list[Recorded]:
    """See the port."""
    return [_record(tx, write) for write in writes]


def _record(tx: Transaction, write: RecordWrite) -> Recorded:
    row = tx.row(_READ, write.id, write.token)
    if row is None:
        return Recorded.LATE
    signals = rows.signals_of(row[1])
    if write.took_signals and write.body_json != row[5]:
        signals = _without(signals, write.took_signals)
    fault = rows.fault_text(write.fault)
    first_fault, last_fault = (row[3], row[4]) if fault is None else (row[3] or fault, fault)
    common = (write.body_json, write.progress, rows.signals_text(signals), first_fault, last_fault)
    state = ProcedureState(write.state)
    if state in FINAL:
        tx.run(_END, *common, *_ended(tx, write, state), write.id)
        if row[2] is not None and tx.run("DELETE FROM outlast_procedures_locks WHERE id = ?", write.id):
            tx.work = True
    elif state is ProcedureState.RUNNING:
        tx.run(_STEP, *common, write.id)
    else:
        tx.run(_WAIT, *common, *_waiting(tx, write, signals, cancel_requested=bool(row[0])), write.id)
    return Recorded.WRITTEN


def _ended(tx: Transaction, write: RecordWrite, state: ProcedureState) -> Row:
    is_dead = state is ProcedureState.DEAD
    failures: int | None = write.failures if is_dead else None
    if state is ProcedureState.DONE:
        failures = 0
    return (state.value, write.result_json, tx.now, tx.now + write.until_s if is_dead else None, failures)


def _waiting(tx: Transaction, write: RecordWrite, signals: Sequence[Signal], *, cancel_requested: bool) -> Row:
    waits_for = write.waits_for if write.state == ProcedureState.WAITING.value else ""
    due_at = None if write.due_s is None else tx.now + write.due_s
    if (cancel_requested and not write.cancel_known) or any(signal.name == waits_for for signal in signals):
        due_at = tx.now
    if due_at is not None and due_at <= tx.now:
        tx.work = True
    return (write.state, due_at, waits_for)


def _without(signals: Sequence[Signal], names: Sequence[str]) -> tuple[Signal, ...]:
    left: list[Any] = list(signals)
    for name in names:
        oldest = next((signal for signal in left if signal.name == name), None)
        if oldest is not None:
            left.remove(oldest)
    return tuple(left)
