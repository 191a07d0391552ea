"""The phases of a stop, their deadlines, and the exit code that a stop ends in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(enum.Enum):
    """The parts of a stop, in their order. Each is left at its own deadline, whoever has not finished."""

    REFUSE = "refuse"
    """Readiness is false and new work is refused; listeners close."""
    DRAIN = "drain"
    """Work that is under way may finish: running bodies, whoever is inside the gate, child services with all their phases."""
    FLUSH = "flush"
    """Durable state is written."""
    CLOSE = "close"
    """Connections are closed."""
    REPORT = "report"
    """One line reports what did not finish."""


LEAVE_BY: Final[Mapping[Phase, float]] = {
    Phase.REFUSE: 0.05,
    Phase.DRAIN: 0.88,
    Phase.FLUSH: 0.96,
    Phase.CLOSE: 1.0,
    Phase.REPORT: 1.0,
}
"""The share of the whole deadline by which each phase is left. A phase that ends early leaves its time to the next."""
CANCEL_AT: Final = 0.8
"""The share of the deadline after which what still runs is cancelled; it has until the end of the drain to heed that."""
SEEN_TO_END: Final = 0.02
"""The share of the deadline by which a hurried drain outlasts the children: one that ends in the last moment is not named."""

EXIT_CLEAN: Final = 0
EXIT_BUG: Final = 70
"""EX_SOFTWARE of sysexits.h: left service, too many bugs."""
EXIT_FATAL: Final = 74
"""EX_IOERR: left service on a FATAL fault."""
EXIT_FORCED: Final = 75
"""EX_TEMPFAIL: something did not finish within the deadline."""
EXIT_QUIT: Final = 131
"""128 + SIGQUIT, as a shell shows a death by it: left at once, nothing was drained or flushed."""
_WORST_FIRST: Final = (EXIT_FATAL, EXIT_BUG, EXIT_FORCED)


@dataclass(frozen=True, slots=True)
class Plan:
    """The deadlines of one stop, on the clock that `started_at` comes from."""

    started_at: float
    deadline_s: float
    cancel_at: float
    """The time at which what still runs is cancelled."""
    by: Mapping[Phase, float]
    """The time at which each phase has to be left."""
    cut: bool = False
    """Whether a hurry has cut the drain short."""

    @classmethod
    def begin(cls, now: float, deadline_s: float) -> Plan:
        """Plan a stop that begins `now` and may take `deadline_s` seconds in all."""
        by = {phase: now + share * deadline_s for phase, share in LEAVE_BY.items()}
        return cls(now, deadline_s, now + CANCEL_AT * deadline_s, by)

    @property
    def close_by(self) -> float:
        """The time at which everything has to be over."""
        return self.by[Phase.CLOSE]

    @property
    def children_by(self) -> float:
        """The time at which child services have to be over: before their parent's drain is."""
        return max(self.cancel_at, self.by[Phase.DRAIN] - self._span(0.0, SEEN_TO_END)) if self.cut else self.cancel_at

    def within(self, now: float, close_by: float) -> Plan:
        """Return a plan that is over by `close_by`: no phase is later than if the stop began now and had until then."""
        fresh = Plan.begin(now, max(0.0, close_by - now))
        by = {phase: min(at, fresh.by[phase]) for phase, at in self.by.items()}
        deadline_s = min(self.deadline_s, fresh.deadline_s)
        return replace(self, deadline_s=deadline_s, cancel_at=min(self.cancel_at, fresh.cancel_at), by=by)

    def hurried(self, now: float, children_by: float = 0.0) -> Plan:
        """Skip what is left of the drain: as if its time were over now.

        Whoever is cancelled, and every later phase, has as long as it would have had then; children that end no later than
        `children_by` are waited for.
        """
        if now >= self.cancel_at:
            return self
        by = dict(self.by)
        seen_by = children_by + self._span(0.0, SEEN_TO_END)
        by[Phase.DRAIN] = min(by[Phase.DRAIN], max(seen_by, now + self._span(CANCEL_AT, LEAVE_BY[Phase.DRAIN])))
        by[Phase.FLUSH] = min(by[Phase.FLUSH], by[Phase.DRAIN] + self._span(LEAVE_BY[Phase.DRAIN], LEAVE_BY[Phase.FLUSH]))
        by[Phase.CLOSE] = min(by[Phase.CLOSE], by[Phase.FLUSH] + self._span(LEAVE_BY[Phase.FLUSH], LEAVE_BY[Phase.CLOSE]))
        return replace(self, cancel_at=now, by=by, cut=True)

    def _span(self, from_share: float, to_share: float) -> float:
        return (to_share - from_share) * self.deadline_s


def fair_limit_s(now: float, leave_by: float, steps_left: int) -> float:
    """Return the seconds for the next of `steps_left` steps, so that one that hangs leaves the others their share. 0 or more."""
    return max(0.0, leave_by - now) / max(1, steps_left)


def worst(codes: tuple[int, ...]) -> int:
    """Return the exit code of a stop in which these came together: a FATAL fault before a bug, a bug before what was forced."""
    return next((code for code in _WORST_FIRST if code in codes), EXIT_CLEAN)
