"""The calls that may be under way at once; the others wait in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._core.faults import Fault, Kind, OutlastError, Scope
from outlast._runtime.adapter.line import Line

if TYPE_CHECKING:
    from collections.abc import Callable


class Slots:
    """At most `limit` are taken, and at most `waiters_max` wait. On the event loop's thread only.

    The pools of the libraries have a limit as well. This one is in front of it so that the time a call waits here is off its
    deadline before that is written into the request, and that those who wait are refused when the peer goes down.
    """

    def __init__(self, name: str, limit: int, waiters_max: int) -> None:
        self.name = name
        self.limit = limit
        self.waiters_max = waiters_max
        self._free = limit
        self._line: Line[None] = Line(lambda _: self.give_back())

    async def take(self, timeout_s: float | None) -> None:
        """Take a slot, or wait for one. Raises `OutlastError` (OVERLOADED, this call's) after so long, or when too many wait."""
        if self._free > 0:
            self._free -= 1
            return
        if len(self._line) >= self.waiters_max:
            raise self._none_free(f"{self.waiters_max} others wait")
        await self._line.wait(self._line.join(), timeout_s, lambda: self._none_free(f"waited {timeout_s:g} s"))

    def give_back(self) -> None:
        """Hand the slot to the first who waits."""
        if not self._line.give(None):
            self._free += 1

    def refuse(self, error: Callable[[], BaseException]) -> None:
        """Raise an error of its own in everyone who waits."""
        self._line.refuse(error)

    def _none_free(self, seen: str) -> OutlastError:
        text = f"all {self.limit} connections to {self.name} are in use ({seen}): raise connections_max, or ask for less"
        return OutlastError(text, Fault(Kind.OVERLOADED, "no connection", text, self.name, Scope.CALL))
