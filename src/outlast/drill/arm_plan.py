"""What to run in one arm of the coder drill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlast.drill.stores import JobStore


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """What to run in one arm and how long each part takes."""

    arm: str
    module: str
    store: JobStore
    grace_s: float
    """How long to wait for progress, after the cool-down, before unfinished jobs are called lost."""

    fault: str
    loops: int
    work_s: float
    warmup_s: float
    outage_s: float
    cooldown_s: float
    seed: int
    dsn: str | None
