"""Errors and answers of httpx2 and httpx are classified alike: kind, code, and whom they concern."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import subprocess
import sys
from typing import Any

import httpx
import httpx2
import pytest

from outlast import Classifiers, Fault, Kind, Scope
from outlast.http import Answer, AnswerError, http_rule
from outlast.http._client.classify import was_accepted
from outlast.http._client.statuses import CLASSES, STATUSES

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
RULES = Classifiers([http_rule])
CALL, PEER = Scope.CALL, Scope.DEPENDENCY


def answered(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Fault:
    return RULES.classify(AnswerError("orders: GET /", Answer(status, headers or {}, body)), source="orders")


def told(status: int, retry_after: str = "", **members: Any) -> Fault:
    headers = {"content-type": "application/problem+json", "retry-after": retry_after}
    return answered(status, headers, json.dumps(members).encode())


def raised_behind(library: Any, name: str, cause: BaseException) -> BaseException:
    """An error as a pool leaves it: the cause of the socket's error is cut, its context is not."""
    core = __import__("httpcore2" if library is httpx2 else "httpcore")
    try:
        try:
            try:
                raise cause
            except BaseException as exc:
                raise getattr(core, name)(exc) from exc
        except BaseException as exc:
            raise exc from None
    except BaseException as exc:  # noqa: BLE001 - whatever it is, as the library has it
        error = getattr(library, name)(str(exc))
        error.__cause__ = exc
        return error


@LIBRARIES
@pytest.mark.parametrize(
    ("name", "kind", "code", "scope"),
    [
        ("ConnectTimeout", Kind.TRANSIENT, "timeout", PEER),
        ("ReadTimeout", Kind.TRANSIENT, "timeout", PEER),
        ("WriteTimeout", Kind.TRANSIENT, "timeout", PEER),
        ("PoolTimeout", Kind.OVERLOADED, "pool timeout", CALL),
        ("ConnectError", Kind.TRANSIENT, "connect", PEER),
        ("ReadError", Kind.TRANSIENT, "ECONNRESET", PEER),
        ("WriteError", Kind.TRANSIENT, "ECONNRESET", PEER),
        ("CloseError", Kind.TRANSIENT, "ECONNRESET", PEER),
        ("ProxyError", Kind.TRANSIENT, "proxy", PEER),
        ("UnsupportedProtocol", Kind.REJECTED, "bad URL", CALL),
        ("InvalidURL", Kind.REJECTED, "bad URL", CALL),
        ("LocalProtocolError", Kind.REJECTED, "protocol", CALL),
        ("RemoteProtocolError", Kind.TRANSIENT, "protocol", PEER),
        ("DecodingError", Kind.TRANSIENT, "encoding", CALL),
        ("TooManyRedirects", Kind.PERMANENT, "too many redirects", CALL),
        ("TransportError", Kind.TRANSIENT, "transport", PEER),
    ],
)
def test_each_error_of_the_libraries_has_a_kind_a_code_and_a_scope(
    library: Any, name: str, kind: Kind, code: str, scope: Scope
) -> None:
    fault = RULES.classify(getattr(library, name)("as the test says"), source="orders")
    assert (fault.kind, fault.code, fault.scope, fault.source) == (kind, code, scope, "orders")
    assert name in fault.reason


@LIBRARIES
def test_every_error_of_the_transport_is_known_and_misuse_is_a_bug(library: Any) -> None:
    waiting = [library.RequestError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        assert http_rule(error("text"), "") is not None, error
    assert http_rule(library.StreamConsumed(), "") is None
    assert RULES.classify(library.StreamConsumed()).kind is Kind.BUG
    assert http_rule(ValueError("of another package"), "") is None


@LIBRARIES
@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Kind.TRANSIENT, "ECONNREFUSED"),
        (OSError(errno.EHOSTUNREACH, "unreachable"), Kind.TRANSIENT, "EHOSTUNREACH"),
        (OSError(errno.EMFILE, "too many files"), Kind.EXHAUSTED, "EMFILE"),
        (socket.gaierror(-2, "Name or service not known"), Kind.TRANSIENT, "EAI_NONAME"),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), Kind.PERMANENT, "certificate"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), Kind.PERMANENT, "tls"),
        (RuntimeError("of nobody knows what"), Kind.TRANSIENT, "connect"),
    ],
)
def test_a_failure_to_connect_is_named_by_the_error_of_the_socket(
    library: Any, cause: BaseException, kind: Kind, code: str
) -> None:
    fault = RULES.classify(raised_behind(library, "ConnectError", cause))
    assert (fault.kind, fault.code, fault.scope) == (kind, code, PEER)
    assert bool(fault.hint) == (kind is Kind.PERMANENT or code.startswith("EAI"))


@LIBRARIES
def test_a_connection_that_broke_is_named_by_the_error_of_the_socket(library: Any) -> None:
    error = raised_behind(library, "ReadError", BrokenPipeError(errno.EPIPE, "broken pipe"))
    assert RULES.classify(error).code == "EPIPE"


