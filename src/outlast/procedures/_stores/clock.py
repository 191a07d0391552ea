"""The clock of a store whose server tells no time, or that has none: it goes on evenly whatever is done to a machine's clock.

Among machines the one that is ahead is followed: whoever sees a later time than its own goes on from there. A machine that comes
to runners that live takes their time, whatever its own clock says.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class KeptClock(NamedTuple):
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
    slept counts. It never goes back in one process.
    """

    def __init__(self) -> None:
        self.boot: Final = self.boot_id()
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

    def adopt(self, kept: KeptClock | None, live: Sequence[float] = ()) -> KeptClock:
        """Go on from what is kept in the store; return what is to be kept from now on.

        `live` are the present times of runners on other machines.
        """
        if kept is not None and self.boot and kept.boot_id == self.boot:
            self._offset_s = kept.offset_s
        elif live:
            self._offset_s = max(live) - self.since_start()
        else:
            self._offset_s = self.wall() - self.since_start()
        self.follow(max([0.0 if kept is None else kept.seen_at, *live]))
        return self.kept()

    def follow(self, at: float) -> None:
        """Go on from a time that somebody else has come to, if that is later."""
        self._offset_s = max(self._offset_s, at - self.since_start())

    def kept(self) -> KeptClock:
        """Return what is to be kept in the store."""
        return KeptClock(self.boot, self._offset_s, self.now())

    def now(self) -> float:
        """Return the store's time. From any thread."""
        return self.since_start() + self._offset_s
