"""The front of a process: what it knows of keys, so that it answers for most submissions from memory, at no cost to the store.

A submission of a live key joins it; one of a failing key is refused with the first cause, or is the key's probe; any other goes
to the store. `Front` composes the memory of failure, the probes, the register of live keys and the causes. It has no clock and no
input or output: whoever has it tells it what the store and the runner have found, and does what it says.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from outlast.procedures._decisions.cause import BETWEEN
from outlast.procedures._decisions.causes import CauseEvent, CauseNews, Causes, Share, Verdict
from outlast.procedures._decisions.memory import BYTES_MAX, KEYS_MAX, Failing, Memory, wait_s
from outlast.procedures._decisions.probes import Probes
from outlast.procedures._decisions.register import FORGET_S, Join, Register
from outlast.procedures._model import ProcedureState, Submission

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from outlast import Fault, Kind
    from outlast.procedures._model import KeyOf

EVENTS_MAX: Final = 1_000
"""Events that nobody has taken yet; beyond them single failures are only counted, in their cause."""


class Why(enum.Enum):
    """The reason why a key is refused, or waits."""

    FAILING = "failing"
    """It failed, and its backoff has not passed."""
    PROBE = "probe"
    """It failed, its backoff has passed, and other keys that failed are tried before it."""
    CAUSE = "cause"
    """Many keys of its kind failed by a cause that is still there."""


class Go(NamedTuple):
    """The submission goes to the store. Say how that ends: `created`, `failing` or `not_created`."""

    probe: bool
    """Whether it is the one attempt at a failing key."""
    begin: bool
    """Whether it may begin at once: False while a cause holds its kind."""


class KeyRefusal(NamedTuple):
    """The answer from memory: no."""

    fault: Fault
    """The first cause."""
    since_s: float
    retry_after_s: float
    why: Why
    id: str
    """The record of the key; empty if it has none."""


Answer: TypeAlias = "Go | Join | KeyRefusal"


@dataclass(frozen=True, slots=True)
class FrontCounts:
    """The numbers of a front, since it was made but for `failing`, `live` and `causes`."""

    failing: int
    """Keys in the memory of failure."""
    failing_bytes: int
    forgotten: int
    refused: int
    joined: int
    probes: int
    live: int
    causes: int
    """Causes that are open."""
    canaries: int
    """Attempts that were to find out whether a cause is gone."""


class OpenCause(NamedTuple):
    """A cause that holds a kind of procedure."""

    kind: str
    step: str
    fault: Fault
    since: float
    """On the caller's clock: the first failure by it."""
    failures: int
    """Attempts that failed by it."""
    is_gone: bool
    """Whether a canary has passed, and what waited is being released in waves."""