@pytest.mark.parametrize(
    ("status", "kind", "scope"),
    [
        (200, Kind.REJECTED, CALL),
        (301, Kind.PERMANENT, CALL),
        (400, Kind.REJECTED, CALL),
        (401, Kind.PERMANENT, PEER),
        (403, Kind.PERMANENT, CALL),
        (404, Kind.REJECTED, CALL),
        (408, Kind.TRANSIENT, CALL),
        (409, Kind.REJECTED, CALL),
        (413, Kind.REJECTED, CALL),
        (423, Kind.CONTENDED, CALL),
        (429, Kind.OVERLOADED, CALL),
        (500, Kind.TRANSIENT, CALL),
        (501, Kind.REJECTED, CALL),
        (502, Kind.TRANSIENT, PEER),
        (503, Kind.TRANSIENT, PEER),
        (504, Kind.TRANSIENT, PEER),
        (507, Kind.EXHAUSTED, CALL),
        (520, Kind.TRANSIENT, PEER),
        (777, Kind.REJECTED, CALL),
    ],
)
def test_each_status_has_a_kind_and_says_whom_it_concerns(status: int, kind: Kind, scope: Scope) -> None:
    fault = answered(status)
    assert (fault.kind, fault.code, fault.scope, fault.retry_after_s) == (kind, f"HTTP {status}", scope, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-5",
        "nan",
        "inf",
        "1_0",
        "0.5",
        "120, 240",
        "soon",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Mon, 01 Jan 2029 00:00:00 -0000",
    ],
)
def test_a_retry_after_that_says_nothing_leaves_the_wait_to_our_own_backoff(text: str) -> None:
    fault = answered(503, {"retry-after": text})
    assert (fault.kind, fault.scope, fault.retry_after_s) == (Kind.TRANSIENT, PEER, None)
    assert answered(429, {"retry-after": text}).scope is CALL


def test_a_retry_after_of_years_is_an_hour() -> None:
    for text in ("99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"):
        assert answered(503, {"retry-after": text}).retry_after_s == 3600.0


def test_what_needs_a_person_says_what_to_do() -> None:
    assert [row for row in (*STATUSES.values(), *CLASSES.values()) if row.kind is Kind.PERMANENT and not row.hint] == []


def test_retry_after_is_taken_and_makes_of_429_a_matter_of_everyone_who_uses_the_peer() -> None:
    assert answered(503, {"retry-after": "17"}).retry_after_s == 17.0
    fault = answered(429, {"retry-after": "17"})
    assert (fault.kind, fault.scope, fault.retry_after_s) == (Kind.OVERLOADED, PEER, 17.0)


@pytest.mark.parametrize(
    ("status", "kind", "ours", "scope"),
    [
        (429, "overloaded", Kind.OVERLOADED, CALL),
        (503, "overloaded", Kind.OVERLOADED, CALL),
        (503, "transient", Kind.TRANSIENT, PEER),
        (503, "exhausted", Kind.EXHAUSTED, PEER),
        (503, "permanent", Kind.PERMANENT, PEER),
        (503, "stopping", Kind.TRANSIENT, PEER),
        (409, "contended", Kind.CONTENDED, CALL),
        (409, "rejected", Kind.REJECTED, CALL),
        (401, "rejected", Kind.PERMANENT, PEER),
        (403, "permanent", Kind.PERMANENT, CALL),
        (500, "fatal", Kind.PERMANENT, CALL),
        (500, "bug", Kind.TRANSIENT, CALL),
    ],
)
def test_a_server_of_outlast_says_kind_code_and_the_exact_wait(status: int, kind: str, ours: Kind, scope: Scope) -> None:
    fault = told(status, "2", kind=kind, code="rate", detail="50 a second are agreed", since_s=3.5, retry_after_s=1.0625)
    assert (fault.kind, fault.code, fault.scope, fault.retry_after_s) == (ours, "rate", scope, 1.0625)
    assert "50 a second are agreed" in fault.reason


def test_every_kind_that_a_server_may_say_is_one_of_ours_and_neither_stops_nor_ends_us() -> None:
    kinds = {told(500, kind=kind.value, code="x").kind for kind in Kind}
    assert kinds.isdisjoint({Kind.STOPPING, Kind.FATAL, Kind.BUG})


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"kind": "overloaded"}', b'{"code": "x", "kind": "magic"}', b'{"kind": 3, "code": "x"}', b"[" * 60_000],
)
def test_a_problem_of_somebody_else_is_read_by_its_status(body: bytes) -> None:
    fault = answered(503, {"content-type": "application/problem+json; charset=utf-8", "retry-after": "2"}, body)
    assert (fault.kind, fault.code, fault.scope, fault.retry_after_s) == (Kind.TRANSIENT, "HTTP 503", PEER, 2.0)


