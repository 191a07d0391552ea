"""Draws a schedule from a seed: a tree of services, what its bodies do, what goes wrong, and when it is stopped.

Everything here is data: the same seed draws the same schedule in every process. Times lie on a grid more often than not, so
that a fault, a timer and a stop meet at the same instant. Most shapes are small; few are large.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from outlast.testing import Script

LEVELS_MAX: Final = 4
CHILDREN_MAX: Final = 6
SERVICES_MAX: Final = 24
GRID_S: Final = 0.1
HORIZON_S: Final = 6.0
"""Stops come within this time, but for those of the liveness phase."""
DEADLINES_S: Final = (0.5, 1.0, 2.0, 2.0, 5.0, 10.0)
LIVENESS_SHARE: Final = 0.12
HEAL_AT_S: Final = 8.0
PROGRESS_WITHIN_S: Final = 45.0
"""A worker that failed before the trouble ended waits 30 s at most, a probe 5 s, a recovery ramp 2 s."""

LEAVES: Final = ("sleep", "sleep", "until", "wait", "plain", "call", "call")
WRAPPERS: Final = ("timeout", "gate", "group", "cleanup", "cleanup", "deaf")
PLACES: Final = ("leaf", "leaf", "stopping", "cancelled", "finally")
KINDS: Final = ("BUG", "BUG", "REJECTED", "FATAL", "FATAL")


@dataclass(slots=True)
class Act:
    """What a body does, as a tree: leaves wait, wrappers hold what is inside."""

    kind: str
    seconds: float | None = None
    inner: tuple[Act, ...] = ()
    gate: str = "own"
    peer: int = 0
    heeds_stop: bool = False
    """`cleanup`: it waits with `stop.sleep`. `call`: the time-out is inside the guard."""

    def kinds(self) -> set[str]:
        """Every kind of act in it."""
        return {self.kind}.union(*(act.kinds() for act in self.inner))


@dataclass(slots=True)
class FaultPlan:
    """One fault of a body: raised at the first `place` from `after_s` on."""

    place: str
    after_s: float
    kind: str


@dataclass(slots=True)
class BodyPlan:
    name: str
    act: Act
    once: bool
    every_s: float | None
    workers: int
    needs: tuple[int, ...]
    faults: list[FaultPlan]


@dataclass(slots=True)
class HookPlan:
    """A hook of a phase, or of the start (phase "start")."""

    name: str
    phase: str
    seconds: float | None
    """None: it hangs."""
    deaf: bool = False
    """It does not heed its cancellation."""
    fault: str | None = None
    """What it raises at its end."""
    fault_when_cancelled: str | None = None


@dataclass(slots=True)
class ServicePlan:
    name: str
    deadline_s: float
    bodies: list[BodyPlan]
    hooks: list[HookPlan]
    children: list[ServicePlan]
    delay_s_max: float
    """The longest delay between two steps of its stop; 0: none."""
    seed: int

    def all(self) -> list[ServicePlan]:
        return [self, *(plan for child in self.children for plan in child.all())]


@dataclass(slots=True)
class HandlerPlan:
    """A request handler: enters the gate of a service at an instant."""

    service: int
    at_s: float
    act: Act


@dataclass(slots=True)
class Schedule:
    seed: int
    liveness: bool
    root: ServicePlan
    scripts: list[Script]
    latency_s: float
    stop_at: float
    how: str
    """"fire", "cancel" (of `run`) or "alone" (`service.stop`)."""
    hurry_at: list[float] = field(default_factory=list)
    alone: list[tuple[float, int]] = field(default_factory=list)
    stop_event: int | None = None
    """The stop comes right after the event of this number in the trace, if that is before `stop_at`."""
    alone_events: list[tuple[int, int]] = field(default_factory=list)
    hurry_events: list[int] = field(default_factory=list)
    """Counted from the stop."""
    handlers: list[HandlerPlan] = field(default_factory=list)


def draw(seed: int) -> Schedule:
    """Draw the schedule of a seed."""
    return _Drawing(seed).schedule()


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"outlast {seed}")
        self.liveness = self.rng.random() < LIVENESS_SHARE
        self.stop_at = self._instant(HORIZON_S)
        if self.rng.random() < 0.1:
            self.stop_at = self._instant(0.5)
        if self.liveness:
            self.stop_at = HEAL_AT_S + PROGRESS_WITHIN_S
        self.left = min(SERVICES_MAX, int(self.rng.paretovariate(0.9)))
        self.names = 0
        # Half of all schedules are calm: nothing is injected into the stop itself, so that its quietness can be asserted.
        self.calm = self.rng.random() < 0.4
        self.delays = not self.calm and self.rng.random() < 0.4

    def schedule(self) -> Schedule:
        rng = self.rng
        peers = rng.randint(1, 3)
        scripts = [self._script() for _ in range(peers)]
        self.peers = peers
        root = self._service(1)
        services = len(root.all())
        schedule = Schedule(
            self.seed, self.liveness, root, scripts, rng.choice((0.0, 0.02, 0.1)), self.stop_at,
            rng.choices(("fire", "cancel", "alone"), (6, 2, 1))[0],
        )  # fmt: skip
        if rng.random() < 0.25 and not self.calm:
            schedule.hurry_at = [self._after_stop(root.deadline_s) for _ in range(rng.randint(1, 2))]
        if services > 1 and not self.liveness:
            for _ in range(rng.choice((0, 0, 1, 2))):
                schedule.alone.append((self._instant(self.stop_at + 1.0), rng.randrange(1, services)))
        self._at_events(schedule, services)
        for _ in range(min(8, int(rng.paretovariate(1.0)) - 1)):
            at_s = self._instant(self.stop_at + 0.5) if rng.random() < 0.7 else self.stop_at
            schedule.handlers.append(HandlerPlan(rng.randrange(services), at_s, self._act(1, handler=True)))
        return schedule

    def _at_events(self, schedule: Schedule, services: int) -> None:
        """Stops at instants at which something happens, rather than in between."""
        rng = self.rng
        if self.liveness:
            return
        if rng.random() < 0.4:
            schedule.stop_event = self._number(200.0)
        if services > 1 and rng.random() < 0.2:
            schedule.alone_events.append((self._number(200.0), rng.randrange(1, services)))
        if not self.calm and rng.random() < 0.15:
            schedule.hurry_events.append(self._number(60.0))

    def _number(self, most: float) -> int:
        return int(most ** self.rng.random())

    def _script(self) -> Script:
        rng = self.rng
        if rng.random() < 0.5:
            return Script()
        bounds = (0.1, 3.0)
        return Script.random(rng, HEAL_AT_S, trouble_s=bounds, well_s=bounds, slow_s=(0.1, 2.0))

    def _service(self, level: int) -> ServicePlan:
        rng = self.rng
        self.left -= 1
        name = self._name("s")
        deadline_s = rng.choice(DEADLINES_S)
        delay_s_max = rng.choice((0.0, 0.05, 0.5)) * (1 if rng.random() < 0.7 else deadline_s) if self.delays else 0.0
        bodies = [self._body() for _ in range(rng.choices((0, 1, 2, 3), (2, 6, 3, 1))[0])]
        hooks = [self._hook(deadline_s) for _ in range(rng.choices((0, 1, 2, 4), (4, 4, 3, 1))[0])]
        children: list[ServicePlan] = []
        if level < LEVELS_MAX:
            wanted = rng.randint(0, CHILDREN_MAX)
            while self.left > 0 and len(children) < wanted:
                children.append(self._service(level + 1))
        return ServicePlan(name, deadline_s, bodies, hooks, children, delay_s_max, rng.getrandbits(32))

    def _body(self) -> BodyPlan:
        rng = self.rng
        once = rng.random() < 0.3
        act = self._act(3)
        if self.liveness:
            once = once and rng.random() < 0.5
        if not once and not act.kinds() & {"sleep", "until", "plain", "wait"}:
            # In virtual time a call may take none; a loop must let some pass.
            act = Act("seq", inner=(act, Act("sleep", self._length())))
        every_s = None if once or rng.random() < 0.6 else rng.choice((0.1, 0.5, 1.0, 3.0))
        workers = 1 if once else rng.choices((1, 2, 4), (6, 2, 1))[0]
        needs = tuple(sorted({peer for peer in range(self.peers) if rng.random() < 0.4} | _peers_of(act)))
        faults = [self._fault() for _ in range(rng.choices((0, 1, 2, 6), (12, 5, 2, 1))[0])]
        return BodyPlan(self._name("b"), act, once, every_s, workers, needs, faults)

    def _fault(self) -> FaultPlan:
        rng = self.rng
        kind = rng.choice(KINDS)
        place = rng.choice(PLACES)
        after_s = rng.choice((self._instant(self.stop_at + 1.0), self.stop_at, 0.0 if place != "leaf" else self.stop_at))
        if self.liveness:
            # Whatever goes wrong is over before health is asked for; the stop has no faults of its own.
            kind, place, after_s = rng.choice(("BUG", "REJECTED")), "leaf", self._instant(HEAL_AT_S)
        return FaultPlan(place, after_s, kind)

    def _hook(self, deadline_s: float) -> HookPlan:
        rng = self.rng
        phase = rng.choice(("refuse", "flush", "flush", "close", "start"))
        name = self._name("h")
        share_s = {"refuse": 0.05, "flush": 0.08, "close": 0.04, "start": 0.1}[phase] * deadline_s
        seconds: float | None = rng.choice((0.0, 0.0, share_s / 10, share_s / 4))
        plan = HookPlan(name, phase, seconds)
        if self.calm or self.liveness:
            return plan
        trouble = rng.random()
        if trouble < 0.1:
            plan.seconds = share_s * rng.choice((0.5, 1.0, 2.0, 30.0))
        elif trouble < 0.2:
            plan.seconds = None if phase != "start" or rng.random() < 0.5 else share_s
        if rng.random() < 0.15:
            plan.deaf = plan.seconds != 0.0
        if rng.random() < 0.1:
            plan.fault = rng.choice(("BUG", "FATAL"))
        if rng.random() < 0.1:
            plan.fault_when_cancelled = rng.choice(("BUG", "FATAL"))
        return plan

    def _act(self, depth: int, *, handler: bool = False) -> Act:
        rng = self.rng
        if depth == 0 or rng.random() < 0.35:
            return self._leaf(handler=handler)
        kind = rng.choice(WRAPPERS)
        if kind == "deaf" and (self.calm or self.liveness or rng.random() < 0.5):
            kind = "cleanup"
        if kind == "group":
            return Act("group", inner=tuple(self._act(depth - 1, handler=handler) for _ in range(rng.randint(1, 3))))
        inner = (self._act(depth - 1, handler=handler),)
        match kind:
            case "timeout":
                return Act("timeout", None if self.liveness else rng.choice((None, 0.5, 2.0, 5.0)), inner)
            case "gate":
                return Act("gate", inner=inner, gate=rng.choice(("own", "own", "parent")))
            case "deaf":
                return Act("deaf", rng.choice((None, 0.1, 1.0)), inner)
            case _:
                return Act("cleanup", rng.choice((0.0, 0.01, 0.1, 0.5)), inner, heeds_stop=rng.random() < 0.4)

    def _leaf(self, *, handler: bool) -> Act:
        rng = self.rng
        kind = rng.choice(LEAVES)
        if kind == "call" and not handler:
            return Act("call", rng.choice((None, None, 0.3, 2.0)), peer=rng.randrange(self.peers), heeds_stop=rng.random() < 0.5)
        if kind == "wait" and (self.liveness or handler):
            kind = "sleep"
        if kind == "plain" and not self.liveness and not self.calm and rng.random() < 0.1:
            return Act("plain", None)
        return Act("sleep" if kind == "call" else kind, self._length())

    def _length(self) -> float:
        low, high = (0.2, 3.0) if self.liveness else (0.02, 5.0)
        length = low * (high / low) ** self.rng.random()
        return max(GRID_S, round(length / GRID_S) * GRID_S) if self.rng.random() < 0.5 else round(length, 3)

    def _instant(self, until_s: float) -> float:
        at_s = self.rng.uniform(0.0, until_s)
        return round(at_s / GRID_S) * GRID_S if self.rng.random() < 0.6 else round(at_s, 3)

    def _after_stop(self, deadline_s: float) -> float:
        return self.stop_at + self.rng.choice((0.0, 0.01, 0.1, 0.3, 0.7, 0.9)) * deadline_s

    def _name(self, letter: str) -> str:
        self.names += 1
        return f"{letter}{self.names}"


def _peers_of(act: Act) -> set[int]:
    own = {act.peer} if act.kind == "call" else set[int]()
    return own.union(*(_peers_of(inner) for inner in act.inner))
