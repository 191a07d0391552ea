"""Reports of a running drill to whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class ArmState(Enum):
    """The part of a drill that an arm is in."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    OUTAGE = "outage"
    RECOVERY = "recovery"
    DRAINING = "draining"
    STOPPING = "stopping"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rates of one arm over about the last quarter of a second."""

    lines_per_s: float
    attempts_per_s: float
    cpu_percent: float
    jobs_per_s: float
    changes_per_s: float
    stored_per_s: float = 0.0
    refused_per_s: float = 0.0
    """Requests of clients, where the service has any."""


class Observer(Protocol):
    """Watches a drill; called from the threads that carry it out, so an implementation must be thread-safe."""

    def arm_state(self, arm: str, state: ArmState, lasts_s: float | None = None) -> None:
        """Report that `arm` enters `state`, which is planned to last `lasts_s` seconds."""

    def arm_sample(self, arm: str, sample: Sample) -> None:
        """Report the present rates of `arm`."""

    def arm_done(self, arm: str, words: str) -> None:
        """Report that `arm` has finished; `words` is one sentence on what it did."""


class Silent:
    """An observer that shows nothing."""

    def arm_state(self, arm: str, state: ArmState, lasts_s: float | None = None) -> None:
        """Show nothing."""

    def arm_sample(self, arm: str, sample: Sample) -> None:
        """Show nothing."""

    def arm_done(self, arm: str, words: str) -> None:
        """Show nothing."""
