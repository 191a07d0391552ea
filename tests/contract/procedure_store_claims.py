"""What every store of procedures promises about claims, leases and what runners record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from procedure_store_rig import (
    CANCELLED,
    DEAD,
    DONE,
    FAULT,
    KIND,
    LEASE_S,
    OTHER_FAULT,
    QUEUED,
    RUNNING,
    WAITING,
    StoreRig,
    begin,
    claim,
    fail,
    keys,
    look,
    new,
    submit,
    write,
    written,
)

from outlast.procedures import Priority
from outlast.procedures._model import Mine, Pause, Recorded, Signal, Submission

if TYPE_CHECKING:
    from outlast.procedures import ProcedureRecord


class ClaimContract:
    """Of `claim`, `record`, `beat`, `leave`. A subclass has the fixture `rig`."""

    is_whole = True
    """Whether the records of one call are written all or none: etcd bounds its transactions."""

    def test_what_is_due_is_claimed_by_priority_then_by_age(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                for key, priority in (("low", 0), ("one", 1), ("two", 1), ("high", 2), ("three", 1)):
                    await submit(store, key, priority=Priority(priority))
                    await rig.advance(1)
                assert keys(await claim(store, count=2)) == ["high", "one"]
                assert keys(await claim(store, oldest_first=True, count=2)) == ["low", "two"]
                [last] = await claim(store, "b")
                assert (last.key, last.state, last.owner, last.token, last.deaths) == ("three", RUNNING, "b", 1, 0)
                assert last.began_at == pytest.approx(last.read_at, abs=5)
                assert replace(await look(store, last), read_at=last.read_at) == last
                assert await claim(store) == []

        rig.run(main)

    def test_only_the_kinds_asked_for_and_none_that_is_left_out(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                left = await submit(store, "left out")
                await submit(store, "taken")
                await submit(store, "other", "other")
                assert keys(await claim(store, without=[left.id])) == ["taken"]
                assert keys(await store.claim("a", ["other", KIND, "none"], 10)) == ["left out", "other"]
                assert await store.claim("a", [], 10) == []
                assert await store.claim("a", [KIND], 0) == []

        rig.run(main)

    def test_nothing_is_claimed_before_it_is_due(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await submit(store, delay_s=30)
                await rig.advance(20)
                assert await claim(store) == []
                await rig.advance(11)
                assert len(await claim(store)) == 1

        rig.run(main)

    def test_what_is_paused_is_not_claimed_until_it_is_resumed(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                for key in "abc":
                    await submit(store, key)
                await submit(store, "a", "other")
                for pause in (Pause(), Pause(KIND), Pause(KIND, "a")):
                    await other.pause(pause)
                assert await store.claim("a", [KIND, "other"], 10) == []
                await other.resume(Pause())
                assert [one.kind for one in await store.claim("a", [KIND, "other"], 10)] == ["other"]
                await other.resume(Pause(KIND))
                assert keys(await claim(store)) == ["b", "c"]
                await other.resume(Pause(KIND, "a"))
                assert keys(await claim(store)) == ["a"]

        rig.run(main)

    def test_locks_are_taken_all_or_none_and_held_to_the_end(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                held = await begin(store, "holder", locks=("x",))
                await submit(store, "both", "other", locks=("y", "x"))
                await submit(store, "y", locks=("y",))
                [free] = await store.claim("b", [KIND, "other"], 10)
                assert free.key == "y", "whoever waits for x does not hold y meanwhile"
                await write(store, free, DONE)
                await write(store, held, WAITING, due_s=500)
                assert await store.claim("b", [KIND, "other"], 10) == [], "it is held over a wait"
                await rig.advance(501)
                [held] = await store.claim("a", [KIND], 10)
                await write(store, held, DEAD, fault=FAULT, failures=1)
                assert keys(await store.claim("b", [KIND, "other"], 10)) == ["both"]

        rig.run(main)

    def test_of_many_that_need_one_lock_one_is_claimed_and_the_others_wait_for_its_end(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                for key in "abc":
                    await submit(store, key, locks=("x", f"own {key}"))
                await submit(store, "free")
                seen: list[str] = []
                for _ in range(3):
                    first, *others = await claim(store)
                    seen += keys([first, *others])
                    for record in (first, *others):
                        await write(store, record, DONE)
                assert seen == ["a", "free", "b", "c"]

        rig.run(main)

    def test_what_was_not_begun_by_its_deadline_is_never_begun(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                begun = await begin(store, "begun", deadline_s=10)
                await write(store, begun, QUEUED, due_s=0)
                await submit(store, "not begun", deadline_s=10)
                await submit(store, "no hurry", deadline_s=100)
                await rig.advance(11)
                assert keys(await claim(store)) == ["begun", "no hurry"]
                [joined] = await store.submit([new("not begun", deadline_s=10)], "a")
                assert joined.answer is Submission.JOINED
                assert keys(await claim(store)) == ["not begun"], "somebody waits for it again"

        rig.run(main)

    def test_a_dead_runners_records_are_taken_over_and_each_death_is_counted(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await begin(store, runner="a", locks=("l",))
                await begin(store, "of b", runner="b")
                assert await claim(store, "b") == []
                await rig.advance(LEASE_S - 10)
                await store.beat("b", "runner b", LEASE_S)
                assert await claim(store, "b") == []
                await rig.advance(11)
                [taken] = await claim(store, "b")
                assert (taken.id, taken.token, taken.owner, taken.deaths, taken.locks) == (record.id, 2, "b", 1, ("l",))
                await rig.advance(LEASE_S)
                await store.beat("a", "runner a", LEASE_S)
                both = {one.key: one for one in await claim(store, "a")}
                assert (both["key"].token, both["key"].deaths) == (3, 2)
                assert (both["of b"].token, both["of b"].deaths) == (2, 1)
                await write(store, both["key"], body_json="2")
                assert (await look(store, record)).deaths == 0

        rig.run(main)

    def test_a_runner_that_leaves_or_never_had_a_lease_holds_nothing(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await begin(store, runner="a")
                await store.leave("a")
                assert [one.token for one in await claim(store, "b")] == [2]
                await begin(store, "second", runner="nobody")
                assert [one.key for one in await claim(store, "b")] == ["second"]
                await submit(store, "third")
                await claim(store, "nobody")
                assert [one.key for one in await claim(store, "b")] == ["third"]

        rig.run(main)

    def test_a_beat_says_what_the_runner_has(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                first = await begin(store, "first")
                second = await begin(store, "second")
                await begin(store, "of b", runner="b")
                await store.cancel(first.id)
                await store.signal(second.id, "go", "1")
                mine = await store.beat("a", "runner a", LEASE_S)
                assert dict(mine) == {first.id: Mine(1, True, 0), second.id: Mine(1, False, 1)}
                await write(store, first, WAITING)
                await rig.advance(LEASE_S + 1)
                await store.beat("b", "runner b", LEASE_S)
                assert len(await claim(store, "b")) == 2
                assert dict(await store.beat("a", "runner a", LEASE_S)) == {}, "they are another's now"

        rig.run(main)

    def test_two_runners_never_claim_the_same(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                await store.submit([new(f"k{number}", locks=(f"l{number % 7}",)) for number in range(60)], "a")
                held: dict[str, ProcedureRecord] = {}
                done = 0
                while done < 60:
                    claims = (claim(one, runner, 2) for one, runner in ((store, "a"), (other, "b")) * 3)
                    for record in [record for claimed in await asyncio.gather(*claims) for record in claimed]:
                        [lock] = record.locks
                        assert lock not in held, "two hold one lock"
                        held[lock] = record
                    done += len(held)
                    assert await other.record([written(one, DONE) for one in held.values()]) == [Recorded.WRITTEN] * len(held)
                    held.clear()
                assert await claim(store) == []

        rig.run(main)

    def test_a_step_is_recorded_and_the_claim_goes_on(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await begin(store)
                await write(store, record, body_json='{"steps": ["ü"]}', progress="3 of 10", fault=FAULT)
                await write(store, record, body_json="2", fault=OTHER_FAULT)
                seen = await look(store, record)
                assert (seen.state, seen.owner, seen.token, seen.body_json, seen.progress) == (RUNNING, "a", 1, "2", "")
                assert (seen.first_fault, seen.last_fault) == (FAULT, OTHER_FAULT)
                assert seen.began_at == record.began_at

        rig.run(main)

    @pytest.mark.parametrize("state", [DONE, DEAD, CANCELLED])
    def test_the_end_is_recorded_once_and_never_changes(self, rig: StoreRig, state: object) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await begin(store)
                end = written(record, state, result_json='"r"', failures=2, until_s=7, fault=FAULT)  # type: ignore[arg-type]
                assert await store.record([end]) == [Recorded.WRITTEN]
                ended = await look(store, record)
                assert (ended.state, ended.owner, ended.result_json, ended.due_at) == (state, None, '"r"', None)
                assert ended.ended_at is not None
                assert ended.failures == (2 if state is DEAD else 0)
                if state is DEAD:
                    assert ended.until_at == pytest.approx(ended.ended_at + 7, abs=0.001)
                for again in (end, written(record), written(record, QUEUED), written(record, CANCELLED)):
                    assert await store.record([again]) == [Recorded.LATE]
                assert await store.cancel(record.id) is state
                assert await store.signal(record.id, "go", "1") is None
                await store.extend({record.id: 99})
                assert replace(await look(store, record), read_at=ended.read_at) == ended

        rig.run(main)

    def test_only_who_has_the_claim_records_and_a_ghost_is_late(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                ghost = await begin(store)
                await rig.advance(LEASE_S + 1)
                await write(store, ghost, body_json="1")
                assert (await look(store, ghost)).body_json == "1", "nobody has taken it"
                await store.beat("b", "runner b", LEASE_S)
                [taken] = await claim(store, "b")
                late, unknown, written_one = await store.record(
                    [written(ghost, DONE), replace(written(ghost), id="0"), written(taken)]
                )
                assert (late, unknown, written_one) == (Recorded.LATE, Recorded.LATE, Recorded.WRITTEN)
                assert await store.record([written(taken, QUEUED, body_json="given back")]) == [Recorded.WRITTEN]
                assert await store.record([written(taken, DONE)]) == [Recorded.LATE], "the claim has ended"
                seen = await look(store, taken)
                assert (seen.state, seen.owner, seen.body_json, seen.token) == (QUEUED, None, "given back", 2)

        rig.run(main)

    def test_a_dead_runners_last_word_holds_if_nobody_took_the_record(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await begin(store)
                await store.leave("a")
                await write(store, record, DONE, result_json="1")
                assert (await look(store, record)).state is DONE
                assert await claim(store, "b") == []

        rig.run(main)

    def test_what_is_given_back_is_due_when_it_said(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                now, later, never = [await begin(store, key) for key in ("now", "later", "never")]
                writes = [
                    written(now, QUEUED),
                    written(later, WAITING, due_s=50),
                    written(never, WAITING, due_s=None, waits_for="go"),
                ]
                assert await store.record(writes) == [Recorded.WRITTEN] * 3
                seen = await look(store, never)
                assert (seen.due_at, seen.waits_for, seen.owner) == (None, "go", None)
                [again] = await claim(store, "b")
                assert (again.key, again.token, again.began_at, again.deaths) == ("now", 2, now.began_at, 0)
                await rig.advance(51)
                await store.beat("b", "runner b", LEASE_S)
                assert keys(await claim(store, "b")) == ["later"]

        rig.run(main)

    def test_a_signal_that_came_before_the_wait_ends_it_at_once(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                early, other = await begin(store, "early"), await begin(store, "other")
                for payload in ("1", "2"):
                    assert await store.signal(early.id, "go", payload) is RUNNING
                assert await store.signal(other.id, "stop", "3") is RUNNING
                writes = [written(one, WAITING, due_s=500, waits_for="go") for one in (early, other)]
                await store.record(writes)
                [woken] = await claim(store)
                assert (woken.key, woken.signals, woken.waits_for) == ("early", (Signal("go", "1"), Signal("go", "2")), "")
                for _ in range(2):
                    await write(store, woken, body_json="1", took_signals=("go",))
                    assert (await look(store, woken)).signals == (Signal("go", "2"),), "the oldest was taken, and once"
                await write(store, woken, WAITING, body_json="2", due_s=None, waits_for="go", took_signals=("go", "go"))
                assert await claim(store) == [], "both are taken"
                assert await store.signal(early.id, "stop", "4") is WAITING
                assert await claim(store) == []
                assert await store.signal(early.id, "go", "5") is WAITING
                assert [one.signals for one in await claim(store)] == [(Signal("stop", "4"), Signal("go", "5"))]

        rig.run(main)

    def test_a_cancel_that_the_runner_did_not_know_of_is_due_at_once(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                first, second = await begin(store, "first"), await begin(store, "second")
                for record in (first, second):
                    assert await store.cancel(record.id) is RUNNING
                await store.record([written(first, WAITING, due_s=None), written(second, QUEUED, due_s=500)])
                claimed = await claim(store)
                assert [(one.key, one.cancel_requested) for one in claimed] == [("first", True), ("second", True)]
                await store.record([written(one, WAITING, due_s=50, cancel_known=True) for one in claimed])
                assert await claim(store) == [], "undoing waits between its attempts"
                await rig.advance(51)
                assert len(await claim(store)) == 2

        rig.run(main)

    def test_hundreds_are_recorded_in_one_call(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                asked = [new(f"k{number}", claim=True) for number in range(300)]
                begun = [one.record for one in await store.submit(asked, "a")]
                writes = [written(one, RUNNING if number % 3 else DONE) for number, one in enumerate(begun)]
                assert await store.record(writes) == [Recorded.WRITTEN] * 300
                assert await store.record([*writes[:3], written(begun[1], DONE)]) == [
                    Recorded.LATE,
                    Recorded.WRITTEN,
                    Recorded.WRITTEN,
                    Recorded.WRITTEN,
                ]
                assert len(await store.beat("a", "runner a", LEASE_S)) == 199
                assert await store.record([]) == []

        rig.run(main)

    def test_the_writes_of_one_record_in_one_call_take_effect_in_their_order(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await begin(store)
                writes = [written(record, body_json="1"), written(record, DONE, body_json="2"), written(record, body_json="3")]
                assert await store.record(writes) == [Recorded.WRITTEN, Recorded.WRITTEN, Recorded.LATE]
                assert (await look(store, record)).body_json == "2"

        rig.run(main)

    def test_a_call_that_is_cancelled_is_done_or_not_and_may_be_repeated(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                for turns in range(25):
                    asked = [new(f"{turns} {number}", claim=True) for number in range(3)]
                    await _cancelled_after(turns, store.submit(asked, "a"))
                    begun = [one.record for one in await store.submit(asked, "a")]
                    assert [(one.state, one.token, one.id) for one in begun] == [(RUNNING, 1, one.id) for one in asked]
                    writes = [written(one, DONE, result_json=str(turns)) for one in begun]
                    await _cancelled_after(turns, store.record(writes))
                    first = await store.record(writes)
                    assert len(set(first)) == 1 or not self.is_whole, "all or nothing"
                    assert await store.record(writes) == [Recorded.LATE] * 3
                    await _cancelled_after(turns, store.claim("b", [KIND], 5))
                    assert await fail(store, f"{turns}", until_s=0), "no transaction is left open"
                assert {one.state for one in await store.records(count=200)} == {DONE, DEAD}

        rig.run(main)


async def _cancelled_after(turns: int, call: object) -> None:
    calling = asyncio.ensure_future(call)  # type: ignore[call-overload]
    for _ in range(turns):
        await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait({calling})
