"""Problems: the answers to what fails, in the form of RFC 9457, from our faults."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from outlast import Classifiers, Fault, Kind, OutlastError, Unavailable
from outlast.admission import Reason
from outlast.extend import clean
from outlast.http._app.extensions import REQUEST_ID, extensions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.http._app.extensions import Receive, Scope, Send

MEDIA_TYPE: Final = b"application/problem+json"
RETRY_AFTER_S_MAX: Final = 86_400
"""The longest Retry-After that is written, one day: nobody knows more than that, and some clients overflow."""
DEPTH_MAX: Final = 64
"""The causes and members of an exception that are looked through for a refusal."""

_PHRASES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
"""The phrases of RFC 9110, where Python before 3.13 has older ones."""
_STATUS: Final[Mapping[Kind, int]] = {
    Kind.TRANSIENT: 503,
    Kind.CONTENDED: 503,
    Kind.EXHAUSTED: 503,
    Kind.OVERLOADED: 503,
    Kind.REJECTED: 400,
    Kind.PERMANENT: 503,
    Kind.STOPPING: 503,
    Kind.FATAL: 500,
    Kind.BUG: 500,
}
_STATUS_BY_CODE: Final[Mapping[tuple[Kind, str], int]] = {
    # One who asks too much, against a limit of its own; the other reasons of admission are those of the whole server.
    (Kind.OVERLOADED, Reason.RATE.value): 429,
    (Kind.OVERLOADED, Reason.SHARE.value): 429,
    (Kind.REJECTED, "too large"): 413,
    # What PostgreSQL calls an integrity violation: foreign key, unique, exclusion.
    (Kind.REJECTED, "23503"): 409,
    (Kind.REJECTED, "23505"): 409,
    (Kind.REJECTED, "23P01"): 409,
}
_DETAILS: Final[Mapping[Reason, str]] = {
    Reason.DEADLINE: "It could not have been done within its deadline.",
    Reason.RATE: "There were more requests than were agreed.",
    Reason.CONCURRENCY: "As much is under way as can be done in time.",
    Reason.MEMORY: "The server is near the end of its memory.",
    Reason.SHARE: "This client has its share of what is under way; others wait.",
}
_SILENT: Final = frozenset({Kind.BUG, Kind.FATAL})
"""The kinds of which a client learns nothing: what is broken inside is for the log."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer to a request that failed, as `application/problem+json`. It is an ASGI application that sends itself.

    `code` and `kind` are those of the fault; `retry_after_s` is exact in the body and rounded up to whole seconds, at least 1,
    in the header Retry-After. A member that is None or empty is left out.
    """

    status: int
    code: str = ""
    kind: str = ""
    detail: str = ""
    since_s: float | None = None
    retry_after_s: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers beside those of every problem."""
    close: bool = False
    """Whether the connection ends with it."""
    members: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    """Members of your own, as JSON has them; those above have their names to themselves."""

    @property
    def title(self) -> str:
        """The phrase of its status, as RFC 9457 wants it for the type `about:blank`."""
        return _phrase(self.status)

    def body(self, request_id: str = "") -> bytes:
        """Return the JSON object."""
        members: dict[str, object] = {"type": "about:blank", "title": self.title, "status": self.status}
        more = {
            "detail": self.detail,
            "code": self.code,
            "kind": self.kind,
            "since_s": _finite(self.since_s),
            "retry_after_s": _finite(self.retry_after_s),
            "request_id": request_id,
        }
        members.update((name, value) for name, value in more.items() if value not in {None, ""})
        own = {name: value for name, value in self.members.items() if value is not None and value != ""}
        return json.dumps({**own, **members} if own else members, separators=(",", ":")).encode()

    def all_headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """Return the headers of an answer with a body of `length` bytes."""
        headers = [
            (b"content-type", MEDIA_TYPE),
            (b"content-length", b"%d" % length),
            (b"cache-control", b"no-store"),
            *self.headers,
        ]
        if _finite(self.retry_after_s) is not None:
            headers.append((b"retry-after", b"%d" % retry_after(self.retry_after_s or 0.0)))
        if self.close:
            headers.append((b"connection", b"close"))
        return headers

    def wire(self, *, request_id: str = "", head: bool = False, more: bytes = b"") -> bytes:
        """Return the whole answer as bytes of HTTP/1.1, for a server that answers before it makes anything of a request.

        `head`: it answers HEAD, so that its body is not sent. `more` are further header lines, each with its line end.
        """
        body = self.body(request_id)
        lines = [b"%s: %s\r\n" % header for header in self.all_headers(len(body))]
        if request_id:
            lines.append(b"x-request-id: %s\r\n" % request_id.encode())
        return b"".join((_status_line(self.status), *lines, more, b"\r\n", b"" if head else body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        """Send it as the answer to the request of `scope`."""
        body = self.body(extensions(scope).get(REQUEST_ID, ""))
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers(len(body))})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


