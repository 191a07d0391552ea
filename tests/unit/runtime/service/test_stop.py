"""The stop: one step for a whole tree, no wait that misses it, cancellations that say whose doing they are."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast._core.classify import Classifiers
from outlast.testing import run_virtual

LONG = 3600.0


@given(st.lists(st.integers(min_value=0, max_value=30), min_size=1, max_size=30), st.data())
def test_a_stop_and_all_below_it_change_in_one_step(parents: list[int], data: st.DataObject) -> None:
    stops = [outlast.Stop()]
    for parent in parents:
        stops.append(stops[parent % len(stops)].child())
    seen: list[bool] = []
    below = {index: [child for child in stops if _is_below(child, stop, stops, parents)] for index, stop in enumerate(stops)}
    fired = data.draw(st.integers(min_value=0, max_value=len(stops) - 1))
    for stop in below[fired]:
        # Whoever is told first sees all of them requested already.
        stop.on_fire(lambda _: seen.append(all(other.requested for other in below[fired])))
    stops[fired].fire("test")
    assert seen == [True] * len(below[fired])
    assert [stop.requested for stop in stops] == [stop in below[fired] for stop in stops]
    assert {stop.reason for stop in below[fired]} == {"test"}


def _is_below(child: outlast.Stop, stop: outlast.Stop, stops: list[outlast.Stop], parents: list[int]) -> bool:
    index = stops.index(child)
    while True:
        if stops[index] is stop:
            return True
        if index == 0:
            return False
        index = parents[index - 1] % index


def test_a_child_of_a_fired_stop_is_fired_and_one_that_is_detached_is_forgotten() -> None:
    parent = outlast.Stop()
    detached = parent.child()
    detached.detach()
    parent.fire("first")
    parent.fire("second")
    late = parent.child()
    assert (parent.reason, late.reason, detached.reason) == ("first", "first", None)
    assert late.at == parent.at


def test_a_callback_that_fails_keeps_nobody_from_being_told(expected_logs) -> None:  # noqa: ANN001
    expected_logs("a callback of the stop failed")
    stop, told = outlast.Stop(), []
    stop.on_fire(lambda _: 1 // 0)
    forget = stop.on_fire(lambda _: told.append("forgotten"))
    stop.on_fire(lambda _: told.append("told"))
    forget()
    stop.fire("test")
    stop.on_fire(lambda _: told.append("late"))
    assert told == ["told", "late"]


def test_threads_see_it_and_fire_it() -> None:
    async def main() -> tuple[bool, bool, bool]:
        stop = outlast.Stop()
        early = await asyncio.to_thread(stop.wait_in_thread, 0.0)
        waiting = asyncio.create_task(asyncio.to_thread(stop.wait_in_thread, 30.0))
        firing = asyncio.create_task(stop.wait())
        await asyncio.sleep(0)
        await asyncio.to_thread(stop.fire, "a thread")
        await firing
        assert stop.reason == "a thread"
        return early, await waiting, await asyncio.to_thread(stop.wait_in_thread)

    assert run_virtual(main) == (False, True, True)


def test_a_thread_that_begins_to_wait_while_it_is_fired_never_misses_it() -> None:
    for _ in range(200):
        stop = outlast.Stop()
        thread = threading.Thread(target=stop.wait_in_thread)
        thread.start()
        stop.fire("test")
        thread.join(10)
        assert not thread.is_alive()


class TestTimeout:
    """`stop.timeout`."""

    def test_the_stop_ends_the_block_after_its_clean_up(self) -> None:
        async def main() -> None:
            stop, cleaned = outlast.Stop(), []
            asyncio.get_running_loop().call_later(5, stop.fire, "test")
            with pytest.raises(outlast.Stopping, match="test"):  # noqa: PT012
                async with stop.timeout(None):
                    try:
                        await asyncio.sleep(LONG)
                    finally:
                        cleaned.append(asyncio.get_running_loop().time())
            assert cleaned == [5]
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            with pytest.raises(outlast.Stopping):
                async with stop.timeout(None):
                    pytest.fail("entered")

        run_virtual(main)

    def test_the_time_ends_it_too(self) -> None:
        async def main() -> None:
            stop = outlast.Stop()
            with pytest.raises(TimeoutError):
                async with stop.timeout(5.0):
                    await asyncio.sleep(LONG)
            async with stop.timeout(5.0):
                await asyncio.sleep(1)
            stop.fire("afterwards")
            await asyncio.sleep(10)

        run_virtual(main)

    def test_both_at_once_is_the_stop(self) -> None:
        async def main() -> None:
            stop = outlast.Stop()
            asyncio.get_running_loop().call_at(5.0, stop.fire, "test")
            with pytest.raises((outlast.Stopping, TimeoutError)):
                async with stop.timeout(5.0):
                    await asyncio.sleep(LONG)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(1)

        run_virtual(main)

    def test_what_the_block_raises_instead_passes_unchanged(self) -> None:
        async def main() -> None:
            stop = outlast.Stop()
            asyncio.get_running_loop().call_later(5, stop.fire, "test")
            with pytest.raises(OSError, match="corrupt"):  # noqa: PT012
                async with stop.timeout(None):
                    try:
                        await asyncio.sleep(LONG)
                    finally:
                        raise OSError(5, "corrupt")

        run_virtual(main)

    def test_a_cancellation_from_outside_stays_one(self) -> None:
        async def main() -> None:
            stop = outlast.Stop()

            async def body() -> None:
                async with stop.timeout(None):
                    await asyncio.sleep(LONG)

            task = asyncio.create_task(body())
            await asyncio.sleep(1)
            task.cancel()
            stop.fire("test")
            with pytest.raises(asyncio.CancelledError):
                await task

        run_virtual(main)


class TestProvenance:
    """Whose doing an exception is."""

    def test_a_task_that_we_cancel_says_so_through_every_await(self) -> None:
        async def main() -> outlast.Fault:
            stop = outlast.Stop()
            stop.fire("SIGTERM")

            async def deep() -> None:
                await asyncio.gather(asyncio.sleep(LONG), asyncio.sleep(LONG))

            task = asyncio.create_task(asyncio.wait_for(deep(), LONG))
            await asyncio.sleep(0)
            stop.cancel(task)
            try:
                await task
            except asyncio.CancelledError as exc:
                return Classifiers().classify(exc)
            pytest.fail("not cancelled")

        fault = run_virtual(main)
        assert (fault.kind, fault.reason) == (outlast.Kind.STOPPING, "SIGTERM")

    def test_only_a_cause_counts_and_not_what_was_being_handled(self) -> None:
        stopping = outlast.Stopping("SIGTERM")
        caused = RuntimeError("upload failed")
        caused.__cause__ = stopping
        meanwhile = RuntimeError("the page is corrupt")
        meanwhile.__context__ = stopping
        kinds = [Classifiers().classify(exc).kind for exc in (stopping, caused, meanwhile)]
        assert kinds == [outlast.Kind.STOPPING, outlast.Kind.STOPPING, outlast.Kind.BUG]

    def test_a_fatal_fault_behind_the_end_of_a_wait_is_found(self) -> None:
        classifiers, stopping = Classifiers(), outlast.Stopping("SIGTERM")
        assert classifiers.fatal_behind(stopping) is None
        stopping.__context__ = KeyError("handled, as every day")
        assert classifiers.fatal_behind(stopping) is None
        stopping.__context__.__context__ = broken = OSError(5, "corrupt")
        found = classifiers.fatal_behind(asyncio.CancelledError(stopping)) or classifiers.fatal_behind(stopping)
        assert found is not None
        assert found[0] is broken
        broken.__context__ = stopping
        assert classifiers.fatal_behind(stopping) is not None, "a circle ends"


def test_its_text_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert str(outlast.Stopping("SIGTERM")) == "stopping, retry elsewhere: SIGTERM"
        assert repr(outlast.Stop()) == "<Stop not requested>"
