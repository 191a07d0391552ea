"""The ticket of a piece of work that is in: one slot, from the instant at which it came in to the one at which it is done."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast._core.admission.queue import KeyShare


class TicketState(enum.Enum):
    """The state of a ticket. All are set by the admitter, and none outlives the process."""

    HELD = "held"
    """It holds a slot."""
    PARKED = "parked"
    """It waits for something to happen, and holds none: a long poll, an event stream."""
    GONE = "gone"
    """It was given back. Giving it back again changes nothing."""


class Ticket:
    """A slot that is held. Made and changed by the admitter alone; a plain class, since it is made for every piece of work."""

    __slots__ = ("began_at", "cost", "critical", "holder", "in_flight_at_start", "memory_mark", "share", "size_bytes", "state")

    def __init__(
        self,
        share: KeyShare,
        began_at: float,
        in_flight_at_start: int,
        cost: float,
        size_bytes: int,
        critical: bool,  # noqa: FBT001 - positional in the hot path
    ) -> None:
        self.share = share
        self.began_at = began_at
        self.in_flight_at_start = in_flight_at_start
        self.cost = cost
        self.size_bytes = size_bytes
        self.critical = critical
        self.state = TicketState.HELD
        self.memory_mark = 0
        """When its `size_bytes` were counted as used, in samples of memory."""
        self.holder: Any = None
        """The caller's own."""
