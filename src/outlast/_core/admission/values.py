"""The words of admission: how much work matters, why it is refused, and the refusal itself."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Criticality(enum.IntEnum):
    """The weight of a piece of work. Of two that cannot both come in, the lower value does."""

    CRITICAL = 0
    """Health checks, deletes, clean-up: what makes room, and what says how things are. It is never shed."""
    NORMAL = 1
    SHEDDABLE = 2
    """A refresh, a prefetch, a report: work that can be left out for a while. It goes first."""


class Reason(enum.Enum):
    """The check that refused a piece of work."""

    DEADLINE = "deadline"
    """It could not have been done in time."""
    RATE = "rate"
    """There are more of them, in all or of its key, than were agreed."""
    CONCURRENCY = "concurrency"
    """As much is under way, and waits, as can be done in time."""
    MEMORY = "memory"
    """The process is near the end of its memory."""
    SHARE = "share"
    """Its key or its tenant has its share of what is under way and of what waits; others do not."""


class Refusal(NamedTuple):
    """The answer to work that may not come in. It costs nobody anything, and the same work may come in later.

    `seen` and `limit` are what was compared, in the unit of the reason: seconds that it needs and has (deadline), tokens that it
    costs and that there are (rate), pieces of work (concurrency, share), bytes (memory). `retry_after_s`, jittered, is when it is
    worth coming back; None: never, the work itself is too large for the limit. (A tuple, since so many are made.)
    """

    reason: Reason
    seen: float
    limit: float
    retry_after_s: float | None
