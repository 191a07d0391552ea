"""The threads of the queue: each job has one, none waits for another, and what is left behind is counted and named."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast.extend import EscapedError, OwnThread
from outlast.jobs import Job
from outlast.jobs._threads import HandlerThreads

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.conftest import RunAsync

BRIEF_S = 0.01
"""A time-out that a blocked handler exceeds for certain."""
word: ContextVar[str] = ContextVar("word", default="none")


def job(number: int = 1) -> Job:
    return Job(number, "render", {"page": number}, 1, 3)


class Pool:
    """Handler threads with a gate of their own, and a door behind which handlers block."""

    def __init__(self, workers: int) -> None:
        self.gate = outlast.Gate("shop")
        self.freed = asyncio.Event()
        self.threads = HandlerThreads(self.gate, workers, self.freed.set)
        self.door = threading.Event()

    def block(self, job: Job) -> int:
        self.door.wait(60)
        return job.id

    async def give_up(self, count: int) -> None:
        async def one(number: int) -> None:
            with pytest.raises(TimeoutError):
                await self.threads.run(self.block, job(number), BRIEF_S)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def open_door(self) -> None:
        self.door.set()
        while self.threads.left:
            self.freed.clear()
            await self.freed.wait()


@pytest.fixture
def on_pool(run_async: RunAsync) -> Callable[..., None]:
    def run(test: Callable[[Pool], Any], workers: int = 2) -> None:
        async def main() -> None:
            pool = Pool(workers)
            try:
                await test(pool)
            finally:
                pool.door.set()
                pool.threads.close()

        run_async(main)

    return run


def test_every_job_has_a_thread_at_once(on_pool: Callable[..., None]) -> None:
    """Fifty at once, however many processors there are: each waits in a barrier for all the others."""

    async def test(pool: Pool) -> None:
        barrier = threading.Barrier(50, timeout=60)

        def meet(_: Job) -> int:
            return barrier.wait()

        met = await asyncio.gather(*(pool.threads.run(meet, job(number), None) for number in range(50)))
        assert sorted(met) == list(range(50))
        names = {thread.name for thread in threading.enumerate()}
        assert {f"jobs thread {number}" for number in range(1, 51)} <= names
        # They are used again.
        assert await pool.threads.run(lambda _: threading.current_thread().daemon, job(), None) is True
        assert "jobs thread 51" not in {thread.name for thread in threading.enumerate()}

    on_pool(test, workers=50)


def test_the_context_and_the_name_of_the_job_are_there(on_pool: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        def look(_: Job) -> tuple[str, str, list[str]]:
            return word.get(), threading.current_thread().name, [holder.name for holder in pool.gate.holders]

        word.set("carried")
        assert await pool.threads.run(look, job(7), None) == ("carried", "jobs render 7", ["jobs render 7"])
        assert len(pool.gate) == 0

    on_pool(test)


def test_the_time_counts_from_the_first_step_of_the_body(on_pool: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that the system lets begin late takes nothing from its job's time."""

    async def test(pool: Pool) -> None:
        enter, begun = pool.gate.enter, threading.Event()

        def enter_late(name: str) -> Any:
            begun.wait(60)
            return enter(name)

        with monkeypatch.context() as patch:
            patch.setattr(pool.gate, "enter", enter_late)
            running = asyncio.ensure_future(pool.threads.run(pool.block, job(), BRIEF_S))
            await asyncio.wait({running}, timeout=20 * BRIEF_S)
            assert not running.done()
            begun.set()
            with pytest.raises(TimeoutError):
                await running

    on_pool(test)


