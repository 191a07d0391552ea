"""A refusal gives others their turn: the rule, and that no spinner keeps an outage from ending."""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast._core.turns import FIRST_S, NEAR_S, SPINS_AT, Turn, next_turn, refused
from outlast._runtime.dependency import callers, door
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.expected_logs

OUTAGE_S = 30.0


# The rule.


def come_back(gaps: list[float], cap_s: float = 1.5) -> list[float]:
    """The waits of one who comes back after each of these gaps."""
    last, now, waits = None, 0.0, []
    for gap_s in gaps:
        now += gap_s
        turn = next_turn(last, now, cap_s)
        now += turn.wait_s
        last = refused(turn, now)
        waits.append(turn.wait_s)
    return waits


def test_who_comes_back_at_once_waits_a_millisecond_doubling_to_the_probers_wait() -> None:
    doubled = [0.001 * 2**number for number in range(11)]
    assert come_back([0.0] * 14) == [0.0, *doubled, 1.5, 1.5]
    assert come_back([0.0] * 9, cap_s=0.1) == [0.0, *doubled[:7], 0.1]


def test_who_stayed_away_longer_starts_over() -> None:
    assert come_back([0.0, 0.0, 0.0, 0.0101, 0.0, 0.0099]) == [0.0, 0.001, 0.002, 0.0, 0.001, 0.002]


@given(st.lists(st.floats(0.0, 0.1), min_size=1, max_size=50), st.floats(0.0, 60.0))
def test_no_wait_is_longer_than_the_probers_or_without_a_refusal_just_before(gaps: list[float], cap_s: float) -> None:
    for gap_s, wait_s in list(zip(gaps, come_back(gaps, cap_s), strict=True))[1:]:
        assert wait_s <= max(FIRST_S, cap_s)
        # The sums of floats around the border may fall to either side.
        if abs(gap_s - NEAR_S) > 1e-9:
            assert (wait_s > 0) is (gap_s < NEAR_S)


def test_a_wait_that_takes_longer_than_asked_is_no_staying_away() -> None:
    turn = refused(Turn(0.0, 0.064, 7), now=9.0)
    assert next_turn(turn, 9.001, 1.5).wait_s == 0.128


# In a coroutine.


class Database:
    """A probe with a switch."""

    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    async def ask(self) -> None:
        self.asked += 1
        await asyncio.sleep(0.001)
        if not self.up:
            raise ConnectionRefusedError(111, "connection refused")


def dependency(database: Database, **options: int) -> outlast.Dependency:
    return outlast.Dependency("db", probe=database.ask, rng=random.Random(7), **options)


def fail(db: outlast.Dependency) -> None:
    db.report(ConnectionRefusedError(111, "connection refused"))


async def by_use(db: outlast.Dependency) -> None:
    async with db.use():
        await asyncio.sleep(0.1)


async def by_guard(db: outlast.Dependency) -> None:
    await db.guard(asyncio.sleep)(0.1)


async def by_ready(db: outlast.Dependency) -> None:
    await db.ready(timeout_s=0)
    await by_use(db)


async def when_too_many_wait(db: outlast.Dependency) -> None:
    db.waiters_max = db._cell.waiters_max = 0
    await db.ready()
    await by_use(db)


WAYS = [by_use, by_guard, by_ready, when_too_many_wait]


def spin(way: Callable[[outlast.Dependency], Awaitable[None]], spinners: int = 1) -> tuple[int, int, float]:
    """Refusals in all and probes during an outage of 30 s, and how long after it the last spinner works again."""

    async def main() -> tuple[int, int, float]:
        loop, database = asyncio.get_running_loop(), Database()
        db, refusals, worked_at = dependency(database), 0, dict.fromkeys(range(spinners), 0.0)
        database.up = False
        fail(db)

        async def spinner(number: int) -> None:
            nonlocal refusals
            while not worked_at[number]:
                try:
                    await way(db)
                    worked_at[number] = loop.time()
                except Exception:  # noqa: BLE001 - the mistake that is tested
                    refusals += 1

        spinning = [asyncio.create_task(spinner(number)) for number in range(spinners)]
        await asyncio.sleep(OUTAGE_S)
        asked, refused_then, database.up = database.asked, refusals, True
        await asyncio.gather(*spinning)
        return refused_then, asked, max(worked_at.values()) - OUTAGE_S

    return run_virtual(main)


@pytest.mark.parametrize("way", WAYS)
def test_a_spinning_task_keeps_neither_the_prober_from_asking_nor_the_outage_from_ending(
    way: Callable[[outlast.Dependency], Awaitable[None]],
) -> None:
    refusals, asked, late_s = spin(way)
    assert asked > 15
    # 1 ms doubling to about a second takes ten; then one each wait of the prober, 0.1 to 1.5 s.
    assert 20 <= refusals <= 120
    assert late_s < 3.2, "two waits of the prober and the work"


