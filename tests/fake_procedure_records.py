"""The rules of a store of procedures (`outlast.procedures._stores.port`) over plain memory: each method is one transaction."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from outlast.procedures import InvalidProcedureError, ProcedureRecord, ProcedureState, SignalsFullError
from outlast.procedures._model import (
    LIVE,
    Counts,
    KeyOf,
    Mine,
    NewRecord,
    Pause,
    Recorded,
    RecordWrite,
    Signal,
    StoreEvent,
    StoreEventKind,
    Submission,
    Submitted,
    Sweep,
    Swept,
)
from outlast.procedures._stores import rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PAUSES_MAX: Final = 1_000
SIGNALS_MAX: Final = 100
EVENTS_KEPT: Final = 1_000


@dataclass(slots=True)
class Lease:
    name: str
    until: float


@dataclass(slots=True)
class FakeRecords:
    """What a database would hold. `now` is the store's time: whoever calls says it."""

    records: dict[str, ProcedureRecord] = field(default_factory=dict)
    keys: dict[KeyOf, str] = field(default_factory=dict)
    """Of the live and the dead: who has the key."""
    live: dict[str, None] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    runners: dict[str, Lease] = field(default_factory=dict)
    paused: dict[Pause, None] = field(default_factory=dict)
    events: deque[StoreEvent] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    number: int = 0
    work_at: int = 0
    forgotten_to: int = 0
    """The number of the newest event that is no longer kept."""
    ahead_s: float = 0.0
    """How far the store's clock is moved ahead of the loop's."""

    # Submitting and claiming.

    def submit(self, now: float, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        return [self._submit(now, one, runner) for one in new]

    def _submit(self, now: float, new: NewRecord, runner: str) -> Submitted:
        if new.id in self.records:
            return Submitted(Submission.CREATED, self._seen(now, new.id))
        holder = self.keys.get(KeyOf(new.kind, new.key))
        if holder is None:
            answer, record = Submission.CREATED, rules.made(new, now)
        else:
            held = self.records[holder]
            if held.state in LIVE:
                self._put(rules.living_longer(held, new.deadline_s, now))
                return Submitted(Submission.JOINED, self._seen(now, holder))
            if held.until_at is not None and held.until_at > now:
                return Submitted(Submission.FAILING, self._seen(now, holder))
            answer, record = Submission.REVIVED, rules.revived(held, new, now)
        self._put(record)
        if new.claim and self._may_be_claimed(now, record):
            self._claim(now, record, runner)
        elif new.delay_s <= 0:
            self._work()
        return Submitted(answer, self._seen(now, record.id))

    def claim(
        self, now: float, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool, without: Sequence[str]
    ) -> list[ProcedureRecord]:
        wanted, left_out = set(kinds), set(without)
        able = (self.records[the_id] for the_id in self.live if the_id not in left_out)
        due = [record for record in able if record.kind in wanted and self._may_be_claimed(now, record)]
        due.sort(key=lambda record: (0 if oldest_first else -record.priority, record.due_at, record.id))
        claimed: list[ProcedureRecord] = []
        for record in due:
            if len(claimed) == count:
                break
            if self._locks_are_free(record):
                self._claim(now, record, runner)
                claimed.append(self._seen(now, record.id))
        return claimed

    def _may_be_claimed(self, now: float, record: ProcedureRecord) -> bool:
        of = record.of
        if self.paused.keys() & {Pause(), Pause(of.kind), Pause(of.kind, of.key)} or not self._locks_are_free(record):
            return False
        return rules.may_begin(record, now, [runner for runner, lease in self.runners.items() if lease.until > now])

    def _locks_are_free(self, record: ProcedureRecord) -> bool:
        return all(self.locks.get(lock, record.id) == record.id for lock in record.locks)

    def _claim(self, now: float, record: ProcedureRecord, runner: str) -> None:
        self.locks.update(dict.fromkeys(record.locks, record.id))
        self._put(rules.claimed(record, runner, now))

    # The runner's writes.

    def record(self, now: float, writes: Sequence[RecordWrite]) -> list[Recorded]:
        return [self._record(now, write) for write in writes]

    def _record(self, now: float, write: RecordWrite) -> Recorded:
        record = self.records.get(write.id)
        if record is None or record.state is not ProcedureState.RUNNING or record.token != write.token:
            return Recorded.LATE
        repeated = write.body_json == record.body_json
        signals = record.signals if repeated else _without(record.signals, write.took_signals)
        record = rules.written(record, write, now, {signal.name for signal in signals})
        self._put(replace(record, body_json=write.body_json, signals=signals, result_json=write.result_json))
        if record.state in LIVE - {ProcedureState.RUNNING} and record.due_at is not None and record.due_at <= now:
            self._work()
        return Recorded.WRITTEN

    # Leases.

    def beat(self, now: float, runner: str, name: str, lease_s: float) -> dict[str, Mine]:
        self.runners[runner] = Lease(name, now + lease_s)
        mine = (record for record in map(self.records.__getitem__, self.live) if record.owner == runner)
        return {record.id: Mine(record.token, record.cancel_requested, len(record.signals)) for record in mine}

    def leave(self, runner: str) -> None:
        self.runners.pop(runner, None)
        self._work()

    # Looking.

    def find(self, now: float, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        return [self._seen(now, the_id) if the_id in self.records else None for the_id in ids]

    def find_keys(self, now: float, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
        return [self._find_key(now, of) for of in keys]

    def _find_key(self, now: float, of: KeyOf) -> ProcedureRecord | None:
        if of in self.keys:
            return self._seen(now, self.keys[of])
        ended = [record for record in self.records.values() if record.of == of]
        last = max(ended, key=lambda record: (record.ended_at or 0.0, record.id), default=None)
        return last and self._seen(now, last.id)

    def list(
        self, now: float, states: Sequence[ProcedureState], kind: str | None, key: str | None, before: str | None, count: int
    ) -> list[ProcedureRecord]:
        chosen = (
            the_id
            for the_id in sorted(self.records, reverse=True)
            if (before is None or the_id < before)
            and (not states or self.records[the_id].state in states)
            and (kind is None or self.records[the_id].kind == kind)
            and (key is None or self.records[the_id].key == key)
        )
        return [self._seen(now, the_id) for the_id in islice(chosen, count)]

    def next_due_at(self, after: float) -> float | None:
        """Return the first time after `after` at which something becomes due."""
        idle = (self.records[the_id] for the_id in self.live if self.records[the_id].state is not ProcedureState.RUNNING)
        return min((record.due_at for record in idle if record.due_at is not None and record.due_at > after), default=None)

    def counts(self, now: float) -> Counts:
        held = Counter((record.kind, record.state.value) for record in self.records.values())
        idle = (self.records[the_id] for the_id in self.live if self.records[the_id].state is not ProcedureState.RUNNING)
        due = [record.due_at for record in idle if record.due_at is not None and record.due_at <= now]
        return Counts(dict(held), now - min(due, default=now))

    # What people and other processes ask for.

    def cancel(self, now: float, the_id: str) -> ProcedureState | None:
        record = self.records.get(the_id)
        if record is None:
            return None
        if record.state not in LIVE or record.cancel_requested:
            return record.state
        record = rules.cancelled(record, now)
        if record.state in LIVE - {ProcedureState.RUNNING}:
            self._work()
        self._put(record)
        self._event(StoreEventKind.CANCEL, text=the_id)
        return record.state

    def signal(self, now: float, the_id: str, name: str, payload_json: str) -> ProcedureState | None:
        record = self.records.get(the_id)
        if record is None or record.state not in LIVE:
            return None
        if len(record.signals) >= SIGNALS_MAX:
            msg = f"procedures: {the_id} has {SIGNALS_MAX} signals that were not taken yet, which is the limit"
            raise SignalsFullError(msg)
        record = replace(record, signals=(*record.signals, Signal(name, payload_json)))
        if record.state is ProcedureState.WAITING and record.waits_for == name:
            self._work()
        record = rules.signalled(record, name, now)
        self._put(record)
        self._event(StoreEventKind.SIGNAL, text=the_id)
        return record.state

    def extend(self, now: float, deadlines: Mapping[str, float | None]) -> None:
        for the_id, seconds in deadlines.items():
            if the_id in self.live:
                self._put(rules.living_longer(self.records[the_id], seconds, now))

    def clear(self, now: float, kind: str, key: str) -> int:
        cleared = self._clear(now, lambda dead: kind in {"", dead.kind} and key in {"", dead.key})
        self._event(StoreEventKind.CLEARED, kind, key)
        return cleared

    def fixed(self, now: float, source: str, fault_kind: str, code: str) -> int:
        cause = {"source": source, "kind": fault_kind, "code": code}
        cleared = self._clear(now, lambda dead: rules.is_of_cause(dead.last_fault, cause))
        self._event(StoreEventKind.FIXED, text=f"{source}/{fault_kind}/{code}")
        return cleared

    def _clear(self, now: float, chosen: Any) -> int:
        holders = (self.records[the_id] for the_id in self.keys.values())
        dead = [one for one in holders if one.state is ProcedureState.DEAD and one.failures and chosen(one)]
        for record in dead:
            self._put(rules.cleared(record, now))
        return len(dead)

    def pause(self, pause: Pause) -> None:
        if pause in self.paused:
            return
        if len(self.paused) >= PAUSES_MAX:
            msg = f"procedures: there are {PAUSES_MAX} pauses, which is the limit: resume some"
            raise InvalidProcedureError(msg)
        self.paused[pause] = None
        self._event(StoreEventKind.PAUSED, pause.kind, pause.key)

    def resume(self, pause: Pause) -> bool:
        if pause not in self.paused:
            return False
        del self.paused[pause]
        self._work()
        self._event(StoreEventKind.RESUMED, pause.kind, pause.key)
        return True

    # Cleaning up.

    def sweep(self, now: float, what: Sweep) -> Swept:
        waiting = (self.records[the_id] for the_id in self.live)
        late = [one for one in waiting if one.began_at is None and one.deadline_at is not None and one.deadline_at <= now]
        over = sorted(
            (one for one in self.records.values() if one.state not in LIVE),
            key=lambda one: (one.ended_at or 0.0, one.id),
        )
        dead = [one for one in over if one.state is ProcedureState.DEAD]
        beyond = len(dead) - what.dead_max
        old_dead = [one for at, one in enumerate(dead) if at < beyond or _is_old(one, now, what.dead_keep_s)]
        old = [one for one in over if one.state is not ProcedureState.DEAD and _is_old(one, now, what.done_keep_s)]
        for record in late[: what.batch]:
            self._put(rules.expired(record, now))
        for record in old[: what.batch] + old_dead[: what.batch]:
            del self.records[record.id]
            if self.keys.get(record.of) == record.id:
                del self.keys[record.of]
        more = any(len(some) > what.batch for some in (late, old, old_dead))
        return Swept(len(late[: what.batch]), len(old[: what.batch]), len(old_dead[: what.batch]), more)

    # One way in for all changes.

    def _put(self, record: ProcedureRecord) -> None:
        self.records[record.id] = record
        if record.state in LIVE:
            self.live[record.id] = None
            self.keys[record.of] = record.id
            return
        self.live.pop(record.id, None)
        for lock in record.locks:
            if self.locks.get(lock) == record.id:
                del self.locks[lock]
                self._work()
        if record.state is not ProcedureState.DEAD and self.keys.get(record.of) == record.id:
            del self.keys[record.of]

    def _seen(self, now: float, the_id: str) -> ProcedureRecord:
        return replace(self.records[the_id], read_at=now)

    def _event(self, what: StoreEventKind, kind: str = "", key: str = "", text: str = "") -> None:
        self.number += 1
        if len(self.events) == self.events.maxlen:
            self.forgotten_to = self.events[0].number
        self.events.append(StoreEvent(self.number, what, kind, key, text))

    def _work(self) -> None:
        self.number += 1
        self.work_at = self.number


def _without(signals: tuple[Signal, ...], names: Iterable[str]) -> tuple[Signal, ...]:
    left = list(signals)
    for name in names:
        oldest = next((signal for signal in left if signal.name == name), None)
        if oldest is not None:
            left.remove(oldest)
    return tuple(left)


def _is_old(record: ProcedureRecord, now: float, keep_s: float | None) -> bool:
    return keep_s is not None and record.ended_at is not None and record.ended_at + keep_s <= now
