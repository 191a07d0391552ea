"""The options of `outlast guard`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outlast._programs.guard.rotation import Limits
from outlast._programs.guard.spin import SpinLimits
from outlast._programs.guard.supervisor import Rules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Everything about one guarded program. Durations are seconds, sizes bytes."""

    command: Sequence[str]
    rules: Rules = field(default_factory=Rules)
    fold: bool = True
    log: Path | None = None
    log_limits: Limits = field(default_factory=Limits)
    log_only: bool = False
    """Whether the output goes to the log file alone, not to our stdout and stderr as well."""
    listen: str | None = None
    ready_after_s: float = 1.0
    """The program counts as ready when it has run this long."""
    spin: SpinLimits | None = field(default_factory=SpinLimits)
    """None: processor time is not watched."""
    backlog_bytes_max: int = 4 * 1024 * 1024
    """Kept for each place that is slow or full."""
    flush_s: float = 3.0
    """The time at the end in which a slow place may take what waits."""
