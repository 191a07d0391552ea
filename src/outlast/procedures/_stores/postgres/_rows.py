"""Rows of the table as records, and what is put into it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, LiteralString

from outlast.procedures._model import Priority, ProcedureRecord, ProcedureState, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.procedures._model import NewRecord, RecordWrite

SECONDS_MAX: Final = 100 * 365.25 * 86_400
"""The longest wait that is stored: a hundred years. What is longer than that is cut to it."""
_TIMES: Final[tuple[LiteralString, ...]] = ("created_at", "due_at", "deadline_at", "began_at", "ended_at", "until_at")
_PLAIN: Final[tuple[LiteralString, ...]] = (
    "id",
    "kind",
    "key",
    "state",
    "version",
    "priority",
    "cancel_requested",
    "token",
    "revivals",
    "deaths",
    "failures",
    "owner",
    "waits_for",
    "progress",
    "locks",
    "first_fault",
    "last_fault",
    "payload",
    "body",
    "result",
)
_SIGNALS: Final = """CASE WHEN r.signals > 0 THEN (SELECT json_agg(json_build_array(s.name, s.payload) ORDER BY s.number)
    FROM {schema}.procedure_signals s WHERE s.record = r.id)::text END"""


COLUMNS: Final = (
    "r."
    + ", r.".join(_PLAIN)
    + ", extract(epoch FROM r."
    + ")::float8, extract(epoch FROM r.".join(_TIMES)
    + ")::float8, extract(epoch FROM now())::float8, "
    + _SIGNALS
)
"""Of a table or query that is called r. Times are read as numbers: they are the same whatever `TimeZone` and `DateStyle` say."""
WIDTH: Final = len(_PLAIN) + len(_TIMES) + 2


def record_of(row: Sequence[Any]) -> ProcedureRecord:
    """Return the record of a row of COLUMNS."""
    values = dict(zip((*_PLAIN, *_TIMES), row, strict=False))
    payload, body, result = (values.pop(name) for name in ("payload", "body", "result"))
    signals: list[list[str]] = json.loads(row[WIDTH - 1] or "[]")
    values |= {
        "state": ProcedureState(values["state"]),
        "priority": Priority(values["priority"]),
        "locks": tuple(values["locks"]),
        "first_fault": _fault(values["first_fault"]),
        "last_fault": _fault(values["last_fault"]),
    }
    return ProcedureRecord(
        **values,
        read_at=row[WIDTH - 2],
        payload_json=payload,
        body_json=body,
        result_json=result,
        signals=tuple(Signal(name, text) for name, text in signals),
    )


def submitted(new: Sequence[NewRecord], runner: str) -> dict[str, Any]:
    """Return the values of the statements that make or revive records."""
    return {
        "runner": runner,
        "id": [each.id for each in new],
        "kind": [each.kind for each in new],
        "key": [each.key for each in new],
        "version": [each.version for each in new],
        "priority": [int(each.priority) for each in new],
        "payload": [each.payload_json for each in new],
        "locks": [json.dumps(list(dict.fromkeys(each.locks))) for each in new],
        "delay_s": [_seconds(each.delay_s) for each in new],
        "deadline_s": [_seconds(each.deadline_s) for each in new],
        "claim": [each.claim for each in new],
    }


def written(writes: Sequence[RecordWrite]) -> dict[str, Any]:
    """Return the values of the statement that records."""
    return {
        "id": [each.id for each in writes],
        "token": [each.token for each in writes],
        "state": [each.state for each in writes],
        "body": [each.body_json for each in writes],
        "result": [each.result_json for each in writes],
        "fault": [None if each.fault is None else json.dumps(each.fault) for each in writes],
        "cause": [None if each.fault is None else cause_of(each.fault) for each in writes],
        "due_s": [_seconds(each.due_s) for each in writes],
        "waits_for": [each.waits_for for each in writes],
        "failures": [each.failures for each in writes],
        "until_s": [_seconds(each.until_s) for each in writes],
        "progress": [plain(each.progress) for each in writes],
        "cancel_known": [each.cancel_known for each in writes],
    }


def cause_of(fault: dict[str, Any]) -> str:
    """Return the cause of a stored fault, as an event names it."""
    return plain("/".join(str(fault.get(name, "")) for name in ("source", "kind", "code")))


def plain(text: str) -> str:
    """Return a text without what a column of text does not take: NUL, and half of a character."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(min(max(value, 0.0), SECONDS_MAX))


def _fault(text: str | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found
