"""The figures of the runtime itself in `/metrics`: the process's phase, its event loop, dependencies, incidents and loops.

Everything is read from memory, by a thread of the endpoint's: attributes that the event loop replaces whole, a step late at most.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeAlias

from outlast._core.health import State
from outlast._core.phases import Phase
from outlast._core.shown import Figure, Unit
from outlast._serve.metrics import Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._runtime.dependency.incident import Incident
    from outlast._runtime.process.status import Status
    from outlast._runtime.process.watchdog import Watchdog
    from outlast._runtime.service.service import Service

Counts: TypeAlias = dict[tuple[str, ...], float]
PHASES: Final = ("starting", "running", *(phase.value for phase in Phase))


class OwnFigures:
    """The figures of one service as a process; call it from any thread."""

    def __init__(self, service: Service, status: Status, watchdog: Watchdog) -> None:
        self._service = service
        self._status = status
        self._watchdog = watchdog

    def __call__(self) -> Iterator[Group]:
        """Yield them, as `outlast_…`."""
        yield Group("outlast", [*self._process(), *self._dependencies(), *self._incidents(), *self._loops()])

    def _process(self) -> Iterator[Figure]:
        status, watchdog = self._status(), self._watchdog
        phases: Counts = {(phase,): float(phase == status.phase) for phase in PHASES}
        yield Figure.gauge("ready", "Whether the service takes in work.", status.ready)
        yield Figure.gauge("live", "Whether the event loop turns.", status.live)
        yield Figure.gauge("phase", "The phase the service is in: 1, the others 0.", phases, labels=("phase",))
        yield Figure.gauge("phase_lasted", "For how long it has been in that phase.", status.since_s, unit=Unit.SECONDS)
        yield Figure.gauge("gate_holders", "How many are inside the gates of the service.", status.holders)
        text = "How late the event loop last was, or is by now."
        yield Figure.gauge("event_loop_lag", text, watchdog.lag_s, unit=Unit.SECONDS)
        text = "For how long in all the event loop was late for a timer that comes twice a second."
        yield Figure.counter("event_loop_late", text, watchdog.late_s, unit=Unit.SECONDS)

    def _dependencies(self) -> Iterator[Figure]:
        now, states, outages, recoveries = time.monotonic(), Counts(), Counts(), Counts()
        for need in self._service.all_dependencies():
            health = need.health
            for state in State:
                states[need.name, state.value.lower()] = state is health.state
            outages[(need.name,)] = 0.0 if health.opened_at is None else now - health.opened_at
            recoveries[(need.name,)] = need.epoch
        by = ("dependency",)
        text = "The state a dependency is in: 1, the others 0."
        yield Figure.gauge("dependency_state", text, states, labels=("dependency", "state"))
        yield Figure.gauge("dependency_outage", "How long the open outage has lasted.", outages, labels=by, unit=Unit.SECONDS)
        yield Figure.counter("dependency_recoveries", "How often a dependency came back.", recoveries, labels=by)

    def _incidents(self) -> Iterator[Figure]:
        opened, is_open, faults, refused = Counts(), Counts(), Counts(), Counts()
        for incident in self._every_incident():
            # Not under its lock, which a thread may hold while it writes: each of these is one attribute.
            book, key = incident.book, (incident.book.subject,)
            opened[key] = opened.get(key, 0) + book.incidents
            is_open[key] = max(is_open.get(key, 0), book.is_open)
            faults[key] = faults.get(key, 0) + (book.faults if book.is_open else 0)
            refused[key] = refused.get(key, 0) + (book.refused if book.is_open else 0)
        by = ("subject",)
        yield Figure.counter("incidents", "Incidents that were opened.", opened, labels=by)
        yield Figure.gauge("incident_open", "Whether an incident is open.", is_open, labels=by)
        yield Figure.gauge("incident_faults", "Faults within the open incident.", faults, labels=by)
        yield Figure.gauge("incident_refused", "Callers sent away or to wait within the open incident.", refused, labels=by)

    def _every_incident(self) -> Iterator[Incident]:
        yield from (need.incident for need in self._service.all_dependencies())
        for service in self._service.tree():
            yield from (body.incident for body in list(service.bodies))

    def _loops(self) -> Iterator[Figure]:
        workers, failing, turns = Counts(), Counts(), Counts()
        for service in self._service.tree():
            for body in list(service.bodies):
                key = (service.name, body.name)
                workers[key] = workers.get(key, 0) + body.workers
                failing[key] = failing.get(key, 0) + len(body.failing)
                turns[key] = turns.get(key, 0) + body.turns
        by = ("service", "loop")
        yield Figure.gauge("loop_workers", "Workers of a loop or task.", workers, labels=by)
        yield Figure.gauge("loop_failing_workers", "Workers whose last turn failed by a fault of their own.", failing, labels=by)
        yield Figure.counter("loop_turns", "How often a loop or task was called.", turns, labels=by)
