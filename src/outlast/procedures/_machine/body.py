"""The body of a record while a runner has it: what is done, what was begun, and what is to be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.extend import FLOOR_SPREAD, BackoffState, Reaction
from outlast.procedures._machine.actions import AfterFault, GiveBack, TryAgain
from outlast.procedures._machine.faults import rejected
from outlast.procedures._machine.kept import Begun, Done, Kept, Undoing, decode, encode
from outlast.procedures._machine.versions import fitting
from outlast.procedures._procedure import Step

if TYPE_CHECKING:
    import random

    from outlast import Fault, Unavailable
    from outlast.procedures._model import ProcedureRecord
    from outlast.procedures._procedure import AnyStep, Procedure, Undo

RESULTS_BYTES_MAX: Final = 256 * 1024
"""Of the results of all steps together: four of the largest payloads."""
REFUSED_S: Final = 1.0
"""The wait of what a dependency refused, or an open cause holds: at least this, and up to half of it more."""
WAIT_S_MAX: Final = 86_400.0
"""A peer that asks for more is asked again after a day."""
LAST_CHARS_MAX: Final = 300


class Body:
    """The body of one record. It changes with what the runner tells it, and is recorded with `encode`.

    Whatever becomes of the runner, the next one goes on from the body that was last recorded. So one that has changed (`dirty`)
    is recorded *before* the next step or undo is begun.
    """

    __slots__ = ("_begins", "dirty", "kept", "life", "procedure", "took")

    def __init__(self, procedure: Procedure, life: str, kept: Kept) -> None:
        """Use `Body.of`. `life` begins its idempotency keys."""
        self.procedure: Final = procedure
        self.life: Final = life
        self.kept: Final = kept
        self.dirty = False
        self.took: list[str] = []
        """Signals that were taken since it was last recorded."""
        self._begins = False
        """Whether the next step was not begun before this claim."""

    @classmethod
    def of(cls, procedure: Procedure, record: ProcedureRecord) -> Body:
        """Read the body of a record that was just claimed. Raises `BodyError` if nothing can be run by it."""
        kept = decode(record.body_json) if record.body_json else Kept(procedure.version)
        _count_deaths(kept, record.deaths)
        return cls(procedure, f"{record.id}:{record.revivals}", fitting(procedure, kept))

    def encode(self, *, results: bool = True) -> str:
        """Return its JSON, or that without the results of the steps."""
        return encode(self.kept, results=results)

    def written(self) -> None:
        """Note that it is recorded as it is."""
        self.dirty = False
        self.took.clear()

    @property
    def texts(self) -> dict[str, str]:
        """The results of the steps that are done, as JSON, by name."""
        return {step.name: step.result_json for step in self.kept.done}

    def next_step(self) -> AnyStep | None:
        """Return the first step that is not done; None if all are."""
        steps, count = self.procedure.steps, len(self.kept.done)
        return steps[count] if count < len(steps) else None

    def begun(self, step: AnyStep) -> Begun:
        """Return the state of the next step, which is begun by this."""
        if self.kept.at is None:
            self.kept.at = Begun(step.name)
            self._begins = True
        return self.kept.at

    def not_begun(self) -> None:
        """Note that the step which `next_action` told to run is not begun after all: it may still change."""
        if self._begins and self.kept.undoing is None:
            self.kept.at = None

    def step_done(self, result_json: str) -> None:
        """Note that the next step is done. If all results together are too large, it fails instead: REJECTED."""
        step = self.next_step()
        if step is None:
            msg = "every step is done already"
            raise RuntimeError(msg)
        total = sum(len(each.result_json) for each in self.kept.done) + len(result_json)
        if total > RESULTS_BYTES_MAX:
            text = f"with that of step {step.name!r} the results have {total} bytes, the limit is {RESULTS_BYTES_MAX}"
            self.fail(rejected("result too large", text))
            return
        self.kept.done.append(Done(step.name, result_json))
        self.kept.at = None
        self.dirty = True

    def step_failed(
        self, fault: Fault, rng: random.Random, *, refusal: Unavailable | None = None, cause_open: bool = False
    ) -> AfterFault:
        """Note that an attempt at the next step has failed; return what follows. None: ask for the next action, which undoes.

        An attempt that was not the step's doing does not count: our own stop, a `refusal` by a dependency that is down, a cause
        that is open (`cause_open`). What is REJECTED, PERMANENT or FATAL fails at once; the others are tried again by the
        procedure's backoff until the attempts are used up.
        """
        step = self.next_step()
        if not isinstance(step, Step):
            msg = f"no step is under way: {step!r}"
            raise TypeError(msg)
        at = self.begun(step)
        uncounted = _uncounted(fault, rng, refusal, cause_open=cause_open)
        if uncounted is not None:
            return uncounted
        at.attempts += 1
        self.dirty = True
        if fault.reaction not in {Reaction.WAIT, Reaction.RESTART} or at.attempts >= step.attempts_max:
            self.fail(fault)
            return None
        return TryAgain(self._wait_s(at.attempts, fault, rng))

    def fail(self, fault: Fault) -> None:
        """Go no further: undo, then dead by this fault."""
        self.kept.undoing = Undoing(fault)
        self.dirty = True

    def cancel(self) -> None:
        """Go no further: undo, then cancelled."""
        self.kept.undoing = Undoing(None)
        self.dirty = True

    def to_undo(self) -> tuple[Step, Undo, Done | None] | None:
        """Return the step that is to be undone next, and its result; without one its outcome is not known. None: nothing is left.

        First the step that was begun and is not known to be done; then those that are done, the last one first.
        """
        by_name = {step.name: step for step in self.procedure.steps if isinstance(step, Step)}
        kept = self.kept
        while kept.at is not None or kept.done:
            done = kept.done[-1] if kept.at is None else None
            step = by_name.get(done.name if done is not None else kept.at.name if kept.at is not None else "")
            if step is not None and step.undoing is not None:
                return step, step.undoing, done
            self._drop()
        return None

    def left_to_undo(self) -> list[str]:
        """Return the names of the steps that are not undone, in the order in which they would be."""
        undoable = {step.name for step in self.procedure.steps if isinstance(step, Step) and step.undoing is not None}
        begun = [self.kept.at.name] if self.kept.at is not None else []
        return [name for name in (*begun, *(step.name for step in reversed(self.kept.done))) if name in undoable]

    def undone(self) -> None:
        """Note that the step that was to be undone next is."""
        undoing = self._undoing()
        undoing.attempts, undoing.last = 0, ""
        self.kept.undone.append(self._drop())
        self.dirty = True

    def undo_failed(self, fault: Fault, rng: random.Random, *, refusal: Unavailable | None = None) -> AfterFault:
        """Note that an attempt at the next undo has failed; return what follows. None: ask for the next action."""
        undoing, found = self._undoing(), self.to_undo()
        uncounted = _uncounted(fault, rng, refusal, cause_open=False)
        if uncounted is not None:
            return uncounted
        undoing.attempts += 1
        undoing.last = f"{fault.code} {fault.reason}"[:LAST_CHARS_MAX]
        self.dirty = True
        if found is None or undoing.attempts >= found[1].attempts_max:
            return None
        return TryAgain(self._wait_s(undoing.attempts, fault, rng))

    def _undoing(self) -> Undoing:
        if self.kept.undoing is None:
            msg = "nothing is to be undone"
            raise RuntimeError(msg)
        return self.kept.undoing

    def _drop(self) -> str:
        """Forget the step that is last: it has no effects any more, or none that anything takes back."""
        if self.kept.at is not None:
            name, self.kept.at = self.kept.at.name, None
            return name
        return self.kept.done.pop().name

    def _wait_s(self, failed: int, fault: Fault, rng: random.Random) -> float:
        _, wait_s = self.procedure.backoff.next_always(BackoffState(attempt=failed - 1), 0.0, rng, fault.retry_after_s)
        return _bounded(wait_s)


def _uncounted(fault: Fault, rng: random.Random, refusal: Unavailable | None, *, cause_open: bool) -> GiveBack | None:
    if fault.reaction is Reaction.END:
        return GiveBack(0.0)
    if refusal is None and not cause_open:
        return None
    # Spread, since everyone that was refused was told the same time.
    floor_s = max(REFUSED_S, _bounded(refusal.retry_after_s) if refusal is not None else 0.0)
    return GiveBack(floor_s * rng.uniform(1.0, 1.0 + FLOOR_SPREAD))


def _bounded(wait_s: float) -> float:
    """Bring a wait that a peer or a backoff of the user's asked for into the range; NaN becomes 0."""
    return min(wait_s, WAIT_S_MAX) if wait_s > 0 else 0.0


def _count_deaths(kept: Kept, deaths: int) -> None:
    """Count the runners that died since the body was recorded, each as an attempt at what came next."""
    if not deaths:
        return
    if kept.undoing is not None:
        kept.undoing.attempts += deaths
        return
    if kept.at is None:
        kept.at = Begun("")
    kept.at.attempts += deaths
