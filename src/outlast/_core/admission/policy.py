"""The policy of an admission: which of the checks there are, and the bounds of what they keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast._core.admission.bucket import KEYS_MAX
from outlast._core.admission.concurrency import Concurrency
from outlast._core.admission.memory import Memory
from outlast._core.admission.queue import Queue

if TYPE_CHECKING:
    from outlast._core.admission.bucket import Rate


CRITICAL_MAX: Final = 100
PARKED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """The checks of an admission. None leaves a check out."""

    rate: Rate | None = None
    """Of all work together."""
    key_rate: Rate | None = None
    """Of the work of each key."""
    concurrency: Concurrency | None = field(default_factory=Concurrency)
    memory: Memory | None = field(default_factory=Memory)
    queue: Queue | None = field(default_factory=Queue)
    """None: work waits for nothing, it is let in or refused."""
    keys_max: int = KEYS_MAX
    """The keys whose rates are kept apart. Of slots and waiters only keys that have some are kept, so those bound themselves."""
    critical_max: int = CRITICAL_MAX
    """The critical work under way at once: the only limit that it meets, besides a deadline that has passed."""
    parked_max: int = PARKED_MAX
    """The tickets that are parked at once."""

    def __post_init__(self) -> None:
        for name in ("keys_max", "critical_max", "parked_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
