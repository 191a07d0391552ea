"""The lease of this runner as it knows it by itself, also when the store does not answer or the process was stopped."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Stop

SHARE: Final = 0.9
"""Of the lease: after it the steps are told to end, so that they have ended when another runner may take over."""


def boottime() -> float:
    """Return seconds that go on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The time until which no other runner may have what this one has.

    The store counts the lease from when it met the heartbeat, which is later than when this runner sent it: so it is over here
    before it is over there. Called on the event loop's thread only.
    """

    def __init__(self, lease_s: float, lost: Callable[[], None]) -> None:
        """`lost` is called when it is over, once each time."""
        self.lease_s = lease_s
        self.losses = 0
        self._lost = lost
        self._until = float("-inf")
        self._held = False
        self._changed = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether it is still ours."""
        return boottime() < self._until

    def now(self) -> float:
        """Return the time to hand to `renewed`: take it before the heartbeat is sent."""
        return boottime()

    def renewed(self, asked_at: float) -> None:
        """Count the lease from `asked_at`: a reply that came too late renews nothing. If it had been over, that is told first."""
        self.look()
        self._until = max(self._until, asked_at + self.lease_s * SHARE)
        if self.is_held:
            self._held = True
            self._changed.set()

    def look(self) -> None:
        """Call `lost` if it is over and that was not told."""
        if self._held and not self.is_held:
            self._held = False
            self.losses += 1
            self._lost()

    async def watch(self, stop: Stop) -> None:
        """Look at the moment when it is over, until the stop."""
        while not stop.requested:
            self._changed.clear()
            with suppress(TimeoutError):
                async with stop.timeout(max(0.0, self._until - boottime()) + 0.001 if self._held else None):
                    await self._changed.wait()
            self.look()
