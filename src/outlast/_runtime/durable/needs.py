"""The kinds of work that may be begun now: not those that need a dependency which is down.

A handler says what it needs (`needs=payments`). What it does not say is learned: when a handler is refused by a dependency,
its kind needs it, until the process ends. A kind is held while a dependency that it needs is down, and let go over the ramp
when that is back: as many pieces of work as there are workers, over min(2 s, 10 ms x workers), then all.

A dependency without a probe is asked by those who use it, so one piece goes as the trial when it is time. The same is done for
a refusal whose dependency is not known here (only its name: raised by the user's own code, or in another process).
"""

from __future__ import annotations

import asyncio
import enum
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from outlast._core.backoff import Backoff, BackoffState
from outlast._core.faults import Unavailable
from outlast._core.health import State
from outlast._core.ramp import due as ramp_due
from outlast._core.ramp import length_s as ramp_length_s
from outlast._runtime.dependency.dependency import Dependency
from outlast._runtime.service.stop import Stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from outlast._runtime.service.stop import Stop

    Key = Dependency | str
    Share = tuple[list[str], int | None]

LEARNED_MAX: Final = 8
"""Dependencies that are learned for one kind; the oldest is forgotten for the next."""
NAMES_MAX: Final = 100
"""Dependencies of which only the name is known, held at once."""
UNKNOWN: Final = Backoff(base_s=0.2, cap_s=30.0, factor=3.0)
"""Between two trials where no prober says that a dependency is back."""
OFFER_S: Final = 1.5
"""The time in which work may become the trial of a dependency without a probe: its place is kept for the same time."""
TRIAL_S: Final = 10.0
"""A trial that was not refused for so long has passed."""
STEP_S: Final = 0.05
"""Between two statements that acquire for a ramp, at least."""


class Work(Protocol):
    """A piece of work."""

    @property
    def id(self) -> object:
        """Its identity, as long as it is under way."""
        ...

    @property
    def kind(self) -> str:
        """The kind of it, which needs what all of its kind need."""
        ...


class HoldState(enum.Enum):
    """The state of a hold. `Needs` sets it; none outlives the process."""

    HELD = "held"
    """No work of these kinds is acquired."""
    OFFERED = "offered"
    """One may be, as the trial."""
    TRIED = "tried"
    """It is under way."""
    RAMP = "ramp"
    """The dependency is back: more and more may be acquired."""


class Hold:
    """The kinds of work that are held because of one dependency."""

    def __init__(self, retry_after_s: float = 0.0) -> None:
        self.state = HoldState.HELD
        self.kinds: set[str] = set()
        """The kinds that were refused, where only the name of the dependency is known."""
        self.retry_after_s = retry_after_s
        self.since = 0.0
        self.taken = 0
        self.work: Work | None = None
        """The work that is the trial."""
        self.passed: bool | None = None
        """Whether the trial was not refused; None while that is not decided."""
        self.worked = False
        """Whether it was done: another fault says nothing about what it needs."""
        self.changed = asyncio.Event()
        """Set when some work has become the trial, and when that has ended."""
        self.task: asyncio.Task[None] | None = None

    @property
    def is_undecided(self) -> bool:
        """Whether there is a trial, and not yet refused or done."""
        return self.work is not None and self.passed is None

    def allowance(self, workers: int, now: float) -> int | None:
        """Return how much work may be acquired now; None when the ramp is over."""
        match self.state:
            case HoldState.HELD | HoldState.TRIED:
                return 0
            case HoldState.OFFERED:
                return 1
            case HoldState.RAMP:
                elapsed_s = now - self.since
                return None if elapsed_s >= ramp_length_s(workers) else max(0, ramp_due(workers, elapsed_s) - self.taken)