@pytest.mark.parametrize("wait", [0, 0.0, -1, True, "7", None, float("nan"), float("inf"), 10**400])
def test_a_wait_that_is_none_is_not_taken(wait: object) -> None:
    assert told(503, "2", kind="overloaded", code="rate", retry_after_s=wait).retry_after_s == 2.0


def test_a_wait_of_days_is_an_hour() -> None:
    assert told(503, kind="transient", code="57P01", retry_after_s=86_400).retry_after_s == 3600.0


def test_since_when_it_has_been_so_is_on_the_error() -> None:
    body = json.dumps({"kind": "transient", "code": "57P01", "since_s": 3.5}).encode()
    error = AnswerError("orders: GET /", Answer(503, {"content-type": "application/problem+json"}, body))
    assert error.problem is not None
    assert (error.status, error.problem.since_s) == (503, 3.5)


@LIBRARIES
def test_an_answer_raised_by_the_library_is_read_as_one_of_ours_and_its_url_is_not_shown(library: Any) -> None:
    request = library.Request("GET", "https://shop:hunter2@orders/?token=hunter3")
    problem = {"kind": "overloaded", "code": "share", "retry_after_s": 0.5}
    for body, code, wait_s in ((b"busy", "HTTP 503", 9.0), (json.dumps(problem).encode(), "share", 0.5)):
        headers = {"content-type": "application/problem+json", "retry-after": "9"}
        with pytest.raises(library.HTTPStatusError) as caught:
            library.Response(503, headers=headers, content=body, request=request).raise_for_status()
        fault = RULES.classify(caught.value)
        assert (fault.code, fault.retry_after_s) == (code, wait_s)
        assert "hunter" not in f"{fault}"


@LIBRARIES
def test_an_answer_whose_body_was_not_read_is_read_by_its_status(library: Any) -> None:
    response = library.Response(503, stream=library.ByteStream(b"busy"), request=library.Request("GET", "http://orders/"))
    with pytest.raises(library.HTTPStatusError) as caught:
        response.raise_for_status()
    assert RULES.classify(caught.value).code == "HTTP 503"


@LIBRARIES
@pytest.mark.parametrize("name", ["LocalProtocolError", "InvalidURL", "UnsupportedProtocol", "ProxyError"])
def test_a_text_that_quotes_what_was_sent_is_not_shown(library: Any, name: str) -> None:
    assert "hunter2" not in RULES.classify(getattr(library, name)("Illegal header value b'hunter2\\n'")).reason


def test_in_a_probe_everything_concerns_everyone_and_what_is_wrong_stays_wrong() -> None:
    for phase in ("probe", "connect"):
        rejected = http_rule(AnswerError("orders: HEAD /", Answer(400, {}, b"")), phase)
        broken = http_rule(AnswerError("orders: HEAD /", Answer(500, {}, b"")), phase)
        assert rejected is not None
        assert broken is not None
        assert (rejected.kind, rejected.scope) == (Kind.PERMANENT, PEER)
        assert (broken.kind, broken.scope) == (Kind.TRANSIENT, PEER)


@pytest.mark.parametrize(
    ("kind", "code", "scope", "accepted"),
    [
        (Kind.OVERLOADED, "HTTP 429", CALL, False),
        (Kind.OVERLOADED, "share", CALL, False),
        (Kind.EXHAUSTED, "HTTP 507", CALL, False),
        (Kind.TRANSIENT, "HTTP 503", PEER, False),
        (Kind.TRANSIENT, "ECONNREFUSED", PEER, False),
        (Kind.TRANSIENT, "timeout", CALL, False),
        (Kind.TRANSIENT, "HTTP 500", CALL, True),
        (Kind.REJECTED, "HTTP 404", CALL, True),
        (Kind.PERMANENT, "HTTP 403", CALL, True),
        (Kind.OVERLOADED, "no connection", CALL, None),
        (Kind.TRANSIENT, "deadline over", CALL, None),
        (Kind.BUG, "ValueError", PEER, None),
        (Kind.STOPPING, "stopping", PEER, None),
    ],
)
def test_a_throttle_counts_as_refused_what_was_one_too_many(kind: Kind, code: str, scope: Scope, accepted: object) -> None:
    assert was_accepted(Fault(kind, code, "as the test says", scope=scope)) is accepted


def test_a_rule_of_the_users_is_asked_first() -> None:
    def mine(exc: BaseException, _phase: str) -> Fault | None:
        return Fault(Kind.CONTENDED, "mine", "as I say") if isinstance(exc, AnswerError) else None

    assert RULES.with_rule(mine).classify(AnswerError("orders", Answer(409, {}, b""))).code == "mine"


def test_classifying_imports_neither_library() -> None:
    code = "import sys; from outlast.http import http_rule; http_rule(OSError(), ''); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"httpx", "httpx2", "starlette", "uvicorn"}.isdisjoint(loaded)
