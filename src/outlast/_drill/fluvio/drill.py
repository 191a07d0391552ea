"""The fluvio drill: the disk under a log runs full, or fails, while producers push."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.fluvio import promises as fluvio_promises
from outlast._drill.fluvio.audit import ids_of_lines
from outlast._drill.fluvio.faults import DISK_FAULTS, DiskFault
from outlast._drill.fluvio.figures import COLUMNS, SERIES, LogArm, describe, load
from outlast._drill.fluvio.http_wire import HttpTalk
from outlast._drill.fluvio.run import LogKind, LogRun
from outlast._drill.fluvio.stored_ids import ids_of_rakaia, ids_of_stream
from outlast._drill.lab.drills import Drill
from outlast._drill.lab.errors import DrillSkipped, DrillUsageError
from outlast._drill.lab.options import DrillOptions
from outlast.disk import Thresholds
from outlast.testing import SmallDisk, SmallDiskError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.testing import DiskKind

SIZE_MIB_MIN = 16
"""Below, the swing of 1 MiB is larger than the threshold of a small disk."""
WARMUP_S = 3.0
COOLDOWN_S = 5.0
"""Appends are promised to be back within 2 s."""
START_S = 3.0
"""Making a disk, starting an arm on it, draining and stopping it take less than this."""
FILL_MIB_S = 4.0
"""The speed at which eight producers of records of 1 KiB fill a disk, on two processors that have more to do."""
_ARMS = "outlast._drill.fluvio.arms."


def _level(size: int) -> int:
    return Thresholds().levels(size).enter


LOG_ARMS: Mapping[str, LogKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            LogKind("naive", "each request is tried on the disk, each failure is logged", _ARMS + "naive", ids=ids_of_lines),
            LogKind("fluvio-fixed", "a flag set at the first error, never cleared", _ARMS + "fluvio_fixed", ids=ids_of_lines),
            LogKind("outlast", "outlast.streams", _ARMS + "outlast_streams", ids=ids_of_stream, level_bytes=_level),
            LogKind(
                "outlast-http",
                "outlast.streams behind its node, over HTTP",
                _ARMS + "outlast_node",
                needs="uvicorn",
                ids=ids_of_stream,
                level_bytes=_level,
                talk=HttpTalk,
            ),
            LogKind(
                "rakaia",
                "the server of rakaia-streams on its store of files, over HTTP",
                _ARMS + "rakaia_server",
                needs="rakaia",
                ids=ids_of_rakaia,
                talk=HttpTalk,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FluvioOptions(DrillOptions):
    """Choices of the person who starts the drill."""

    drill: ClassVar[str] = "fluvio"
    kinds: ClassVar[Mapping[str, LogKind]] = LOG_ARMS
    faults: ClassVar[Mapping[str, type[DiskFault]]] = DISK_FAULTS
    workers: ClassVar[str] = "producers"

    fault: str = "full"
    loops: int = 8
    warmup_s: float = WARMUP_S
    cooldown_s: float = COOLDOWN_S
    arms: tuple[str, ...] = tuple(LOG_ARMS)
    disk: DiskKind | None = None
    """The kind of disk; None: the first on which the fault can be staged."""
    size_mib: int = 64

    @property
    def disk_kind(self) -> DiskKind:
        """The kind of disk that is used."""
        return self.disk or DISK_FAULTS[self.fault].kinds[0]

    @property
    def size_bytes(self) -> int:
        """The size of the disk."""
        return self.size_mib << 20

    @property
    def more(self) -> str:
        """The options that the command has in this drill only."""
        return f" --disk {self.disk_kind} --size {self.size_mib}"

    @property
    def setup_s(self) -> float:
        """Seconds that an arm takes besides: the producers fill a part of the disk."""
        return START_S + self.size_mib * DISK_FAULTS[self.fault].filled_share / FILL_MIB_S

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run, and DrillSkipped where no such disk can be made."""
        DrillOptions.validate(self)
        kinds = DISK_FAULTS[self.fault].kinds
        if self.disk_kind not in kinds:
            msg = f"fault {self.fault!r} cannot be staged on a disk of kind {self.disk!r}; choose {' or '.join(kinds)}"
            raise DrillUsageError(msg)
        if self.size_mib < SIZE_MIB_MIN:
            msg = f"a disk of {self.size_mib} MiB is too small for this drill; choose at least {SIZE_MIB_MIN}"
            raise DrillUsageError(msg)
        if (reason := SmallDisk.available(self.disk_kind)) is not None:
            others = [kind for kind in kinds if kind != self.disk_kind]
            raise DrillSkipped(reason + (f"; try --disk {' or '.join(others)}" if others else ""))


def command_with_rights(command: Sequence[str]) -> list[str] | None:
    """Return the command that runs `command` where it may mount a disk; None if this process may. Raises DrillSkipped."""
    if sys.platform != "linux":
        msg = f"a small disk needs Linux, this is {sys.platform}"
        raise DrillSkipped(msg)
    if os.geteuid() == 0:
        return None
    try:
        return SmallDisk.command(command)
    except SmallDiskError as exc:
        msg = f"mounting a small disk needs root or a user namespace: {exc}"
        raise DrillSkipped(msg) from exc


FLUVIO: Drill[FluvioOptions, LogArm] = Drill(
    arm_run=lambda options, name, observer, cancel: LogRun(options, LOG_ARMS[name], observer, cancel),
    check=fluvio_promises.check,
    compare=fluvio_promises.compare,
    stormed=fluvio_promises.stormed,
    columns=COLUMNS,
    series=SERIES,
    describe=describe,
    load=load,
    proven=("outlast", "outlast-http"),
    measured="its output pipe, the kernel's accounts of it, what its clients were told, and what its log holds at the end",
)
