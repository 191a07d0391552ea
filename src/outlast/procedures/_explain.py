"""The explanation of a key: its state, why it is refused or waits, since when, and what clears that."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast import Fault, State
from outlast.procedures._decisions.front import Why
from outlast.procedures._desk.desk import fault_of
from outlast.procedures._model import LIVE, KeyOf, Pause, ProcedureState

if TYPE_CHECKING:
    from outlast.procedures._desk.desk import Desk
    from outlast.procedures._model import ProcedureRecord
    from outlast.procedures._procedure import Procedure

SCANNED_MAX: Final = 1_000
"""Live records that are looked at for who holds a lock."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The standing of a key."""

    kind: str
    key: str
    state: ProcedureState | None
    """Of its record; None if it has none."""
    id: str
    """Of its record, or ""."""
    why: str
    """The reason for which it is refused or does not go on: failing, probe, cause, dependency, paused, lock, sleep, signal,
    backoff, backlog; "" if nothing keeps it."""
    text: str
    """The same in a sentence."""
    fault: Fault | None = None
    """The first cause."""
    last: Fault | None = None
    since_s: float = 0.0
    retry_after_s: float = 0.0
    clears: str = ""
    """The next step for an operator."""


async def explain(desk: Desk, procedure: Procedure | None, of: KeyOf) -> Explanation:
    """Read the record of the key, and say what is known of it in the store and in this process."""
    record = (await desk.store.find_keys([of]))[0]
    desk.pauses = set(await desk.store.pauses())
    now = asyncio.get_running_loop().time()
    state, record_id = (None, "") if record is None else (record.state, record.id)
    told = _paused(desk, of) or _dependency(procedure) or _remembered(desk, of, now, record)
    if told is None and record is not None:
        told = await _of_record(desk, record)
    if told is None and state not in LIVE:
        told = _backlog(desk, now)
    why, text, fault, since_s, retry_after_s, clears = told or _nothing(state)
    last = None if record is None or record.last_fault is None else fault_of(record.last_fault, record.first_fault)
    return Explanation(of.kind, of.key, state, record_id, why, text, fault, last, since_s, retry_after_s, clears)


Told = tuple[str, str, Fault | None, float, float, str]


def _command(act: str, *words: str) -> str:
    """Return a command for a shell: names may hold spaces and quotes."""
    return shlex.join(("outlast", "procedures", act, *words))


def _nothing(state: ProcedureState | None) -> Told:
    match state:
        case None:
            text = "it has no record, and nothing would refuse it"
        case ProcedureState.RUNNING:
            text = "it runs"
        case ProcedureState.QUEUED:
            text = "it waits for a slot"
        case ProcedureState.DEAD:
            text = "it failed, and its backoff is over: the next submission is its probe"
        case _:
            text = f"it is {state.value}, and nothing would refuse the next submission"
    return "", text, None, 0.0, 0.0, ""


def _paused(desk: Desk, of: KeyOf) -> Told | None:
    for pause in (Pause(of.kind, of.key), Pause(of.kind), Pause()):
        if pause in desk.pauses:
            what = "the key" if pause.key else "the kind" if pause.kind else "everything"
            command = _command("resume", *filter(None, (pause.kind, pause.key)))
            return "paused", f"{what} is paused: nothing of it is begun", None, 0.0, 0.0, command
    return None


def _dependency(procedure: Procedure | None) -> Told | None:
    for dependency in () if procedure is None else procedure.needs:
        if dependency.state is State.DOWN and dependency.fault is not None:
            refusal = dependency.unavailable()
            text = f"{dependency.name}, which it needs, is down"
            return "dependency", text, dependency.fault, refusal.since_s, refusal.retry_after_s, f"bring {dependency.name} back"
    return None


def _remembered(desk: Desk, of: KeyOf, now: float, record: ProcedureRecord | None) -> Told | None:
    known = desk.front.explain(now, of)
    clear = _command("clear", of.kind, of.key)
    if known is not None and known.why is Why.CAUSE:
        text = "many keys of its kind fail by one cause: one is tried at a time until that is gone"
        return "cause", text, known.fault, known.since_s, known.retry_after_s, "mend the cause; what waits goes on by itself"
    if record is not None and record.state is ProcedureState.DEAD and record.failures:
        wait_s = max(0.0, (record.until_at or 0.0) - record.read_at)
        if wait_s > 0:
            times = "once" if record.failures == 1 else f"{record.failures} times in a row"
            text = f"it failed {times}, and is refused until its backoff has passed"
            return (
                "failing",
                text,
                fault_of(record.first_fault, record.last_fault),
                max(0.0, record.read_at - record.created_at),
                wait_s,
                clear,
            )
        if known is not None:
            text = "it failed, and waits for its turn to be tried again"
            return "probe", text, known.fault, known.since_s, known.retry_after_s, clear
    return None


async def _of_record(desk: Desk, record: ProcedureRecord) -> Told | None:
    cancel = _command("cancel", record.id)
    since_s = max(0.0, record.read_at - record.created_at)
    fault = None if record.last_fault is None else fault_of(record.last_fault, record.first_fault)
    wait_s = 0.0 if record.due_at is None else max(0.0, record.due_at - record.read_at)
    if record.state is ProcedureState.WAITING:
        if record.waits_for:
            text = f"it waits for the signal {record.waits_for!r}"
            return "signal", text, None, since_s, wait_s, _command("signal", record.id, record.waits_for)
        if fault is not None:
            return "backoff", "an attempt failed, and the next has its time", fault, since_s, wait_s, cancel
        return "sleep", "it waits for its time", None, since_s, wait_s, cancel
    if record.state is ProcedureState.QUEUED and record.locks and (holder := await _holder(desk, record)) is not None:
        text = f"{holder.kind}/{holder.key} ({holder.id}) holds a lock that it needs"
        return "lock", text, fault, since_s, 0.0, _command("cancel", holder.id)
    return None


async def _holder(desk: Desk, record: ProcedureRecord) -> ProcedureRecord | None:
    wanted = set(record.locks)
    others = await desk.store.records(states=tuple(LIVE), count=SCANNED_MAX)
    return next(
        (each for each in others if each.id != record.id and each.began_at is not None and wanted.intersection(each.locks)), None
    )


def _backlog(desk: Desk, now: float) -> Told | None:
    full = desk.backlog.refusal(now)
    if full is None:
        return None
    fault, since_s, retry_after_s = full
    return "backlog", fault.reason, fault, since_s, retry_after_s, fault.hint
