"""Choices of the person who starts a drill, the same in every drill."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from outlast._drill.lab.errors import DrillUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._drill.lab.faults import StagedFault

SETUP_S = 6.0
"""Launching a server, starting an arm, draining and stopping it take about this long."""


@dataclass(frozen=True, slots=True)
class ArmKind:
    """One way to write the service."""

    name: str
    summary: str
    module: str
    needs: str | None = None
    grace_s: float = 5.0
    """Seconds to wait for progress, after the cool-down, before unfinished work is called lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillOptions:
    """One drill that can be run; the drill itself says which arms and faults there are."""

    drill: ClassVar[str]
    kinds: ClassVar[Mapping[str, ArmKind]]
    faults: ClassVar[Mapping[str, type[StagedFault[Any]]]]
    workers: ClassVar[str] = "loops"
    """The word for those whose number `loops` is."""

    fault: str
    loops: int
    arms: tuple[str, ...]
    outage_s: float = 20.0
    seed: int = 1
    warmup_s: float = 5.0
    cooldown_s: float = 10.0
    parallel: bool = False

    @property
    def command(self) -> str:
        """The command that repeats this drill."""
        times = f"--outage {self.outage_s:g}s --warmup {self.warmup_s:g}s --cooldown {self.cooldown_s:g}s"
        what = f"--fault {self.fault} --{self.workers} {self.loops} --arms {','.join(self.arms)} --seed {self.seed}"
        return f"outlast drill {self.drill} {times} {what}{' --parallel' if self.parallel else ''}{self.more}"

    @property
    def more(self) -> str:
        """The options that the command has in this drill only."""
        return ""

    @property
    def work_s(self) -> float:
        """Seconds that one job takes."""
        return 0.05

    @property
    def setup_s(self) -> float:
        """Seconds that an arm takes besides."""
        return SETUP_S

    @property
    def planned_s(self) -> float:
        """Seconds that the drill takes, roughly."""
        each_s = self.warmup_s + self.outage_s + self.cooldown_s + self.setup_s
        return each_s * (1 if self.parallel else len(self.arms))

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run."""
        if self.fault not in self.faults:
            msg = f"unknown fault {self.fault!r}; choose one of {', '.join(self.faults)}"
            raise DrillUsageError(msg)
        if not self.arms or len(set(self.arms)) < len(self.arms) or not set(self.arms) <= set(self.kinds):
            msg = f"arms {','.join(self.arms)!r}: name each of {', '.join(self.kinds)} at most once, separated by commas"
            raise DrillUsageError(msg)
        if self.outage_s <= 0 or self.warmup_s < 0 or self.cooldown_s < 0 or self.loops < 1:
            msg = f"outage and {self.workers} must be above 0, warm-up and cool-down not below"
            raise DrillUsageError(msg)
        for name in self.arms:
            needs = self.kinds[name].needs
            if needs is not None and importlib.util.find_spec(needs) is None:
                msg = f"arm {name!r} needs the package {needs}: pip install 'outlast[drill]', or leave it out with --arms"
                raise DrillUsageError(msg)
