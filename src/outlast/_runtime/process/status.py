"""The state of a service for its health endpoint: read from any thread, also while the event loop stands still."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlast._runtime.process.signals import Signals
    from outlast._runtime.process.watchdog import Watchdog
    from outlast._runtime.service.service import Service
    from outlast._runtime.service.stop import Stop
    from outlast._serve.health import HealthStatus

SHOWN_MAX = 100
"""Dependencies that are listed at most."""


class Status:
    """Reads the state of a service without waiting for it."""

    def __init__(self, service: Service, stop: Stop, signals: Signals, watchdog: Watchdog) -> None:
        self._service = service
        self._stop = stop
        self._signals = signals
        self._watchdog = watchdog
        self._phase = ""
        self._since = time.monotonic()

    def __call__(self) -> HealthStatus:
        """Return the status now. From any thread."""
        from outlast._serve.health import DependencyStatus, HealthStatus  # noqa: PLC0415 - only who listens pays

        now = time.monotonic()
        service, stop = self._service, self._stop
        phase = service.phase
        # A signal counts from its arrival, also while nothing is there to carry it out.
        stopping = stop.requested or self._signals.arrived_at is not None
        blocked_s = self._watchdog.blocked_for_s
        name = phase.value if phase is not None else "refuse" if stopping else "running" if service.ready else "starting"
        if name != self._phase:
            self._phase, self._since = name, now
        reason = ""
        if blocked_s is not None:
            reason = f"the event loop has not turned for {blocked_s:.1f} s"
        elif stopping:
            reason = f"stopping: {stop.reason or 'a signal arrived'}"
        elif not service.ready:
            reason = "starting"
        dependencies: list[DependencyStatus] = []
        for need in service.all_dependencies()[:SHOWN_MAX]:
            fault, opened_at = need.fault, need.health.opened_at
            cause = f"{fault.code} {fault.reason}" if fault is not None else ""
            dependencies.append(
                DependencyStatus(need.name, need.state.value, cause, None if opened_at is None else now - opened_at)
            )
        return HealthStatus(
            service.name,
            ready=service.ready and not stopping,
            live=blocked_s is None,
            phase=name,
            reason=reason,
            since_s=now - self._since,
            dependencies=tuple(dependencies),
            holders=service.holders(),
        )
