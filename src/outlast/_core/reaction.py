"""The kinds of faults, and the one table that says what follows from each: whoever meets a fault asks it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(enum.Enum):
    """The meaning of a failure for whoever met it. `RULES` holds what follows from it."""

    TRANSIENT = "transient"
    """May pass by itself: connection refused, 57P01, 503."""
    CONTENDED = "contended"
    """Somebody else holds it: 55006, lock not available."""
    EXHAUSTED = "exhausted"
    """There is no room: ENOSPC, 53100, 53300."""
    OVERLOADED = "overloaded"
    """The peer asks for less: 429, Retry-After."""
    REJECTED = "rejected"
    """This request is wrong; the next one may be right: 23505, bad input."""
    PERMANENT = "permanent"
    """A person has to act: 28P01, a missing database, a revoked right."""
    STOPPING = "stopping"
    """Caused by our own stop."""
    FATAL = "fatal"
    """The ground is gone: EIO, EROFS, corruption."""
    BUG = "bug"
    """Not classified: a programming error until somebody knows better."""


class Reaction(enum.Enum):
    """The thing to do about a fault."""

    WAIT = "wait"
    """It may pass by itself: wait, and try again."""
    WAIT_LONG = "wait long"
    """A person has to act: try again rarely."""
    ANSWER = "answer the caller"
    """The request is what is wrong: the same again leads to the same. It shows that the peer is there."""
    RESTART = "restart"
    """The work itself is wrong, or the code that does it: try again a bounded number of times."""
    END = "end"
    """End quietly."""
    LEAVE = "leave"
    """End what stands on this ground: the service, the job."""


@dataclass(frozen=True, slots=True)
class KindRule:
    """One row of the table: what to do, how it is logged, how a process ends by it."""

    reaction: Reaction
    is_evidence: bool
    """Whether it can say that a dependency is down. The others are about the caller, or about us."""
    level: int
    """The level of the stdlib's logging for the first line."""
    folded: bool = True
    """Whether repetitions are only counted."""
    exit_code: int | None = None
    """The exit code of a process that leaves because of it; None: no process ever does."""


DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50

RULES: Final[Mapping[Kind, KindRule]] = {
    Kind.TRANSIENT: KindRule(Reaction.WAIT, True, WARNING),
    Kind.CONTENDED: KindRule(Reaction.WAIT, False, INFO),
    Kind.EXHAUSTED: KindRule(Reaction.WAIT, True, WARNING),
    Kind.OVERLOADED: KindRule(Reaction.WAIT, True, WARNING),
    Kind.REJECTED: KindRule(Reaction.ANSWER, False, WARNING),
    Kind.PERMANENT: KindRule(Reaction.WAIT_LONG, True, ERROR),
    Kind.STOPPING: KindRule(Reaction.END, False, DEBUG),
    Kind.FATAL: KindRule(Reaction.LEAVE, False, CRITICAL, folded=False, exit_code=74),
    Kind.BUG: KindRule(Reaction.RESTART, False, ERROR, exit_code=70),
}
"""The exhaustive table. 74 and 70 are EX_IOERR and EX_SOFTWARE of sysexits.h."""

PASSING: Final = frozenset(kind for kind, rule in RULES.items() if rule.reaction is Reaction.WAIT)
"""The kinds that may pass by themselves."""

SEVERITY: Final = (
    Kind.FATAL,
    Kind.BUG,
    Kind.PERMANENT,
    Kind.EXHAUSTED,
    Kind.OVERLOADED,
    Kind.CONTENDED,
    Kind.TRANSIENT,
    Kind.REJECTED,
    Kind.STOPPING,
)
"""Worst first: what an exception group of several kinds counts as."""
