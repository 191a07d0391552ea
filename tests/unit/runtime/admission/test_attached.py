"""An admission that belongs to a service: its stop, its figures, its health, its log lines."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast._core.admission.told import HINTS
from outlast._runtime.admission.memory import MemoryMeter
from outlast.admission import Concurrency, Memory, Rate, Reason, Refusal, Ticket, Waiting
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.extend import Shown

TWO = Concurrency(limit_min=2, limit_start=2, limit_max=2)


def run(during: Callable[[outlast.Service, outlast.Admission], Awaitable[None]], **options: Any) -> outlast.Service:
    """Run a service with an admission, and stop it when `during` has returned."""
    service = outlast.Service("shop", deadline_s=10.0)
    settings = {"concurrency": TWO, "memory": None, "rng": random.Random(7), **options}
    admission = outlast.Admission("orders", **settings)
    admission.attach(service)

    async def main() -> None:
        stop = outlast.Stop()
        running = asyncio.create_task(service.run(stop))
        await service.until_ready()
        await asyncio.sleep(0.01)
        try:
            await during(service, admission)
        finally:
            stop.fire("the test is over")
        assert await running == 0

    run_virtual(main())
    return service


def shown(service: outlast.Service) -> Shown:
    (found,) = service.all_shown()
    return found


def values(service: outlast.Service) -> dict[str, float]:
    return {
        ".".join((figure.name, *labels)): value
        for figure in shown(service).figures()
        for labels, value in figure.samples
        if value
    }


def enter_now(admission: outlast.Admission) -> Ticket:
    got = admission.try_enter()
    assert isinstance(got, Ticket), got
    return got


def test_the_stop_refuses_who_comes_and_who_waits_and_lets_finish_what_is_under_way() -> None:
    said: list[str] = []

    async def work(admission: outlast.Admission, seconds: float) -> None:
        try:
            async with admission.enter():
                await asyncio.sleep(seconds)
                said.append("done")
        except outlast.Stopping as stopping:
            said.append(stopping.reason)

    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        tasks = [asyncio.create_task(work(admission, 1.0)) for _ in range(3)]
        await asyncio.sleep(0)
        assert values(service)["waiting"] == 1
        service.stop("enough")
        # In this very step, before anybody else had a turn.
        assert values(service).get("waiting") is None
        with pytest.raises(outlast.Stopping, match="enough"):
            admission.try_enter()
        await work(admission, 0.0)
        await asyncio.wait(tasks)

    service = run(during)
    assert said == ["enough", "enough", "done", "done"]
    report = service.report
    assert report is not None
    assert (report.exit_code, report.refused, report.unfinished) == (0, 3, ())


def test_a_server_is_told_of_what_waits_when_the_service_stops() -> None:
    told: list[object] = []

    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        held = [enter_now(admission), enter_now(admission)]
        waiting = admission.arrive()
        assert isinstance(waiting, Waiting)
        waiting.on_outcome(lambda: told.append((waiting.outcome(), admission.closed)))
        service.stop("enough")
        await asyncio.sleep(0)
        waiting.release()
        for ticket in held:
            ticket.release()

    run(during)
    assert told == [(None, True)]


def test_the_drain_waits_for_what_is_under_way_and_names_the_admission_when_it_does_not_end(expected_logs: Any) -> None:
    expected_logs("cancelled what still ran: shop.admission orders")

    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        enter_now(admission)

    service = run(during)
    assert service.report is not None
    assert service.report.took_s == pytest.approx(8.0, abs=0.1)


def test_work_that_is_parked_is_waited_for_too() -> None:
    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        ticket = enter_now(admission)
        ticket.park()
        asyncio.get_running_loop().call_later(1.0, ticket.release)

    service = run(during)
    assert service.report is not None
    assert service.report.took_s == pytest.approx(1.0, abs=0.1)


def test_a_service_that_starts_again_takes_in_work_again() -> None:
    service = outlast.Service("shop")
    admission = outlast.Admission("orders", memory=None)
    admission.attach(service)

    async def life() -> int:
        stop = outlast.Stop()
        running = asyncio.create_task(service.run(stop))
        await service.until_ready()
        enter_now(admission).release()
        stop.fire("enough")
        return await running

    async def main() -> None:
        assert [await life(), await life()] == [0, 0]

    run_virtual(main())


def test_it_belongs_to_one_service() -> None:
    admission = outlast.Admission("orders")
    admission.attach(outlast.Service("shop"))
    with pytest.raises(outlast.ConfigurationError, match="attached to service shop already"):
        admission.attach(outlast.Service("other"))


def test_the_figures_say_what_came_in_and_what_did_not(caplog: pytest.LogCaptureFixture) -> None:
    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        first, second = enter_now(admission), enter_now(admission)
        assert isinstance(admission.try_enter(), Refusal)
        assert isinstance(admission.try_enter(deadline_s=-1.0), Refusal)
        second.park()
        waiter = asyncio.create_task(enter(admission))
        waiter_two = asyncio.create_task(enter(admission))
        await asyncio.sleep(0)
        waiter_two.cancel()
        await asyncio.sleep(0)
        assert values(service) == {
            "admitted": 3,
            "refused.concurrency": 1,
            "refused.deadline": 1,
            "left": 1,
            "in_flight": 2,
            "parked": 1,
            "limit": 2,
        }
        waiter.cancel()
        first.release()
        second.release()

    async def enter(admission: outlast.Admission) -> None:
        async with admission.enter():
            await asyncio.get_running_loop().create_future()

    service = run(during)
    reasons = next(figure for figure in shown(service).figures() if figure.name == "refused")
    assert [labels for labels, _ in reasons.samples] == [(reason.value,) for reason in Reason]
    assert (shown(service).system, shown(service).name, shown(service).lag(), list(shown(service).acts())) == (
        "admission",
        "orders",
        None,
        [],
    )


def test_it_is_well_unless_it_refuses_what_the_service_is_there_for(caplog: pytest.LogCaptureFixture) -> None:
    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        assert (shown(service).health().well, shown(service).health().state) == (True, "lets work in")
        enter_now(admission).release()
        assert isinstance(admission.try_enter(), Refusal)
        health = shown(service).health()
        assert (health.well, health.state) == (True, "lets work in; refuses by rate")
        assert isinstance(admission.try_enter(deadline_s=-1.0), Refusal)
        health = shown(service).health()
        assert (health.well, health.state) == (False, "refuses by rate, deadline")
        assert health.cause is not None
        assert (health.cause.kind, health.cause.code) == (outlast.Kind.OVERLOADED, "deadline")
        assert health.since == asyncio.get_running_loop().time()
        await asyncio.sleep(31.0)
        assert shown(service).health().well is True

    service = run(during, rate=Rate(0.01))
    assert (shown(service).health().well, shown(service).health().state) == (None, "not at work")


def test_a_service_has_measured_its_memory_before_it_takes_in_work(expected_logs: Any) -> None:
    expected_logs("admission orders refuses work by memory")

    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        assert shown(service).health().well is True
        assert values(service)["memory_level"] == 2
        refusal = admission.try_enter()
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.MEMORY

    run(during, memory=Memory(bytes_max=1000))


def test_where_memory_cannot_be_measured_its_health_is_unknown_and_work_comes_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outlast._runtime.admission.meters.MemoryMeter", Blind)

    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        health = shown(service).health()
        assert (health.well, health.state) == (None, "lets work in; how near the memory is to its limit is not known")
        enter_now(admission).release()

    run(during, memory=Memory(bytes_max=1000))


class Blind(MemoryMeter):
    """A meter that finds nothing to read."""

    def read(self) -> tuple[float | None, float | None]:
        self.unknown = "there is no /proc"
        return None, None


def test_a_minute_of_refusals_is_three_lines_and_the_stop_closes_what_is_open(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "outlast")

    async def during(service: outlast.Service, admission: outlast.Admission) -> None:
        for _ in range(6000):
            assert isinstance(admission.try_enter(deadline_s=-1.0), Refusal)
            await asyncio.sleep(0.01)
        await asyncio.sleep(31.0)
        held = [enter_now(admission), enter_now(admission)]
        assert isinstance(admission.try_enter(), Refusal)
        for ticket in held:
            ticket.release()

    run(during)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("admission")]
    assert lines == [
        "admission orders refuses work by deadline: it is 1 s too late - send less, or allow more time",
        "admission orders still refuses work by deadline after 30 s: 3,001 refused",
        "admission orders no longer refuses work by deadline: 6,000 refused in 60.0 s",
        f"admission orders refuses work by concurrency: 2 under way or waiting, limit 2 - {HINTS[Reason.CONCURRENCY]}",
        "admission orders no longer refuses work by concurrency: 1 refused in 0.0 s",
    ]
