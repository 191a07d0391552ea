"""A thread of one's own: its calls one after the other, and in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from outlast.extend import OwnThread
from outlast.testing import run_virtual


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
