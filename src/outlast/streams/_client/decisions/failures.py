"""From what ended an attempt to what is known of it, and to the error that the caller is to have. Pure.

One table of answers for a node of ours and for any other server of the protocol. Ours says in each problem what its fault is; of
another server only the status is known, and where that leaves open whether the request was done, it is not known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from outlast import Fault, Kind, OutlastError, Scope, Unavailable
from outlast.extend import attached, clean
from outlast.http import AnswerError, http_rule
from outlast.streams._client.decisions.retrying import Certainty, Effect, Failure
from outlast.streams._client.errors import OffsetGoneError
from outlast.streams._client.values import is_true
from outlast.streams._errors import (
    AppendTooLargeError,
    BeyondTailError,
    DamagedError,
    ExpiredError,
    FencedError,
    LimitError,
    OutcomeUnknownError,
    SequenceError,
    StreamClosedError,
    StreamError,
    StreamExistsError,
    StreamNotFoundError,
    TrimmedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.http import Answer
    from outlast.streams._model import Producer

PROBLEM_TYPE: Final = "application/problem+json"
RETRY_S: Final = 1.0
"""The wait that a refusal names, where the server has named none."""
DEADLINE_OVER: Final = "deadline over"
NOT_SENT_CODES: Final = frozenset({"no connection", DEADLINE_OVER, "bad header", "bad URL"})
"""Codes of `HttpPeer` for what ended before anything was sent."""
DIALLING: Final = frozenset({"ConnectError", "ConnectTimeout"})
"""The errors of both libraries while there is no connection yet."""
PASSING: Final = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.EXHAUSTED, Kind.CONTENDED})
"""The kinds of which the same request may succeed later."""
REFUSING: Final = frozenset({408, 421, 425, 429})
"""Statuses below 500 that pass: the request was not taken in."""
PLAIN: Final = frozenset({501, 505, 511})
"""Statuses above 500 that say that nothing was done."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, as far as its errors speak of it."""

    stream: str
    effect: Effect
    action: str = "read"
    offset: str = ""
    producer: Producer | None = None
    size: int = 0
    """The bytes of its body."""
    beside: bool = False
    """Whether only a node of ours has it, beside the protocol."""


def failure_of(exc: Exception, asked: Asked, peer: str) -> Failure:
    """Return what an exception that ended an attempt says."""
    fault = attached(exc) or http_rule(exc, "request") or _plain(exc, peer)
    if isinstance(exc, Unavailable):
        return Failure(Certainty.NOT_SENT, exc, exc.fault, passes=exc.fault.kind in PASSING)
    if isinstance(exc, AnswerError):
        return _answered(exc, fault, asked, peer)
    if isinstance(exc, OutlastError) and fault.code in NOT_SENT_CODES:
        return Failure(Certainty.NOT_SENT, _not_sent(exc, fault, asked, peer), fault, passes=fault.kind in PASSING)
    is_dialling = any(cls.__name__ in DIALLING for cls in type(exc).__mro__)
    certainty = Certainty.NOT_SENT if is_dialling else Certainty.UNKNOWN
    if fault.kind in PASSING:
        return Failure(certainty, refusal(fault, peer, exc), fault, passes=True)
    return Failure(certainty, exc, fault, passes=False)


def _plain(exc: Exception, peer: str) -> Fault:
    if isinstance(exc, TimeoutError):
        return Fault(Kind.TRANSIENT, "timeout", "the answer was not complete within the deadline", peer, Scope.CALL)
    return Fault(Kind.TRANSIENT, type(exc).__name__, clean(str(exc)), peer, Scope.CALL)


def _not_sent(exc: Exception, fault: Fault, asked: Asked, peer: str) -> Exception:
    if fault.code == DEADLINE_OVER and asked.stream:
        return ExpiredError(asked.stream, f"the deadline of this {asked.action} was over before it was sent")
    return refusal(fault, peer, exc) if fault.kind is Kind.OVERLOADED else exc


def refusal(fault: Fault, peer: str, cause: Exception, since_s: float = 0.0) -> Unavailable:
    """Return the refusal of a request that may come back."""
    error = Unavailable(peer, fault, since_s, RETRY_S if fault.retry_after_s is None else fault.retry_after_s)
    error.__cause__ = cause
    return error


