"""The figures of the runtime itself, and how late the event loop is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import exposition
import outlast
from outlast._runtime.process import watchdog as watchdogs
from outlast._runtime.process.run import Process
from outlast._runtime.process.watchdog import Watchdog
from outlast.extend import Figure, SystemHealth

if TYPE_CHECKING:
    from collections.abc import Sequence


class Outbox:
    system = "outbox"

    def __init__(self, name: str) -> None:
        self.name = name

    def figures(self) -> list[Figure]:
        return [Figure.counter("sent_messages", "Sent.", 1)]

    def health(self) -> SystemHealth:
        return SystemHealth(True, "at work")

    def lag(self) -> None:
        return

    def acts(self) -> Sequence[Any]:
        return ()


def page(service: outlast.Service) -> dict[str, exposition.Family]:
    process = Process(service, "127.0.0.1:0", None, Watchdog())
    process.notifier.close()
    assert process._endpoint is not None
    return exposition.read(process._endpoint._pages["/metrics"]().text)


async def nothing(stop: outlast.Stop) -> None:
    del stop


def test_systems_of_the_children_are_shown_too() -> None:
    parent, child = outlast.Service("parent"), outlast.Service("child")
    parent.add(child)
    parent.show(Outbox("a"))
    child.show(Outbox("b"))
    assert [shown.name for shown in parent.all_shown()] == ["a", "b"]
    assert page(parent)["outlast_outbox_sent_messages_total"].samples == {(("name", "a"),): 1, (("name", "b"),): 1}


def test_a_kind_of_system_that_is_no_name_is_refused() -> None:
    outbox = Outbox("a")
    outbox.system = "Out box"
    with pytest.raises(outlast.ConfigurationError, match="a system calls itself 'Out box'; write lower case words"):
        outlast.Service("shop").show(outbox)


def test_loops_and_dependencies_that_are_called_alike_are_added_up() -> None:
    service = outlast.Service("shop")
    for workers in (2, 3):
        service.loop(workers=workers, name="settle")(nothing)
    first, second = outlast.Dependency("peer"), outlast.Dependency("peer")
    service.needs(first, second)
    fault = outlast.Fault(outlast.Kind.REJECTED, "x", "no")
    service.bodies[0].incident.book.fault(fault, 0.0)
    service.bodies[1].incident.book.fault(fault, 0.0)
    families = page(service)
    assert families["outlast_loop_workers"].samples == {(("service", "shop"), ("loop", "settle")): 5}
    assert families["outlast_incidents_total"].samples[(("subject", "loop settle"),)] == 2
    assert families["outlast_incident_faults"].samples[(("subject", "loop settle"),)] == 2
    assert len(families["outlast_dependency_state"].samples) == 3
    assert families["outlast_left_out_samples"].samples == {(): 0}


def test_a_service_that_has_not_begun_is_starting_and_not_ready() -> None:
    families = page(outlast.Service("shop"))
    assert families["outlast_ready"].samples == {(): 0}
    assert {labels: on for labels, on in families["outlast_phase"].samples.items() if on} == {(("phase", "starting"),): 1}
    assert families["outlast_event_loop_lag_seconds"].samples == {(): 0}


def test_how_late_the_event_loop_is_and_was_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timer:
        def cancel(self) -> None:
            """Nothing comes."""

    class Loop:
        def call_later(self, seconds: float, *_: Any) -> Timer:
            assert seconds == 0.5
            return Timer()

    clock = [100.0]
    monkeypatch.setattr(watchdogs.time, "monotonic", lambda: clock[0])
    watchdog, loop, lags = Watchdog(blocked_s=1.0), Loop(), []
    watchdog._due_at = 100.0
    for clock[0] in (100.0, 100.5, 102.0, 102.75):
        watchdog._beat(loop)  # type: ignore[arg-type]
        lags.append(watchdog.lag_s)
    assert lags == [0.0, 0.0, 1.0, 0.25]
    assert watchdog.late_s == 1.25
    clock[0] = 110.25
    assert watchdog.lag_s == 7.0, "the next beat was due at 103.25"
    assert watchdog.late_s == 1.25
    watchdog.stop()
    assert watchdog.lag_s == 0.25
