"""Causes: when more than 20 keys of a kind fail in a step by one fault, and none has passed it since, that fault is no key's own.

Then the kind is held: one canary at a time, each another key, and what fails by the cause counts against no key. The first that
passes closes it, and what waited goes on in growing waves. See `cause.py` for one, and `waves.py`.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast import Kind
from outlast.procedures._decisions.cause import Cause

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from outlast import Fault
    from outlast.procedures._model import KeyOf

    FaultKey = tuple[str, Kind, str]

KEYS_MIN: Final = 20
"""More distinct keys than this fail by one fault, and none has succeeded since: a cause."""
SUSPECTS_MAX: Final = 1_000
"""Faults that may become a cause. Beyond them the one that was met first is forgotten: 21 keys have to fail by it again."""
OPEN_MAX: Final = 64
"""Causes that are open at a time. Beyond them a fault counts against keys, as if it were their own."""
OWN_AFFAIR: Final = frozenset({Kind.REJECTED, Kind.CONTENDED, Kind.STOPPING})
"""The kinds of faults that never make a cause: they are of the request, of another holder, or of our own stop."""


class CauseNews(enum.Enum):
    """The events in the life of a cause, from one incident's beginning to its end."""

    OPENED = "opened"
    """The kind is held."""
    FAILED = "failed"
    """One more attempt failed by it."""
    GONE = "gone"
    """A canary has passed: the store is to be told that it is fixed, and the rest follows in waves."""
    TOLD = "told"
    """Somebody says that it is fixed, so the store knows: the rest follows in waves, and shows whether it is."""
    BACK = "back"
    """A wave failed: canaries again, in the same incident."""
    OVER = "over"
    """All who waited may go: the incident is resolved."""


class CauseEvent(NamedTuple):
    """One event, for the incident of the cause."""

    what: CauseNews
    cause: Cause
    fault: Fault


class Share(NamedTuple):
    """A part of what may be claimed now."""

    kinds: Sequence[str]
    count_max: int | None
    """At most so many; None: any number."""
    without: tuple[str, ...] = ()
    """Not the records with these ids: they have been canaries already."""


class Verdict(NamedTuple):
    """The meaning of a failed attempt for its key."""

    counts: bool
    """Whether it is held against the key: it uses up one of its attempts. False: the record waits until the cause lets it."""
    cause: Cause | None = None


class _Suspect:
    __slots__ = ("failures", "fault", "keys", "since")

    def __init__(self, fault: Fault, now: float) -> None:
        self.fault = fault
        self.since = now
        self.keys: set[str] = set()
        self.failures = 0


