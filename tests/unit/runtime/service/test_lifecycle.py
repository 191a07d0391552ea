"""The phases of a stop, in virtual time: order, deadlines, who is named, what stays loud."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast._runtime.service.clock import Clock
from outlast._runtime.service.link import Link
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from outlast._core.stop_report import StopReport

LONG = 3600.0


def stopped(service: outlast.Service, after_s: float = 1.0, clock: Clock | None = None) -> tuple[StopReport, float]:
    """Run a service, stop it after a while; gives its report, and how long the stop took."""

    async def main() -> tuple[StopReport, float]:
        stop, loop = outlast.Stop(), asyncio.get_running_loop()
        loop.call_later(after_s, stop.fire, "test")
        code = await service.run(stop, clock=clock)
        assert service.report is not None
        assert service.report.exit_code == code
        took_s = loop.time() - after_s
        return service.report, took_s

    return run_virtual(main)


async def deaf_to_one_cancel() -> None:
    """Hold on until the event loop itself ends."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(LONG)
    await asyncio.sleep(LONG)


def hook(order: list[str], text: str, seconds: float = 0.0) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await asyncio.sleep(seconds)
        order.append(text)

    return run


def test_phases_come_in_order_and_a_child_ends_inside_the_drain_of_its_parent() -> None:
    order: list[str] = []

    class Told(outlast.Dependency):
        async def close(self) -> None:
            order.append(f"{self.name} closes")
            await super().close()

    parent, child = outlast.Service("shop"), outlast.Service("mailer")
    parent.add(child)
    shared, own = Told("db"), Told("smtp")
    parent.needs(shared)
    child.needs(shared, own)
    for service in (parent, child):
        for phase in (outlast.Phase.CLOSE, outlast.Phase.REFUSE, outlast.Phase.FLUSH):
            service.on_stop(hook(order, f"{service.name} {phase.value}"), phase=phase)
        service.on_stop(hook(order, f"{service.name} flush last added"))

    report, _ = stopped(parent)
    assert order == [
        "shop refuse",
        "mailer refuse",
        "mailer flush last added",
        "mailer flush",
        "mailer close",
        "smtp closes",
        "shop flush last added",
        "shop flush",
        "shop close",
        "db closes",
    ]
    assert [time.phase for time in report.phases] == ["refuse", "drain", "flush", "close"]
    assert (report.exit_code, report.children) == (0, 1)


