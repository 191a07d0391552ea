from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def turns(seed: int | None, count: int = 6) -> list[int]:
    """In which order tasks run that were made together."""
    order: list[int] = []

    async def step(number: int) -> None:
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*map(step, range(count)))

    run_virtual(main, seed=seed)
    return order


def test_without_a_seed_tasks_run_first_come_first_served() -> None:
    assert turns(None) == list(range(6))


def test_a_seed_decides_the_order_and_replays_it() -> None:
    orders = [tuple(turns(seed)) for seed in range(50)]
    assert orders == [tuple(turns(seed)) for seed in range(50)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(orders)) > 40


def test_every_order_of_a_few_tasks_is_met() -> None:
    assert {tuple(turns(seed, 3)) for seed in range(100)} == set(itertools.permutations(range(3)))


def test_what_is_no_step_of_a_task_keeps_its_place() -> None:
    async def main() -> list[int | str]:
        loop, order = asyncio.get_running_loop(), list[int | str]()

        async def step(number: int) -> None:
            order.append(f"task {number}")

        tasks: list[asyncio.Task[None]] = []
        for number in range(10):
            loop.call_soon(order.append, number)
            tasks.append(asyncio.create_task(step(number)))
        await asyncio.gather(*tasks)
        return order

    orders = [run_virtual(main, seed=seed) for seed in range(10)]
    assert all(order[::2] == list(range(10)) for order in orders)
    assert len({tuple(order[1::2]) for order in orders}) == 10


def test_a_cancel_that_was_scheduled_is_no_step_and_keeps_its_place_too() -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        tasks = [asyncio.create_task(asyncio.sleep(1)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            loop.call_soon(lambda: seen.append(sum(task.cancelling() for task in tasks)))
            loop.call_soon(task.cancel)
            asyncio.create_task(asyncio.sleep(0)).add_done_callback(lambda task: None)
        await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    assert all(run_virtual(main, seed=seed) == [0, 1, 2, 3, 4] for seed in range(20))


def test_tasks_in_python_are_shuffled_as_those_in_c() -> None:
    python_task = asyncio.tasks._PyTask  # type: ignore[attr-defined]

    def order(seed: int, make: object) -> list[int]:
        async def main() -> list[int]:
            asyncio.get_running_loop().set_task_factory(make)  # type: ignore[arg-type]
            ran: list[int] = []

            async def step(number: int) -> None:
                await asyncio.sleep(number % 2)
                ran.append(number)

            await asyncio.gather(*map(step, range(8)))
            return ran

        return run_virtual(main, seed=seed)

    def in_python(loop: object, coro: object, **options: object) -> object:
        return python_task(coro, loop=loop, **options)

    orders = [order(seed, in_python) for seed in range(10)]
    assert orders == [order(seed, None) for seed in range(10)]
    assert len(set(map(tuple, orders))) == 10


def test_sleepers_of_the_same_instant_wake_in_an_order_of_the_seed() -> None:
    async def main() -> tuple[int, ...]:
        woken: list[int] = []

        async def sleeper(number: int) -> None:
            await asyncio.sleep(5)
            woken.append(number)

        await asyncio.gather(*map(sleeper, range(4)))
        assert asyncio.get_running_loop().time() == 5
        return tuple(woken)

    assert len({run_virtual(main, seed=seed) for seed in range(200)}) == 24


def test_timers_of_the_same_instant_come_in_an_order_of_the_seed_and_others_never() -> None:
    async def main() -> tuple[str, ...]:
        loop, came = asyncio.get_running_loop(), list[str]()
        for name, at_s in (("b", 2), ("a", 1), ("B", 2), ("c", 3)):
            loop.call_at(at_s, came.append, name)
        await asyncio.sleep(4)
        return tuple(came)

    assert {run_virtual(main, seed=seed) for seed in range(20)} == {("a", "b", "B", "c"), ("a", "B", "b", "c")}


def test_a_timer_that_was_cancelled_never_comes() -> None:
    async def main() -> list[int]:
        came: list[int] = []
        timers = [asyncio.get_running_loop().call_later(1, came.append, number) for number in range(300)]
        for timer in timers[1:]:
            timer.cancel()
        await asyncio.sleep(2)
        return came

    assert run_virtual(main, seed=1) == [0]


def test_a_race_that_the_usual_order_hides_is_found_by_a_seed() -> None:
    async def main() -> None:
        account = 100

        async def withdraw(amount: int) -> None:
            nonlocal account
            if account >= amount:
                await asyncio.sleep(0)
                account -= amount

        async def pay_in() -> None:
            nonlocal account
            account += 50

        paid = asyncio.create_task(pay_in())
        await asyncio.gather(paid, withdraw(150))
        assert account == 0

    run_virtual(main)
    failed = [seed for seed in range(50) if not passes(main, seed)]
    assert 10 < len(failed) < 40
    with pytest.raises(AssertionError) as caught:
        run_virtual(main, seed=failed[0])
    assert caught.value.__notes__ == [f"replay with seed={failed[0]}"]


def passes(main: Callable[[], Coroutine[None, None, None]], seed: int) -> bool:
    try:
        run_virtual(main, seed=seed)
    except AssertionError:
        return False
    return True


def test_what_a_set_woke_and_what_is_left_at_the_end_is_replayed_too() -> None:
    """Objects have other addresses in each run, so sets of them another order."""

    def ends(seed: int) -> list[str]:
        told: list[str] = []
        ballast: list[object] = []

        async def sleeper(number: int, awake: asyncio.Event) -> None:
            try:
                await awake.wait()
                told.append(f"woken {number}")
                never = asyncio.get_running_loop().create_future()
                never.add_done_callback(lambda _: told.append(f"let go {number}"))
                await never
            finally:
                told.append(f"ended {number}")

        async def main() -> None:
            events: set[asyncio.Event] = set()
            tasks: list[asyncio.Task[None]] = []
            for number in range(8):
                ballast.append(bytearray(40 * (len(told) + seed + number)))
                event = asyncio.Event()
                events.add(event)
                tasks.append(asyncio.create_task(sleeper(number, event)))
            await asyncio.sleep(1)
            for event in events:
                event.set()
            await asyncio.sleep(1)

        run_virtual(main, seed=seed)
        return told

    first = [ends(seed) for seed in range(20)]
    kept = [asyncio.Event() for _ in range(1000)]
    assert first == [ends(seed) for seed in range(20)]
    assert kept


def test_what_fails_while_it_is_cancelled_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            msg = "no"
            raise ValueError(msg)

    async def main() -> None:
        left = asyncio.create_task(stubborn())
        await asyncio.sleep(1)
        assert not left.done()

    run_virtual(main, seed=1)
    assert "unhandled exception while run_virtual() ended" in caplog.text


def test_threads_may_call_in_while_tasks_are_shuffled() -> None:
    async def main() -> int:
        called: list[int] = []
        loop = asyncio.get_running_loop()

        def call() -> None:
            for number in range(1000):
                loop.call_soon_threadsafe(called.append, number)

        working = asyncio.create_task(asyncio.to_thread(call))
        while not working.done():
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))
        await working
        await asyncio.sleep(0)
        assert called == sorted(called)
        return len(called)

    assert run_virtual(main, seed=7) == 1000
