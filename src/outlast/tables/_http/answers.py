"""Answers of the doors, and the verdict on a body whose points were not all stored. The same for every protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast import Kind, OutlastError, Unavailable
from outlast.http import problem_of
from outlast.tables._model import PointOutcome

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.tables._model import PointRefusal, Written

    Headers = tuple[tuple[bytes, bytes], ...]

RETRY_AFTER_S_MAX: Final = 86_400
"""The longest Retry-After that is written, one day: nobody knows more than that, and some clients overflow."""
SOON_S: Final = 1.0
"""The wait before a repeat where nobody knows better."""
JSON: Final = (b"content-type", b"application/json")


class Answer(NamedTuple):
    """A whole answer. Its length is added when it is sent."""

    status: int
    body: bytes = b""
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is answered with an error, before a protocol has put that into its own words."""

    status: int
    text: str
    retry_after_s: float | None = None
    """None: a repeat is of no use."""
    headers: Headers = ()


class RefusedError(Exception):
    """The end of a request that is refused."""

    def __init__(self, status: int, text: str, *, retry_after_s: float | None = None, headers: Headers = ()) -> None:
        super().__init__(text)
        self.refused: Final = Refused(status, text, retry_after_s, headers)


def refused_by(error: OutlastError) -> Refused | None:
    """Return the answer to an error of ours: 429 or 503 with its first cause, 400; None for a bug, which a person has to see."""
    problem = problem_of(error)
    status, text = problem.status, problem.detail
    if status == 500:
        if not isinstance(error, Unavailable):
            return None
        # The store is down for a reason that is for the log; for a client it is down.
        status, text = 503, f"{error.dependency} is unavailable"
    return Refused(status, text, SOON_S if problem.retry_after_s is None and status == 503 else problem.retry_after_s)


class Verdict(NamedTuple):
    """The answer to a body, as a status: 2xx is each protocol's own, and stands here as 204."""

    status: int
    """204, 400, 429 or 503."""
    retry_after_s: float | None = None
    """The seconds until a repeat is of use, where the status is 429 or 503."""
    cause: PointRefusal | None = None
    """The refusal that decided it: for 429 and 503 the first one that may be repeated, otherwise the first."""


_STORED: Final = Verdict(204)


def verdict(written: Written, *, whole: bool = False) -> Verdict:
    """Return the verdict on a body: 503 or 429 if a repeat can store more of it, 400 if what is refused stays refused.

    A table that waits for a person does not hold up a collector that sends all its tables in one body: it is 503 only if nothing
    else was stored. `whole`: nothing was stored for one refusal, and one that is final makes a repeat useless.
    """
    counts = written.counts
    if written.stored == written.points and not written.refused:
        return _STORED
    later, person = counts.get(PointOutcome.LATER, 0), counts.get(PointOutcome.PERSON, 0)
    if whole and counts.get(PointOutcome.NEVER, 0):
        later = person = 0
    if not (later or (person and not written.stored)):
        return Verdict(400, None, next(iter(written.refused), None))
    waited = PointOutcome.LATER if later else PointOutcome.PERSON
    waiting = [refusal for refusal in written.refused if refusal.outcome is waited]
    # Rates alone are 429: a body with one point that waits for the store waits for the store.
    limited = bool(waiting) and all(_is_of_a_rate(fault) for fault in {id(each.fault): each.fault for each in waiting}.values())
    wait_s = written.retry_after_s
    return Verdict(429 if limited else 503, SOON_S if wait_s is None else wait_s, next(iter(waiting), None))


def _is_of_a_rate(fault: Fault) -> bool:
    return fault.kind is Kind.OVERLOADED and problem_of(OutlastError(fault.reason, fault)).status == 429


def retry_after(seconds: float | None) -> Headers:
    """Return the header Retry-After: whole seconds, rounded up, from 1 second to one day; none for None."""
    if seconds is None:
        return ()
    whole = math.ceil(seconds) if math.isfinite(seconds) else RETRY_AFTER_S_MAX
    return ((b"retry-after", b"%d" % max(1, min(whole, RETRY_AFTER_S_MAX))),)
