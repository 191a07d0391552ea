"""A disk as its operators see it: figures, health, and the act that ends its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.disk._watch import Condition
from outlast.extend import Act, Figure, Lag, SystemHealth, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.disk._disk import Disk

LOST = "lost"
"""The state of a disk that has ended."""


class ShownDisk:
    """The port of `outlast.extend` for one disk. Threads of the endpoint's read it, so it looks at values replaced whole."""

    system = "disk"

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    @property
    def name(self) -> str:
        """The name of the disk."""
        return self._disk.name

    def figures(self) -> Sequence[Figure]:
        """Return its room, how it changes, and what was done about it. What is not known is not shown."""
        disk, room, watch = self._disk, self._disk.room, self._disk.watch
        at = room.read_at
        return [
            Figure.gauge("available", "Bytes that may be written.", _known(room.available_bytes), unit=Unit.BYTES, read_at=at),
            Figure.gauge("size", "Bytes of the whole disk.", _known(room.total_bytes), unit=Unit.BYTES, read_at=at),
            Figure.gauge("available_inodes", "Files that may be made.", _known(room.available_inodes), read_at=at),
            Figure.gauge("filled_a_second", "Bytes by which it fills.", room.filling_bytes_s, unit=Unit.BYTES, read_at=at),
            Figure.gauge("full_in", "Time until it is full.", _known(room.full_in_s), unit=Unit.SECONDS, read_at=at),
            Figure.gauge("reserve", "Bytes that are kept for clean-up.", disk.reserve.held_bytes, unit=Unit.BYTES),
            Figure.counter("transitions", "Changes of its condition.", watch.transitions),
            Figure.counter("probes", "Writes that were to prove that it takes any.", disk.probes),
            Figure.states("condition", "How it is; 1 for the present one.", watch.condition, read_at=at),
        ]

    def health(self) -> SystemHealth:
        """Return how it is: not known before the first look, and while it does not answer."""
        disk, watch = self._disk, self._disk.watch
        if disk.is_lost:
            return SystemHealth(False, LOST, disk.fault, disk.health.opened_at)
        if watch.condition is Condition.UNKNOWN:
            return SystemHealth(None, watch.condition.value, disk.fault, watch.since)
        if not disk.passable:
            # Well as far as room goes, but no write has proved it yet.
            state = "not proved" if watch.condition is Condition.WELL else watch.condition.value
            return SystemHealth(False, state, disk.fault, disk.health.opened_at)
        return SystemHealth(watch.condition is Condition.WELL, watch.condition.value, None, watch.since)

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> Sequence[Act]:
        """Return the act by which a disk that has ended is used again."""
        text = "Asks a disk that was ended by an error whether it can be written again. Mend it first."
        return [Act("use the disk again", text, self._use_again, concerns=int(self._disk.is_lost))]

    async def _use_again(self) -> int:
        if not self._disk.is_lost:
            return 0
        self._disk.try_again()
        return 1


def _known(value: float | None) -> float | Mapping[str, float]:
    return {} if value is None else value