def test_a_hook_that_hangs_leaves_the_others_their_share(caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    service = outlast.Service("shop", deadline_s=10.0)
    service.on_stop(hook(order, "first added", 1.0))
    service.on_stop(hook(order, "never", LONG))
    service.on_stop(hook(order, "last added", 1.0))
    report, took_s = stopped(service)
    assert order == ["last added", "first added"]
    assert took_s <= 10.0
    assert report.exit_code == 75
    assert len(report.not_flushed) == 1
    assert report.unfinished[0].phase == "flush"
    assert "run (test_lifecycle.py:" in report.unfinished[0].stack[-1]
    assert "not flushed: shop flush run" in caplog.text
    assert json.loads(json.dumps(report.as_dict()))["unfinished_count"] == 1


def test_a_hook_that_fails_is_told_and_its_kind_counts(caplog: pytest.LogCaptureFixture) -> None:
    def failing(exc: Exception) -> StopReport:
        service = outlast.Service("shop")

        @service.on_stop
        async def flush() -> None:
            raise exc

        return stopped(service)[0]

    assert failing(ValueError("no")).exit_code == 75
    assert failing(OSError(5, "corrupt")).exit_code == 74
    assert failing(outlast.Stopping("another one")).exit_code == 0
    assert [record.levelname for record in caplog.records if record.message.endswith("flush failed")] == ["ERROR", "CRITICAL"]


def test_only_three_phases_take_hooks() -> None:
    with pytest.raises(ValueError, match="on_stop takes phase REFUSE, FLUSH, CLOSE, not DRAIN"):
        outlast.Service("shop").on_stop(hook([], ""), phase=outlast.Phase.DRAIN)


def test_who_is_inside_the_gate_is_waited_for_then_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    service, ended = outlast.Service("shop", deadline_s=10.0), []

    async def request(name: str, seconds: float) -> None:
        try:
            async with service.gate.enter(name):
                await asyncio.sleep(seconds)
            ended.append(name)
        except asyncio.CancelledError as exc:
            ended.append(f"{name}: {exc.args[0]}")

    async def serve() -> None:
        service.tasks = [asyncio.create_task(request("quick", 3)), asyncio.create_task(request("slow", LONG))]  # type: ignore[attr-defined]

    service.on_start(serve)
    report, took_s = stopped(service)
    assert ended[0] == "quick"
    assert ended[1].startswith("slow: stopping, retry elsewhere: shop is stopping and its drain time is over")
    assert took_s == pytest.approx(8.0)
    assert report.exit_code == 0
    assert "shop: cancelled what still ran: slow" in caplog.text


def test_a_long_drain_tells_now_and_then_whom_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    service = outlast.Service("shop", deadline_s=100.0)

    @service.loop(workers=7)
    async def settle(stop: outlast.Stop) -> None:
        await asyncio.sleep(30)

    with caplog.at_level(logging.INFO):
        report, _ = stopped(service)
    assert report.exit_code == 0
    told = [record.message for record in caplog.records if "draining" in record.message]
    names = ", ".join(f"shop.settle#{number}" for number in range(5))
    assert told == [f"shop: draining for {seconds} s, waits for {names} and 2 more" for seconds in (5, 10, 20)]


@pytest.mark.expected_logs
def test_a_child_that_never_ends_is_named_and_the_parent_keeps_its_deadline() -> None:
    parent, child = outlast.Service("shop", deadline_s=10.0), outlast.Service("mailer", deadline_s=LONG)
    parent.add(child)

    @child.task()
    async def deaf(stop: outlast.Stop) -> None:
        await deaf_to_one_cancel()

    flushed: list[str] = []
    parent.on_stop(hook(flushed, "shop"))
    child.on_stop(hook(flushed, "mailer"))
    report, took_s = stopped(parent)
    assert took_s <= 10.0
    assert report.exit_code == 75
    assert [(each.what, each.service) for each in report.unfinished] == [("deaf", "shop/mailer")]
    assert flushed == ["mailer", "shop"]


def test_a_child_may_be_stopped_alone() -> None:
    class Watched(outlast.Dependency):
        closed = False

        async def close(self) -> None:
            self.closed = True
            await super().close()

    parent, child = outlast.Service("shop"), outlast.Service("mailer")
    parent.add(child)
    shared, own = Watched("db"), Watched("smtp")
    ticks: list[float] = []
    states: list[tuple[bool, bool, bool, bool]] = []

    @parent.loop(every_s=1.0, needs=shared)
    async def tick(stop: outlast.Stop) -> None:
        ticks.append(asyncio.get_running_loop().time())
        if ticks[-1] == 2.0:
            child.stop("not needed any more")
        if ticks[-1] == 4.0:
            states.append((child.ready, parent.ready, shared.closed, own.closed))
            with pytest.raises(outlast.Stopping, match="not needed any more"), child.gate.enter("late"):
                pytest.fail("entered")

    @child.loop(every_s=1.0, needs=(shared, own))
    async def mail(stop: outlast.Stop) -> None:
        return

    report, _ = stopped(parent, 6.5)
    assert states == [(False, True, False, True)]
    assert ticks == [0, 1, 2, 3, 4, 5, 6]
    assert (report.exit_code, report.reason) == (0, "test")


@pytest.mark.expected_logs
def test_a_peer_that_is_stopping_is_waited_for_by_one_that_is_not(caplog: pytest.LogCaptureFixture) -> None:
    parent, child = outlast.Service("shop"), outlast.Service("mailer")
    parent.add(child)

    @parent.loop()
    async def send(stop: outlast.Stop) -> None:
        async with child.gate.enter("send"):
            await asyncio.sleep(1)

    @parent.task()
    async def end(stop: outlast.Stop) -> None:
        await stop.sleep(5)
        child.stop("maintenance")

    report, _ = stopped(parent, 60.0)
    assert report.exit_code == 0
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines[0] == "loop send is failing: TRANSIENT stopping maintenance"
    assert len(lines) == 2, "one reminder"


def test_a_real_fault_in_the_window_keeps_its_noise(caplog: pytest.LogCaptureFixture) -> None:
    service = outlast.Service("shop")

    @service.loop()
    async def work(stop: outlast.Stop) -> None:
        await stop.wait()
        raise ValueError("a bug")

    report, _ = stopped(service)
    assert report.exit_code == 0
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].message.endswith("ValueError: a bug")
    assert "loop work failing" in report.open_incidents[0]


