"""The rules of records, apart from where they are kept: each function returns what a record becomes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from outlast.procedures._model import ProcedureRecord, ProcedureState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from outlast.procedures._model import NewRecord, RecordWrite


def made(new: NewRecord, now: float) -> ProcedureRecord:
    """Return a new record."""
    return ProcedureRecord(
        new.id,
        new.kind,
        new.key,
        ProcedureState.QUEUED,
        new.version,
        new.priority,
        new.payload_json,
        created_at=now,
        read_at=now,
        locks=tuple(dict.fromkeys(new.locks)),
        due_at=now + new.delay_s,
        deadline_at=None if new.deadline_s is None else now + new.deadline_s,
    )


def revived(dead: ProcedureRecord, new: NewRecord, now: float) -> ProcedureRecord:
    """Return a dead record in its next life."""
    return replace(
        made(new, now),
        id=dead.id,
        created_at=dead.created_at,
        token=dead.token,
        revivals=dead.revivals + 1,
        failures=dead.failures,
        first_fault=dead.first_fault if dead.failures else None,
        last_fault=dead.last_fault if dead.failures else None,
    )


def claimed(record: ProcedureRecord, runner: str, now: float) -> ProcedureRecord:
    """Return a record in the hands of a runner."""
    return replace(
        record,
        state=ProcedureState.RUNNING,
        token=record.token + 1,
        owner=runner,
        began_at=now if record.began_at is None else record.began_at,
        deaths=record.deaths + (record.state is ProcedureState.RUNNING),
        waits_for="",
    )


def may_begin(record: ProcedureRecord, now: float, runners: Collection[str]) -> bool:
    """Return whether a live record may be claimed, as far as its own time and its runner's lease are concerned."""
    if record.state is ProcedureState.RUNNING:
        return record.owner not in runners
    too_late = record.began_at is None and record.deadline_at is not None and record.deadline_at <= now
    return record.due_at is not None and record.due_at <= now and not too_late


def written(record: ProcedureRecord, write: RecordWrite, now: float, signals: Collection[str]) -> ProcedureRecord:
    """Return a record after a write by its runner; `signals` are the names of those that are left."""
    state = ProcedureState(write.state)
    changes: dict[str, Any] = {"state": state, "progress": write.progress, "deaths": 0}
    if write.fault is not None:
        changes |= {"last_fault": write.fault, "first_fault": record.first_fault or write.fault}
    if state in {ProcedureState.QUEUED, ProcedureState.WAITING}:
        waits_for = write.waits_for if state is ProcedureState.WAITING else ""
        due_at = None if write.due_s is None else now + write.due_s
        if (record.cancel_requested and not write.cancel_known) or waits_for in signals:
            due_at = now
        changes |= {"owner": None, "due_at": due_at, "waits_for": waits_for}
    elif state is not ProcedureState.RUNNING:
        changes |= {"owner": None, "due_at": None, "ended_at": now}
        if state is ProcedureState.DONE:
            changes["failures"] = 0
        elif state is ProcedureState.DEAD:
            changes |= {"failures": write.failures, "until_at": now + write.until_s}
    return replace(record, **changes)


def cancelled(record: ProcedureRecord, now: float) -> ProcedureRecord:
    """Return a live record after a request for its end."""
    if record.began_at is None:
        return replace(record, state=ProcedureState.CANCELLED, ended_at=now, due_at=None, cancel_requested=True)
    due_at = record.due_at if record.state is ProcedureState.RUNNING else now
    return replace(record, cancel_requested=True, due_at=due_at)


def signalled(record: ProcedureRecord, name: str, now: float) -> ProcedureRecord:
    """Return a live record for which a signal has come."""
    is_waited_for = record.state is ProcedureState.WAITING and record.waits_for == name
    return replace(record, due_at=now) if is_waited_for else record


def living_longer(record: ProcedureRecord, deadline_s: float | None, now: float) -> ProcedureRecord:
    """Return a record that lives as long as one more wants it to: never less."""
    if record.began_at is not None or record.deadline_at is None:
        return record
    return replace(record, deadline_at=None if deadline_s is None else max(record.deadline_at, now + deadline_s))


def is_of_cause(fault: Mapping[str, Any] | None, cause: Mapping[str, str]) -> bool:
    """Return whether a stored fault is of a cause."""
    return fault is not None and all(fault.get(name) == value for name, value in cause.items())


def cleared(dead: ProcedureRecord, now: float) -> ProcedureRecord:
    """Return a dead record as if it had never failed."""
    return replace(dead, failures=0, until_at=now)


def expired(record: ProcedureRecord, now: float) -> ProcedureRecord:
    """Return a record that was not begun in time."""
    return replace(record, state=ProcedureState.EXPIRED, ended_at=now, due_at=None)