class Needs:
    """Hold kinds of work while what they need is down, and release them over a ramp. Called on the event loop's thread only."""

    def __init__(self, declared: Callable[[], Mapping[str, tuple[Dependency, ...]]], name: str = "needs") -> None:
        """`declared` returns what each kind needs by its handler, for the kinds of which work could begin now. `name`
        is that of the system.
        """
        self._declared = declared
        self._name = name
        self._learned: dict[str, dict[Dependency, None]] = {}
        self._holds: dict[Key, Hold] = {}
        self._rng = random.Random()
        self.wake: Callable[[], None] = _nothing
        """Called when more may be acquired."""
        self.workers = 1
        self.known: Callable[[], Iterable[Dependency]] = tuple
        """The dependencies of the service, to find one by its name."""

    def shares(self, stop: Stop) -> list[Share]:
        """Return what may be acquired: kinds, and how much of them at most (None: any number), in the order of asking."""
        declared = self._declared()
        self._look(declared, stop)
        if not self._holds:
            return [(list(declared), None)]
        now = asyncio.get_running_loop().time()
        free: list[str] = []
        limited: dict[int, list[str]] = {}
        room: dict[int, int] = {}
        for key, hold in tuple(self._holds.items()):
            allowance = hold.allowance(self.workers, now)
            if allowance is None:
                del self._holds[key]
            else:
                room[id(hold)] = allowance
        for kind in declared:
            rooms = [(room[id(hold)], id(hold)) for hold in self._holding(kind)]
            if not rooms:
                free.append(kind)
            elif min(rooms)[0] > 0:
                limited.setdefault(min(rooms)[1], []).append(kind)
        shares: list[Share] = [(kinds, room[hold]) for hold, kinds in limited.items()]
        return [*shares, (free, None)] if free else shares

    def next_in_s(self) -> float | None:
        """Return the seconds until a ramp releases more; None while there is no ramp."""
        if all(hold.state is not HoldState.RAMP for hold in self._holds.values()):
            return None
        return max(STEP_S, ramp_length_s(self.workers) / max(1, self.workers))

    def took(self, work: Work) -> None:
        """Count work that was acquired and begins."""
        for hold in self._holding(work.kind) if self._holds else ():
            if hold.state is HoldState.OFFERED:
                hold.state, hold.work = HoldState.TRIED, work
                hold.changed.set()
            hold.taken += 1

    def refused(self, work: Work, refusal: Unavailable, stop: Stop) -> bool:
        """Learn from the refusal of a handler; return whether its kind is held until that dependency is back."""
        owner = self._owner(refusal)
        key: Key = refusal.dependency if owner is None or owner.state is not State.DOWN else owner
        if isinstance(key, Dependency):
            self._learn(work.kind, key)
        elif key not in self._holds and len(self._holds) >= NAMES_MAX:
            return False
        hold = self._hold(key, stop, refusal.retry_after_s)
        if isinstance(key, str):
            hold.kinds.add(work.kind)
        hold.retry_after_s = refusal.retry_after_s
        self._decide(work, passed=False, worked=False)
        return isinstance(key, Dependency)

    def ended(self, work: Work, *, worked: bool) -> None:
        """Take note that work has ended without being refused; `worked`: it is done."""
        if self._holds:
            self._decide(work, passed=True, worked=worked)

    def close(self) -> None:
        """Release everything and end the tasks that wait for dependencies."""
        for hold in self._holds.values():
            if hold.task is not None:
                hold.task.cancel()
        self._holds = {}

    # Inside.

    def _needed(self, kind: str) -> Iterable[Dependency]:
        yield from self._declared().get(kind, ())
        yield from self._learned.get(kind, ())

    def _holding(self, kind: str) -> list[Hold]:
        needed = set(self._needed(kind))
        return [hold for key, hold in self._holds.items() if key in needed or kind in hold.kinds]

    def _look(self, kinds: Iterable[str], stop: Stop) -> None:
        """Hold the kinds that need a dependency which went down since the last call."""
        for kind in kinds:
            for dependency in self._needed(kind):
                if dependency.state is State.DOWN:
                    self._hold(dependency, stop)

    def _owner(self, refusal: Unavailable) -> Dependency | None:
        if isinstance(refusal.owner, Dependency):
            return refusal.owner
        declared = (dependency for kind in self._declared() for dependency in self._needed(kind))
        return next((each for each in (*declared, *self.known()) if each.name == refusal.dependency), None)

    def _learn(self, kind: str, dependency: Dependency) -> None:
        if dependency in self._declared().get(kind, ()):
            return
        learned = self._learned.setdefault(kind, {})
        learned[dependency] = None
        if len(learned) > LEARNED_MAX:
            del learned[next(iter(learned))]

    def _hold(self, key: Key, stop: Stop, retry_after_s: float = 0.0) -> Hold:
        hold = self._holds.get(key)
        if hold is None or hold.state is HoldState.RAMP:
            kinds = set[str]() if hold is None else hold.kinds
            hold = self._holds[key] = Hold(retry_after_s)
            hold.kinds = kinds
            hold.task = asyncio.create_task(self._watch(key, hold, stop), name=f"outlast {self._name} wait for {key}")
        return hold

    async def _watch(self, key: Key, hold: Hold, stop: Stop) -> None:
        """Wait until the dependency is back, with everyone else who waits for it, or by trials at growing intervals."""
        state = BackoffState()
        try:
            while True:
                told = isinstance(key, Dependency) and await self._told(key, stop)
                if told and not _is_down(key):
                    break
                if told:
                    # There is no probe: we are the trial, which one piece of work is now.
                    work = await self._try(hold, OFFER_S, OFFER_S)
                else:
                    now = asyncio.get_running_loop().time()
                    state, wait_s = UNKNOWN.next_always(state, now, self._rng, min(UNKNOWN.cap_s, hold.retry_after_s))
                    await stop.sleep(wait_s)
                    work = await self._try(hold, None, TRIAL_S)
                if isinstance(key, str):
                    if hold.passed is not False:
                        break
                elif not _is_down(key) or (work is not None and hold.worked and self._forget(key, work.kind)):
                    break
        except Stopping:
            return
        self._release(hold)

    async def _told(self, dependency: Dependency, stop: Stop) -> bool:
        """Wait until the dependency releases us; return False if it never will: too many wait, or it is another service's."""
        try:
            await dependency.ready(stop=stop)
        except Stopping:
            if stop.requested:
                raise
            # The service it belongs to ends, not ours.
            return False
        except (Unavailable, RuntimeError):
            return False
        return True

    async def _try(self, hold: Hold, offer_s: float | None, trial_s: float) -> Work | None:
        """Let one piece of work begin as the trial, and wait for its outcome; return it, if there was one in time."""
        hold.state, hold.work, hold.passed, hold.worked = HoldState.OFFERED, None, None, False
        hold.changed.clear()
        self.wake()
        await _set_within(hold.changed, offer_s)
        if hold.is_undecided:
            hold.changed.clear()
            await _set_within(hold.changed, trial_s)
        hold.state = HoldState.HELD
        return hold.work

    def _decide(self, work: Work, *, passed: bool, worked: bool) -> None:
        for hold in self._holds.values():
            if hold.is_undecided and hold.work is not None and hold.work.id == work.id:
                hold.passed, hold.worked = passed, worked
                hold.changed.set()

    def _forget(self, dependency: Dependency, kind: str) -> bool:
        """Forget that this kind needs it, as work has been done without it; return whether no other kind needs it."""
        self._learned.get(kind, {}).pop(dependency, None)
        return not any(dependency in self._needed(other) for other in self._declared())

    def _release(self, hold: Hold) -> None:
        hold.state, hold.since, hold.taken = HoldState.RAMP, asyncio.get_running_loop().time(), 0
        self.wake()


def _is_down(key: Key) -> bool:
    return isinstance(key, Dependency) and key.state is State.DOWN


def _nothing() -> None:
    """Do nothing: there is no acquirer yet."""


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
