"""The figures, the health and the acts of a process of procedures, on a store in memory and in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

import outlast
from fake_procedure_store import FakeStore
from outlast import Fault, Kind
from outlast.extend import Act, Journal, Recorder, SystemHealth
from outlast.procedures import Priority
from outlast.procedures._model import KeyOf, NewRecord, Pause, ProcedureState, RecordWrite
from outlast.procedures._shown import EVERY_S, ShownProcedures
from outlast.procedures._tally import Tally
from outlast.testing import Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.expected_logs
NO_TABLE = Fault(Kind.PERMANENT, "42P01", "no table", "db")


@dataclass
class Known:
    failing: int = 3
    failing_bytes: int = 700
    forgotten: int = 2
    probes: int = 5
    canaries: int = 4


@dataclass
class Cause:
    kind: str
    fault: Fault
    since: float = 1.0


@dataclass
class Front:
    counts: Known = field(default_factory=Known)
    open_causes: list[Cause] = field(default_factory=list)


class Rig:
    def __init__(self, path: Path) -> None:
        self.store = FakeStore()
        self.front, self.tally = Front(), Tally()
        self.incident = outlast.Incident("procedures", verb="are failing")
        journal: Journal[RecordWrite] = Journal(
            path / "journal", "procedures", encode=lambda write: write.id.encode(), decode=written, records_max=10
        )
        self.recorder: Recorder[RecordWrite] = Recorder(
            journal, self.write, dependency=self.store.dependency, name="procedures", key=lambda write: write.id
        )
        self.shown = ShownProcedures(
            "work", self.store, self.tally, self.front, self.recorder, self.incident, slots=8, running=lambda: 2
        )

    async def write(self, writes: list[RecordWrite]) -> list[RecordWrite]:
        await self.store.record(writes)
        return []

    async def put(self, kind: str, key: str, state: ProcedureState | None = None, fault: Fault | None = None) -> None:
        """Make a record, and let it end if a state is given."""
        new = NewRecord(f"{kind}{key}", kind, key, 1, Priority.NORMAL, "null", claim=state is not None)
        record = (await self.store.submit([new], "me"))[0].record
        if state is not None:
            cause = None if fault is None else {"kind": fault.kind.value, "code": fault.code, "source": fault.source}
            await self.store.record(
                [RecordWrite(record.id, record.token, state.value, "", fault=cause, failures=1, until_s=60.0)]
            )

    def values(self, name: str) -> dict[tuple[str, ...], float] | None:
        return next((dict(figure.samples) for figure in self.shown.figures() if figure.name == name), None)

    def act(self, name: str) -> Act:
        return next(act for act in self.shown.acts() if act.name == name)


def written(data: bytes) -> RecordWrite:
    return RecordWrite(data.decode(), 1, "done", "")


@asynccontextmanager
async def at_work(rig: Rig) -> AsyncIterator[None]:
    service, stop = outlast.Service("worker", deadline_s=2.0), outlast.Stop()
    rig.shown.attach(service)
    await rig.store.beat("me", "me", 1000.0)
    await rig.recorder.open()
    running = asyncio.create_task(service.run(stop))
    try:
        await service.until_ready()
        await asyncio.sleep(1)
        yield
    finally:
        stop.fire("the end")
        await running
        await rig.recorder.close()
        await rig.store.dependency.close()


def test_the_store_is_counted_and_acts_touch_what_they_say(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        await rig.put("settle", "a", ProcedureState.DEAD, NO_TABLE)
        await rig.put("settle", "b", ProcedureState.DONE)
        await rig.put("create", "c")
        await rig.store.pause(Pause("create"))
        await rig.store.pause(Pause())
        assert rig.values("held") is None, "nothing was counted yet"
        assert rig.act("resume all").concerns is None
        async with at_work(rig):
            assert rig.values("held") == {("settle", "dead"): 1, ("settle", "done"): 1, ("create", "queued"): 1}
            assert rig.values("pauses") == {(): 2}
            assert (rig.act("resume all").concerns, await rig.act("resume all").run()) == (2, 2)
            assert await rig.store.pauses() == []
            finished = rig.act("delete finished records")
            assert (finished.concerns, finished.destructive, await finished.run()) == (1, True, 1)
            clear = rig.act("clear everything failing")
            assert (clear.concerns, clear.destructive, await clear.run()) == (3, False, 1)
            (dead,) = await rig.store.find_keys([KeyOf("settle", "a")])
            assert dead is not None
            assert dead.failures == 0
            await asyncio.sleep(EVERY_S + 1)
            assert rig.values("held") == {("settle", "dead"): 1, ("create", "queued"): 1}
            lag = rig.shown.lag()
            assert lag is not None
            assert lag.seconds is not None
            assert lag.seconds > EVERY_S - 1

    run_virtual(main)


def test_what_holds_a_kind_is_said_to_be_fixed_for_every_process(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        await rig.put("settle", "a", ProcedureState.DEAD, NO_TABLE)
        rig.front.open_causes = [Cause("settle", NO_TABLE)]
        async with at_work(rig):
            assert rig.shown.health() == SystemHealth(False, "held by a cause", NO_TABLE, 1.0)
            assert rig.values("causes_open") == {("settle",): 1.0}
            number = (await rig.store.news(None, 0)).number
            act = rig.act("release what is held")
            assert (act.concerns, await act.run()) == (1, 1)
            (event,) = (await rig.store.news(number, 0)).events
            assert event.text == "db/permanent/42P01"

    run_virtual(main)


def test_a_process_shows_what_it_was_asked_for_did_and_knows(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.tally.submitted, rig.tally.joined, rig.tally.late = 7, 6, 1
    rig.tally.refused.update({"failing": 40, "cause": 2})
    rig.tally.ended.update({"done": 3})
    for name, value in {
        "submitted": {(): 7},
        "joined": {(): 6},
        "refused": {("failing",): 40, ("cause",): 2},
        "ended": {("done",): 3},
        "running": {(): 2},
        "slots": {(): 8},
        "failing_keys": {(): 3},
        "memory": {(): 700},
        "forgotten_keys": {(): 2},
        "probes": {(): 5},
        "canaries": {(): 4},
        "late_writes": {(): 1},
        "journal_writes": {(): 0},
    }.items():
        assert rig.values(name) == value, name


def test_its_health_says_what_is_wrong_first(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        assert rig.shown.health() == SystemHealth(None, "not at work")
        async with at_work(rig):
            assert rig.shown.health() == SystemHealth(True, "working")
            rig.incident.fault(NO_TABLE)
            assert rig.shown.health().state == "working; procedures fail"
            rig.store.trouble(Trouble.REFUSE)
            assert not await rig.recorder.record(written(b"x"))
            assert rig.shown.health().state == "waiting for store"
            rig.store.heal()
            await asyncio.sleep(EVERY_S)
            assert rig.shown.health() == SystemHealth(False, "recording what the journal holds")
            assert rig.values("journal_used") == {(): 0.1}
            await rig.recorder.replay(outlast.Stop())
            assert rig.shown.health().well
            rig.incident.resolve()

    run_virtual(main)


def test_a_store_that_cannot_count_is_shown_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        raise outlast.OutlastError("too many", Fault(Kind.CONTENDED, "57014", "too many", scope=outlast.Scope.CALL))

    async def main() -> None:
        rig = Rig(tmp_path)
        await rig.put("create", "c")
        async with at_work(rig):
            monkeypatch.setattr(rig.store, "counts", refuse)
            await asyncio.sleep(3 * EVERY_S)
            assert rig.values("held") == {("create", "queued"): 1}
            assert rig.shown.health() == SystemHealth(True, "working")

    run_virtual(main)