def test_a_hundred_spinning_tasks_come_back_over_the_ramp() -> None:
    refusals, asked, late_s = spin(by_use, 100)
    assert refusals < 100 * 120
    assert 15 < asked < 100
    assert late_s < 1.5 + 1.0 + 0.2


def test_spinners_in_line_leave_room_for_those_who_wait() -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database, waiters_max=4)
        database.up = False
        fail(db)

        async def spinner() -> None:
            while True:
                try:
                    await by_use(db)
                except outlast.Unavailable:
                    continue

        spinning = [asyncio.create_task(spinner()) for _ in range(10)]
        await asyncio.sleep(5)
        waiting = [asyncio.create_task(db.ready()) for _ in range(2)]
        await asyncio.sleep(5)
        assert not any(task.done() for task in waiting)
        database.up = True
        await asyncio.gather(*waiting)
        for task in spinning:
            task.cancel()

    run_virtual(main)


def test_requests_in_tasks_of_their_own_never_wait() -> None:
    async def main() -> None:
        loop, db = asyncio.get_running_loop(), dependency(Database())
        fail(db)

        async def request() -> None:
            with pytest.raises(outlast.Unavailable):
                await by_use(db)

        for _ in range(1_000):
            await asyncio.create_task(request())
        assert loop.time() == 0.0
        await request()
        await request()
        assert loop.time() == pytest.approx(0.001)

    run_virtual(main)


def test_the_refusals_of_two_dependencies_are_apart() -> None:
    """Whoever tries one replica after the other does not wait at the second."""

    async def main() -> None:
        for db in [dependency(Database()) for _ in range(5)]:
            fail(db)
            with pytest.raises(outlast.Unavailable):
                await by_use(db)
        assert asyncio.get_running_loop().time() == 0.0

    run_virtual(main)


def test_who_does_not_heed_the_stop_lets_the_others_heed_it() -> None:
    async def main() -> int:
        db, stop, asked, over = dependency(Database()), outlast.Stop(), 0, False
        stop.fire("test")

        async def ask_on() -> None:
            nonlocal asked
            while not over:
                try:
                    await db.ready(stop=stop)
                except outlast.Stopping:
                    asked += 1

        task = asyncio.create_task(ask_on())
        await asyncio.sleep(10)
        over = True
        await task
        return asked

    assert run_virtual(main) < 120


# In a service: it is named.


@pytest.mark.parametrize("kind", ["task", "loop", "a task of its own", "many workers"])
def test_a_spinner_is_named_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    database, turns = Database(), 0
    db = dependency(database)

    async def poll(stop: outlast.Stop) -> None:
        nonlocal turns
        while not stop.requested:
            try:
                async with db.use():
                    await stop.sleep(1.0)
            except outlast.Stopping:
                return
            except Exception:  # noqa: BLE001 - the mistake that is tested
                turns += 1

    service = outlast.Service("shop")
    match kind:
        case "task":
            service.task()(poll)
        case "a task of its own":

            async def start(stop: outlast.Stop) -> None:
                await asyncio.create_task(poll(stop), name="apart")

            service.task(name="poll")(start)
        case _:
            service.loop(workers=50 if kind == "many workers" else 1)(poll)

    async def main() -> None:
        stop = outlast.Stop()
        running = asyncio.create_task(service.run(stop))
        await asyncio.sleep(5)
        database.up = False
        fail(db)
        await asyncio.sleep(OUTAGE_S)
        database.up = True
        await asyncio.sleep(5)
        assert db.state is outlast.State.RECOVERING
        stop.fire("test")
        assert await running == 0

    run_virtual(main)
    named = [record.getMessage() for record in caplog.records if " spins: " in record.getMessage()]
    who = "loop" if kind in {"loop", "many workers"} else "task"
    assert len(named) == 1
    assert re.match(rf"{who} poll spins: db is down, and it came back within 10 ms of each of its last {SPINS_AT} ", named[0])
    assert turns < 120 * (50 if kind == "many workers" else 1)


def test_spinners_without_a_service_are_named_by_their_own_names_and_not_too_many(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database)
        database.up = False
        fail(db)

        async def spinner() -> None:
            while True:
                try:
                    await by_use(db)
                except outlast.Unavailable:
                    continue

        spinning = [asyncio.create_task(spinner(), name=f"spinner {number}") for number in range(50)]
        await asyncio.sleep(OUTAGE_S)
        for task in spinning:
            task.cancel()

    run_virtual(main)
    named = [record.getMessage().partition(" spins:")[0] for record in caplog.records if " spins: " in record.getMessage()]
    assert len(named) == len(set(named)) == 2
    assert set(named) <= {f"task spinner {number}" for number in range(50)}


def test_a_worker_that_finds_too_many_waiting_waits_and_comes_back() -> None:
    """It used to leave the service."""
    database, worked = Database(), set()
    db = dependency(database, waiters_max=2)
    service = outlast.Service("shop")

    @service.loop(needs=db, workers=5)
    async def settle(stop: outlast.Stop) -> None:
        worked.add(asyncio.current_task())
        async with db.use():
            await stop.sleep(1.0)

    async def main() -> None:
        stop = outlast.Stop()
        running = asyncio.create_task(service.run(stop))
        await asyncio.sleep(5)
        database.up = False
        fail(db)
        await asyncio.sleep(OUTAGE_S)
        worked.clear()
        database.up = True
        await asyncio.sleep(7)
        assert len(worked) == 5
        stop.fire("test")
        assert await running == 0

    run_virtual(main)