class Causes:
    """The faults by which many keys have failed, in this process."""

    def __init__(self, rng: random.Random, tell: Callable[[CauseEvent], None]) -> None:
        """`tell` is called with each event, inside the call that makes it."""
        self.open: dict[str, dict[FaultKey, Cause]] = {}
        """By kind of procedure, and by fault."""
        self.opened = 0
        self.canaries = 0
        """Attempts that were to find out whether a cause is gone."""
        self._rng = rng
        self._tell = tell
        self._suspects: OrderedDict[tuple[str, str, FaultKey], _Suspect] = OrderedDict()
        """By kind of procedure, step, and fault, the oldest first."""
        self._by_step: dict[tuple[str, str], set[FaultKey]] = {}

    # What may begin.

    def shares(self, now: float, kinds: Sequence[str]) -> list[Share]:
        """Divide the kinds into shares that may be claimed now; those of which nothing may begin are left out."""
        if not self.open:
            return [Share(kinds, None)]
        free, shares = list[str](), list[Share]()
        for kind in kinds:
            causes = self.open.get(kind)
            if causes is None:
                free.append(kind)
            elif (room := min(cause.room(now) for cause in causes.values())) > 0:
                without = tuple(dict.fromkeys(id_ for cause in causes.values() for id_ in cause.without))
                shares.append(Share((kind,), room, without))
                for cause in causes.values():
                    cause.offered(now)
        return [*shares, Share(free, None)] if free else shares

    def claimed(self, now: float, share: Share, took: Sequence[tuple[str, KeyOf]], asked: int) -> None:
        """Note what a claim of this share has found; `asked` is how many it could have taken."""
        if share.count_max is None:
            return
        for kind in share.kinds:
            if any(not cause.is_gone for cause in self.open.get(kind, {}).values()):
                self.canaries += len(took)
            for cause in tuple(self.open.get(kind, {}).values()):
                cause.claimed(now, took, short=len(took) < min(asked, share.count_max))
                self._settle(cause)

    def next_in_s(self, now: float) -> float | None:
        """Return the seconds until more may be claimed by the passing of time alone; None: nothing is held."""
        times = [max(cause.next_in_s(now) for cause in causes.values()) for causes in self.open.values()]
        return min(times, default=None)

    # What became of attempts.

    def failed(self, now: float, of: KeyOf, fault: Fault, step: str) -> Verdict:
        """Note a failed attempt; return what it means for its key."""
        key = fault.key
        causes = self.open.get(of.kind)
        if causes is not None:
            cause = causes.get(key)
            for other in causes.values():
                if other is not cause:
                    other.said_nothing(now, of)
            if cause is not None:
                is_back = cause.failed(now, of, fault)
                self._tell(CauseEvent(CauseNews.BACK if is_back else CauseNews.FAILED, cause, fault))
                self._settle(cause)
                return Verdict(counts=False, cause=cause)
        if fault.kind in OWN_AFFAIR:
            return Verdict(counts=True)
        suspect = self._suspect(now, of.kind, step, fault)
        suspect.failures += 1
        suspect.keys.add(of.key)
        if len(suspect.keys) <= KEYS_MIN or sum(map(len, self.open.values())) >= OPEN_MAX:
            if len(suspect.keys) > KEYS_MIN:
                suspect.keys.discard(of.key)
            return Verdict(counts=True)
        self._drop((of.kind, step, key))
        cause = Cause(of.kind, step, suspect.fault, suspect.since, self._rng)
        cause.failures, cause.next_at = suspect.failures, now
        self.open.setdefault(of.kind, {})[key] = cause
        self.opened += 1
        self._tell(CauseEvent(CauseNews.OPENED, cause, suspect.fault))
        return Verdict(counts=False, cause=cause)

    def passed(self, now: float, of: KeyOf, step: str) -> None:  # noqa: ARG002 - the decisions are all given the time
        """Note that a key has passed a step: what others failed by in it is theirs, or gone."""
        if of.kind in self.open:
            for cause in tuple(self.open[of.kind].values()):
                if cause.step == step:
                    if cause.passed(of):
                        self._tell(CauseEvent(CauseNews.GONE, cause, cause.fault))
                    self._settle(cause)
        for key in tuple(self._by_step.get((of.kind, step), ())):
            self._drop((of.kind, step, key))

    def left(self, now: float, of: KeyOf) -> None:
        """Note that a key is no longer under way here: it ended, waits, was cancelled or given back. Its places are free."""
        for cause in tuple(self.open.get(of.kind, {}).values()):
            cause.said_nothing(now, of)
            self._settle(cause)

    # What somebody says.

    def fixed(self, kind: str | None, key: FaultKey | None) -> None:
        """Begin to release what waits for these causes, as if a canary had passed; None stands for all."""
        for of_kind, causes in self.open.items():
            for fault_key, cause in causes.items():
                if kind in {None, of_kind} and key in {None, fault_key} and not cause.is_gone:
                    cause.gone()
                    self._tell(CauseEvent(CauseNews.TOLD, cause, cause.fault))
        for suspect in tuple(self._suspects):
            if kind in {None, suspect[0]} and key in {None, suspect[2]}:
                self._drop(suspect)

    # Inside.

    def _suspect(self, now: float, kind: str, step: str, fault: Fault) -> _Suspect:
        place = (kind, step, fault.key)
        suspect = self._suspects.get(place)
        if suspect is None:
            if len(self._suspects) >= SUSPECTS_MAX:
                self._drop(next(iter(self._suspects)))
            suspect = self._suspects[place] = _Suspect(fault, now)
            self._by_step.setdefault((kind, step), set()).add(fault.key)
        return suspect

    def _drop(self, place: tuple[str, str, FaultKey]) -> None:
        kind, step, key = place
        if self._suspects.pop(place, None) is not None:
            keys = self._by_step[kind, step]
            keys.discard(key)
            if not keys:
                del self._by_step[kind, step]

    def _settle(self, cause: Cause) -> None:
        """Close a cause of which all waves have gone well."""
        if cause.is_over:
            causes = self.open[cause.kind]
            del causes[cause.fault.key]
            if not causes:
                del self.open[cause.kind]
            self._tell(CauseEvent(CauseNews.OVER, cause, cause.fault))
