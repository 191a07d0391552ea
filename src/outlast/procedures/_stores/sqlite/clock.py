"""The clock of a store that has no server: it goes on evenly whatever is done to the machine's clock, and never goes back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Kept(NamedTuple):
    """The part of the clock that lies in the store."""

    boot_id: str
    offset_s: float
    """The store's time is the time since the machine's start plus this."""
    seen_at: float
    """A moment of the store's time that has surely passed."""


class StoreClock:
    """Seconds since 1970, counted by CLOCK_BOOTTIME: the same in all processes of a machine until it is started again.

    The machine's clock decides once, when a store is made, and after each start of the machine unless it is behind then. So a
    wait of 60 s ends after 60 s, also if the clock was set back an hour or the process was killed meanwhile; that the machine
    slept counts.
    """

    def __init__(self) -> None:
        self._offset_s = self.wall() - self.since_start()

    def since_start(self) -> float:
        """Return the seconds since the machine's start, with those that it slept."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return what the machine's clock says."""
        return time.time()

    def boot_id(self) -> str:
        """Return what names this run of the machine; "" where it is not known: then each process that opens decides again."""
        try:
            return BOOT_ID.read_text("ascii").strip()
        except OSError:
            return ""

    def adopt(self, kept: Kept | None) -> Kept:
        """Go on from what is kept in the store; return what is to be kept from now on."""
        boot_id = self.boot_id()
        if kept is not None and boot_id and kept.boot_id == boot_id:
            self._offset_s = kept.offset_s
        else:
            self._offset_s = max(self.wall(), kept.seen_at if kept is not None else 0.0) - self.since_start()
        return Kept(boot_id, self._offset_s, self.now())

    def now(self) -> float:
        """Return the store's time. From any thread."""
        return self.since_start() + self._offset_s
