"""The store as the simulation has it: records by key in a dict, exact and at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from outlast.procedures._model import LIVE, KeyOf, ProcedureState, Submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast import Fault

NO_FAULTS: list[Fault] = []


@dataclass(slots=True, eq=False)
class Record:
    id: str
    of: KeyOf
    state: ProcedureState = ProcedureState.QUEUED
    due: float = 0.0
    deadline: float = inf
    begun: bool = False
    attempts: int = 0
    failures: int = 0
    faults: list[Fault] = field(default_factory=lambda: list(NO_FAULTS))
    """Of the failures in a row: the first and the last are kept."""
    failed_at: float = 0.0
    until: float = 0.0
    ended_at: float = inf
    answered: float = -inf
    """The latest deadline that somebody was promised it would live until."""


class Store:
    def __init__(self, urgent: float) -> None:
        self.urgent = urgent
        """The share of keys that are claimed before others."""
        self.records: dict[KeyOf, Record] = {}
        self.made = 0
        self.asked = 0

    def submit(self, now: float, of: KeyOf, deadline: float) -> tuple[Submission, Record]:
        self.asked += 1
        record = self.records.get(of)
        if record is not None and record.state in LIVE:
            record.deadline = max(record.deadline, deadline)
            return Submission.JOINED, record
        if record is not None and record.state is ProcedureState.DEAD:
            if record.until > now:
                return Submission.FAILING, record
            record.state, record.due, record.deadline = ProcedureState.QUEUED, now, deadline
            record.begun, record.attempts, record.ended_at, record.answered = False, 0, inf, -inf
            return Submission.REVIVED, record
        self.made += 1
        record = self.records[of] = Record(f"{self.made:06}", of, due=now, deadline=deadline)
        return Submission.CREATED, record

    def claim(self, now: float, kinds: Sequence[str], count: int, without: Sequence[str]) -> list[Record]:
        due = [
            record
            for record in self.records.values()
            if record.state in {ProcedureState.QUEUED, ProcedureState.WAITING}
            and record.due <= now
            and record.of.kind in kinds
            and record.id not in without
        ]
        due.sort(key=lambda record: (int(record.of.key) % 10 >= 10 * self.urgent, record.due, record.id))
        for record in due[:count]:
            record.state, record.begun = ProcedureState.RUNNING, True
        return due[:count]

    def clear(self, kind: str, key: str) -> None:
        for record in self.records.values():
            if record.state is ProcedureState.DEAD and kind in {"", record.of.kind} and key in {"", record.of.key}:
                record.failures, record.until, record.faults = 0, 0.0, []

    def fixed(self, key: tuple[object, ...]) -> None:
        for record in self.records.values():
            if record.state is ProcedureState.DEAD and record.faults and record.faults[-1].key == key:
                record.failures, record.until, record.faults = 0, 0.0, []

    def expire(self, now: float) -> list[Record]:
        gone = [
            record
            for record in self.records.values()
            if record.state is ProcedureState.QUEUED and not record.begun and record.deadline < now
        ]
        for record in gone:
            record.state, record.ended_at = ProcedureState.EXPIRED, now
        return gone
