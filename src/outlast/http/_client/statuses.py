"""From the answer of a peer to a fault: one table of statuses, and what a server of Outlast says itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, assert_never

from outlast import Fault, Kind, Scope
from outlast.extend import parse_retry_after
from outlast.http._client.answers import said

if TYPE_CHECKING:
    from outlast.http._client.answers import Answer, Problem


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    kind: Kind
    scope: Scope
    hint: str = ""


_CALL, _PEER = Scope.CALL, Scope.DEPENDENCY

STATUSES: Final[dict[int, Row]] = {
    401: Row(Kind.PERMANENT, _PEER, "put the credentials right, on either side"),
    402: Row(Kind.PERMANENT, _CALL, "the peer wants to be paid"),
    403: Row(Kind.PERMANENT, _CALL, "grant these credentials the right that is missing"),
    407: Row(Kind.PERMANENT, _PEER, "log in to the proxy"),
    408: Row(Kind.TRANSIENT, _CALL, "the peer waited too long for the request"),
    421: Row(Kind.TRANSIENT, _CALL),
    423: Row(Kind.CONTENDED, _CALL, "somebody else holds it"),
    425: Row(Kind.TRANSIENT, _CALL),
    429: Row(Kind.OVERLOADED, _CALL, "ask for less, or for a higher limit"),
    # The code behind one path failed. Whether others do as well, only a probe can say.
    500: Row(Kind.TRANSIENT, _CALL, "the peer failed at this call: see its logs"),
    501: Row(Kind.REJECTED, _CALL),
    502: Row(Kind.TRANSIENT, _PEER, "a gateway in front of the peer does not reach it"),
    503: Row(Kind.TRANSIENT, _PEER),
    504: Row(Kind.TRANSIENT, _PEER, "a gateway in front of the peer has waited too long for it"),
    505: Row(Kind.REJECTED, _CALL),
    507: Row(Kind.EXHAUSTED, _CALL, "the peer has no room for this"),
    511: Row(Kind.PERMANENT, _PEER, "the network wants a login before it lets anything through"),
}
"""RFC 9110, 6585 and 4918. 409 is REJECTED, as 4xx are: the same request again meets the same state."""

CLASSES: Final[dict[int, Row]] = {
    3: Row(Kind.PERMANENT, _CALL, "the peer has moved: correct its URL"),
    4: Row(Kind.REJECTED, _CALL),
    5: Row(Kind.TRANSIENT, _PEER),
}
"""By the first digit, for statuses without a row of their own."""
OTHER: Final = Row(Kind.REJECTED, _CALL, "accept this status, if the call was a success")

WAIT_S_MAX: Final = 3600.0
"""The longest wait that a peer may ask for. One that says a year is asked again after an hour."""
CLEAR: Final = frozenset({501, 503, 505, 507, 511})
"""Of the 5xx those that say themselves whom they concern."""
PROBE_PASSES: Final = frozenset(range(200, 500)) - {401, 407, 408, 425, 429}
"""The statuses that show that the peer is there: 404 too."""


def answer_fault(answer: Answer, problem: Problem | None) -> Fault:
    """Return the fault of an answer that the call does not accept.

    **429** concerns everyone who uses the peer when it says when to come back (Retry-After): nobody asks before. Without a
    time it concerns the call; so it does from a server of Outlast, which computes the wait of each request by itself.
    """
    row = STATUSES.get(answer.status) or CLASSES.get(answer.status // 100) or OTHER
    wait_s = retry_after_s(answer, problem)
    reason = f"answered {said(answer.status)}"
    if problem is not None:
        kind, scope = _as_ours(problem.kind, answer.status, row)
        reason = f"{reason}: {problem.detail}" if problem.detail else reason
        hint = row.hint if kind is row.kind else ""
        return Fault(kind, problem.code, reason, scope=scope, retry_after_s=wait_s, hint=hint)
    if answer.status == 429 and wait_s is not None:
        row = replace(row, scope=_PEER)
    return Fault(row.kind, f"HTTP {answer.status}", reason, scope=row.scope, retry_after_s=wait_s, hint=row.hint)


def is_doubtful(answer: Answer, problem: Problem | None) -> bool:
    """Return whether only a probe can say if the answer concerns this call or everyone."""
    return problem is None and answer.status >= 500 and answer.status not in CLEAR


def retry_after_s(answer: Answer, problem: Problem | None) -> float | None:
    """Return the wait that the answer asks for: the exact one of a server of Outlast, else that of Retry-After."""
    # As in the header, 0 says nothing: "at once" is no hot loop.
    if problem is not None and problem.retry_after_s:
        return min(problem.retry_after_s, WAIT_S_MAX)
    return parse_retry_after(answer.headers.get("retry-after", ""), time.time(), WAIT_S_MAX)


def _as_ours(kind: Kind, status: int, row: Row) -> tuple[Kind, Scope]:
    """Return the kind that a fault of the server's has for us, and whom it concerns here."""
    match kind:
        case Kind.OVERLOADED | Kind.CONTENDED:
            # It has looked at this request alone: the next one may come in.
            return kind, _CALL
        case Kind.TRANSIENT | Kind.EXHAUSTED | Kind.PERMANENT:
            # 503: something that the server needs is down.
            return kind, _PEER if status == 503 else _CALL
        case Kind.STOPPING:
            # Its stop is not ours, and passes.
            return Kind.TRANSIENT, _PEER
        case Kind.FATAL:
            # The ground of the server is gone, not ours.
            return Kind.PERMANENT, _CALL
        case Kind.REJECTED | Kind.BUG:
            # These say no more than the status.
            return row.kind, row.scope
        case _:
            assert_never(kind)
