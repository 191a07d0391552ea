"""One record, a store that keeps it, and runners that die where a test says: the step machine as a runner uses it.

The functions of steps are not called. A `World` keeps what they would have done, by idempotency key, and fails as it is told.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from outlast import Fault, Kind, Scope
from outlast.extend import fault_record
from outlast.procedures._machine.actions import GiveBack, RunStep, RunUndo, TryAgain
from outlast.procedures._machine.body import Body
from outlast.procedures._machine.faults import BodyError
from outlast.procedures._machine.next_action import next_action, write_of
from outlast.procedures._model import FINAL, Priority, ProcedureRecord, ProcedureState, RecordWrite, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast.procedures._procedure import Procedure

ID = "0" * 32
STEPS_CHANGED_S = 30.0
TURNS_MAX = 1_000
"""Claims of one record; a run that has not ended by then never does."""


class Died(Exception):  # noqa: N818 - what happened, no error of anybody's
    """The runner was killed here."""


def fault(kind: Kind = Kind.TRANSIENT, code: str = "gone", retry_after_s: float | None = None) -> Fault:
    return Fault(kind, code, f"it is {code}", "peer", Scope.CALL, retry_after_s)


async def nothing(*_: object) -> None:
    """Stand for the function of a step or undo, which the rig never calls."""


@dataclass
class World:
    """What steps and undos have done, and what they meet. It outlives runners."""

    meets: dict[str, list[Fault]] = field(default_factory=dict)
    """By step (`name` or `name:undo`): the faults of the first calls."""
    always: dict[str, Fault] = field(default_factory=dict)
    """The fault of all further calls; without one they succeed."""
    results: dict[str, str] = field(default_factory=dict)
    """JSON; a step that has none here returns its name."""
    effects: list[str] = field(default_factory=list)
    """The idempotency key of each call, in order: whatever came of it, it may have had its effect."""
    known: dict[str, list[tuple[bool, Any]]] = field(default_factory=dict)
    """By step: what its undo was told of the outcome, call by call."""
    seen: list[tuple[str, int]] = field(default_factory=list)
    """The step and the attempt of each call."""

    def call(self, name: str, key: str, attempt: int) -> str | Fault:
        before = Counter(self.effects)[key]
        self.effects.append(key)
        self.seen.append((name, attempt))
        faults = self.meets.get(name, [])
        if before < len(faults):
            return faults[before]
        return self.always.get(name) or self.results.get(name, f'"{name}"')

    def done(self, life: int = 0) -> list[str]:
        """The effects by name, each once, in the order in which they came first."""
        prefix = f"{ID}:{life}:"
        return [key.removeprefix(prefix) for key in dict.fromkeys(self.effects) if key.startswith(prefix)]


def never(_place: str) -> bool:
    return False


class Rig:
    """One record and its store. `run` claims it again and again until it has ended, or waits for what does not come by itself."""

    def __init__(self, procedure: Procedure, world: World | None = None, *, seed: int = 0) -> None:
        procedure.seal()
        self.procedure = procedure
        self.world = world or World()
        self.rng = random.Random(seed)
        self.now = 1_000.0
        self.record = ProcedureRecord(
            ID,
            procedure.name,
            "key",
            ProcedureState.QUEUED,
            procedure.version,
            Priority.NORMAL,
            "{}",
            1_000.0,
            1_000.0,
            due_at=0.0,
        )
        self.writes: list[RecordWrite] = []
        self.dies: Callable[[str], bool] = never
        """Asked at each place where a runner may be killed."""
        self.before_write: Callable[[RecordWrite], None] = lambda write: None
        self.refused: BodyError | None = None
        """The reason for which the last claim ran nothing."""

    @property
    def ends(self) -> list[RecordWrite]:
        return [write for write in self.writes if ProcedureState(write.state) in FINAL]

    def run(self, claims: int = TURNS_MAX) -> ProcedureState:
        """Claim it, as time and deaths have it, until it has ended, waits without a time, or was claimed so often."""
        for _ in range(claims):
            if self.record.state in FINAL or self.record.due_at is None:
                break
            self.now = max(self.now, self.record.due_at)
            self.claim()
        return self.record.state

    def claim(self) -> None:
        """Claim it and run it until the claim ends or the runner dies."""
        died = self.record.state is ProcedureState.RUNNING
        self.record = replace(
            self.record,
            state=ProcedureState.RUNNING,
            token=self.record.token + 1,
            deaths=self.record.deaths + died,
            read_at=self.now,
        )
        try:
            self._die("claimed")
            self._turn()
        except Died:
            pass

    def cancel(self) -> None:
        self.record = replace(self.record, cancel_requested=True, due_at=self.now)

    def signal(self, name: str, payload_json: str = "null") -> None:
        self.record = replace(self.record, signals=(*self.record.signals, Signal(name, payload_json)))
        if self.record.waits_for == name:
            self.record = replace(self.record, due_at=self.now)

    def revive(self) -> None:
        assert self.record.state is ProcedureState.DEAD
        self.record = replace(
            self.record, state=ProcedureState.QUEUED, body_json="", revivals=self.record.revivals + 1, due_at=self.now, signals=()
        )

    def _turn(self) -> None:
        try:
            body = Body.of(self.procedure, self.record)
        except BodyError as error:
            self.refused = error
            self._write(
                RecordWrite(
                    ID, self.record.token, "waiting", error.body_json, fault=fault_record(error.fault), due_s=STEPS_CHANGED_S
                )
            )
            return
        self.refused = None
        while True:
            action = next_action(body, now=self.now, cancel=self.record.cancel_requested, signals=self.record.signals)
            if not isinstance(action, RunStep | RunUndo):
                self._write(write_of(self.record, body, action))
                return
            if body.dirty:
                self._write(write_of(self.record, body, action))
                body.written()
            after, met = self._call(body, action)
            if after is not None:
                self._write(write_of(self.record, body, after, fault=None if met is None else fault_record(met)))
                return

    def _call(self, body: Body, action: RunStep | RunUndo) -> tuple[TryAgain | GiveBack | None, Fault | None]:
        name = action.step.name
        undo = isinstance(action, RunUndo)
        if isinstance(action, RunUndo):
            self.world.known.setdefault(name, []).append((action.outcome.known, action.outcome.result))
            name += ":undo"
        self._die(f"before {name}")
        came = self.world.call(name, action.idempotency_key, action.attempt)
        self._die(f"after {name}")
        if isinstance(came, Fault):
            return (body.undo_failed if undo else body.step_failed)(came, self.rng), came
        if undo:
            body.undone()
        else:
            body.step_done(came)
        return None, None

    def _die(self, place: str) -> None:
        if self.dies(place):
            raise Died(place)

    def _write(self, write: RecordWrite) -> None:
        """Record as a store does."""
        self.before_write(write)
        self._die("before a write")
        state = ProcedureState(write.state)
        assert self.record.state is ProcedureState.RUNNING
        assert write.token == self.record.token
        signals = list(self.record.signals)
        for name in write.took_signals:
            signals.remove(next(signal for signal in signals if signal.name == name))
        due_at = None if write.due_s is None else self.now + write.due_s
        if state not in FINAL and self.record.cancel_requested and not write.cancel_known:
            due_at = self.now
        if write.waits_for and any(signal.name == write.waits_for for signal in signals):
            due_at = self.now
        self.writes.append(write)
        self.record = replace(
            self.record,
            state=state,
            body_json=write.body_json,
            deaths=0,
            result_json=write.result_json,
            last_fault=write.fault or self.record.last_fault,
            first_fault=self.record.first_fault or write.fault,
            due_at=due_at,
            waits_for=write.waits_for if state is ProcedureState.WAITING else "",
            signals=tuple(signals),
        )
        self._die("after a write")


def dies_at(places: Sequence[str]) -> Callable[[str], bool]:
    """Die once at each of these places, in this order."""
    left = list(places)

    def dies(place: str) -> bool:
        if left and place == left[0]:
            left.pop(0)
            return True
        return False

    return dies
