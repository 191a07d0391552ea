"""Clients, one runner and a store, with faults of keys and faults of all: what the front answers is compared with what holds.

In the safety phase keys fail for their own reasons, for one that is nobody's, are cancelled, expire, hang and are forgotten; the
runner is killed. Then everything is healed, and every key that somebody still wants has to end well within a bounded time.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from procedure_store import Store

from outlast import Fault, Kind
from outlast.procedures._decisions.causes import CauseNews
from outlast.procedures._decisions.front import Front, Go, Join
from outlast.procedures._model import FINAL, LIVE, KeyOf, ProcedureState, Submission

if TYPE_CHECKING:
    from collections.abc import Callable

    from procedure_store import Record

    from outlast.procedures._decisions.front import KeyRefusal, Share

CREATE, DROP, STEP = "create", "drop", "allocate"
DOWN = Fault(Kind.TRANSIENT, "ECONNREFUSED", "connection refused", source="metasrv")
ELSE = Fault(Kind.TRANSIENT, "timeout", "no answer", source="etcd")
KEYS, SLOTS, KEYS_REMEMBERED = 60, 12, 15
SAFETY_S, CLEARED_S = 40.0, 40.0
TICK_S, FLUSH_S = 0.05, 0.2
HEARD_S = 0.5
ATTEMPTS_MAX = 2


class Violation(AssertionError):  # noqa: N818 - what is found, not an error of the simulation
    """The decisions have broken a promise."""


def demand(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise Violation(otherwise)


@dataclass(slots=True)
class Outcome:
    seed: int
    digest: str = ""
    violation: str = ""
    counts: Counter[str] = field(default_factory=Counter[str])
    trace: list[str] = field(default_factory=list[str])


def replay_command(seed: int, mutant: str | None = None) -> str:
    planted = f" --mutant {mutant}" if mutant else ""
    return f"{sys.executable} -m tests.sim.procedures --seed {seed} --schedules 1{planted}"


def own_fault(number: int) -> Fault | None:
    """The fault that a key has for itself until all is healed: every third has one."""
    match number % 9:
        case 0:
            return Fault(Kind.REJECTED, "42P07", "the table is there already", source="metasrv")
        case 3:
            return Fault(Kind.BUG, f"ValueError@shop:{number}", "invalid literal")
        case 6:
            return Fault(Kind.CONTENDED, "55006", "another holds it", source="metasrv")
        case _:
            return None


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outcome = Outcome(seed)
        self.now = 1000.0
        self.store = Store(self.rng.random())
        self.keys = [KeyOf(CREATE, f"{number}") for number in range(KEYS)] + [KeyOf(DROP, f"{number}") for number in range(5)]
        self.faults = {of: own_fault(int(of.key)) for of in self.keys if of.kind == CREATE}
        self.down_from = self.now + self.rng.uniform(2, 15)
        self.down_until = self.down_from + self.rng.uniform(3, 20)
        self.ends = self.now + SAFETY_S
        self.healed = False
        self.runs: list[tuple[float, int, Record]] = []
        self.numbers = 0
        self.start()

    # The process.

    def start(self) -> None:
        """Start the process, or start it again: it knows what the store has of failures."""
        self.front = Front(random.Random(self.rng.random()), keys_max=KEYS_REMEMBERED)
        self.probes: deque[float] = deque()
        self.owned: set[KeyOf] = set()
        self.failed_by: set[KeyOf] = set()
        self.open: dict[int, bool] = {}
        """By cause: whether it is gone."""
        self.canary_free_at = self.now
        self.failing, self.remembered = 0, set[KeyOf]()
        for record in self.store.records.values():
            if record.state is ProcedureState.DEAD and record.failures:
                self.remember(record)

    def remember(self, record: Record) -> None:
        if self.front.explain(self.now, record.of) is None or record.of not in self.front._failing:
            self.failing += 1
        self.front.failing(
            self.now, record.of, record.id, record.faults[0], record.faults[-1], failures=record.failures,
            since_s=self.now - record.failed_at, until_s=record.until - self.now,
        )  # fmt: skip

    def is_down(self) -> bool:
        return self.down_from <= self.now < self.down_until and not self.healed

    # Acts.

    def submit(self, of: KeyOf, deadline_s: float | None) -> None:
        now, record = self.now, self.store.records.get(of)
        deadline = inf if deadline_s is None else now + deadline_s
        answer = self.front.submit(now, of, deadline_s)
        self.note(f"submit {of.kind} {of.key}: {type(answer).__name__}")
        if isinstance(answer, Join):
            demand(record is not None and record.id == answer.id, f"{of} joins {answer.id!r}, which is not its record")
            assert record is not None
            demand(record.state in LIVE or now - record.ended_at <= HEARD_S, f"{of} joins a record that is {record.state}")
            if record.state in LIVE and not record.begun:
                record.answered = max(record.answered, deadline)
            return
        if not isinstance(answer, Go):
            self.check_refusal(of, record, answer)
            return
        is_failing = record is not None and record.state is ProcedureState.DEAD and record.failures > 0
        was_live = record is not None and record.state is not ProcedureState.DEAD
        demand(answer.probe or was_live or not is_failing or of not in self.front._failing, f"{of} is failing, and was no probe")
        if answer.probe:
            self.probes.append(now)
            demand(len(self.probes) <= 10 or now - self.probes[-11] >= 1.0, "more than ten probes in a second")
        if self.rng.random() < 0.05 and not self.healed:
            self.note("no answer")
            self.front.not_created(of)
            return
        said, record = self.store.submit(now, of, deadline)
        if said is Submission.FAILING:
            demand(not answer.probe, f"{of} was probed before its backoff had passed")
            self.note("the store said failing")
            self.remember(record)
            return
        record.answered = max(record.answered, deadline)
        is_mine = (
            answer.begin and record.state is not ProcedureState.RUNNING and len(self.runs) < SLOTS and self.rng.random() < 0.5
        )
        if is_mine and record.due <= now:
            record.state, record.begun = ProcedureState.RUNNING, True
            self.front.created(now, of, record.id, said, mine=True)
            self.begin(record)
        else:
            self.front.created(now, of, record.id, said, mine=of in self.owned, begun=record.begun)

    def check_refusal(self, of: KeyOf, record: Record | None, answer: KeyRefusal) -> None:
        # A probe that was cancelled or expired has shown nothing: the key is still failing.
        unproved = {ProcedureState.DEAD, ProcedureState.CANCELLED, ProcedureState.EXPIRED}
        demand(record is not None and record.state in unproved, f"{of} is refused, and is not dead")
        assert record is not None
        demand(record.failures > 0, f"{of} is refused, and was cleared")
        demand(answer.fault == record.faults[0], f"{of} is told {answer.fault}, not the first cause {record.faults[0]}")
        demand(answer.id == record.id, f"{of} is refused with another record")
        demand(abs(answer.since_s - (self.now - record.failed_at)) < 1e-6, f"{of} fails since {answer.since_s}")
        wait = record.until - self.now
        demand(
            0.0 < answer.retry_after_s <= max(wait, 30.0) + 1e-6, f"{of} is to come back in {answer.retry_after_s}, not {wait}"
        )

    def claim(self) -> None:
        for share in self.front.shares(self.now, [CREATE, DROP]):
            room = SLOTS - len(self.runs)
            asked = room if share.count_max is None else min(room, share.count_max)
            if self.rng.random() < 0.02 and not self.healed:
                self.front.claimed(self.now, share, [], 0)
                continue
            took = self.store.claim(self.now, share.kinds, asked, share.without) if asked else []
            if share.count_max is not None:
                self.check_held(share, took)
            self.front.claimed(self.now, share, [(record.id, record.of) for record in took], asked)
            for record in took:
                self.begin(record)
        self.check_canaries_are_asked()

    def check_held(self, share: Share, took: list[Record]) -> None:
        causes = [cause for cause in self.front.open_causes if cause.kind in share.kinds]
        if any(not cause.is_gone for cause in causes) and took:
            demand(len(took) == 1, f"{len(took)} canaries at a time")
            demand(self.now >= self.canary_free_at, "a second canary while the first is under way")
            self.canary_free_at = self.now + 30.0
            self.outcome.counts["canary"] += 1
            tried = self.tried
            demand(took[0].id not in tried or set(tried) >= self.due_ids() | {took[0].id}, "a canary again, before the others")
            tried.append(took[0].id)
        elif took:
            # 1, 2, 4 ...: at most one more than all before, and nothing grows before one has shown something.
            room = self.released + 1 if self.shown else 1
            demand(
                len(took) <= room,
                f"{len(took)} are released at once, after {self.released} of which {self.shown} showed something",
            )
            self.first_of_wave = took[0].of if self.released == 0 else None
            self.released += len(took)

    def check_canaries_are_asked(self) -> None:
        """A cause is found gone within a second of it: somebody asks that often, if anything waits."""
        is_held = any(not cause.is_gone for cause in self.front.open_causes)
        waits = is_held and len(self.runs) < SLOTS and bool(self.due_ids())
        self.unasked_from = self.unasked_from if waits and self.now >= self.canary_free_at else self.now
        demand(self.now - self.unasked_from <= 1.5, "nobody asked for more than a second whether the cause is gone")

    def due_ids(self) -> set[str]:
        waiting = {ProcedureState.QUEUED, ProcedureState.WAITING}
        return {
            record.id
            for record in self.store.records.values()
            if record.state in waiting and record.of.kind == CREATE and record.due <= self.now
        }

    def begin(self, record: Record) -> None:
        self.owned.add(record.of)
        takes = 45.0 if self.rng.random() < 0.004 and not self.healed else self.rng.uniform(0.01, 0.3)
        self.numbers += 1
        heapq.heappush(self.runs, (self.now + takes, self.numbers, record))
        self.note(f"begin {record.of.kind} {record.of.key}")

    def end(self, record: Record) -> None:
        of, chance = record.of, self.rng.random()
        self.owned.discard(of)
        fault = DOWN if of.kind == CREATE and self.is_down() else self.faults.get(of)
        if not self.healed and chance < 0.03:
            self.final(record, ProcedureState.CANCELLED)
        elif not self.healed and chance < 0.06:
            record.state, record.due = ProcedureState.WAITING, self.now + self.rng.uniform(0, 2)
            self.front.left(self.now, of)
            self.free_canary(record)
        elif fault is not None or (not self.healed and chance < 0.12):
            self.fail(record, fault or ELSE)
        else:
            self.front.step_done(self.now, of, STEP)
            self.take_events()
            self.shown += 1
            if of.kind == CREATE:
                self.failed_by.clear()
            self.final(record, ProcedureState.DONE)
        self.take_events()

    def final(self, record: Record, state: ProcedureState) -> None:
        record.state, record.ended_at = state, self.now
        self.front.ended(self.now, record.of, state)
        self.free_canary(record)
        self.note(f"{state.value} {record.of.kind} {record.of.key}")

    def fail(self, record: Record, fault: Fault) -> None:
        of = record.of
        is_open = any(cause.kind == of.kind and cause.fault.key == fault.key for cause in self.front.open_causes)
        verdict = self.front.attempt_failed(self.now, of, fault, STEP)
        self.shown += fault == DOWN
        self.failing_of = of
        if fault == DOWN:
            self.failed_by.add(of)
        self.note(f"fail {of.kind} {of.key} {fault.code} counts={verdict.counts}")
        demand(verdict.counts or fault == DOWN, f"a fault of the key's own is no cause: {fault}")
        demand(not (is_open and verdict.counts), "a failure by an open cause is held against a key")
        self.take_events()
        self.free_canary(record)
        if not verdict.counts:
            record.state, record.due = ProcedureState.WAITING, self.now
            self.front.left(self.now, of)
            return
        record.attempts += 1
        if record.attempts < ATTEMPTS_MAX and fault.kind is Kind.TRANSIENT:
            record.state, record.due = ProcedureState.WAITING, self.now + 0.3
            self.front.left(self.now, of)
            return
        record.failures += 1
        if not record.faults:
            record.failed_at = self.now
        record.faults.append(fault)
        record.state, record.ended_at = ProcedureState.DEAD, self.now
        record.until = self.now + self.front.until_s(fault, record.failures)
        self.outcome.counts["dead"] += 1
        self.remember(record)

    def free_canary(self, record: Record) -> None:
        if self.tried and self.tried[-1] == record.id:
            self.canary_free_at = self.now

    def take_events(self) -> None:
        for event in self.front.events():
            name, cause = event.what.name, id(event.cause)
            self.note(f"{name} {event.fault.code}")
            self.outcome.counts[name] += 1
            demand((event.what is CauseNews.OPENED) == (cause not in self.open), f"{name} of an incident that is not open, or is")
            match event.what:
                case CauseNews.OPENED | CauseNews.BACK:
                    few = event.what is CauseNews.OPENED and len(self.failed_by) <= 20
                    demand(not few, f"a cause by {len(self.failed_by)} keys since the last success")
                    self.open[cause] = False
                    # Held strongly, so that its identity stays its own.
                    self.kept.append(event.cause)
                    self.tried, self.unasked_from = deque(maxlen=40), self.now
                    self.canary_free_at = self.now
                case CauseNews.GONE | CauseNews.TOLD:
                    demand(not self.open[cause], f"{name} of a cause that was gone")
                    self.open[cause] = True
                    self.released = self.shown = 0
                    self.first_of_wave = None
                    self.store.fixed(event.fault.key)
                    self.front.fixed(*event.fault.key)
                case CauseNews.OVER:
                    demand(self.open.pop(cause), "over, and never gone")
                case CauseNews.FAILED:
                    in_vain = self.open[cause] and self.first_of_wave == self.failing_of
                    demand(not in_vain, "the first of the waves failed, and the cause is not back")

    def kill(self) -> None:
        self.note("killed")
        for _, _, record in self.runs:
            record.state = ProcedureState.QUEUED if not record.attempts else ProcedureState.WAITING
            record.due = self.now + 1.0
        self.runs.clear()
        for record in self.store.records.values():
            # Those who waited went with it.
            record.answered = -inf
        self.start()

    def tick(self) -> None:
        while self.runs and self.runs[0][0] <= self.now:
            self.end(heapq.heappop(self.runs)[2])
        self.claim()
        self.take_events()
        for id_, seconds in self.front.later(self.now).items():
            record = next((each for each in self.store.records.values() if each.id == id_), None)
            if record is not None:
                record.deadline = max(record.deadline, inf if seconds is None else self.now + seconds)
        for record in self.store.expire(self.now):
            demand(record.answered < self.now, f"{record.of} expired, and somebody was to wait for it until {record.answered}")
            self.front.ended(self.now, record.of, ProcedureState.EXPIRED)
            self.note("expired")
        counts = self.front.counts
        demand(counts.failing <= KEYS_REMEMBERED, "more keys are remembered than may be")

    def say(self) -> None:
        """Somebody clears a key, or says that a cause is fixed, be that so or not."""
        if self.rng.random() < 0.5:
            of = self.rng.choice(self.keys)
            self.store.clear(*of)
            self.front.cleared(*of)
            self.note(f"clear {of.key}")
        else:
            self.store.fixed(DOWN.key)
            self.front.fixed(*DOWN.key)
            self.note("fixed")
        self.take_events()

    # The run.

    tried: deque[str]
    released = 0
    shown = 0
    first_of_wave: KeyOf | None = None
    failing_of: KeyOf | None = None
    unasked_from = 0.0

    def run(self) -> None:
        self.tried, self.kept = deque(maxlen=40), []
        acts: list[tuple[float, Callable[[], None]]] = [(0.004, self.say), (0.002, self.kill)]
        while self.now < self.ends:
            self.now += TICK_S
            for _ in range(self.rng.randrange(5)):
                self.submit(self.rng.choice(self.keys), self.rng.choice([None, 0.3, 1.0, 10.0]))
            for chance, act in acts:
                if self.rng.random() < chance:
                    act()
            self.tick()
        self.heal()

    def heal(self) -> None:
        """All is well: what somebody still asks for ends well, at the latest once all is cleared; no incident stays open."""
        self.note("healed")
        self.healed = True
        self.faults.clear()
        wanted, healed_at, is_cleared = dict.fromkeys(self.keys, self.now), self.now, False
        while wanted or self.front.open_causes:
            age = self.now - healed_at
            demand(age < CLEARED_S + 15.0, f"not healed: {list(wanted)[:5]}, open: {self.front.open_causes}")
            self.now += 0.25 if age < 10.0 or is_cleared else 2.0
            if age > CLEARED_S and not is_cleared:
                is_cleared = True
                dead = [self.store.records[of] for of in wanted if self.store.records[of].state is ProcedureState.DEAD]
                late = [record.of for record in dead if record.until < self.now - 5.0]
                demand(not late, f"the backoff of these has passed, and none was tried: {late}")
                self.store.clear("", "")
                self.front.cleared()
            for of, since in tuple(wanted.items()):
                record = self.store.records.get(of)
                if record is not None and record.state is ProcedureState.DONE and record.ended_at > since:
                    del wanted[of]
                elif record is None or record.state in FINAL:
                    self.submit(of, None)
            self.tick()
        demand(not any(self.front.explain(self.now, of) for of in self.keys), "still failing, though it has ended well")

    def note(self, text: str) -> None:
        self.outcome.counts[text.split(maxsplit=1)[0]] += 1
        self.outcome.trace.append(f"{self.now:.2f} {text}")


def run_seed(seed: int) -> Outcome:
    world = World(seed)
    try:
        world.run()
    except Violation as violation:
        world.outcome.violation = str(violation)
    world.outcome.digest = hashlib.sha256("\n".join(world.outcome.trace).encode()).hexdigest()
    return world.outcome
