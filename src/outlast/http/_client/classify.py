"""From what httpx2 and httpx raise to a fault: one rule for both, which imports neither."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from outlast import Classifiers, Fault, Kind, Scope
from outlast.extend import clean
from outlast.http._client.answers import Answer, AnswerError, AnswerTooLargeError, Problem
from outlast.http._client.statuses import answer_fault, is_doubtful

if TYPE_CHECKING:
    from outlast.http._client.wire import Response

LIBRARIES: Final = frozenset({"httpx2", "httpx"})
BELOW: Final = frozenset({"httpcore2", "httpcore", "anyio"})
"""The packages whose errors stand between one of the libraries and that of a socket."""
CAUSES_MAX: Final = 8
PLAIN: Final = Classifiers()
"""The rules for the standard library alone."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    kind: Kind
    code: str
    scope: Scope
    hint: str = ""
    by_cause: bool = False
    """Whether the error of the socket behind it says more."""
    doubtful: bool = False
    """Whether only a probe can say if it concerns this call or everyone."""
    quiet: bool = False
    """Whether its text is not to be shown: it quotes what was to be sent."""


_CALL, _PEER = Scope.CALL, Scope.DEPENDENCY
_T: Final = Kind.TRANSIENT

ERRORS: Final[dict[str, Row]] = {
    "ConnectTimeout": Row(_T, "timeout", _PEER),
    "ReadTimeout": Row(_T, "timeout", _PEER, doubtful=True),
    "WriteTimeout": Row(_T, "timeout", _PEER, doubtful=True),
    "PoolTimeout": Row(Kind.OVERLOADED, "pool timeout", _CALL, "all connections are in use: allow more, or ask for less"),
    "ConnectError": Row(_T, "connect", _PEER, by_cause=True),
    "NetworkError": Row(_T, "ECONNRESET", _PEER, by_cause=True, doubtful=True),
    "RemoteProtocolError": Row(_T, "protocol", _PEER, "the peer speaks no HTTP, or ended the connection early", doubtful=True),
    "LocalProtocolError": Row(Kind.REJECTED, "protocol", _CALL, "look at the method, the path and the headers", quiet=True),
    "ProxyError": Row(_T, "proxy", _PEER, "look at the proxy", quiet=True),
    "UnsupportedProtocol": Row(Kind.REJECTED, "bad URL", _CALL, "correct the URL", quiet=True),
    "InvalidURL": Row(Kind.REJECTED, "bad URL", _CALL, "correct the URL", quiet=True),
    "DecodingError": Row(_T, "encoding", _CALL, "the body of the answer is not encoded as its header says"),
    "TooManyRedirects": Row(Kind.PERMANENT, "too many redirects", _CALL, "correct the URL"),
    "RequestError": Row(_T, "transport", _PEER, doubtful=True),
}
"""By the name of a class or of an ancestor, which both libraries have alike."""
NOT_SENT: Final = frozenset({"no connection", "deadline over"})
"""Codes of calls that ended before the throttle was asked: the peer has not heard of them."""
QUIET: Final = "its text is not shown: it may quote the URL or a header"


def http_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify what httpx2 and httpx raise, `HTTPStatusError` too, and an `AnswerError`; None for anything else.

    It is a rule for `outlast.Classifiers`, where a client of one's own is used; `HttpPeer` has it. In the phases "probe" and
    "connect" a fault concerns everyone who uses the peer.
    """
    fault = _fault(exc)
    if fault is None or phase not in {"probe", "connect"}:
        return fault
    # What is wrong with a probe stays wrong.
    kind = Kind.PERMANENT if fault.kind is Kind.REJECTED else fault.kind
    return replace(fault, kind=kind, scope=Scope.DEPENDENCY)


def needs_second_look(exc: BaseException) -> bool:
    """Return whether only a probe can say if an error concerns the call or everyone."""
    if isinstance(exc, AnswerError):
        return is_doubtful(exc.answer, exc.problem)
    row = _row(exc)
    return isinstance(exc, TimeoutError) if row is None else row.doubtful


def was_accepted(fault: Fault) -> bool | None:
    """Return whether the peer took the call that ended with this fault, as its throttle counts; None if it was not asked at all.

    A call is one too many for a peer that says so, that is down, or that does not answer in time. One that it refuses for its
    own sake, or fails at (400, 500), it has taken.
    """
    if fault.code in NOT_SENT or fault.kind in {Kind.BUG, Kind.STOPPING}:
        return None
    is_down = fault.kind is Kind.TRANSIENT and fault.scope is Scope.DEPENDENCY
    return not (fault.kind in {Kind.OVERLOADED, Kind.EXHAUSTED} or fault.code == "timeout" or is_down)


def quotes(exc: BaseException) -> bool:
    """Return whether the text of an error quotes what was to be sent."""
    row = _row(exc)
    return row is not None and row.quiet


def _fault(exc: BaseException) -> Fault | None:
    if isinstance(exc, AnswerError):
        return answer_fault(exc.answer, exc.problem)
    if isinstance(exc, AnswerTooLargeError):
        return Fault(Kind.REJECTED, "answer too large", str(exc), scope=Scope.CALL)
    row = _row(exc)
    if row is not None:
        cause = _cause(exc) if row.by_cause else None
        reason = QUIET if row.quiet else clean(str(exc)) or type(exc).__name__
        return cause or Fault(row.kind, row.code, f"{type(exc).__name__}: {reason}", scope=row.scope, hint=row.hint)
    if "HTTPStatusError" in _names(exc):
        answer = _answer_of(cast("Response", exc).response)
        return answer_fault(answer, Problem.of(answer))
    return None


def _names(exc: BaseException) -> list[str]:
    """Return the names of the classes that one of the libraries has for it."""
    return [cls.__qualname__ for cls in type(exc).__mro__ if cls.__module__.partition(".")[0] in LIBRARIES]


def _row(exc: BaseException) -> Row | None:
    return next((ERRORS[name] for name in _names(exc) if name in ERRORS), None)


def _cause(exc: BaseException) -> Fault | None:
    """Return the fault of the socket's error. The pools of both libraries hide it from `__cause__`, not from `__context__`."""
    for _ in range(CAUSES_MAX):
        following = exc.__cause__ or exc.__context__
        if following is None:
            return None
        exc = following
        if type(exc).__module__.partition(".")[0] not in BELOW:
            fault = PLAIN.classify(exc)
            return None if fault.kind is Kind.BUG else fault
    return None


def _answer_of(response: Response) -> Answer:
    body = b""
    if response.is_closed:
        try:
            body = bytes(response.content)
        except Exception:  # noqa: BLE001 - a body that was streamed cannot be had again
            body = b""
    return Answer(int(response.status_code), dict(response.headers), body)