def problem_of(exc: BaseException, classifiers: Classifiers | None = None) -> Problem:
    """Return the answer to a request that ended with `exc`: a refusal, a fault (attached, or found by `classifiers`), or a bug.

    A bug and a FATAL fault answer 500 and say nothing more, unless it is a dependency that has ended. Of everything else the
    client learns code, kind and reason (free of secrets), and when it is worth coming back.
    """
    refusal = refusal_in(exc)
    if refusal is not None:
        problem = problem_of_fault(refusal.fault, clean(str(refusal)))
        return replace(problem, since_s=refusal.since_s, retry_after_s=refusal.retry_after_s)
    fault = (classifiers or Classifiers()).classify(exc)
    return problem_of_fault(fault, clean(str(exc)) if isinstance(exc, OutlastError) else "")


def problem_of_fault(fault: Fault, detail: str = "") -> Problem:
    """Return the answer to a request that met `fault`; `detail` is said instead of its reason."""
    # What has ended alone, a disk of several, is nothing that the client could not be told: it may ask elsewhere.
    kind = Kind.PERMANENT if fault.is_end else fault.kind
    status = _STATUS_BY_CODE.get((fault.kind, fault.code)) or _STATUS[kind]
    if kind in _SILENT:
        return Problem(status, fault.kind.value, fault.kind.value)
    return Problem(
        status,
        fault.code,
        fault.kind.value,
        detail or clean(fault.reason),
        retry_after_s=fault.retry_after_s,
        close=fault.kind is Kind.STOPPING,
    )


async def http_problem(request: object, exc: Exception) -> Problem:  # noqa: ARG001 - as starlette calls it
    """Answer an `HTTPException` of starlette as a problem; its headers go with it.

    app = Starlette(routes=routes, exception_handlers={HTTPException: http_problem})
    """
    raised = cast("Any", exc)
    status = int(raised.status_code)
    headers = tuple(
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in dict(raised.headers or {}).items()
    )
    phrase = _phrase(status)
    detail = str(raised.detail)
    return Problem(
        status,
        code=phrase.lower(),
        kind=Kind.REJECTED.value if status < 500 else "",
        detail="" if detail == phrase else detail,
        headers=headers,
    )


def problem_of_refusal(reason: Reason, retry_after_s: float | None) -> Problem:
    """Return the answer to a request that admission has refused for `reason`. None: it is too large ever to come in (413)."""
    if retry_after_s is None:
        detail = f"It is larger than the limit allows ({reason.value}); a smaller one may come in."
        return Problem(413, "too large", Kind.REJECTED.value, detail)
    status = _STATUS_BY_CODE.get((Kind.OVERLOADED, reason.value)) or _STATUS[Kind.OVERLOADED]
    return Problem(status, reason.value, Kind.OVERLOADED.value, _DETAILS[reason], retry_after_s=retry_after_s)


def refusal_wire(
    reason: Reason,
    retry_after_s: float | None,
    *,
    request_id: str = "",
    head: bool = False,
    close: bool = False,
    more: bytes = b"",
) -> bytes:
    """Return the bytes of the answer to a refusal of admission: the same as those of `problem_of_refusal`, for less.

    `close` ends the connection, `head` and `more` are those of `Problem.wire`. `request_id` has to be one that `request_id_of`
    has made or accepted: it is not escaped.
    """
    if retry_after_s is None:
        return replace(problem_of_refusal(reason, None), close=close).wire(request_id=request_id, head=head, more=more)
    start, body_start = _PREPARED[reason]
    body = body_start + repr(max(0.0, float(retry_after_s))).encode()
    if request_id:
        name = request_id.encode()
        body += b',"request_id":"%s"}' % name
        more += b"x-request-id: %s\r\n" % name
    else:
        body += b"}"
    if close:
        more += b"connection: close\r\n"
    head_lines = b"%d\r\ncontent-length: %d\r\n%s\r\n" % (retry_after(retry_after_s), len(body), more)
    return start + head_lines if head else start + head_lines + body


def retry_after(seconds: float) -> int:
    """Return the value of Retry-After for a wait of `seconds`: whole, rounded up, from 1 second to one day."""
    return max(1, min(math.ceil(min(seconds, RETRY_AFTER_S_MAX)), RETRY_AFTER_S_MAX))


def refusal_in(exc: BaseException | None) -> Unavailable | None:
    """Return the refusal that `exc` is, or that it was caused by, or that is in its group: the first that is found."""
    waiting = [exc]
    for _ in range(DEPTH_MAX):
        if not waiting:
            return None
        found = waiting.pop()
        if isinstance(found, Unavailable):
            return found
        if isinstance(found, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", found).exceptions[:DEPTH_MAX]
        if found is not None:
            waiting.append(found.__cause__)
    return None


def _finite(seconds: float | None) -> float | None:
    """Return `seconds`, at least 0, unless they are no number of JSON."""
    return max(0.0, seconds) if seconds is not None and math.isfinite(seconds) else None


def _phrase(status: int) -> str:
    try:
        return _PHRASES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %s\r\n" % (status, _phrase(status).encode())


def _prepare(reason: Reason) -> tuple[bytes, bytes]:
    """Return the parts that never change: the head up to the value of Retry-After, the body up to that of `retry_after_s`."""
    problem = problem_of_refusal(reason, 1.0)
    body = problem.body().removesuffix(b"1.0}")
    fixed = (header for header in problem.all_headers(0) if header[0] not in {b"content-length", b"retry-after"})
    return _status_line(problem.status) + b"".join(b"%s: %s\r\n" % header for header in fixed) + b"retry-after: ", body


_PREPARED: Final = {reason: _prepare(reason) for reason in Reason}
