"""A thread of one's own: its calls one after the other, and in virtual time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from outlast.extend import OwnThread
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


def test_virtual_time_stands_still_while_a_call_is_made() -> None:
    async def main() -> float:
        thread = OwnThread("disk")
        assert await thread.run(int, "7") == 7
        thread.close()
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0.0


@pytest.mark.parametrize("raised", [SystemExit(3), StopIteration("end"), asyncio.CancelledError("not ours")])
def test_what_no_future_may_carry_comes_as_an_error(raised: BaseException) -> None:
    def call() -> None:
        raise raised

    async def main() -> None:
        thread = OwnThread("disk")
        with pytest.raises(RuntimeError, match=f"a call in the thread disk raised {type(raised).__name__}: "):
            await thread.run(call)
        assert await thread.run(int, "7") == 7, "the thread goes on"
        thread.close()

    run_virtual(main)


def test_the_end_of_a_loop_before_that_of_a_call_harms_nobody() -> None:
    async def begin(thread: OwnThread) -> None:
        waiting = asyncio.create_task(thread.run(int, "6"))
        await asyncio.sleep(0)
        waiting.cancel()

    async def after(thread: OwnThread) -> int:
        return await thread.run(int, "7")

    thread = OwnThread("disk")
    run_virtual(begin(thread))
    assert run_virtual(after(thread)) == 7
    thread.close()


def divide(by: int) -> int:
    return 6 // by


async def told_of(by: int) -> tuple[int | None, Exception | None, int]:
    """Return what `call` tells, and how often."""
    thread = OwnThread("disk")
    told: list[tuple[int | None, Exception | None]] = []
    done = asyncio.Event()

    def tell(result: int | None, error: Exception | None) -> None:
        assert asyncio.get_running_loop() is loop
        told.append((result, error))
        done.set()

    loop = asyncio.get_running_loop()
    thread.call(lambda: divide(by), tell)
    assert not told, "not before the caller has gone on"
    await done.wait()
    thread.close()
    return *told[0], len(told)


@pytest.mark.parametrize("run", [run_virtual, asyncio.run], ids=["in virtual time", "in real time"])
def test_a_call_tells_its_result_or_its_error_on_the_event_loop(run: Callable[[Any], Any]) -> None:
    assert run(told_of(2)) == (3, None, 1)
    result, error, count = run(told_of(0))
    assert (result, type(error), count) == (None, ZeroDivisionError, 1)


def test_virtual_time_stands_still_while_a_call_is_told_of() -> None:
    async def main() -> float:
        await told_of(1)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0.0


def test_calls_are_made_in_their_order_however_they_are_handed_over_and_their_number_is_bounded() -> None:
    async def main() -> None:
        thread = OwnThread("disk", waiting_max=3)
        door = threading.Event()
        made: list[str] = []
        thread.call(door.wait, lambda _result, _error: None)
        second = thread.start(lambda: made.append("second"))
        thread.call(lambda: made.append("third"), lambda _result, _error: None)
        with pytest.raises(RuntimeError, match=r"the thread disk has 3 calls to make already \(limit 3\)"):
            thread.call(int, lambda _result, _error: None)
        door.set()
        await second
        assert await thread.run(lambda: list(made)) == ["second", "third"]
        thread.close()

    asyncio.run(main())


def test_a_loop_that_has_ended_is_not_told() -> None:
    async def begin(thread: OwnThread, door: threading.Event) -> None:
        thread.call(door.wait, lambda _result, _error: None)

    thread, door = OwnThread("disk"), threading.Event()
    asyncio.run(begin(thread, door))
    door.set()

    async def after() -> int:
        return await thread.run(int, "7")

    assert asyncio.run(after()) == 7
    thread.close()
