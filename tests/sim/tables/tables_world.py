"""Writers in several processes, while tables cannot be made, are dropped and changed by others, and the store fails.

Promises: what is acknowledged was written as it was sent; what is refused for good or from memory was not; of a body that is to
be stored whole all is stored or nothing; and when everything is healed, each point that may come again is taken.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from served_tables import Served, body, served_by

from fake_procedure_store import FakeStore
from fake_table_store import FakeTables, FakeTableStore
from outlast import Fault, Kind, OutlastError, Scope, Stopping, Unavailable
from outlast.procedures import ProcedureError
from outlast.procedures._runner import lease
from outlast.tables import FieldType, PointOutcome, TableLimits
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from outlast.tables import Written
    from outlast.tables._stores.port import TableRows, Wrote

TABLES = ("a", "b", "c", "d")
PROCESSES = 2
WRITERS = 4
SAFETY_S = 12.0
LIVENESS_S = 120.0
POISON = 13
"""A value that only the store refuses."""
FROM_MEMORY = frozenset({"type", "name taken", "42501", "lock", "not made", "line full", "rate", "tag_values_max", "poison"})
"""Codes of refusals after which a point is certainly not stored; after another it may be."""
Key = tuple[str, str, int]


class MadeError(OutlastError):
    """The making of a table meets this."""


@dataclass
class Sent:
    """A point that somebody wants to have stored."""

    key: Key
    fields: Mapping[str, Any]
    acknowledged: bool = False
    never: bool = False
    uncertain: bool = False
    """An attempt ended without a word of what became of it."""
    code: str = ""


@dataclass
class Outcome:
    """What came of one seed."""

    seed: int
    violation: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


class WatchedTables(FakeTables):
    """Notes what was ever written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Key, dict[str, Any]] = {}

    def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        wrote = super().write(groups, whole=whole)
        refused = {(each.group, each.row) for each in wrote.refused}
        if whole and (refused or wrote.stale):
            return wrote
        for number, group in enumerate(groups):
            if number in wrote.stale:
                continue
            hosts = {series: dict(of)["host"] for of, series in self.tables[group.table.name].series.items()}
            for place, row in enumerate(group.rows):
                if (number, place) not in refused:
                    key = (group.table.name, hosts.get(row[0], "nobody"), row[1])
                    self.written.setdefault(key, {}).update(zip(group.fields, row[2:], strict=True))
        return wrote


