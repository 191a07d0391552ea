"""Faults: classified failures, and the errors that carry one. What follows from a kind is in `_core.reaction`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any, Final

from outlast._core.reaction import RULES, Reaction
from outlast._core.reaction import Kind as Kind  # noqa: PLC0414 - whoever makes a fault finds its kinds beside it


class Scope(enum.Enum):
    """Those whom a fault concerns."""

    DEPENDENCY = "dependency"
    """Everyone who uses its source."""
    CALL = "call"
    """This call only: a deadlock, a revoked table, a statement timeout."""
    CHILD = "child"
    """Everyone who uses its source, which has ended and does not come back by itself: one disk of several. The process lives on,
    FATAL as it is; its users wait until somebody has mended it and says so."""


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
    """The wait that the peer asked for, in seconds."""
    hint: str = ""
    """The next step for an operator."""

    @property
    def key(self) -> tuple[str, Kind, str]:
        """Source, kind and code: faults that share them are counted as the same."""
        return (self.source, self.kind, self.code)

    @property
    def is_evidence(self) -> bool:
        """Whether it says that its source is down for everyone."""
        return self.is_end or (self.scope is Scope.DEPENDENCY and RULES[self.kind].is_evidence)

    @property
    def is_end(self) -> bool:
        """Whether its source has ended, alone."""
        return self.scope is Scope.CHILD

    @property
    def is_folded(self) -> bool:
        """Whether repetitions within an incident are only counted. What ends, ends once."""
        return self.is_end or RULES[self.kind].folded

    @property
    def reaction(self) -> Reaction:
        """The reaction to its kind. Whoever uses what has ended does not leave with it."""
        return Reaction.WAIT_LONG if self.is_end else RULES[self.kind].reaction

    @property
    def level(self) -> int:
        """The level of the stdlib's logging for a line about it."""
        return RULES[self.kind].level

    def floor_s(self, long_s: float) -> float | None:
        """Return the seconds before which it is not worth trying again: what the peer asked for, and at least `long_s` where a
        person has to act. None: no such bound.
        """
        return max(long_s, self.retry_after_s or 0.0) if self.reaction is Reaction.WAIT_LONG else self.retry_after_s

    def met_while(self, *, stopping: bool) -> Fault:
        """Return it as it is for one who stops, or does not: a stop that is not one's own passes, as an outage of a peer does."""
        return replace(self, kind=Kind.TRANSIENT) if self.kind is Kind.STOPPING and not stopping else self


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
        super().__init__(
            f"{dependency} is unavailable since {since_s:.1f} s: {fault.code} {fault.reason} (retry after {retry_after_s:.1f} s)"
        )
        self.dependency = dependency
        self.fault = fault
        self.since_s = since_s
        self.retry_after_s = retry_after_s
        self.owner: object | None = None
        """The `Dependency` that refused; None in a refusal that comes from elsewhere: another process, code of the user's."""

    def __reduce__(self) -> tuple[type[Unavailable], tuple[Any, ...]]:
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
    """Return the fault that was attached to the exception, if any."""
    fault = getattr(exc, _ATTRIBUTE, None)
    return fault if isinstance(fault, Fault) else None