def members_of(answer: Answer) -> Mapping[str, Any]:
    """Return the members of a problem, {} for an answer that is none."""
    if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != PROBLEM_TYPE:
        return {}
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def number(value: object) -> int:
    """Return a number of a member or a header, -1 for what is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16 else -1


def _answered(exc: AnswerError, fault: Fault, asked: Asked, peer: str) -> Failure:
    problem, status = exc.problem, exc.status
    if problem is not None:
        # What the server says itself, in its own words, and as the first cause.
        fault = Fault(fault.kind, problem.code, problem.detail or fault.reason, peer, Scope.CALL, fault.retry_after_s, fault.hint)
        if problem.code == OutcomeUnknownError.code:
            return Failure(Certainty.UNKNOWN, refusal(fault, peer, exc), fault, passes=True)
    typed = _typed(exc, asked)
    if typed is not None:
        typed.__cause__ = exc
        passes = isinstance(typed, ExpiredError)
        told = attached(typed) or fault
        settles = problem is not None and isinstance(typed, StreamClosedError)
        return Failure(Certainty.REFUSED, typed, told, passes=passes, settles=settles)
    if status >= 500 and status not in PLAIN:
        is_refusal = status == 507 or (problem is not None and status == 503)
        return Failure(
            Certainty.REFUSED if is_refusal else Certainty.UNKNOWN,
            refusal(fault, peer, exc, (problem and problem.since_s) or 0.0) if fault.kind in PASSING else exc,
            fault,
            passes=fault.kind in PASSING,
        )
    if status in REFUSING:
        return Failure(Certainty.REFUSED, refusal(fault, peer, exc, (problem and problem.since_s) or 0.0), fault, passes=True)
    return Failure(Certainty.REFUSED, exc, fault, passes=False)


def _typed(exc: AnswerError, asked: Asked) -> Exception | None:  # noqa: PLR0911 - a table
    """Return the error of streams that an answer stands for, or None."""
    stream, answer, problem = asked.stream, exc.answer, exc.problem
    if not stream:
        return None
    # The node names the stream, as the error made of it does.
    detail = "" if problem is None else problem.detail.removeprefix(f"stream {stream!r}: ")
    by_code = None if problem is None else _by_code(problem.code, detail, members_of(answer), asked)
    if by_code is not None:
        return by_code
    match exc.status:
        case 404 if asked.beside and problem is None:
            return StreamError(stream, f"the server has no {asked.action}: it is no node of Outlast, or nothing is there")
        case 404:
            return StreamNotFoundError(stream, "there is none, or it was deleted meanwhile")
        case 409:
            return _conflict(answer, asked)
        case 403 if asked.producer is not None and "producer-epoch" in answer.headers:
            newest = number(answer.headers["producer-epoch"])
            return FencedError(stream, asked.producer.id, asked.producer.epoch, newest)
        case 410 if asked.action == "head":
            return StreamNotFoundError(stream, "it was deleted, and its forks keep its name")
        case 410:
            return OffsetGoneError(stream, f"offset {asked.offset!r} is gone, or all of it: read from '-1' what is there")
        case 413:
            return _too_large(asked, -1)
        case 400:
            return StreamError(stream, f"the server refuses this {asked.action}: {_said(answer)}")
        case _:
            return None


def _conflict(answer: Answer, asked: Asked) -> StreamError:
    stream, producer, headers = asked.stream, asked.producer, dict(answer.headers)
    if asked.action == "create":
        return StreamExistsError(stream, f"there is one already, with other options: {_said(answer)}")
    if is_true(headers, "stream-closed"):
        return StreamClosedError(stream, "it is closed, and takes no more")
    if producer is not None and "producer-expected-seq" in headers:
        return SequenceError(stream, producer.id, producer.sequence, number(headers["producer-expected-seq"]))
    return StreamError(stream, f"the server refuses this {asked.action}: {_said(answer)}")


def _by_code(  # noqa: PLR0911 - a table
    code: str, detail: str, members: Mapping[str, Any], asked: Asked
) -> Exception | None:
    """Return the error by which a node of ours has refused."""
    stream, position = asked.stream, number(members.get("position", asked.offset))
    oldest, tail = number(members.get("oldest")), number(members.get("tail"))
    match code:
        case TrimmedError.code:
            return TrimmedError(stream, position, oldest, tail)
        case BeyondTailError.code:
            return BeyondTailError(stream, position, oldest, tail)
        case LimitError.code:
            return LimitError(stream, detail)
        case ExpiredError.code:
            return ExpiredError(stream, detail)
        case DamagedError.code:
            following = number(members.get("next"))
            segment = clean(str(members.get("segment", "?")))
            reason = detail.removeprefix(f"segment {segment} is damaged at position {position}: ").partition("; run: ")[0]
            return DamagedError(stream, segment, position, reason, following if following >= 0 else None)
        case "too large":
            return _too_large(asked, number(members.get("limit")))
        case StreamClosedError.code:
            return StreamClosedError(stream, detail)
        case "deleted" if asked.action != "create":
            # It has forks, which keep its name.
            return StreamNotFoundError(stream, detail.replace(f"the stream {stream!r} was", "it was"))
        case _:
            return None


def _too_large(asked: Asked, limit: int) -> AppendTooLargeError:
    error = AppendTooLargeError(asked.stream, "bytes", asked.size, limit)
    if limit < 0:
        error.args = (f"stream {asked.stream!r}: an append of {asked.size} bytes is larger than the server takes: divide it",)
    return error


def _said(answer: Answer) -> str:
    """Return what the server says in its own words."""
    detail = members_of(answer).get("detail")
    if isinstance(detail, str) and detail:
        return clean(detail)
    return f"{answer.status} {clean(answer.text, 200)}".strip()