class Front:
    """The knowledge of a process about keys. Not safe for threads: called on the event loop's thread only."""

    def __init__(
        self, rng: random.Random, *, keys_max: int = KEYS_MAX, bytes_max: int = BYTES_MAX, probes_per_s: int = 10
    ) -> None:
        """Raise `ValueError` for bounds that leave no room."""
        self._rng = rng
        self._memory = Memory(keys_max, bytes_max)
        self._failing = self._memory.entries
        self._probes = Probes(probes_per_s)
        self._register = Register()
        self._live = self._register.live
        self._causes = Causes(rng, self._tell)
        self._held = self._causes.open
        self._events: list[CauseEvent] = []
        self._refused = 0
        self._joined = 0

    # A submission.

    def submit(self, now: float, of: KeyOf, deadline_s: float | None = None, *, waits: bool = True) -> Answer:
        """Decide about a submission.

        `Join`: a record of the key is live; its deadline is put off to this one (`later`). `KeyRefusal`: the key is failing, or
        `waits` is False and a cause holds its kind. `Go`: ask the store.
        """
        live = self._live.get(of)
        if live is not None and now < live.until:
            self._joined += 1
            if not live.begun and live.deadline_at < inf:
                deadline_at = inf if deadline_s is None else now + deadline_s
                if deadline_at > live.deadline_at:
                    self._register.put_off(of, live, deadline_at)
            return live.join
        failing = self._failing.get(of)
        if failing is not None:
            if (wait := failing.until - now) > 0.0:
                self._refused += 1
                return KeyRefusal(failing.first, now - failing.since, wait, Why.FAILING, failing.id)
            # One whose record was live a moment ago may have it still: then the store says so, and nothing is tried.
            is_probe = live is None or now - live.heard_until >= FORGET_S
            if is_probe and (wait := self._probes.asked(now, of)) > 0.0:
                self._refused += 1
                return KeyRefusal(failing.first, now - failing.since, wait, Why.PROBE, failing.id)
        else:
            is_probe = False
        is_held = of.kind in self._held
        if is_held and not waits and (refusal := self._refused_by_cause(now, of)) is not None:
            self._refused += 1
            return refusal
        self._register.making(now, of, deadline_s, is_probe=is_probe)
        return Go(is_probe, not is_held)

    def created(
        self, now: float, of: KeyOf, record_id: str, answer: Submission, *, mine: bool = False, begun: bool = False
    ) -> None:
        """Note the store's answer that a live record has the key: CREATED, REVIVED or JOINED. (For FAILING: `failing`.)

        `mine`: this process has claimed it by this. `begun`: somebody did before. If the store has no failure of the key
        (CREATED), ours is forgotten.
        """
        live = self._register.made(now, of, record_id, mine=mine, begun=begun)
        if answer is Submission.REVIVED and not live.is_probe:
            self._probes.used(now)
        if answer is Submission.CREATED and self._memory.forget(of):
            self._probes.leave(of)

    def not_created(self, of: KeyOf) -> None:
        """Note that a submission came to nothing: the store did not answer. The next one of the key asks again."""
        self._register.not_made(of)

    def failing(
        self,
        now: float,
        of: KeyOf,
        record_id: str,
        first: Fault,
        last: Fault,
        *,
        failures: int,
        since_s: float,
        until_s: float,
    ) -> None:
        """Note a dead record: the store's answer FAILING, one that is loaded at the start, or one that died here.

        It failed for the first time `since_s` seconds ago, and is refused for `until_s` seconds from now.
        """
        self._register.ended(of)
        self._probes.leave(of)
        self._memory.put(of, Failing(record_id, first, last, failures, now - since_s, now + until_s))
        self._causes.left(now, of)

    # An attempt.

    def shares(self, now: float, kinds: Sequence[str]) -> list[Share]:
        """Return what may be claimed now: kinds, how many, and without which records. Say what came of it with `claimed`."""
        return self._causes.shares(now, kinds)

    def claimed(self, now: float, share: Share, took: Sequence[tuple[str, KeyOf]], asked: int) -> None:
        """Note what a claim has found: id and key of each record. `asked` is the number it asked for; after an error say 0."""
        for record_id, of in took:
            self._register.made(now, of, record_id, mine=True)
        self._causes.claimed(now, share, took, asked)

    def next_in_s(self, now: float) -> float | None:
        """Return the seconds until a kind that is held may be claimed by the passing of time alone; None: none is held."""
        return self._causes.next_in_s(now)

    def attempt_failed(self, now: float, of: KeyOf, fault: Fault, step: str) -> Verdict:
        """Note a failed attempt at a step. If it does not count, let the record wait, due at once: `shares` hold it back."""
        return self._causes.failed(now, of, fault, step)

    def until_s(self, fault: Fault, failures: int) -> float:
        """Return for how many seconds a key is refused after this failure, its `failures`-th in a row."""
        return wait_s(fault, failures, self._rng)

    def step_done(self, now: float, of: KeyOf, step: str) -> None:
        """Note that a step has succeeded: a cause that was met in it is gone."""
        self._causes.passed(now, of, step)

    def left(self, now: float, of: KeyOf) -> None:
        """Note that the record is live and no longer under way here: it waits, or was given back. It frees a canary's place."""
        self._register.left(now, of)
        self._causes.left(now, of)

    def ended(self, now: float, of: KeyOf, state: ProcedureState) -> None:
        """Note that the record is DONE, CANCELLED or EXPIRED (for DEAD: `failing`). Success ends the memory of failure.

        One that was cancelled or expired was neither: if the key was failing, its next submission is the probe.
        """
        self._register.ended(of)
        self._causes.left(now, of)
        if state is ProcedureState.DONE and self._memory.forget(of):
            self._probes.leave(of)

    # What somebody says.

    def cleared(self, kind: str = "", key: str = "") -> None:
        """Forget the failures of a key, of a kind (key ""), or all (both ""). Causes of a whole kind are taken for gone."""
        for of in self._memory.forget_where(lambda of, _: kind in {"", of.kind} and key in {"", of.key}):
            self._probes.leave(of)
        if not key:
            self._causes.fixed(kind or None, None)

    def fixed(self, source: str, fault_kind: Kind, code: str) -> None:
        """Take a cause for gone, whoever says so: forget the keys that failed by it, and begin to release what waits for it."""
        key = (source, fault_kind, code)
        for of in self._memory.forget_where(lambda _, entry: entry.last.key == key):
            self._probes.leave(of)
        self._causes.fixed(None, key)

    def later(self, now: float) -> dict[str, float | None]:
        """Return the deadlines that joiners have put off since the last call: id to seconds from now, None for no deadline."""
        return self._register.later(now)

    # What is seen.

    def events(self) -> list[CauseEvent]:
        """Return the events of causes since the last call, in order. After GONE the store is to clear what is dead by it."""
        found = list(self._events)
        self._events.clear()
        return found

    def explain(self, now: float, of: KeyOf) -> KeyRefusal | None:
        """Return why a key is refused or waits, as far as this process remembers; None: no reason is known.

        It changes nothing: it neither asks for a probe nor counts as a refusal.
        """
        failing = self._failing.get(of)
        by_cause = self._refused_by_cause(now, of)
        if failing is None or (by_cause is not None and failing.last.key in self._held[of.kind]):
            return by_cause
        wait = failing.until - now
        why = Why.FAILING if wait > 0.0 else Why.PROBE
        return KeyRefusal(failing.first, now - failing.since, max(0.0, wait), why, failing.id)

    @property
    def is_holding(self) -> bool:
        """Whether a cause is open: what ends, in whatever way, may let another begin."""
        return bool(self._held)

    @property
    def counts(self) -> FrontCounts:
        """The numbers now. May be read from another thread, as `open_causes`."""
        return FrontCounts(
            failing=len(self._failing),
            failing_bytes=self._memory.size_bytes,
            forgotten=self._memory.forgotten,
            refused=self._refused,
            joined=self._joined,
            probes=self._probes.granted,
            live=len(self._live),
            causes=len(self.open_causes),
            canaries=self._causes.canaries,
        )

    @property
    def open_causes(self) -> list[OpenCause]:
        """The causes that are open, as they are now."""
        # In one step each: another thread may look.
        return [
            OpenCause(cause.kind, cause.step, cause.fault, cause.since, cause.failures, cause.is_gone)
            for causes in list(self._held.values())
            for cause in list(causes.values())
        ]

    # Inside.

    def _refused_by_cause(self, now: float, of: KeyOf) -> KeyRefusal | None:
        cause = next((cause for cause in self._held.get(of.kind, {}).values() if not cause.is_gone), None)
        if cause is None:
            return None
        failing = self._failing.get(of)
        wait = max(BETWEEN.base_s, min(BETWEEN.cap_s, cause.next_in_s(now)))
        return KeyRefusal(cause.fault, now - cause.since, wait, Why.CAUSE, "" if failing is None else failing.id)

    def _tell(self, event: CauseEvent) -> None:
        if event.what in {CauseNews.GONE, CauseNews.TOLD}:
            kind, key = event.cause.kind, event.cause.fault.key
            for of in self._memory.forget_where(lambda of, entry: of.kind == kind and entry.last.key == key):
                self._probes.leave(of)
        if event.what is not CauseNews.FAILED or len(self._events) < EVENTS_MAX:
            self._events.append(event)