def test_one_that_is_given_up_is_left_behind_and_named_and_comes_back(on_pool: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        with pytest.raises(TimeoutError, match=r"jobs render 1 did not end within 0.01 s.*cannot be cancelled"):
            await pool.threads.run(pool.block, job(), BRIEF_S)
        assert pool.threads.left == ("jobs render 1",)
        assert [holder.name for holder in pool.gate.holders] == ["jobs render 1"]
        assert any("test_own_threads" in line for line in pool.gate.holders[0].stack())
        running = asyncio.ensure_future(pool.threads.run(pool.block, job(2), None))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert pool.threads.left == ("jobs render 1", "jobs render 2")
        # Others go on.
        assert await pool.threads.run(lambda job: job.id, job(3), 60.0) == 3
        await pool.open_door()
        assert len(pool.gate) == 0

    on_pool(test)


def test_at_the_bound_no_more_are_taken_and_it_is_said_once(
    on_pool: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(pool: Pool) -> None:
        caplog.set_level("INFO", "outlast")
        assert pool.threads.left_max == 4, "with few workers too, one that hangs does not end all work"
        await pool.give_up(3)
        assert pool.threads.has_room("render")
        await pool.give_up(2)
        assert not pool.threads.has_room("render")
        assert pool.threads.has_room("another"), "one kind stops no other"
        told = [record.getMessage() for record in caplog.records if "hold their threads" in record.getMessage()]
        assert len(told) == 1
        assert "4 handlers of render that were given up still hold their threads (limit 4): jobs render " in told[0]
        await pool.open_door()
        assert pool.threads.has_room("render")
        assert "only 2 handlers of render that were given up" in caplog.text

    on_pool(test, workers=2)


@pytest.mark.parametrize("stray", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("theirs"), StopIteration(1)])
def test_what_is_no_error_ends_neither_the_thread_nor_the_loop(on_pool: Callable[..., None], stray: BaseException) -> None:
    async def test(pool: Pool) -> None:
        def leave(_: Job) -> None:
            raise stray

        with pytest.raises(EscapedError, match=type(stray).__name__) as caught:
            await pool.threads.run(leave, job(), None)
        assert caught.value.__cause__ is stray
        fault = outlast.Classifiers().classify(caught.value)
        assert fault.kind is outlast.Kind.BUG
        assert (fault.code, fault.source) == (type(stray).__name__, "render")
        assert await pool.threads.run(lambda _: "at work", job(), None) == "at work"

    on_pool(test)


def test_a_job_that_has_not_begun_when_the_service_stops_is_not_begun(on_pool: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        pool.gate.close("test")
        with pytest.raises(outlast.Stopping):
            await pool.threads.run(lambda _: pytest.fail("it ran"), job(), None)

    on_pool(test)


def test_a_system_that_gives_no_thread_is_a_refusal(on_pool: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pool: Pool) -> None:
        def none(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none)
            with pytest.raises(outlast.Unavailable, match="can't start new thread"):
                await pool.threads.run(lambda _: None, job(), None)

    on_pool(test)


def test_one_thread_does_one_call_after_the_other_and_has_a_bound(run_async: RunAsync) -> None:
    async def main() -> None:
        thread, door, seen = OwnThread("disk", waiting_max=3), threading.Event(), list[int]()
        calls = [thread.start(lambda number=number: (door.wait(60), seen.append(number))) for number in range(3)]  # type: ignore[misc]
        with pytest.raises(RuntimeError, match="3 calls to make already"):
            thread.start(lambda: None)
        # Cancelled is only the waiting: what was begun or comes next is done.
        calls[1].cancel()
        door.set()
        await asyncio.wait(calls)
        await thread.run(seen.append, 3)
        assert seen == [0, 1, 2, 3]
        thread.close()
        assert await thread.run(lambda: threading.current_thread().name) == "disk", "the next call starts another"
        thread.close()

    run_async(main)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
def test_a_thread_that_nobody_holds_ends(run_async: RunAsync) -> None:
    async def main() -> None:
        thread = OwnThread("disk")
        own = await thread.run(threading.current_thread)
        gone = weakref.ref(thread)
        del thread
        gc.collect()
        assert gone() is None
        await asyncio.to_thread(own.join, 60)
        assert not own.is_alive()

    run_async(main)
