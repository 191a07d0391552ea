"""The judgement of a disk: samples of its room in, its condition and the time of the next look out. No clock, no input or output.

    condition    entered when                                  left when
    WELL         all that is counted is at its level or above
    LOW_SPACE    bytes available fall below `enter`            they are at `leave` or above
    LOW_INODES   files that may be made fall below `enter`     they are at `leave` or above
    UNKNOWN      the disk did not say                          it says

`UNKNOWN` goes before the others, `LOW_SPACE` before `LOW_INODES`. Nothing outlives the process, and nothing waits for an edge:
the condition follows from the level that is seen and from one bit, for bytes and for inodes each: whether it was low. After a
start between the two levels a disk is well.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError
from outlast.extend import Levels

if TYPE_CHECKING:
    from outlast.extend import Room

MIB: Final = 1 << 20
SHARE_MAX: Final = 8
"""Of a small disk never more than an eighth is kept free, whatever the absolute level."""
SMALL: Final = 16
"""On a small disk a sixteenth of it lies between the two levels."""
LOOK_S_MIN: Final = 0.05
LOOK_S_MAX: Final = 1.0
LOOK_S_MAX_LOW: Final = 0.5
"""While a disk is not well: who waits for room is to go on within 2 s of it."""
BYTES_S: Final = 256 * MIB
"""The speed at which a disk is taken to be filled at any time, though nothing was seen yet: that of a good SATA disk. At twice
this the next look comes when half of the way to the level may be gone: 1 s at 512 MiB above it, 50 ms at 25 MiB."""
INODES_S: Final = 20_000
"""As `BYTES_S`: one process makes about so many files a second."""
FADING_S: Final = 2.0
"""The time after which an older speed has a third of its weight: long enough that a burst is no trend."""
APART_S: Final = 0.02
"""Looks that are closer together say nothing about a speed: one write lies between them or does not."""


class Condition(enum.Enum):
    """The condition of a disk. See the table at the top of this file."""

    WELL = "well"
    LOW_SPACE = "low space"
    LOW_INODES = "low inodes"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A pair of levels that fit the size of a disk: writing stops below the lower one, and goes on at the upper one.

    The lower one is `share` of the disk, at least `least` and at most `most`, but never above an eighth of it. The upper one
    lies `band_share` of the lower one above it and at least `band`, of which on a small disk five eighths are enough, but never
    above half of the disk. Bytes, or files. Raises `ConfigurationError`.
    """

    share: float = 0.05
    least: int = 4 * MIB
    most: int = 1024 * MIB
    band_share: float = 0.5
    band: int = 4 * MIB

    def __post_init__(self) -> None:
        if not (0 <= self.share < 1 and 0 <= self.least <= self.most and self.band_share >= 0 and self.band >= 1):
            msg = (
                "thresholds of a disk need 0 <= share < 1, 0 <= least <= most, band_share >= 0 and band >= 1, not "
                f"share={self.share}, least={self.least}, most={self.most}, band_share={self.band_share}, band={self.band}"
            )
            raise ConfigurationError(msg)

    def levels(self, total: int | None) -> Levels:
        """Return the two levels of a disk of this size; None: it is not known."""
        if total is None:
            return Levels(self.least, self.least + self.band)
        enter = min(max(int(total * self.share), self.least), self.most, total // SHARE_MAX)
        band = max(int(enter * self.band_share), min(self.band, max(total // SMALL, self.band * 5 // 8)))
        return Levels(enter, max(enter + 1, min(enter + band, total // 2)))


BYTES_LOW: Final = Thresholds()
"""5 %, between 4 MiB and 1 GiB. The 4 MiB to the upper level (2.5 MiB on disks up to 40 MiB) are more than twice the swing of
1 MiB to each side that writers and their clean-up make around a level."""
INODES_LOW: Final = Thresholds(share=0.01, least=16, most=100_000, band_share=1.0, band=16)
"""1 %, at least 16: a service that rolls files over makes a handful at a time. Writing goes on at twice that."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer of the disk. Without `room` it did not say, for this `reason`; `hangs`: it has not answered at all."""

    at: float
    room: Room | None
    reason: str = ""
    hangs: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """Bytes that may be written without asking the disk again, and for how long."""

    left_bytes: int
    """Down to the lower level."""
    band_bytes: int
    """Between the levels: as long as so much is left the level is far."""
    near_until: float
    far_until: float

    def covers(self, size: int, now: float) -> bool:
        """Return whether `size` bytes in all fit, as far as is still known."""
        left = self.left_bytes - size
        return left >= 0 and now < (self.far_until if left >= self.band_bytes else self.near_until)


@dataclass(frozen=True, slots=True)
class Rules:
    """The levels of one disk: fixed, or such as fit its size."""

    space: Thresholds | Levels = BYTES_LOW
    inodes: Thresholds | Levels = INODES_LOW

    def space_levels(self, room: Room) -> Levels:
        """Return the levels of the bytes."""
        return self.space if isinstance(self.space, Levels) else self.space.levels(room.total_bytes)

    def inode_levels(self, room: Room) -> Levels:
        """Return the levels of the inodes."""
        return self.inodes if isinstance(self.inodes, Levels) else self.inodes.levels(room.total_inodes)


@dataclass(frozen=True, slots=True)
class Watch:
    """All that is known of a disk, after the last sample. Times are on the clock of the caller."""

    rules: Rules = field(default_factory=Rules)
    condition: Condition = Condition.UNKNOWN
    since: float | None = None
    """The time of the first sample of this condition; None before the first of all."""
    reason: str = "it was not looked at yet"
    """Of `UNKNOWN`, as that of the sample."""
    hangs: bool = False
    room: Room | None = None
    """The last room that was seen, however long ago: at `read_at`."""
    read_at: float | None = None
    transitions: int = 0
    """Changes of the condition, but for the first."""
    filling_bytes_s: float = 0.0
    """The speed at which room goes, over some seconds; below 0 it comes back."""
    low_space: bool = False
    low_inodes: bool = False
    measured_at: float | None = None
    """The time and the bytes from which the speed is measured, and the last speed by itself."""
    measured_bytes: int = 0
    speed_bytes_s: float = 0.0

    def after(self, sample: Sample) -> Watch:
        """Return what is known after one more sample."""
        room = sample.room
        if room is None:
            return self.entered(Condition.UNKNOWN, sample)
        inodes = room.available_inodes
        low_space = self.rules.space_levels(room).is_low(room.available_bytes, was_low=self.low_space)
        # None: this disk does not count its files, which is not the same as that none is left.
        low_inodes = inodes is not None and self.rules.inode_levels(room).is_low(inodes, was_low=self.low_inodes)
        condition = Condition.LOW_SPACE if low_space else Condition.LOW_INODES if low_inodes else Condition.WELL
        seen = replace(self._measured(sample.at, room.available_bytes), room=room, read_at=sample.at)
        seen = replace(seen, low_space=low_space, low_inodes=low_inodes)
        return seen.entered(condition, sample)

    def full(self, now: float) -> Watch:
        """Return what is known once a write has come too near to the lower level: writing goes on at the upper one."""
        return replace(self, low_space=True).entered(Condition.LOW_SPACE, Sample(now, self.room))

    @property
    def left_bytes(self) -> int:
        """Bytes that may be written until the lower level is reached; below 0 it is passed."""
        return 0 if self.room is None else self.room.available_bytes - self.rules.space_levels(self.room).enter

    def allowance(self) -> Allowance | None:
        """Return what may be written on the strength of the last sample; None: nothing, the disk has to be asked."""
        if self.room is None or self.read_at is None or self.condition is not Condition.WELL:
            return None
        # The next look comes before half of the way to the level can be gone, so far from it a look holds for two waits.
        return Allowance(self.left_bytes, self.band_bytes, self.read_at + LOOK_S_MIN, self.read_at + 2 * self.next_look_s)

    @property
    def band_bytes(self) -> int:
        """Bytes between the two levels."""
        if self.room is None:
            return 0
        levels = self.rules.space_levels(self.room)
        return levels.leave - levels.enter

    @property
    def full_in_s(self) -> float | None:
        """Seconds until nothing is available at the present speed; None if it does not fill, or is not known."""
        if self.room is None or self.condition is Condition.UNKNOWN or self.filling_bytes_s < 1.0:
            return None
        return max(0, self.room.available_bytes) / self.filling_bytes_s

    @property
    def next_look_s(self) -> float:
        """Seconds until the next look: half of the time in which the level that comes next may be reached."""
        longest = LOOK_S_MAX if self.condition is Condition.WELL else LOOK_S_MAX_LOW
        if self.room is None or self.condition is Condition.UNKNOWN:
            return longest
        space, inodes = self.rules.space_levels(self.room), self.rules.inode_levels(self.room)
        speed = max(BYTES_S, self.filling_bytes_s, self.speed_bytes_s)
        wait_s = _distance(space, self.room.available_bytes, self.low_space) / (2 * speed)
        if self.room.available_inodes is not None:
            wait_s = min(wait_s, _distance(inodes, self.room.available_inodes, self.low_inodes) / (2 * INODES_S))
        return min(longest, max(LOOK_S_MIN, wait_s))

    def entered(self, condition: Condition, sample: Sample) -> Watch:
        """Return it in this condition, from the sample on if it is another one."""
        if condition is self.condition and self.since is not None:
            return replace(self, reason=sample.reason, hangs=sample.hangs)
        changes = self.transitions + (self.since is not None)
        return replace(self, condition=condition, since=sample.at, reason=sample.reason, hangs=sample.hangs, transitions=changes)

    def _measured(self, now: float, available: int) -> Watch:
        if self.measured_at is None:
            return replace(self, measured_at=now, measured_bytes=available)
        took_s = now - self.measured_at
        if took_s < APART_S:
            return self
        speed = (self.measured_bytes - available) / took_s
        weight = 1 - math.exp(-took_s / FADING_S)
        filling = self.filling_bytes_s + weight * (speed - self.filling_bytes_s)
        return replace(self, measured_at=now, measured_bytes=available, speed_bytes_s=speed, filling_bytes_s=filling)


def _distance(levels: Levels, available: int, low: bool) -> int:  # noqa: FBT001 - the state, not an option
    return max(0, levels.leave - available if low else available - levels.enter)