@pytest.mark.parametrize("during", ["serve", "close"])
def test_a_link_that_finds_a_corruption_in_the_window_leaves_by_it(caplog: pytest.LogCaptureFixture, during: str) -> None:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def dial() -> AsyncGenerator[str]:
        yield "a session"
        if during == "close":
            raise OSError(5, "corrupt")

    async def serve(session: str, stop: outlast.Stop) -> None:
        await stop.wait()
        if during == "serve":
            raise OSError(5, "corrupt")

    service = outlast.Service("shop")
    Link("timeline", dial=dial, serve=serve).attach(service)
    report, _ = stopped(service)
    assert report.exit_code == 74
    assert [record.levelname for record in caplog.records if record.levelno > logging.ERROR] == ["CRITICAL"]


def test_a_stop_during_the_start_flushes_what_was_started_and_closes_what_was_opened() -> None:
    order: list[str] = []
    parent, child = outlast.Service("shop"), outlast.Service("mailer")
    parent.add(child)
    parent.on_start(hook(order, "shop starts"))
    child.on_start(hook(order, "mailer starts", LONG))
    parent.on_stop(hook(order, "shop ends"))
    child.on_stop(hook(order, "mailer ends"))
    report, took_s = stopped(parent)
    assert order == ["shop starts", "shop ends"]
    assert took_s == 0
    assert report.exit_code == 0
    assert stopped(outlast.Service("idle"), 0.0)[0].exit_code == 0


@pytest.mark.expected_logs
def test_a_start_that_ignores_the_stop_is_named() -> None:
    service = outlast.Service("shop", deadline_s=10.0)

    @service.on_start
    async def deaf() -> None:
        await deaf_to_one_cancel()

    report, took_s = stopped(service)
    assert took_s <= 10.0
    assert report.exit_code == 75
    assert report.unfinished[0].what == "the start"


@pytest.mark.expected_logs
def test_cancelling_twice_hurries_and_is_not_swallowed() -> None:
    async def main() -> float:
        service, flushed = outlast.Service("shop", deadline_s=100.0), []
        service.on_stop(hook(flushed, "flushed"))

        @service.loop()
        async def work(stop: outlast.Stop) -> None:
            await asyncio.sleep(LONG)

        running = asyncio.create_task(service.run())
        await service.until_ready()
        assert service.ready
        assert service.phase is None
        running.cancel()
        await asyncio.sleep(5)
        assert service.phase is outlast.Phase.DRAIN
        assert not service.ready
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert flushed == ["flushed"]
        assert service.report is not None
        assert service.report.hurried
        return asyncio.get_running_loop().time()

    assert run_virtual(main) < 15


def test_two_thousand_idle_children_stop_at_once_in_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    parent = outlast.Service("shop")
    for number in range(2000):
        parent.add(outlast.Service(f"child-{number}"))
    with caplog.at_level(logging.INFO):
        report, took_s = stopped(parent)
    assert (report.exit_code, report.children, took_s) == (0, 2000, 0)
    assert len(caplog.records) <= 3


def test_the_time_in_which_the_process_stood_still_counts_for_no_deadline() -> None:
    service, still_s = outlast.Service("shop", deadline_s=10.0), 0.0

    class Still(Clock):
        def now(self) -> float:
            return super().now() - still_s

    @service.loop()
    async def work(stop: outlast.Stop) -> None:
        await stop.wait()
        await asyncio.sleep(52)

    @service.task()
    async def freeze(stop: outlast.Stop) -> None:
        nonlocal still_s
        await stop.wait()
        await asyncio.sleep(1)
        # As far as deadlines go, 45 of the next 50 seconds do not pass.
        still_s = 45.0

    report, took_s = stopped(service, clock=Still())
    assert took_s == pytest.approx(52)
    assert report.took_s == pytest.approx(7)
    assert report.exit_code == 0


def test_a_service_may_run_again() -> None:
    async def main() -> list[Any]:
        service, seen = outlast.Service("shop"), []

        @service.loop()
        async def work(stop: outlast.Stop) -> None:
            async with service.gate.enter("work"):
                seen.append(service.ready)
            await stop.sleep(1)

        for _ in range(2):
            stop = outlast.Stop()
            asyncio.get_running_loop().call_later(0.5, stop.fire, "test")
            assert await service.run(stop) == 0
        return seen

    assert run_virtual(main) == [True, True]
