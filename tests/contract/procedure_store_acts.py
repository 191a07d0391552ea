"""What every store of procedures promises about cancels, signals, deadlines, pauses, news and sweeps."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from procedure_store_rig import (
    CANCELLED,
    DEAD,
    DONE,
    EXPIRED,
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

from outlast.procedures import InvalidProcedureError, SignalsFullError
from outlast.procedures._model import News, Pause, Recorded, StoreEventKind, Submission, Sweep, Swept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import Any

    from outlast.procedures import ProcedureState
    from outlast.procedures._model import StoreEvent
    from outlast.procedures._stores.port import ProcedureStore

AT_ONCE = 50
LONG_S = 30.0
KEEP = Sweep(done_keep_s=None, dead_keep_s=None, dead_max=1_000)


class ActContract:
    """Of `cancel`, `signal`, `extend`, `clear`, `fixed`, `pause`, `resume`, `news`, `sweep`. A subclass has the fixture `rig`."""

    races = 1_000
    """Cancels beside an end or a claim: a store of processes has the thousand in a long test."""

    def test_a_cancel_answers_with_the_state_that_holds(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                queued, running, waiting = (
                    await submit(store, "queued"),
                    await begin(store, "running"),
                    await begin(store, "waiting"),
                )
                await write(store, waiting, WAITING, due_s=None)
                assert await store.cancel(queued.id) is CANCELLED
                assert await store.cancel(running.id) is RUNNING
                assert await store.cancel(waiting.id) is WAITING
                assert await store.cancel("0" * 32) is None
                assert (await look(store, queued)).ended_at is not None
                assert (await look(store, running)).cancel_requested
                [woken] = await claim(store)
                assert (woken.key, woken.cancel_requested) == ("waiting", True)
                await write(store, woken, WAITING, due_s=500, cancel_known=True)
                assert await store.cancel(woken.id) is WAITING
                assert await claim(store) == [], "a second cancel changes nothing"
                [again] = await store.submit([new("queued")], "a")
                assert again.answer is Submission.CREATED, "its key is free"

        rig.run(main)

    def test_a_cancel_beside_the_end_says_what_holds(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                rng = random.Random(106)
                asked = [new(f"k{number}", claim=True) for number in range(self.races // 2)]
                begun = [one.record for one in await store.submit(asked, "a")]
                order: list[Awaitable[Any]] = [other.cancel(one.id) for one in begun]
                order += [store.record([written(one, DONE)]) for one in begun]
                paired = list(zip(begun, order[: len(begun)], order[len(begun) :], strict=True))
                for chunk in _chunks(paired, AT_ONCE // 2):
                    calls = [call for _, cancel, end in chunk for call in (cancel, end)]
                    answers = dict(zip(calls, await _at_once(calls, rng), strict=True))
                    for record, cancel, end in chunk:
                        assert answers[end] == [Recorded.WRITTEN]
                        assert answers[cancel] in {RUNNING, DONE}, "never cancelled: it was done"
                        assert (await look(store, record)).state is DONE

        rig.run(main)

    def test_a_cancel_beside_the_claim_says_what_holds(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                rng = random.Random(107)
                for chunk in _chunks([new(f"k{number}") for number in range(self.races // 2)], AT_ONCE):
                    await store.submit(chunk, "a")
                    calls: list[Awaitable[Any]] = [other.cancel(one.id) for one in chunk]
                    claims = [claim(store, count=AT_ONCE // 5) for _ in range(5)]
                    answers = await _at_once([*calls, *claims], rng)
                    said: dict[str, ProcedureState] = dict(zip((one.id for one in chunk), answers, strict=False))
                    taken = {record.id for claimed in answers[len(chunk) :] for record in claimed}
                    for record in await store.find([one.id for one in chunk]):
                        assert record is not None
                        assert (said[record.id] is CANCELLED) == (record.state is CANCELLED) == (record.id not in taken)
                        assert record.cancel_requested
                    left = [record for record in await store.records(states=[RUNNING], count=AT_ONCE) if record.id in taken]
                    await store.record([written(record, CANCELLED) for record in left])

        rig.run(main)

    def test_a_signal_is_kept_for_a_live_record_and_a_hundred_at_most(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                record = await submit(store)
                assert await store.signal(record.id, "go", '{"ü": 1}') is QUEUED
                for number in range(99):
                    await store.signal(record.id, "more", str(number))
                with pytest.raises(SignalsFullError, match="100"):
                    await store.signal(record.id, "go", "1")
                [claimed] = await claim(store)
                assert [one.payload_json for one in claimed.signals] == ['{"ü": 1}', *map(str, range(99))]
                await write(store, claimed, took_signals=("more",))
                assert await store.signal(record.id, "go", "1") is RUNNING
                assert await store.signal("0" * 32, "go", "1") is None

        rig.run(main)

    def test_deadlines_are_made_longer_and_never_shorter(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                longer, shorter, none, never = [await submit(store, key, deadline_s=50) for key in ("l", "s", "n", "gone")]
                without, begun = await submit(store, "without"), await begin(store, "begun", deadline_s=50)
                await store.extend({longer.id: 100, shorter.id: 10, none.id: None, without.id: 10, begun.id: 100, "0" * 32: 5})
                await store.extend({})
                await rig.advance(55)
                assert await store.sweep(KEEP) == Swept(expired=2)
                assert keys(await claim(store)) == ["l", "n", "without"]
                assert {(await look(store, one)).state for one in (shorter, never)} == {EXPIRED}
                await rig.advance(500)
                assert (await look(store, begun)).state is RUNNING

        rig.run(main)

    def test_what_is_cleared_is_tried_at_once_as_if_it_had_never_failed(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                number = (await other.news(None, 0)).number
                for key, kind in (("a", KIND), ("b", KIND), ("a", "one"), ("a", "two")):
                    await fail(store, key, kind, failures=5)
                await submit(store, "live")
                assert await store.clear(KIND, "a") == 1
                [record] = await store.records(kind=KIND, key="a")
                assert (record.state, record.failures, record.last_fault) == (DEAD, 0, FAULT)
                [a, b] = await store.submit([new("a"), new("b")], "a")
                assert (a.answer, b.answer) == (Submission.REVIVED, Submission.FAILING)
                assert (a.record.first_fault, a.record.last_fault, a.record.failures) == (None, None, 0)
                assert await store.clear(KIND) == 1
                assert await store.clear() == 2
                assert await store.clear("no such kind") == 0
                told = [(one.what, one.kind, one.key) for one in (await other.news(number, LONG_S)).events]
                cleared = StoreEventKind.CLEARED
                assert told == [(cleared, KIND, "a"), (cleared, KIND, ""), (cleared, "", ""), (cleared, "no such kind", "")]

        rig.run(main)

    def test_a_cause_that_is_gone_clears_those_who_died_of_it(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                number = (await store.news(None, 0)).number
                await fail(store, "by it")
                await fail(store, "by another", fault=OTHER_FAULT)
                await fail(store, "by a like one", fault={**FAULT, "source": "other"})
                assert await store.fixed("db", "transient", "refused") == 1
                answers = await store.submit([new(key) for key in ("by it", "by another", "by a like one")], "a")
                assert [one.answer for one in answers] == [Submission.REVIVED, Submission.FAILING, Submission.FAILING]
                [event] = (await store.news(number, LONG_S)).events
                assert (event.what, event.text) == (StoreEventKind.FIXED, "db/transient/refused")

        rig.run(main)

    def test_pauses_are_listed_bounded_and_told(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                number = (await other.news(None, 0)).number
                everything = [Pause(), Pause(KIND), Pause(KIND, "k")]
                for pause in [*everything, Pause(KIND)]:
                    await store.pause(pause)
                assert set(await other.pauses()) == set(everything)
                assert await store.resume(Pause(KIND)) is True
                assert await store.resume(Pause(KIND)) is False
                assert set(await other.pauses()) == {Pause(), Pause(KIND, "k")}
                told = [(one.what, one.kind, one.key) for one in (await other.news(number, LONG_S)).events]
                paused, resumed = StoreEventKind.PAUSED, StoreEventKind.RESUMED
                assert told == [(paused, "", ""), (paused, KIND, ""), (paused, KIND, "k"), (resumed, KIND, "")]
                for index in range(998):
                    await store.pause(Pause(KIND, f"k{index}"))
                with pytest.raises(InvalidProcedureError, match=r"1.?000"):
                    await store.pause(Pause(KIND, "one more"))
                await store.pause(Pause(KIND, "k"))
                assert len(await store.pauses()) == 1_000

        rig.run(main)

    def test_news_comes_in_order_and_by_its_number(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                record = await begin(store)
                start = (await other.news(None, LONG_S)).number
                assert await other.news(start, 0.0) == News(start)
                await store.cancel(record.id)
                await store.cancel(record.id)
                await store.signal(record.id, "go", "1")
                await store.pause(Pause("k"))
                events = await _events(other, start, 3)
                assert [(one.what, one.text) for one in events] == [
                    (StoreEventKind.CANCEL, record.id),
                    (StoreEventKind.SIGNAL, record.id),
                    (StoreEventKind.PAUSED, ""),
                ]
                assert [one.number for one in events] == sorted({one.number for one in events})
                assert await _events(other, events[0].number, 2) == events[1:]
                assert (await other.news(events[2].number, 0.0)).events == ()

        rig.run(main)

    def test_who_waits_for_news_is_woken_by_what_another_process_does(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                record = await begin(store, locks=("l",))
                await submit(store, "locked", locks=("l",))
                doings = {
                    "an event": (store.pause, Pause("k")),
                    "a submission": (submit, store, "new"),
                    "a signal": (store.signal, record.id, "go", "1"),
                }
                for name, (doing, *arguments) in doings.items():
                    start = (await other.news(None, 0)).number
                    waiting = asyncio.create_task(other.news(start, LONG_S))
                    await asyncio.sleep(0.01)
                    await doing(*arguments)  # type: ignore[operator]
                    news = await waiting
                    assert news.number > start, name
                    assert news.work == (name == "a submission"), name
                    assert bool(news.events) == (name != "a submission"), name

        rig.run(main)

    @pytest.mark.parametrize("what", ["submitted", "given back", "woken", "cancelled", "resumed", "left", "unlocked", "revived"])
    def test_what_became_due_by_a_call_is_news(self, rig: StoreRig, what: str) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                record = await begin(store, locks=("l",))
                waiting = await begin(store, "waiting")
                await write(store, waiting, WAITING, due_s=None, waits_for="go")
                await fail(store, "dead", until_s=0)
                await store.pause(Pause("k"))
                start = (await other.news(None, 0)).number
                await submit(store, "later", delay_s=100)
                await write(store, record)
                assert not (await other.news(start, 0.0)).work, "nothing became due"
                call: Awaitable[object] = {
                    "submitted": lambda: submit(store, "new"),
                    "given back": lambda: write(store, record, QUEUED),
                    "woken": lambda: store.signal(waiting.id, "go", "1"),
                    "cancelled": lambda: store.cancel(waiting.id),
                    "resumed": lambda: store.resume(Pause("k")),
                    "left": lambda: store.leave("b"),
                    "unlocked": lambda: write(store, record, DONE),
                    "revived": lambda: submit(store, "dead"),
                }[what]()
                await call
                assert (await other.news(start, LONG_S)).work

        rig.run(main)

    def test_what_became_due_by_its_time_is_news_once(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store, rig.opened() as other:
                await submit(store, "later", delay_s=20)
                start = (await other.news(None, 0)).number
                assert not (await other.news(start, 0.05)).work
                await rig.advance(21)
                news = await other.news(start, LONG_S)
                assert news.work
                assert not (await other.news(news.number, 0.05)).work

        rig.run(main)

    def test_news_that_is_lost_is_said_to_be(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                start = (await store.news(None, 0)).number
                for _ in range(22):
                    await asyncio.gather(*(store.clear("none") for _ in range(50)))
                news = await store.news(start, LONG_S)
                assert news.lost or len(await _events(store, start, 1_100)) == 1_100
                again = await store.news(None, 0)
                await store.pause(Pause("k"))
                [event] = await _events(store, again.number, 1)
                assert event.what is StoreEventKind.PAUSED
                assert not (await store.news(again.number, 0)).lost

        rig.run(main)

    def test_only_what_is_over_is_swept_and_by_the_time_since_its_end(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                running, waiting = await begin(store, "running"), await begin(store, "waiting")
                await write(store, waiting, WAITING, due_s=None)
                await submit(store, "queued", delay_s=30 * 86_400)
                done, cancelled = await begin(store, "done"), await submit(store, "cancelled")
                await rig.advance(3_600)
                await write(store, done, DONE)
                await store.cancel(cancelled.id)
                await fail(store, "dead")
                rules = Sweep(done_keep_s=600, dead_keep_s=1_200, dead_max=10)
                await rig.advance(500)
                assert await store.sweep(rules) == Swept(), "they ended 500 s ago, however old they are"
                await rig.advance(200)
                assert await store.sweep(rules) == Swept(deleted=2)
                await rig.advance(600)
                assert await store.sweep(rules) == Swept(dead_deleted=1)
                await rig.advance(40 * 86_400)
                assert await store.sweep(rules) == Swept()
                assert {one.key for one in await store.records()} == {"running", "waiting", "queued"}
                assert (await look(store, running)).state is RUNNING
                [fresh] = await store.submit([new("dead")], "a")
                assert fresh.answer is Submission.CREATED

        rig.run(main)

    def test_the_dead_are_bounded_and_the_oldest_go_first(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                for key in "abcde":
                    await fail(store, key)
                    await rig.advance(1)
                rules = Sweep(done_keep_s=None, dead_keep_s=None, dead_max=2)
                assert (await store.sweep(rules)).dead_deleted == 3
                assert keys(await store.records()) == ["e", "d"]

        rig.run(main)

    def test_a_sweep_is_one_small_batch_and_says_whether_there_is_more(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                await store.submit([new(f"late {number}", deadline_s=5) for number in range(7)], "a")
                begun = await store.submit([new(f"dead {number}", claim=True) for number in range(7)], "a")
                await store.record([written(one.record, DEAD, fault=FAULT, failures=1) for one in begun])
                await rig.advance(10)
                rules = Sweep(done_keep_s=0, dead_keep_s=None, dead_max=2, batch=3)
                sweeps = [await store.sweep(rules)]
                assert sweeps[0].more
                while sweeps[-1] != Swept():
                    sweeps.append(await store.sweep(rules))
                assert sum(one.expired for one in sweeps) == 7
                assert sum(one.deleted for one in sweeps) == 7
                assert sum(one.dead_deleted for one in sweeps) == 5
                assert all(max(one.expired, one.deleted, one.dead_deleted) <= 3 for one in sweeps)
                assert len(await store.records()) == 2

        rig.run(main)

    def test_whoever_reads_news_for_nothing_is_answered_after_a_time(self, rig: StoreRig) -> None:
        async def main() -> None:
            async with rig.opened() as store:
                number = (await store.news(None, 0)).number
                await store.beat("a", "runner a", LEASE_S)
                assert await claim(store) == []
                assert await store.news(number, 0.05) == News(number)
                waiting = asyncio.create_task(store.news(number, LONG_S))
                await asyncio.sleep(0.01)
                waiting.cancel()
                await asyncio.wait({waiting})
                assert waiting.cancelled()

        rig.run(main)


def _chunks(items: Sequence[Any], size: int) -> list[Any]:
    return [items[at : at + size] for at in range(0, len(items), size)]


async def _at_once(calls: Sequence[Awaitable[Any]], rng: random.Random) -> list[Any]:
    """Begin them in an order of chance; return the answers in the order that they are given in."""
    tasks: dict[int, asyncio.Future[Any]] = {}
    for index in rng.sample(range(len(calls)), len(calls)):
        tasks[index] = asyncio.ensure_future(calls[index])
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks.values())
    return [tasks[index].result() for index in range(len(calls))]


async def _events(store: ProcedureStore, after: int, count: int) -> list[StoreEvent]:
    """Read events until there are so many."""
    events: list[StoreEvent] = []
    while len(events) < count:
        news = await store.news(after, LONG_S)
        events += news.events
        after = news.number
    return events
