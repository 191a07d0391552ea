"""The clock of a store whose server tells no time: that of the machine since its boot, and what has to be added to it.

A step of the wall clock changes nothing while a machine is up. Among machines the one that is ahead is followed: a runner writes
its time with each heartbeat, and whoever sees one that is later than its own goes on from there. A machine that comes to live
runners takes theirs, whatever its wall clock says; one that comes alone goes on from the time that was last seen, or from its
wall clock if that is later.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class StoreClock:
    """Seconds since 1970, as all processes of a store count them. Never goes back in one process."""

    def __init__(
        self,
        *,
        boot: str | None = None,
        up_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`boot` names the time that the machine has been up, `up_s` returns how long that is."""
        self.boot = boot or _boot_id()
        self._up_s = up_s
        self._offset_s = wall() - up_s()

    def now(self) -> float:
        """Return the store's time."""
        return self._up_s() + self._offset_s

    def begin(self, kept: bytes | None, live: list[float]) -> None:
        """Go on from what is kept in the store; `live` are the present times of runners that live."""
        fields: dict[str, Any] = json.loads(kept) if kept else {}
        if fields.get("boot") == self.boot:
            self._offset_s = float(fields["offset"])
        elif live:
            self._offset_s = max(live) - self._up_s()
        self.follow(max([fields.get("at", 0.0), *live]))

    def follow(self, at: float) -> None:
        """Go on from a time that somebody else has come to, if that is later."""
        self._offset_s = max(self._offset_s, at - self._up_s())

    def kept(self) -> bytes:
        """Return what is kept in the store."""
        return json.dumps({"boot": self.boot, "offset": self._offset_s, "at": round(self.now(), 3)}).encode()


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Without one each process is a machine of its own.
        return f"process of {time.time()}"