# Other refusals than those of a dependency.


def test_a_spinner_at_a_full_gate_lets_those_inside_leave() -> None:
    async def main() -> tuple[int, float]:
        loop, gate, refusals = asyncio.get_running_loop(), outlast.Gate("shop", holders_max=1), 0

        async def inside() -> None:
            async with gate.enter("the first"):
                await asyncio.sleep(OUTAGE_S)

        first = asyncio.create_task(inside())
        await asyncio.sleep(0.001)
        while True:
            try:
                async with gate.enter("the next"):
                    await first
                    return refusals, loop.time()
            except outlast.Unavailable:
                refusals += 1

    refusals, entered_at = run_virtual(main)
    assert 20 <= refusals <= 60
    assert entered_at <= OUTAGE_S + 1.0


@pytest.mark.parametrize("way", ["sleep", "timeout", "gate"])
def test_a_body_that_takes_no_notice_of_the_stop_is_cancelled_when_the_drain_is_over(way: str) -> None:
    """It catches `Stopping` and asks on: it used to keep the event loop for itself, until the watchdog interrupted it."""
    service = outlast.Service("shop", deadline_s=10.0)

    @service.loop()
    async def poll(stop: outlast.Stop) -> None:
        while True:
            try:
                match way:
                    case "sleep":
                        await stop.sleep(1.0)
                    case "timeout":
                        async with stop.timeout(1.0):
                            await asyncio.sleep(0.5)
                    case _:
                        async with service.gate.enter("poll"):
                            await asyncio.sleep(0.5)
            except Exception:  # noqa: BLE001, S112 - the mistake that is tested
                continue

    async def main() -> float:
        stop, loop = outlast.Stop(), asyncio.get_running_loop()
        loop.call_later(5.0, stop.fire, "test")
        assert await service.run(stop) in {0, 75}
        return loop.time()

    assert run_virtual(main) <= 15.0


# In threads, and with `with` on the event loop.


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sleeps of threads, which take no time."""
    slept: list[float] = []
    monkeypatch.setattr(callers.time, "sleep", slept.append)
    return slept


def refuse(db: outlast.Dependency, times: int) -> None:
    for _ in range(times):
        with pytest.raises(outlast.Unavailable), db.use():
            pytest.fail("must not get in")


def in_a_thread(function: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001 - raised again by the one who waits
            failed.append(exc)

    thread = threading.Thread(target=run, name="spinner")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def long_away() -> outlast.Dependency:
    """One that is not asked before ten minutes are over."""
    db = outlast.Dependency("db", policy=outlast.HealthPolicy(probe=outlast.Backoff(600.0, 600.0)))
    fail(db)
    return db


def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, so that a busy machine is near as well."""
    now = door.clock()
    for place in ("door", "cell", "callers"):
        monkeypatch.setattr(f"outlast._runtime.dependency.{place}.clock", lambda: now)


def test_a_spinning_thread_waits_and_is_named(
    slept: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steady(monkeypatch)
    db = long_away()
    in_a_thread(lambda: refuse(db, 14))
    assert slept == [0.001 * 2**number for number in range(11)] + [1.5, 1.5], "a thread never sleeps longer"
    assert "thread spinner spins: db is down" in caplog.text
    slept.clear()
    in_a_thread(lambda: refuse(db, 1))
    assert slept == [], "another thread is another caller"


def test_calls_that_a_pool_of_threads_makes_for_requests_are_no_spinning(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request comes with a context of its own, as `asyncio.to_thread` and web frameworks give it."""
    steady(monkeypatch)
    db = long_away()
    in_a_thread(lambda: [contextvars.copy_context().run(refuse, db, 1) for _ in range(20)] and None)
    assert slept == []
    in_a_thread(lambda: contextvars.copy_context().run(refuse, db, 3))
    assert slept == [0.001, 0.002]


def test_a_thread_that_asks_ready_again_and_again_waits_its_turn(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    steady(monkeypatch)
    db = long_away()
    for _ in range(4):
        with pytest.raises(outlast.Unavailable):
            db.blocking.ready(timeout_s=0)
    assert slept == [0.0, 0.001, 0.002, 0.004]
    db.blocking.close()


def test_with_on_the_event_loop_is_refused_at_once_and_named(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """A sleep would freeze the loop and everybody on it; whoever never awaits there is interrupted by the watchdog."""

    async def main() -> None:
        db = dependency(Database())
        fail(db)
        refuse(db, SPINS_AT)
        assert asyncio.get_running_loop().time() == 0.0

    run_virtual(main)
    assert slept == []
    assert " spins: db is down" in caplog.text