class World:
    """One simulation."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.outcome = Outcome(seed)
        self.folder = folder
        self.held = WatchedTables()
        self.held.refuses = lambda table, fields: (
            Fault(Kind.REJECTED, "poison", "no", "x", Scope.CALL) if POISON in fields.values() else None
        )
        self.first = FakeTableStore(self.held, latency_s=0.005)
        self.records = FakeStore(latency_s=0.005)
        self.processes: list[Served] = []
        self.started = 0
        self.time = 0
        self.unsynced: list[Sent] = []
        self.lost = 0
        self.over = False

    def say(self, what: str, text: str = "") -> None:
        self.outcome.counts[what] += 1
        self.outcome.trace.append(f"{asyncio.get_running_loop().time():8.3f} {what} {text}")

    def broken(self, text: str) -> None:
        self.say("VIOLATION", text)
        self.outcome.violation = self.outcome.violation or text

    # Processes.

    async def begin(self) -> Served:
        self.started += 1
        limits = TableLimits(tag_values_max=WRITERS + 2)
        store = self.first.beside()
        process = served_by(store, self.records.beside(), self.folder / str(self.started), deadline_s=4.0, limits=limits)
        await process.start()
        return process

    async def end(self, process: Served) -> None:
        await process.end()
        self.lost += process.tables._tally.lost

    async def restart(self) -> None:
        place = self.rng.randrange(PROCESSES)
        self.say("restart")
        process = self.processes[place]
        process.store.heal()
        self.processes[place] = await self.begin()
        await self.end(process)

    # Writers.

    def new_points(self, host: str) -> list[Sent]:
        points: list[Sent] = []
        for _ in range(self.rng.randint(1, 8)):
            self.time += 1
            value: Any = self.rng.choice([self.time, self.time + 0.5, f"t{self.time}", True, POISON])
            kind = {int: "i", float: "i", str: "s", bool: "b"}[type(value)]
            # Most fields have one type; one now and then has that of the next.
            name = kind if self.rng.random() < 0.95 else "i"
            fields = {name: value} | ({f"n{self.rng.randrange(6)}": 1} if self.rng.random() < 0.3 else {})
            points.append(Sent((self.rng.choice(TABLES), host, self.time), fields))
        return points

    async def writer(self, host: str, left: list[Sent]) -> None:
        while not self.over:
            points = self.rng.sample(left, min(len(left), 3)) + self.new_points(host)
            left += [each for each in points if each not in left]
            await self.send(self.rng.choice(self.processes), points, self.options())
            left[:] = [each for each in left if not each.acknowledged and not each.never]
            await asyncio.sleep(self.rng.choice([0.0, 0.05, 0.3]))

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.rng.random() < 0.2:
            options["whole"] = True
        elif self.rng.random() < 0.15:
            options["durable"] = False
        if self.rng.random() < 0.2:
            options["deadline_s"] = self.rng.choice([0.05, 1.0])
        return options

    async def send(self, process: Served, points: list[Sent], options: dict[str, Any]) -> None:
        parsed = body(process.tables.known, *((each.key[0], {"host": each.key[1]}, each.key[2], each.fields) for each in points))
        if self.rng.random() < 0.05:
            options["durable"] = True
            await self.cancelled(process, parsed, points, options)
            return
        try:
            written = await process.tables.write_parsed(parsed, **options)
        except (Unavailable, Stopping) as exc:
            self.say("refused body", type(exc).__name__)
            return
        self.judge(points, written, options)

    async def cancelled(self, process: Served, parsed: Any, points: list[Sent], options: dict[str, Any]) -> None:
        task = asyncio.create_task(process.tables.write_parsed(parsed, **options))
        await asyncio.sleep(self.rng.choice([0.0, 0.004, 0.02, 0.5]))
        task.cancel()
        self.say("cancelled")
        for each in points:
            each.uncertain = True
        try:
            await task
        except (asyncio.CancelledError, Unavailable, Stopping):
            return

    def judge(self, points: list[Sent], written: Written, options: dict[str, Any]) -> None:
        """Compare an answer with what was written."""
        refused = {each.place: each for each in written.refused}
        if sum(written.counts.values()) + written.stored != len(points):
            self.broken(f"{len(points)} points, answered {written}")
        nothing = options.get("whole") and refused
        for place, each in enumerate(points, 1):
            held = self.held.written.get(each.key)
            if place in refused:
                refusal = refused[place]
                self.say(refusal.fault.code, f"{each.key} {refusal.outcome.value}")
                self.refused(each, refusal.outcome, refusal.fault.code, held)
            elif nothing:
                if held is not None and not each.uncertain:
                    self.broken(f"{each.key} is stored, of a body that is to be whole and was refused")
                each.uncertain = True
            elif options.get("durable") is False:
                self.say("in line")
                each.acknowledged = True
                self.unsynced.append(each)
            else:
                self.say("stored", f"{each.key} {each.fields}")
                each.acknowledged = True
                if held is None or any(held.get(name) != value for name, value in each.fields.items()):
                    self.broken(f"{each.key} was acknowledged with {each.fields}, written was {held}")

    def refused(self, each: Sent, outcome: PointOutcome, code: str, held: Any) -> None:
        each.code = code
        each.never = outcome is PointOutcome.NEVER
        if code not in FROM_MEMORY:
            each.uncertain = True
        elif held is not None and not each.uncertain:
            self.broken(f"{each.key} was refused ({code}), and is written")

    # Troubles.

    async def troubles(self) -> None:
        acts = (self.outage, self.cannot_be_made, self.name_is_taken, self.dropped, self.dropped_here, self.changed, self.restart)
        while not self.over:
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))
            if not self.over:
                await self.rng.choice(acts)()

    async def outage(self) -> None:
        store = self.rng.choice(self.processes).store
        trouble = self.rng.choice([Trouble.REFUSE, Trouble.HANG, Trouble.LOSE_REPLY])
        self.say("outage", trouble.value)
        store.trouble(trouble)
        await asyncio.sleep(self.rng.uniform(0.05, 1.5))
        store.heal()

    async def cannot_be_made(self) -> None:
        kind, code = self.rng.choice([(Kind.PERMANENT, "42501"), (Kind.CONTENDED, "lock")])
        which = self.rng.choice(TABLES)
        self.say("cannot be made", which)
        fault = Fault(kind, code, "it cannot", "tables", Scope.CALL)
        self.held.fails = lambda table: MadeError("it cannot", fault) if table == which else None
        await asyncio.sleep(self.rng.uniform(0.5, 3.0))
        self.held.fails = lambda table: None

    async def name_is_taken(self) -> None:
        which = self.rng.choice(TABLES)
        if which not in self.held.tables:
            self.say("name is taken", which)
            self.held.theirs[which] = "view"
            await asyncio.sleep(self.rng.uniform(0.5, 3.0))
            self.held.theirs.pop(which)

    async def dropped(self) -> None:
        which = self.rng.choice(TABLES)
        self.say("dropped", which)
        self.held.drop(which)

    async def dropped_here(self) -> None:
        which = self.rng.choice(TABLES)
        self.say("dropped here", which)
        try:
            await self.rng.choice(self.processes).tables.drop(which)
        except (Unavailable, Stopping, ProcedureError, OSError):
            self.say("not dropped")

    async def changed(self) -> None:
        which = self.rng.choice(TABLES)
        if which in self.held.tables:
            self.say("changed", which)
            self.held.damage(which)
        else:
            self.held.shape(which, {"i": FieldType.INTEGER}, 500, None)

    # The whole.

    async def run(self) -> None:
        self.processes = [await self.begin() for _ in range(PROCESSES)]
        left: list[list[Sent]] = [[] for _ in range(WRITERS)]
        writers = [asyncio.create_task(self.writer(f"w{number}", left[number])) for number in range(WRITERS)]
        troubles = asyncio.create_task(self.troubles())
        await asyncio.sleep(SAFETY_S)
        self.over = True
        await asyncio.gather(*writers, troubles)
        self.held.fails = lambda table: None
        self.held.theirs.clear()
        for process in self.processes:
            process.store.heal()
        await self.converge([each for some in left for each in some])
        for process in self.processes:
            await self.end(process)
        missing = [each for each in self.unsynced if each.key not in self.held.written]
        if len(missing) > self.lost:
            self.broken(f"{len(missing)} points in line were not written, and {self.lost} counted as lost")

    async def converge(self, left: list[Sent]) -> None:
        until = asyncio.get_running_loop().time() + LIVENESS_S
        while left:
            for each in left:
                await self.send_certainly(each)
            left = [each for each in left if not each.acknowledged and not each.never]
            if asyncio.get_running_loop().time() > until:
                self.broken(f"{left[0].key} is not taken {LIVENESS_S:g} s after all was healed: {left[0].code}")
                return
            await asyncio.sleep(1.0)

    async def send_certainly(self, each: Sent) -> None:
        process = self.processes[0]
        parsed = body(process.tables.known, (each.key[0], {"host": each.key[1]}, each.key[2], each.fields))
        try:
            self.judge([each], await process.tables.write_parsed(parsed), {})
        except (Unavailable, Stopping) as exc:
            each.code = str(exc)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let the jitter of the procedures and dependencies be decided by the seed too, and the boot time be the loop's."""
    real = random.Random
    source = real(seed)

    def made(*arguments: Any) -> random.Random:
        return real(*arguments) if arguments else real(source.random())

    with (
        mock.patch.object(random, "Random", made),
        mock.patch.object(lease, "boottime", loop_time),
    ):
        yield


def run_seed(seed: int) -> Outcome:
    """Run one simulation."""
    with tempfile.TemporaryDirectory() as folder, seeded(seed):
        world = World(seed, Path(folder))
        run_virtual(world.run(), seed=seed)
    return world.outcome


def replay_command(seed: int, mutant: str | None = None) -> str:
    """The command that runs one seed again and prints what happened."""
    return f"python -m tests.sim.tables --seed {seed} --schedules 1" + (f" --mutant {mutant!r}" if mutant else "")
