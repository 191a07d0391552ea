from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.testing import DeadlockError, SpinError, VirtualTimeLoop, run_virtual
from outlast.testing._time import virtual_time

if TYPE_CHECKING:
    from collections.abc import Coroutine


def now() -> float:
    return asyncio.get_running_loop().time()


def loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running


def test_a_day_passes_in_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return now()

    assert run_virtual(main) == 86_400


def test_a_coroutine_may_be_given_and_the_clock_started_later() -> None:
    async def main(wait_s: float) -> float:
        await asyncio.sleep(wait_s)
        return now()

    assert run_virtual(main(5), start_s=1000.0) == 1005.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_sleepers_wake_in_the_order_of_their_deadlines_and_never_early(waits_s: list[float]) -> None:
    woken: list[tuple[float, float]] = []

    async def sleeper(wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        woken.append((wait_s, now()))

    async def main() -> None:
        await asyncio.gather(*map(sleeper, waits_s))

    run_virtual(main)
    assert len(woken) == len(waits_s)
    # Timers within the loop's resolution, a nanosecond, are due together.
    assert all(wait_s <= at_s + 2e-9 for wait_s, at_s in woken)
    assert all(earlier[1] <= later[1] for earlier, later in itertools.pairwise(woken))


def test_a_timeout_strikes_at_its_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.sleep(8)
        return now()

    assert run_virtual(main) == 7


def test_a_deadlock_names_who_waits_where() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(3)
        await asyncio.create_task(stuck(), name="the stuck one")

    with pytest.raises(DeadlockError, match=r"at 3 s.*the stuck one at stuck \(test_virtual_time.py:\d+\)"):
        run_virtual(main)


def test_a_deadlock_cancels_what_is_left() -> None:
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append("up")

    with pytest.raises(DeadlockError):
        run_virtual(main)
    assert cleaned == ["up"]


def test_the_time_limit_ends_what_would_run_for_ever() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError, match="virtual time limit"):
        run_virtual(main, time_limit_s=100)


def test_a_loop_that_never_waits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "STANDSTILL_TURNS_MAX", 1000)

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SpinError, match="always ready"):
        run_virtual(main)


def test_time_stands_still_while_a_thread_works() -> None:
    released = threading.Event()

    async def main() -> tuple[str, float]:
        asyncio.get_running_loop().call_later(5, lambda: None)
        working = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        released.set()
        return await working, now()

    def work() -> str:
        released.wait(10)
        return "done"

    assert run_virtual(main) == ("done", 0.0)


def test_a_thread_of_ones_own_is_waited_for_where_that_is_said() -> None:
    async def main() -> float:
        event = asyncio.Event()
        thread = threading.Thread(target=asyncio.get_running_loop().call_soon_threadsafe, args=(event.set,))
        with loop().waiting_for_threads():
            thread.start()
            await event.wait()
        thread.join()
        return now()

    assert run_virtual(main) == 0.0


def test_a_thread_that_never_calls_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "THREADS_S_MAX", 0.01)

    async def main() -> None:
        with loop().waiting_for_threads():
            await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="a thread did not answer"):
        run_virtual(main)


def test_the_error_of_the_test_itself_comes_through() -> None:
    def main() -> Coroutine[None, None, None]:
        async def fail() -> None:
            await asyncio.sleep(1)
            msg = "expected"
            raise ValueError(msg)

        return fail()

    with pytest.raises(ValueError, match="expected"):
        run_virtual(main)


def test_a_deadlock_says_how_to_replay_it() -> None:
    with pytest.raises(DeadlockError) as caught:
        run_virtual(asyncio.Event().wait, seed=123)
    assert caught.value.__notes__ == ["replay with seed=123"]


def test_without_a_seed_nothing_is_noted() -> None:
    with pytest.raises(DeadlockError) as caught:
        run_virtual(asyncio.Event().wait)
    assert not hasattr(caught.value, "__notes__")
