"""Supervised loops and tasks, in virtual time: what each kind of fault does, and how a service ends."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.expected_logs
LONG = 3600.0


def serve(service: outlast.Service, seconds: float) -> int:
    """Run a service for that long and stop it; gives its exit code."""

    async def main() -> int:
        stop = outlast.Stop()
        asyncio.get_running_loop().call_later(seconds, stop.fire, "test")
        return await service.run(stop)

    return run_virtual(main)


def new_service(**options: Any) -> outlast.Service:
    return outlast.Service("shop", rng=random.Random(3), **options)


def test_a_loop_is_called_again_and_again_and_every_so_often() -> None:
    service, calls = new_service(), []

    @service.loop(every_s=2.0)
    async def tick(stop: outlast.Stop) -> None:
        calls.append(asyncio.get_running_loop().time())

    assert serve(service, 9.0) == 0
    assert calls == pytest.approx([0, 2, 4, 6, 8])


def test_workers_run_side_by_side() -> None:
    service, running, most = new_service(), 0, 0

    @service.loop(workers=7)
    async def work(stop: outlast.Stop) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    assert serve(service, 5.5) == 0
    assert most == 7


def test_a_task_runs_once_and_a_service_of_finished_tasks_ends() -> None:
    service, runs = new_service(), 0

    @service.task()
    async def once(stop: outlast.Stop) -> None:
        nonlocal runs
        runs += 1

    assert serve(service, LONG) == 0
    assert runs == 1


@pytest.mark.parametrize(
    "fault",
    [
        outlast.Fault(outlast.Kind.REJECTED, "P0001", "the trigger says no", "db"),
        outlast.Fault(outlast.Kind.PERMANENT, "42501", "permission denied", "db", outlast.Scope.CALL),
        outlast.Fault(outlast.Kind.TRANSIENT, "40001", "serialization failure", "db", outlast.Scope.CALL),
    ],
)
def test_work_that_fails_while_the_probe_passes_backs_off_to_its_cap(
    fault: outlast.Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """A revoked table, a trigger that raises: the dependency is well, the work is not."""

    async def ask() -> None:
        return

    db = outlast.Dependency("db", probe=ask, classifiers=outlast.Classifiers([lambda exc, phase: fault]))
    service, calls = new_service(), []

    @service.loop(needs=db)
    async def settle(stop: outlast.Stop) -> None:
        async with db.use():
            calls.append(asyncio.get_running_loop().time())
            raise LookupError

    with caplog.at_level(logging.INFO):
        assert serve(service, 600.0) == 0
    gaps = [later - earlier for earlier, later in zip(calls, calls[1:], strict=False)]
    assert db.state is outlast.State.UP
    assert all(15 <= gap <= 30 for gap in gaps[10:]), gaps
    assert len(calls) < 50
    faults = [record for record in caplog.records if fault.code in record.message and "failing:" in record.message]
    assert len(faults) == 1
    assert len(caplog.records) <= 9


def test_a_dependency_that_is_away_costs_no_backoff_and_no_line_of_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    up, asked = True, 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        if not up:
            raise ConnectionRefusedError

    db = outlast.Dependency("db", probe=ask, rng=random.Random(1))
    service, done = new_service(), []

    @service.loop(needs=db, workers=50)
    async def settle(stop: outlast.Stop) -> None:
        async with db.use():
            await asyncio.sleep(0.1)
            if not up:
                raise ConnectionRefusedError
        done.append(asyncio.get_running_loop().time())

    async def outage() -> int:
        nonlocal up
        stop, loop = outlast.Stop(), asyncio.get_running_loop()
        running = asyncio.create_task(service.run(stop))
        await asyncio.sleep(10)
        up = False
        await asyncio.sleep(60)
        up = True
        back_at = loop.time()
        await asyncio.sleep(2.1)
        assert len([at for at in done if at >= back_at]) >= 50
        stop.fire("test")
        return await running

    with caplog.at_level(logging.INFO):
        assert run_virtual(outage) == 0
    assert asked <= 100
    assert len(caplog.records) <= 6, [record.message for record in caplog.records]
    assert "loop settle" not in caplog.text


def test_a_bug_is_told_once_with_its_traceback_then_folded(caplog: pytest.LogCaptureFixture) -> None:
    service = new_service()

    @service.loop(workers=50, restart=outlast.Restart(bugs_max=None))
    async def settle(stop: outlast.Stop) -> None:
        raise ValueError("no such account")

    assert serve(service, 300.0) == 0
    traced = [record for record in caplog.records if record.exc_info]
    assert len(traced) == 1
    assert traced[0].levelname == "ERROR"
    assert "no such account" in traced[0].message


def test_too_many_bugs_end_the_service(caplog: pytest.LogCaptureFixture) -> None:
    service = new_service()

    @service.loop()
    async def settle(stop: outlast.Stop) -> None:
        raise ValueError("no such account")

    @service.loop(every_s=1.0)
    async def other(stop: outlast.Stop) -> None:
        return

    assert serve(service, LONG) == 70
    assert "failed through a bug 9 times within 60 s (limit 8)" in caplog.text


def test_classified_faults_never_end_the_process_by_intensity() -> None:
    service, calls = new_service(), 0

    @service.loop(restart=outlast.Restart(bugs_max=0))
    async def settle(stop: outlast.Stop) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionRefusedError

    assert serve(service, LONG) == 0
    assert calls > 100


def test_a_fatal_fault_leaves_service_with_its_own_code(caplog: pytest.LogCaptureFixture) -> None:
    corrupt = outlast.Fault(outlast.Kind.FATAL, "XX001", "data corrupted", "store")
    service = new_service(classifiers=outlast.Classifiers([lambda exc, phase: corrupt]))

    @service.loop()
    async def settle(stop: outlast.Stop) -> None:
        raise LookupError

    assert serve(service, LONG) == 74
    assert any(record.levelname == "CRITICAL" for record in caplog.records)


def test_a_loop_that_returns_at_once_is_named_and_throttled(caplog: pytest.LogCaptureFixture) -> None:
    service, calls = new_service(), 0

    @service.loop()
    async def poll(stop: outlast.Stop) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.0001)

    assert serve(service, 60.0) == 0
    assert calls < 600
    assert caplog.text.count("loop poll spins") == 1


def test_a_body_that_spins_inside_is_named_and_throttled(caplog: pytest.LogCaptureFixture) -> None:
    """A bare `while True` that awaits nothing but failure: no turn ever ends."""
    service, tries = new_service(), 0

    @service.task()
    async def controller(stop: outlast.Stop) -> None:
        nonlocal tries
        while True:
            tries += 1
            failure = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.0001, failure.set_exception, ConnectionRefusedError())
            try:
                await failure
            except ConnectionRefusedError:
                continue

    assert serve(service, 60.0) == 0
    assert tries < 600
    assert caplog.text.count("task controller spins") == 1


def test_a_body_that_only_yields_is_throttled_too() -> None:
    service, tries = new_service(), 0

    @service.task()
    async def yields(stop: outlast.Stop) -> None:
        nonlocal tries
        while True:
            tries += 1
            await asyncio.sleep(0)

    assert serve(service, 60.0) == 0
    assert tries < 600


def test_useful_work_may_turn_as_fast_as_it_likes(caplog: pytest.LogCaptureFixture) -> None:
    service, calls = new_service(), 0

    @service.loop()
    async def consume(stop: outlast.Stop) -> None:
        nonlocal calls
        calls += 1
        outlast.progress()
        await asyncio.sleep(0.0001)

    assert serve(service, 5.0) == 0
    assert calls > 40_000
    assert "spins" not in caplog.text


def test_cancelled_error_of_somebody_else_is_a_bug_of_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    service = new_service()

    @service.loop(restart=outlast.Restart(bugs_max=None))
    async def settle(stop: outlast.Stop) -> None:
        raise asyncio.CancelledError

    assert serve(service, 60.0) == 0
    assert "not because of a stop of ours" in caplog.text


def test_cancelling_the_service_is_a_stop_and_is_not_swallowed() -> None:
    async def main() -> None:
        service = new_service()

        @service.loop()
        async def settle(stop: outlast.Stop) -> None:
            await asyncio.sleep(1)

        running = asyncio.create_task(service.run())
        await asyncio.sleep(5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run_virtual(main)


def hang(service: outlast.Service) -> Callable[[outlast.Stop], Awaitable[None]]:
    @service.task()
    async def deaf(stop: outlast.Stop) -> None:
        while True:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                continue

    return deaf


def test_a_running_body_may_finish_and_is_cancelled_when_the_drain_time_is_over() -> None:
    service, ended = new_service(deadline_s=10.0), []

    @service.loop(name="quick")
    async def quick(stop: outlast.Stop) -> None:
        await asyncio.sleep(3)
        ended.append("quick")

    @service.loop(name="slow")
    async def slow(stop: outlast.Stop) -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            ended.append("slow cancelled")
            raise

    assert serve(service, 1.0) == 0
    assert ended == ["quick", "slow cancelled"]


def test_what_does_not_end_is_named_and_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> float:
        service, stop, loop = new_service(deadline_s=10.0), outlast.Stop(), asyncio.get_running_loop()
        hang(service)
        running = asyncio.create_task(service.run(stop))
        await asyncio.sleep(1)
        stop.fire("test")
        assert await running == 75
        took_s = loop.time() - 1
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.get_coro().close()  # type: ignore[union-attr]
        return took_s

    with caplog.at_level(logging.INFO):
        took_s = run_virtual(main)
    assert took_s <= 11
    assert "not finished within 10 s: deaf (drain, since 9.8 s at deaf" in caplog.text


def test_children_and_hooks_run_in_order() -> None:
    order: list[str] = []
    parent, child = new_service(), outlast.Service("child")

    def hook(text: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            order.append(text)

        return run

    for service in (parent, child):
        service.on_start(hook(f"{service.name} starts"))
        service.on_stop(hook(f"{service.name} ends"))
    parent.add(child)

    @child.loop(every_s=1.0)
    async def tick(stop: outlast.Stop) -> None:
        order.append("tick")

    assert serve(parent, 0.5) == 0
    assert order == ["shop starts", "child starts", "tick", "child ends", "shop ends"]


def test_a_start_that_fails_closes_what_it_opened() -> None:
    closed = []

    class Opened(outlast.Dependency):
        async def close(self) -> None:
            closed.append(self.name)
            await super().close()

    service = new_service()
    service.needs(Opened("db"))

    async def broken() -> None:
        raise outlast.ConfigurationError("journal_path is not writable")

    service.on_start(broken)
    with pytest.raises(outlast.ConfigurationError):
        serve(service, 1.0)
    assert closed == ["db"]


@pytest.mark.parametrize(
    ("options", "message"), [({"workers": 0}, "at least 1 worker"), ({"every_s": 0}, "every_s must be above 0")]
)
def test_senseless_loops_are_refused(options: dict[str, Any], message: str) -> None:
    service = new_service()
    with pytest.raises(ValueError, match=message):

        @service.loop(**options)
        async def body(stop: outlast.Stop) -> None:
            return


def test_the_stop_wakes_whoever_waits_and_counts_once() -> None:
    async def main() -> None:
        stop, order = outlast.Stop(), []
        stop.on_fire(lambda fired: order.append(f"callback {fired.reason}"))

        async def wait() -> None:
            await stop.wait()
            order.append("woken")

        async def sleep() -> None:
            with pytest.raises(outlast.Stopping):
                await stop.sleep(LONG)
            order.append("sleeper")

        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(sleep())
            await asyncio.sleep(1)
            assert not stop.requested
            stop.fire("first")
            stop.fire("second")
        assert stop.reason == "first"
        assert sorted(order) == ["callback first", "sleeper", "woken"]
        await stop.wait()
        with pytest.raises(outlast.Stopping):
            await stop.sleep(0)

    run_virtual(main)
