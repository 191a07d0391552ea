"""An admission as it shows itself: figures and health, read from memory by any thread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from outlast._core.admission.told import AGREED, fault_of
from outlast._core.shown import Act, Figure, Lag, SystemHealth, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._runtime.admission.desk import Desk
    from outlast._runtime.admission.meters import Meters
    from outlast._runtime.service.service import Service


class ShownAdmission:
    """One admission, as it is shown to those who run it."""

    system = "admission"

    def __init__(self, desk: Desk, meters: Meters, service: Service) -> None:
        self._desk = desk
        self._meters = meters
        self._service = service

    @property
    def name(self) -> str:
        """The name of the admission."""
        return self._desk.name

    def figures(self) -> list[Figure]:
        """Return what came in, what did not, and what is inside."""
        return list(self._figures())

    def _figures(self) -> Iterator[Figure]:
        admitter = self._desk.admitter
        yield Figure.counter("admitted", "Work that came in.", admitter.admitted)
        refused = {reason.value: float(count) for reason, count in admitter.refused.items()}
        yield Figure.counter("refused", "Work that was refused, by the check that did.", refused, labels=("reason",))
        yield Figure.counter("left", "Work that was given up by its caller while it waited.", admitter.left)
        text = "Work whose key shared a bucket, since as many keys as are kept apart had one."
        yield Figure.counter("sharing", text, admitter.sharing)
        yield Figure.gauge("waiting", "Work that waits in the queue.", admitter.waiting)
        yield Figure.gauge("in_flight", "Work that is under way.", admitter.in_flight)
        yield Figure.gauge("parked", "Work that came in and only waits: long polls, streams of events.", admitter.parked)
        if math.isfinite(admitter.limit):
            yield Figure.gauge("limit", "How much may be under way at a time, as it follows the latency.", admitter.limit)
            text = "The time that one piece of work takes now, as it is reckoned for deadlines."
            yield Figure.gauge("latency", text, admitter.latency_s, unit=Unit.SECONDS)
        text = "0: all may come in; 1: nothing that can be shed; 2: nothing that is not critical."
        yield Figure.gauge("memory_level", text, admitter.memory_level)

    def health(self) -> SystemHealth:
        """Return whether it lets work in. It is not well while it refuses work that the service was meant to do."""
        if not self._service.ready:
            return SystemHealth(None, "not at work")
        spells = self._desk.lines.book.open
        reasons = ", ".join(shed.first.reason.value for shed in spells)
        for shed in spells:
            if shed.first.reason not in AGREED:
                return SystemHealth(False, f"refuses by {reasons}", fault_of(shed.first, self.name), shed.opened_at)
        if self._meters.unknown:
            return SystemHealth(None, "lets work in; how near the memory is to its limit is not known")
        return SystemHealth(True, f"lets work in; refuses by {reasons}" if spells else "lets work in")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return none: its limits are those of the policy."""
        return []
