"""A fault that a drill stages, and the moments of one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from random import Random

ACCEPT_POLL_S = 0.005
"""Seconds between two questions of the harness whether clients can work again: the error of every recovery time."""

Pause = Callable[[float], None]
"""Waits that many seconds, or raises DrillCancelled earlier."""


T = TypeVar("T")


class StagedFault(Generic[T]):
    """One way to break a T. `begin` breaks, `sustain` lasts, `end` mends, `over` says whether clients can work."""

    name: ClassVar[str]
    summary: ClassVar[str]
    heals: ClassVar[bool] = True
    """Whether work is to go on afterwards."""

    def begin(self, target: T, /) -> None:
        """Break it."""

    def sustain(self, target: T, /, until_s: float, pause: Pause, rng: Random) -> None:
        """Keep it broken until that monotonic time."""
        del target, rng
        pause(max(0.0, until_s - time.monotonic()))

    def end(self, target: T, /) -> None:
        """Mend it; return when the repair is made, which may be after the first client got in."""

    def over(self, target: T, /) -> bool:
        """Return whether a client that comes now can work."""
        del target
        return True


@dataclass(frozen=True, slots=True)
class Outage:
    """The moments of one fault: begun, complete, repair begun, and clients able to work again (monotonic)."""

    began_s: float
    broken_s: float
    mended_s: float
    accepted_s: float

    @property
    def accepted_ns(self) -> int:
        """The moment of acceptance in the work log's unit."""
        return int(self.accepted_s * 1e9)


def mend(fault: StagedFault[T], target: T, pause: Pause, limit_s: float = 60.0) -> float:
    """End the fault; return the monotonic time at which clients could work, which is asked every 5 ms.

    The repair runs in a thread of its own, because a server lets clients in before its launcher notices.
    """
    failures: list[BaseException] = []

    def repair() -> None:
        try:
            fault.end(target)
        except BaseException as exc:  # noqa: BLE001  handed to the caller below
            failures.append(exc)

    thread = threading.Thread(target=repair, name="drill-mend")
    thread.start()
    deadline_s = time.monotonic() + limit_s
    try:
        while not fault.over(target):
            if failures:
                raise failures[0]
            if time.monotonic() > deadline_s:
                msg = f"clients could not work within {limit_s:g} s after the fault {fault.name!r} was mended"
                raise TimeoutError(msg)
            pause(ACCEPT_POLL_S)
        return time.monotonic()
    finally:
        thread.join()
