"""The faults of the fluvio drill: what happens to a small disk that a log lies on."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.lab.errors import DrillError
from outlast._drill.lab.faults import Pause, StagedFault

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from random import Random

    from outlast._drill.fluvio.producers import Producers
    from outlast.testing import DiskKind, SmallDisk

FILL_S_MAX = 90.0
TAKE_S_MAX = 10.0
MEANWHILE_BYTES = 512 << 10
REST_BYTES = 16 << 10
"""Less than the blocks of a record and of the metadata of an ext4 that nobody else can use."""
LEFT_BYTES_MIN = 8 << 20
"""On a small disk the producers fill more of it: an arm is to begin above the levels at which it stops, and goes on again."""
SWING_BYTES = 1 << 20
HALF_SWING_S = 1.0
FOLLOW_S = 0.05
"""The neighbour follows what the producers have written since, twenty times a second."""


@dataclass(slots=True)
class DiskStage:
    """The disk of one arm, and those who write to it."""

    disk: SmallDisk
    producers: Producers
    level_bytes: int
    """The bytes available below which the arm takes no more."""
    refused: threading.Event
    """Set once a producer has been refused."""
    pause: Pause


class DiskFault(StagedFault[DiskStage]):
    """One way to lose a disk."""

    kinds: ClassVar[tuple[DiskKind, ...]] = ("tmpfs", "ext4")
    """The disks on which it can be staged; the first is the default."""
    stops_all: ClassVar[bool] = True
    """Whether nothing at all can be stored while it lasts."""

    filled_share: ClassVar[float] = 0.0
    """The part of the disk that the producers fill before it begins."""

    def prepare(self, disk: SmallDisk) -> None:
        """Lay what it needs on the disk before the arm starts."""

    def lead_up(self, stage: DiskStage) -> None:
        """Bring the disk to the brink, as far as that is not the fault yet."""


class Full(DiskFault):
    """The producers fill the quarter of the disk that a neighbour has left; later the neighbour goes."""

    name = "full"
    summary = "the producers fill the disk; a neighbour's three quarters of it are freed later"
    filled_share = 0.25

    def prepare(self, disk: SmallDisk) -> None:
        """Take the rest of it."""
        disk.fill(leave_bytes=max(int(disk.size_bytes * self.filled_share), LEFT_BYTES_MIN))

    def lead_up(self, stage: DiskStage) -> None:
        """Let them write as fast as they are let, until one is refused."""
        stage.producers.unleash()
        deadline_s = time.monotonic() + FILL_S_MAX
        while not stage.refused.is_set():
            if time.monotonic() > deadline_s:
                msg = f"the producers did not fill the disk within {FILL_S_MAX:g} s: {stage.disk.available_bytes} bytes are left"
                raise DrillError(msg)
            stage.pause(0.005)
        stage.producers.rein_in()

    def end(self, stage: DiskStage) -> None:
        """Free the neighbour's part."""
        stage.disk.free()

    def over(self, stage: DiskStage) -> bool:
        """Return whether there is room again."""
        return stage.disk.available_bytes >= stage.disk.size_bytes // 4


class FullAtOnce(Full):
    """A neighbour takes all that is left in one call; later it goes."""

    name = "full-at-once"
    summary = "a neighbour takes the rest of the disk in one call, and goes later"
    filled_share = 0.0

    def prepare(self, disk: SmallDisk) -> None:
        """Leave the disk as it is."""

    def lead_up(self, stage: DiskStage) -> None:
        """Leave the disk as it is."""

    def begin(self, stage: DiskStage) -> None:
        """Take it, but for a little that the producers may write meanwhile: a call that finds less than it asks for takes none.

        The rest is then taken quickly enough that nobody comes between.
        """
        stage.disk.fill(leave_bytes=MEANWHILE_BYTES)
        deadline_s = time.monotonic() + TAKE_S_MAX
        while stage.disk.available_bytes >= REST_BYTES:
            if time.monotonic() > deadline_s:
                msg = f"the disk could not be filled within {TAKE_S_MAX:g} s: {stage.disk.available_bytes} bytes are available"
                raise DrillError(msg)
            stage.disk.fill()


class Oscillating(FullAtOnce):
    """A neighbour keeps what is available within 1 MiB of the arm's threshold: a second below it, a second above."""

    name = "oscillating"
    summary = "what is available swings by 1 MiB around the arm's threshold, a second below it, a second above"
    stops_all = False

    def begin(self, stage: DiskStage) -> None:
        """Begin below it."""
        self._leave(stage, 0.0)

    def sustain(self, stage: DiskStage, until_s: float, pause: Pause, rng: Random) -> None:
        """Swing."""
        del rng
        began_s = time.monotonic()
        while (left_s := until_s - time.monotonic()) > 0:
            self._leave(stage, time.monotonic() - began_s)
            pause(min(FOLLOW_S, left_s))

    @staticmethod
    def _leave(stage: DiskStage, passed_s: float) -> None:
        above = int(passed_s / HALF_SWING_S) % 2
        stage.disk.fill(leave_bytes=max(0, stage.level_bytes + (SWING_BYTES if above else -SWING_BYTES)))


class ReadOnly(DiskFault):
    """The disk takes no changes from now on, as an ext4 after an error of its own. It stays so."""

    name = "read-only"
    summary = "the disk refuses every change (EROFS), and stays so"
    kinds = ("ext4", "faulty")
    heals = False

    def begin(self, stage: DiskStage) -> None:
        """Stop it."""
        stage.disk.read_only()


class InputOutputError(DiskFault):
    """Every write and every sync fails, as on a device that is dying."""

    name = "eio"
    summary = "every write and sync of the disk fails (EIO), until the end"
    kinds = ("faulty",)
    heals = False

    def begin(self, stage: DiskStage) -> None:
        """Let them fail."""
        for call in ("write", "fsync", "allocate"):
            stage.disk.fail(call, errno.EIO)

    def end(self, stage: DiskStage) -> None:
        """Let the disk work again."""
        stage.disk.heal()


DISK_FAULTS: Mapping[str, type[DiskFault]] = MappingProxyType(
    {fault.name: fault for fault in (Full, FullAtOnce, Oscillating, ReadOnly, InputOutputError)}
)
