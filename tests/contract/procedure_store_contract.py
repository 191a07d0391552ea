"""What every store of procedures promises: one suite, and a rig for each store (`procedure_store_rig.StoreRig`).

A store takes part by a class beside its rig:

    class TestMyStore(ProcedureStoreContract):
        @pytest.fixture
        def rig(self) -> StoreRig: ...
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from procedure_store_acts import ActContract
from procedure_store_claims import ClaimContract
from procedure_store_rig import CANCELLED, DEAD, DONE, FAULT, LEASE_S, QUEUED, RUNNING, WAITING, StoreRig, new, written
from procedure_store_submissions import SubmissionContract

from fake_procedure_records import FakeRecords
from outlast.procedures import Priority
from outlast.procedures._model import Pause

if TYPE_CHECKING:
    from outlast.procedures import ProcedureRecord
    from outlast.procedures._stores.port import ProcedureStore

TIMES_S = (0, 10, 30)
"""Whole seconds, and time is moved by whole seconds: what passes by itself meanwhile decides nothing."""


class ProcedureStoreContract(SubmissionContract, ClaimContract, ActContract):
    """The promises of every store. A subclass has the fixture `rig`."""

    walks, steps = 3, 250
    """Random walks: a store of processes may have fewer and shorter ones."""

    def test_it_does_what_the_plain_rules_do(self, rig: StoreRig) -> None:
        """Walk at random; the rules over plain memory (fake_procedure_records.py) walk along, and every record must be the same.

        They hold by themselves that no two records are live with one key, and that no lock is held twice.
        """

        async def main() -> None:
            for seed in range(self.walks):
                async with rig.opened() as store, rig.opened() as other:
                    walk = Walk(rig, [store, other], random.Random(seed), f"{seed} ", (f"{seed} one", f"{seed} two"))
                    for _ in range(self.steps):
                        await walk.step()
                    await walk.compare()
                    for pause in await store.pauses():
                        await store.resume(pause)

        rig.run(main)


@dataclass(slots=True)
class Walk:
    """A random walk on a store and on the rules beside it."""

    rig: StoreRig
    stores: list[ProcedureStore]
    rng: random.Random
    prefix: str
    kinds: tuple[str, str]
    rules: FakeRecords = field(default_factory=FakeRecords)
    now: float = 1.0
    claims: list[ProcedureRecord] = field(default_factory=list)
    """All there were, those that are over too: ghosts write with them."""
    ids: list[str] = field(default_factory=list)

    async def step(self) -> None:
        steps = {self.submit: 6, self.claim: 5, self.record: 8, self.cancel: 1, self.signal: 2, self.beat: 3, self.pause: 1}
        steps |= {self.advance: 2, self.leave: 1, self.clear: 1, self.extend: 1}
        [step] = self.rng.choices(list(steps), list(steps.values()))
        await step(self.rng.choice(self.stores))
        if self.rng.random() < 0.2:
            await self.compare()

    async def compare(self) -> None:
        held = [record for record in await self.stores[0].records(count=10_000) if record.key.startswith(self.prefix)]
        expected = self.rules.list(self.now, (), None, None, None, 10_000)
        assert [_facts(record) for record in held] == [_facts(record) for record in expected]

    def _runner(self) -> str:
        return self.prefix + self.rng.choice(["a", "b"])

    def _key(self) -> str:
        return f"{self.prefix}{self.rng.randrange(8)}"

    async def submit(self, store: ProcedureStore) -> None:
        asked = [
            new(
                self._key(),
                self.rng.choice(self.kinds),
                priority=self.rng.choice(list(Priority)),
                locks=tuple(f"{self.prefix}{lock}" for lock in self.rng.sample("xyz", self.rng.choice([0, 0, 1, 2]))),
                delay_s=self.rng.choice([0, 0, *TIMES_S]),
                deadline_s=self.rng.choice([None, 10, 30]),
                claim=self.rng.random() < 0.5,
            )
            for _ in range(self.rng.randint(1, 3))
        ]
        runner = self._runner()
        answers = await store.submit(asked, runner)
        expected = self.rules.submit(self.now, asked, runner)
        assert [(one.answer, _facts(one.record)) for one in answers] == [(one.answer, _facts(one.record)) for one in expected]
        self.ids += [one.record.id for one in answers]
        self.claims += [one.record for one in answers if one.record.state is RUNNING]

    async def claim(self, store: ProcedureStore) -> None:
        runner, count = self._runner(), self.rng.randint(1, 4)
        kinds = self.rng.choice([self.kinds, self.kinds, self.kinds[:1]])
        without = self.rng.sample(self.ids, min(len(self.ids), 2))
        settings = {"oldest_first": self.rng.random() < 0.2, "without": without}
        claimed = await store.claim(runner, kinds, count, **settings)
        # Which of those that are alike in the rules' time comes first, the store's own time decides.
        others = [the_id for the_id in self.rules.records if the_id not in {record.id for record in claimed}]
        expected = self.rules.claim(self.now, runner, kinds, count, oldest_first=False, without=others + without)
        assert sorted(map(_facts, claimed)) == sorted(map(_facts, expected))
        if len(claimed) < count:
            taken = [record.id for record in claimed]
            more = self.rules.claim(self.now, runner, kinds, count, oldest_first=False, without=without + taken)
            assert more == [], "it left out what might have been claimed"
        self.claims += claimed

    async def record(self, store: ProcedureStore) -> None:
        if not self.claims:
            return
        state = self.rng.choice([RUNNING, QUEUED, WAITING, DONE, DEAD, CANCELLED])
        write = written(
            self.rng.choice(self.claims[-6:]),
            state,
            body_json=str(self.rng.random()),
            fault=self.rng.choice([None, FAULT]),
            due_s=self.rng.choice([None, *TIMES_S]),
            waits_for=self.rng.choice(["", "go"]) if state is WAITING else "",
            took_signals=self.rng.choice([(), ("go",)]),
            failures=self.rng.randint(1, 9),
            until_s=self.rng.choice(TIMES_S),
            cancel_known=self.rng.random() < 0.3,
        )
        assert await store.record([write]) == self.rules.record(self.now, [write])

    async def cancel(self, store: ProcedureStore) -> None:
        if self.ids:
            the_id = self.rng.choice(self.ids[-6:])
            assert await store.cancel(the_id) == self.rules.cancel(self.now, the_id)

    async def signal(self, store: ProcedureStore) -> None:
        if self.ids:
            the_id, name = self.rng.choice(self.ids[-6:]), self.rng.choice(["go", "stop"])
            assert await store.signal(the_id, name, "1") == self.rules.signal(self.now, the_id, name, "1")

    async def beat(self, store: ProcedureStore) -> None:
        runner = self._runner()
        assert dict(await store.beat(runner, runner, LEASE_S)) == self.rules.beat(self.now, runner, runner, LEASE_S)

    async def leave(self, store: ProcedureStore) -> None:
        runner = self._runner()
        await store.leave(runner)
        self.rules.leave(runner)

    async def pause(self, store: ProcedureStore) -> None:
        pause = self.rng.choice([Pause(), Pause(self.kinds[0]), Pause(self.kinds[0], self._key())])
        if self.rng.random() < 0.4:
            await store.pause(pause)
            self.rules.pause(pause)
            return
        for held in list(self.rules.paused):
            assert await store.resume(held) is True
            self.rules.resume(held)

    async def clear(self, store: ProcedureStore) -> None:
        key = self._key()
        assert await store.clear(self.kinds[0], key) == self.rules.clear(self.now, self.kinds[0], key)

    async def extend(self, store: ProcedureStore) -> None:
        if self.ids:
            deadlines = {self.rng.choice(self.ids[-6:]): self.rng.choice([None, 5, 50])}
            await store.extend(deadlines)
            self.rules.extend(self.now, deadlines)

    async def advance(self, store: ProcedureStore) -> None:
        seconds = self.rng.choice([1, 5, 20])
        await self.rig.advance(seconds)
        self.now += seconds


def _facts(record: ProcedureRecord) -> tuple[Any, ...]:
    """All that is not a time, and which times there are."""
    times = (record.due_at, record.deadline_at, record.began_at, record.ended_at, record.until_at)
    return (
        record.id,
        record.kind,
        record.key,
        record.state.value,
        record.priority.value,
        record.payload_json,
        record.body_json,
        record.token,
        record.revivals,
        record.owner or "",
        record.deaths,
        record.failures,
        record.locks,
        [(one.name, one.payload_json) for one in record.signals],
        record.waits_for,
        record.cancel_requested,
        str(record.first_fault),
        str(record.last_fault),
        [time is None for time in times],
    )
