"""The ticket of a piece of work that is in: one slot, from the instant at which it came in to the one at which it is done."""

from __future__ import annotations

import enum
from typing import Any


class TicketState(enum.Enum):
    """The state of a ticket. All are set by the admitter, and none outlives the process."""

    HELD = "held"
    """It holds a slot."""
    PARKED = "parked"
    """It waits for something to happen, and holds none: a long poll, an event stream."""
    GONE = "gone"
    """It was given back. Giving it back again changes nothing."""


class Ticket:
    """A slot that is held. Made and changed by the admitter alone.

    It has no `__init__`, since one is made for all work that comes in: setting the fields where it is made costs half as much.
    """

    __slots__ = ("began_at", "critical", "holder", "in_flight_at_start", "key", "size_bytes", "state", "tenant")

    tenant: str
    key: str
    began_at: float
    in_flight_at_start: int
    """The tickets that were held when it came in, itself included."""
    size_bytes: int
    critical: bool
    """Whether its work is critical, so that it may be one beyond the limit."""
    state: TicketState
    holder: Any
    """The caller's own: the one who made the admitter."""
