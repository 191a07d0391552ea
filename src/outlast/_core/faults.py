"""Faults: their kinds, what each kind means for a loop, and the errors that carry one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(enum.Enum):
    """What a failure means for whoever met it. `RULES` says what follows from it."""

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


class Scope(enum.Enum):
    """Whom a fault concerns."""

    DEPENDENCY = "dependency"
    """Everyone who uses its source."""
    CALL = "call"
    """This call only: a deadlock, a revoked table, a statement timeout."""


class Reaction(enum.Enum):
    """What a loop does about a fault."""

    WAIT = "wait"
    STAND_BY = "stand by"
    WAIT_AND_SHED = "wait and shed"
    ANSWER = "answer the caller"
    WAIT_LONG = "wait long"
    END = "end quietly"
    LEAVE = "leave service"
    RESTART = "restart with backoff"


@dataclass(frozen=True, slots=True)
class KindRule:
    """One row of the table: what a loop does, how it is logged, how a process ends by it."""

    reaction: Reaction
    level: int
    """The level of the stdlib's logging for the first line."""
    folded: bool
    """Whether repetitions are only counted."""
    exit_code: int | None
    """The exit code of a process that leaves because of it; None: no process ever does."""
    hint: str
    """What an operator should do, where the fault itself does not say."""


DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50

RULES: Final[Mapping[Kind, KindRule]] = {
    Kind.TRANSIENT: KindRule(Reaction.WAIT, WARNING, True, None, "wait; look at the dependency if it lasts"),
    Kind.CONTENDED: KindRule(Reaction.STAND_BY, INFO, True, None, "find out who holds it"),
    Kind.EXHAUSTED: KindRule(Reaction.WAIT_AND_SHED, WARNING, True, None, "make room: disk, memory, connections"),
    Kind.OVERLOADED: KindRule(Reaction.WAIT, WARNING, True, None, "send less, or give the peer more"),
    Kind.REJECTED: KindRule(Reaction.ANSWER, WARNING, True, None, "correct the request"),
    Kind.PERMANENT: KindRule(Reaction.WAIT_LONG, ERROR, True, None, "somebody has to act; it heals when put right"),
    Kind.STOPPING: KindRule(Reaction.END, DEBUG, True, None, "nothing: the service was asked to stop"),
    Kind.FATAL: KindRule(Reaction.LEAVE, CRITICAL, False, 74, "do not restart before the cause is found"),
    Kind.BUG: KindRule(Reaction.RESTART, ERROR, True, 70, "read the traceback"),
}
"""The exhaustive table. 74 and 70 are EX_IOERR and EX_SOFTWARE of sysexits.h."""

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

EVIDENCE: Final = frozenset({Kind.TRANSIENT, Kind.EXHAUSTED, Kind.OVERLOADED, Kind.PERMANENT})
"""The kinds that can say that a dependency is down. The others are about the caller, or about us."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A classified failure.

    `code` is short and stable (SQLSTATE, errno name, HTTP status, "timeout"; for a bug "ValueError@module:line"): with
    kind and source it decides whether two faults are the same. `reason` is for people.
    """

    kind: Kind
    code: str
    reason: str
    source: str = ""
    """The dependency it came from."""
    scope: Scope = Scope.DEPENDENCY
    retry_after_s: float | None = None
    """What the peer asked for, in seconds."""
    hint: str = ""
    """What an operator should do about it."""

    @property
    def key(self) -> tuple[str, Kind, str]:
        """What makes two faults the same when they are counted: source, kind and code."""
        return (self.source, self.kind, self.code)

    @property
    def is_evidence(self) -> bool:
        """Whether it says that its source is down for everyone."""
        return self.scope is Scope.DEPENDENCY and self.kind in EVIDENCE


class OutlastError(Exception):
    """The base of every error that Outlast raises on purpose. `fault` is what a classifier is to make of it."""

    def __init__(self, message: str = "", fault: Fault | None = None) -> None:
        super().__init__(message)
        if fault is not None:
            attach(self, fault)


class ConfigurationError(OutlastError):
    """Something the user set cannot work: what, the value seen, what is allowed, what to do. Exit code 78."""


class Unavailable(OutlastError):  # noqa: N818 - the word of the design; callers read it in an except clause
    """A refusal, at once, because a dependency is down.

    `fault` is the first cause of the outage, `since_s` how long it has lasted, `retry_after_s` when it is worth
    coming back. An HTTP handler answers 503 with it.
    """

    def __init__(self, dependency: str, fault: Fault, since_s: float, retry_after_s: float) -> None:
        """Carry what the one who is refused needs to know."""
        super().__init__(
            f"{dependency} is unavailable since {since_s:.1f} s: {fault.code} {fault.reason} (retry after {retry_after_s:.1f} s)"
        )
        self.dependency = dependency
        self.fault = fault
        self.since_s = since_s
        self.retry_after_s = retry_after_s
        self.owner: object | None = None
        """The `Dependency` that refused; None in a refusal that comes from elsewhere: another process, code of the user's."""

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str, Fault, float, float]]:
        """Travel to another process without the owner, which means nothing there."""
        return Unavailable, (self.dependency, self.fault, self.since_s, self.retry_after_s)


_ATTRIBUTE: Final = "__outlast_fault__"


def attach(exc: BaseException, fault: Fault) -> None:
    """Keep `fault` on the exception, so that whoever catches it later need not classify it again."""
    try:
        setattr(exc, _ATTRIBUTE, fault)
    except (AttributeError, TypeError):
        # An exception that takes no attributes is classified again where it is caught.
        return


def attached(exc: BaseException) -> Fault | None:
    """Give the fault that was attached to the exception, if any."""
    fault = getattr(exc, _ATTRIBUTE, None)
    return fault if isinstance(fault, Fault) else None
