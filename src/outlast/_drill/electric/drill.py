"""The electric drill: a change stream loses its slot, its lock or its owner, beside other loops of the same service."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.electric import promises as electric_promises
from outlast._drill.electric.faults import SLOT_FAULTS, SlotFault
from outlast._drill.electric.figures import COLUMNS, SERIES, StreamArm, describe
from outlast._drill.electric.run import StreamRun
from outlast._drill.lab.drills import Drill
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.options import ArmKind, DrillOptions
from outlast._drill.shown.figures import loops_and_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_S = 10.0
"""A change that has not come this many seconds after the last one is lost. The longest wait of the arm *backoff* is the same."""

_ARMS = "outlast._drill.electric.arms."

ELECTRIC_ARMS: Mapping[str, ArmKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            ArmKind("naive", "the server of the incident: restarted at once, forever", _ARMS + "naive", grace_s=GRACE_S),
            ArmKind("backoff", "the stream alone, after 2, 4, 8, 10 s, reset by each login", _ARMS + "backoff", grace_s=GRACE_S),
            ArmKind("outlast", "outlast.changes", _ARMS + "outlast_changes", grace_s=GRACE_S),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectricOptions(DrillOptions):
    """Choices of the person who starts the drill. The server is always the drill's own: a slot left behind fills a disk."""

    drill: ClassVar[str] = "electric"
    kinds: ClassVar[Mapping[str, ArmKind]] = ELECTRIC_ARMS
    faults: ClassVar[Mapping[str, type[SlotFault]]] = SLOT_FAULTS

    fault: str = "slot-taken"
    loops: int = 20
    arms: tuple[str, ...] = tuple(ELECTRIC_ARMS)

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run."""
        DrillOptions.validate(self)
        if self.warmup_s == 0:
            msg = "the warm-up must be above 0: the other loops are compared with what they did in it"
            raise DrillUsageError(msg)


ELECTRIC: Drill[ElectricOptions, StreamArm] = Drill(
    arm_run=lambda options, name, observer, cancel: StreamRun(options, ELECTRIC_ARMS[name], observer, cancel),
    check=electric_promises.check,
    stormed=electric_promises.stormed,
    columns=COLUMNS,
    series=SERIES,
    describe=describe,
    load=loops_and_jobs,
)
