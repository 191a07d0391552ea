"""What every store of procedures promises about submissions, and about what is looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from procedure_store_rig import (
    CANCELLED,
    DEAD,
    DONE,
    FAULT,
    KIND,
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
)

from outlast.procedures import Priority
from outlast.procedures._model import KeyOf, Pause, Signal, Submission

if TYPE_CHECKING:
    from outlast.procedures._stores.port import ProcedureStore


class SubmissionContract:
    """Of `submit`, `find`, `find_keys`, `records`, `counts`. A subclass has the fixture `rig`."""

    def test_a_new_key_is_as_it_was_submitted(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                asked = new(
                    "ключ 'k\"%",
                    version=3,
                    priority=Priority.HIGH,
                    payload_json='"é"',
                    locks=("x", "y"),
                    delay_s=5,
                    deadline_s=30,
                )
                [submitted] = await store.submit([asked], "a")
                record = submitted.record
                assert submitted.answer is Submission.CREATED
                assert (record.id, record.kind, record.key, record.version) == (asked.id, KIND, asked.key, 3)
                assert (record.priority, record.payload_json, record.locks) == (Priority.HIGH, '"é"', ("x", "y"))
                assert (record.state, record.body_json, record.token, record.owner, record.revivals) == (QUEUED, "", 0, None, 0)
                assert (record.failures, record.deaths, record.signals, record.cancel_requested) == (0, 0, (), False)
                assert (record.began_at, record.ended_at, record.first_fault, record.result_json) == (None, None, None, None)
                assert record.due_at == pytest.approx(record.created_at + 5, abs=0.001)
                assert record.deadline_at == pytest.approx(record.created_at + 30, abs=0.001)
                assert record.read_at >= record.created_at
                assert replace(await look(store, record), read_at=record.read_at) == record

        rig.run(main)

    def test_a_live_key_is_joined_by_whoever_submits_it(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                first, second = await store.submit([new(), new(payload_json="2")], "a")
                [third] = await other.submit([new(claim=True)], "b")
                assert [first.answer, second.answer, third.answer] == [Submission.CREATED, Submission.JOINED, Submission.JOINED]
                assert first.record.id == second.record.id == third.record.id
                assert third.record.state is QUEUED, "what is joined is not begun by it"
                assert third.record.payload_json == first.record.payload_json
                [running] = await claim(store)
                [joined] = await other.submit([new()], "b")
                assert (joined.answer, joined.record.owner) == (Submission.JOINED, "a")
                await write(store, running, WAITING, due_s=None)
                [joined] = await other.submit([new()], "b")
                assert (joined.answer, joined.record.state) == (Submission.JOINED, WAITING)

        rig.run(main)

    def test_the_same_key_of_another_kind_is_another_key(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                answers = await store.submit([new("k", "one"), new("k", "two"), new("K", "one")], "a")
                assert [answer.answer for answer in answers] == [Submission.CREATED] * 3

        rig.run(main)

    def test_one_key_is_created_once_however_many_submit_it_at_once(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                calls = [(store, other)[number % 2].submit([new(), new("b")], "a") for number in range(20)]
                answers = [one for call in await asyncio.gather(*calls) for one in call]
                assert Counter(one.answer for one in answers) == {Submission.CREATED: 2, Submission.JOINED: 38}
                assert len({one.record.id for one in answers}) == 2
                assert len(await store.records()) == 2

        rig.run(main)

    def test_a_submission_that_is_repeated_changes_nothing(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                asked = new(claim=True)
                [first] = await store.submit([asked], "a")
                [again] = await store.submit([asked], "a")
                assert again.answer is Submission.CREATED
                assert replace(again.record, read_at=first.record.read_at) == first.record, "it has the claim it was given"
                await write(store, first.record, DONE, result_json="7")
                [late] = await store.submit([asked], "a")
                assert (late.answer, late.record.state, late.record.result_json) == (Submission.CREATED, DONE, "7")
                assert len(await store.records()) == 1

        rig.run(main)

    def test_a_failing_key_is_refused_until_its_backoff_has_passed_and_then_revived(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                dead = await fail(store, until_s=100, failures=3)
                await rig.advance(90)
                [refused] = await store.submit([new(claim=True)], "a")
                assert (refused.answer, refused.record.id, refused.record.state) == (Submission.FAILING, dead.id, DEAD)
                assert refused.record.until_at is not None
                assert 0 < refused.record.until_at - refused.record.read_at < 15
                await rig.advance(11)
                asked = new(version=2, priority=Priority.LOW, payload_json="2", locks=("l",), deadline_s=9)
                [revived] = await store.submit([asked], "a")
                record = revived.record
                assert (revived.answer, record.id, record.state) == (Submission.REVIVED, dead.id, QUEUED)
                assert (record.version, record.priority, record.payload_json, record.locks) == (2, Priority.LOW, "2", ("l",))
                assert (record.token, record.revivals, record.failures) == (dead.token, 1, 3)
                assert (record.first_fault, record.last_fault) == (FAULT, FAULT)
                assert record.read_at - record.created_at > 100, "it is the same record"
                assert (record.until_at, record.ended_at, record.began_at) == (None, None, None)
                assert record.deadline_at == pytest.approx(record.read_at + 9, abs=1)
                [claimed] = await claim(store)
                assert claimed.token == dead.token + 1
                await write(store, claimed, DEAD, fault=OTHER_FAULT, failures=4)
                again = await look(store, claimed)
                assert (again.first_fault, again.last_fault, again.failures) == (FAULT, OTHER_FAULT, 4)
                assert len(await store.records()) == 1, "a doomed key costs one record"

        rig.run(main)

    def test_a_revived_key_has_nothing_else_of_its_former_life(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await begin(store, locks=("old",), deadline_s=5)
                await store.signal(record.id, "go", "1")
                await store.cancel(record.id)
                await write(store, record, DEAD, fault=FAULT, failures=1, progress="half")
                revived = await submit(store)
                assert (revived.body_json, revived.progress, revived.signals) == ("", "", ())
                assert (revived.cancel_requested, revived.locks, revived.deadline_at, revived.result_json) == (
                    False,
                    (),
                    None,
                    None,
                )
                assert await store.cancel(record.id) is CANCELLED, "it was never claimed in this life"

        rig.run(main)

    def test_a_key_that_is_done_is_made_again_and_both_are_found(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                first = await begin(store)
                await write(store, first, DONE)
                second = await submit(store)
                assert second.id != first.id
                of = KeyOf(KIND, "key")
                [found, none] = await store.find_keys([of, KeyOf(KIND, "other")])
                assert (found and found.id, none) == (second.id, None)
                await store.cancel(second.id)
                await rig.advance(1)
                third = await begin(store)
                await write(store, third, DONE)
                [found] = await store.find_keys([of])
                assert found is not None
                assert found.id == third.id, "none has the key: the one that ended last"
                assert [one and one.id for one in await store.find([second.id, "f" * 32, first.id])] == [
                    second.id,
                    None,
                    first.id,
                ]

        rig.run(main)

    def test_a_submission_begins_at_once_what_it_made_and_only_that(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                begun = await begin(store, locks=("disk",))
                assert (begun.state, begun.owner, begun.token) == (RUNNING, "a", 1)
                assert begun.began_at is not None
                await store.pause(Pause(KIND, "paused"))
                left = await store.submit(
                    [
                        new("locked", claim=True, locks=("net", "disk")),
                        new("paused", claim=True),
                        new("later", claim=True, delay_s=5),
                        new("not asked"),
                    ],
                    "a",
                )
                assert {one.record.state for one in left} == {QUEUED}
                await fail(store, "dead", until_s=0)
                assert (await begin(store, "dead")).token == 2, "what is revived is begun too"

        rig.run(main)

    def test_two_of_one_call_that_need_one_lock_do_not_both_begin(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                both = await store.submit([new(key, claim=True, locks=("l",)) for key in "ab"], "a")
                assert [one.record.state for one in both] == [RUNNING, QUEUED]

        rig.run(main)

    def test_who_joins_lets_it_live_longer_and_nobody_shortens_it(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                first = await submit(store, deadline_s=50)
                for deadline_s, expected_s in ((10, 50), (100, 100), (None, None), (10, None)):
                    [joined] = await store.submit([new(deadline_s=deadline_s)], "a")
                    lives_to = joined.record.deadline_at and joined.record.deadline_at - first.created_at
                    assert lives_to == (expected_s and pytest.approx(expected_s, abs=5))

        rig.run(main)

    def test_hundreds_are_submitted_in_one_call_and_answered_in_order(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                asked = [new(f"k{number % 200}") for number in range(300)]
                answers = await store.submit(asked, "a")
                assert [one.record.key for one in answers] == [one.key for one in asked]
                assert [one.answer for one in answers] == [Submission.CREATED] * 200 + [Submission.JOINED] * 100
                assert [one.record.id for one in answers[:200]] == [one.id for one in asked[:200]]
                assert await store.submit([], "a") == []

        rig.run(main)

    def test_records_are_listed_the_newest_first(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                for key in "abcd":
                    await submit(store, key)
                await submit(store, "a", "other")
                await fail(store, "dead")
                await begin(store, "running")
                assert keys(await store.records()) == ["running", "dead", "a", "d", "c", "b", "a"]
                assert keys(await store.records(states=[DEAD, RUNNING])) == ["running", "dead"]
                assert keys(await store.records(kind=KIND, count=3)) == ["running", "dead", "d"]
                third = (await store.records(kind=KIND, count=3))[-1]
                assert keys(await store.records(kind=KIND, count=3, before=third.id)) == ["c", "b", "a"]
                assert [one.kind for one in await store.records(key="a")] == ["other", KIND]
                assert keys(await store.records(key="a", kind=KIND, states=[QUEUED])) == ["a"]
                assert await store.records(states=[DONE]) == []

        rig.run(main)

    def test_counts_are_exact(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                assert (await store.counts()).oldest_due_s == 0
                assert (await store.counts()).held == {}
                await submit(store, "late", delay_s=500)
                await submit(store)
                await submit(store, "b", "other")
                await fail(store, "dead")
                await begin(store, "running")
                await rig.advance(20)
                counts = await store.counts()
                assert counts.held == {(KIND, "queued"): 2, ("other", "queued"): 1, (KIND, "dead"): 1, (KIND, "running"): 1}
                assert 20 <= counts.oldest_due_s < 60

        rig.run(main)

    def test_many_processes_may_open_a_store_at_once(self, rig: StoreRig) -> None:
        async def main() -> None:
            stores = [rig.store() for _ in range(5)]
            await asyncio.gather(*(_open(store) for store in stores))
            await submit(stores[0])
            assert len(await stores[1].records()) == 1
            for store in stores:
                await store.close()
                await store.close()
                await store.dependency.close()

        rig.run(main)

    def test_what_was_stored_is_there_when_it_is_opened_again(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                first = await submit(store)
                await store.signal(first.id, "go", "[1]")
                await store.pause(Pause("other"))
            async with rig.opened() as store:
                [record] = await store.records()
                assert (record.id, record.signals) == (first.id, (Signal("go", "[1]"),))
                assert await store.pauses() == [Pause("other")]

        rig.run(main)


async def _open(store: ProcedureStore) -> None:
    await store.dependency.open()
    await store.open()
