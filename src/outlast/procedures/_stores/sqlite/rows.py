"""Records as rows: one order of the columns, for reading and for writing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from outlast.procedures._model import Priority, ProcedureRecord, ProcedureState, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.procedures._stores.sqlite.transaction import Row

COLUMNS: Final = (
    "id, kind, key, state, version, priority, payload, created_at, body, token, revivals, owner, deaths, failures, locks, "
    "signals, waits_for, cancel_requested, progress, result, first_fault, last_fault, due_at, deadline_at, began_at, "
    "ended_at, until_at"
)
COUNT: Final = COLUMNS.count(",") + 1
LIVE: Final = "state IN ('queued', 'running', 'waiting')"
HOLDS_KEY: Final = "state IN ('queued', 'running', 'waiting', 'dead')"
SELECT: Final = f"SELECT {COLUMNS} FROM outlast_procedures"
INSERT: Final = f"INSERT INTO outlast_procedures ({COLUMNS}) VALUES ({', '.join('?' * COUNT)}) ON CONFLICT (id) DO NOTHING"
REPLACE: Final = f"UPDATE outlast_procedures SET ({COLUMNS}) = ({', '.join('?' * COUNT)}) WHERE id = ?"

_STATES: Final = {state.value: state for state in ProcedureState}
_PRIORITIES: Final = {int(priority): priority for priority in Priority}


def record_of(row: Row, now: float) -> ProcedureRecord:
    """Read a row."""
    return ProcedureRecord(
        id=row[0],
        kind=row[1],
        key=row[2],
        state=_STATES[row[3]],
        version=row[4],
        priority=_PRIORITIES[row[5]],
        payload_json=row[6],
        created_at=row[7],
        read_at=now,
        body_json=row[8],
        token=row[9],
        revivals=row[10],
        owner=row[11],
        deaths=row[12],
        failures=row[13],
        locks=() if row[14] is None else tuple(json.loads(row[14])),
        signals=signals_of(row[15]),
        waits_for=row[16],
        cancel_requested=bool(row[17]),
        progress=row[18],
        result_json=row[19],
        first_fault=None if row[20] is None else json.loads(row[20]),
        last_fault=None if row[21] is None else json.loads(row[21]),
        due_at=row[22],
        deadline_at=row[23],
        began_at=row[24],
        ended_at=row[25],
        until_at=row[26],
    )


def row_of(record: ProcedureRecord) -> Row:
    """Make the row of a record."""
    return (
        record.id,
        record.kind,
        record.key,
        record.state.value,
        record.version,
        int(record.priority),
        record.payload_json,
        record.created_at,
        record.body_json,
        record.token,
        record.revivals,
        record.owner,
        record.deaths,
        record.failures,
        locks_text(record.locks),
        signals_text(record.signals),
        record.waits_for,
        int(record.cancel_requested),
        record.progress,
        record.result_json,
        fault_text(record.first_fault),
        fault_text(record.last_fault),
        record.due_at,
        record.deadline_at,
        record.began_at,
        record.ended_at,
        record.until_at,
    )


def locks_text(locks: Sequence[str]) -> str | None:
    """Write the names of locks; none is NULL, which the claim asks for first."""
    return json.dumps(locks) if locks else None


def signals_of(text: str | None) -> tuple[Signal, ...]:
    """Read signals."""
    return () if text is None else tuple(Signal(name, payload) for name, payload in json.loads(text))


def signals_text(signals: Sequence[Signal]) -> str | None:
    """Write signals; none is NULL."""
    return json.dumps([(signal.name, signal.payload_json) for signal in signals]) if signals else None


def fault_text(fault: dict[str, Any] | None) -> str | None:
    """Write a fault; none is NULL."""
    return None if fault is None else json.dumps(fault)
