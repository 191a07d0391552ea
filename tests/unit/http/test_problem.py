"""Faults, refusals and bugs as problems of RFC 9457: status, members, headers, bytes."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_exchange import Exchange
from outlast import Classifiers, Fault, Kind, OutlastError, Scope, Stopping, Unavailable
from outlast.admission import Reason
from outlast.extend import attach
from outlast.http import Problem, http_problem, problem_of
from outlast.http._app.problem import problem_of_fault, problem_of_refusal, refusal_in, refusal_wire, retry_after
from outlast.http._app.request_ids import request_id_of
from outlast.testing import run_virtual


def members(problem: Problem, request_id: str = "") -> dict[str, Any]:
    return dict(json.loads(problem.body(request_id)))


def parsed(wire: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = wire.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), "a header twice"
    return status, headers, body


DOWN = Unavailable("orders", Fault(Kind.TRANSIENT, "ECONNREFUSED", "password=hunter2 refused", "orders"), 12.5, 0.02)


def test_a_refusal_says_the_first_cause_since_when_and_when_to_come_back() -> None:
    problem = problem_of(DOWN)
    said = members(problem, "abc")
    assert said.pop("detail").startswith("orders is unavailable since 12.5 s: ECONNREFUSED")
    assert said == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "code": "ECONNREFUSED",
        "kind": "transient",
        "since_s": 12.5,
        "retry_after_s": 0.02,
        "request_id": "abc",
    }
    assert (b"retry-after", b"1") in problem.all_headers(0)
    assert b"hunter2" not in problem.body()


def test_a_refusal_is_found_behind_other_exceptions() -> None:
    wrapped = RuntimeError("the order could not be read")
    wrapped.__cause__ = DOWN
    for exc in (wrapped, ExceptionGroup("two", [ValueError("x"), wrapped])):
        assert problem_of(exc).retry_after_s == 0.02


def test_a_refusal_is_looked_for_in_a_bounded_number_of_exceptions() -> None:
    chain: BaseException = DOWN
    for number in range(1000):
        outer = RuntimeError(number)
        outer.__cause__ = chain
        chain = outer
    assert refusal_in(chain) is None
    loop = RuntimeError("its own cause")
    loop.__cause__ = loop
    assert refusal_in(loop) is None


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [(kind, "x", 503) for kind in (Kind.TRANSIENT, Kind.CONTENDED, Kind.EXHAUSTED, Kind.OVERLOADED, Kind.PERMANENT)]
    + [(Kind.STOPPING, "x", 503), (Kind.FATAL, "EIO", 500), (Kind.BUG, "x", 500)]
    + [(Kind.OVERLOADED, "rate", 429), (Kind.OVERLOADED, "share", 429), (Kind.OVERLOADED, "memory", 503)]
    + [(Kind.REJECTED, "x", 400), (Kind.REJECTED, "too large", 413), (Kind.REJECTED, "23505", 409)],
)
def test_the_kind_and_the_code_decide_the_status(kind: Kind, code: str, status: int) -> None:
    exc = ValueError("whatever")
    attach(exc, Fault(kind, code, "a reason", "db", Scope.CALL))
    problem = problem_of(exc)
    assert problem.status == status
    assert problem.detail == ("" if status == 500 else "a reason")


def test_a_client_learns_nothing_of_what_is_broken_inside() -> None:
    assert members(problem_of(KeyError("row 17 of customers"))) == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "code": "bug",
        "kind": "bug",
    }
    assert b"disk" not in problem_of_fault(Fault(Kind.FATAL, "EIO", "the disk of /var/lib")).body()


def test_what_has_ended_alone_is_told_with_its_cause_and_when_to_come_back() -> None:
    ended = Fault(Kind.FATAL, "EIO", "input/output error", "disk", Scope.CHILD)
    problem = problem_of(Unavailable("disk", ended, 5.0, 60.0))
    assert (problem.status, problem.code, problem.kind, problem.retry_after_s) == (503, "EIO", "fatal", 60.0)


def test_classifiers_of_the_application_are_asked() -> None:
    def rule(exc: BaseException, phase: str) -> Fault | None:
        return Fault(Kind.REJECTED, "no such order", "there is no order 7") if isinstance(exc, LookupError) else None

    problem = problem_of(KeyError(7), Classifiers([rule]))
    assert (problem.status, problem.code, problem.detail) == (400, "no such order", "there is no order 7")


def test_an_error_of_ours_is_told_in_its_own_words() -> None:
    assert problem_of(OutlastError("order 7 is 2 kB, limit 1 kB", Fault(Kind.REJECTED, "too large", "short"))).detail == (
        "order 7 is 2 kB, limit 1 kB"
    )


def test_one_who_stops_closes_the_connection() -> None:
    problem = problem_of(Stopping("SIGTERM"))
    assert (problem.status, problem.code, problem.close) == (503, "stopping", True)
    assert (b"connection", b"close") in problem.all_headers(0)


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.02, 1), (0.0, 1), (-5.0, 1), (1.0, 1), (1.001, 2), (29.5, 30), (1e300, 86_400)]
)
def test_retry_after_is_in_whole_seconds_and_at_least_one(seconds: float, header: int) -> None:
    assert retry_after(seconds) == header
    _, headers, body = parsed(refusal_wire(Reason.RATE, seconds))
    assert headers["retry-after"] == str(header)
    assert json.loads(body)["retry_after_s"] == max(0.0, seconds)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_wait_that_is_no_number_is_left_out(seconds: float) -> None:
    problem = problem_of_fault(Fault(Kind.TRANSIENT, "x", "y", retry_after_s=seconds))
    assert "retry_after_s" not in members(problem)
    assert b"retry-after" not in dict(problem.all_headers(0))


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("retry_after_s", [0.02, 7.25, -1, None])
@pytest.mark.parametrize("request_id", ["", "id-1"])
@pytest.mark.parametrize("close", [False, True])
def test_the_prepared_answer_is_the_same_as_the_one_made_by_parts(
    reason: Reason, retry_after_s: float | None, request_id: str, *, close: bool
) -> None:
    quick = parsed(refusal_wire(reason, retry_after_s, request_id=request_id, close=close, more=b"date: today\r\n"))
    problem = problem_of_refusal(reason, retry_after_s)
    slow = Problem(
        problem.status, problem.code, problem.kind, problem.detail, problem.since_s, problem.retry_after_s, close=close
    )
    assert quick == parsed(slow.wire(request_id=request_id, more=b"date: today\r\n"))
    assert quick[1]["content-length"] == str(len(quick[2]))
    assert ("retry-after" in quick[1]) == (retry_after_s is not None)
    assert quick[0].split()[1] == ("413" if retry_after_s is None else "429" if reason.value in {"rate", "share"} else "503")


@pytest.mark.parametrize("retry_after_s", [0.5, None])
def test_head_is_answered_with_the_same_head_and_no_body(retry_after_s: float | None) -> None:
    full = refusal_wire(Reason.MEMORY, retry_after_s)
    assert refusal_wire(Reason.MEMORY, retry_after_s, head=True) == full[: full.index(b"\r\n\r\n") + 4]


def test_a_problem_sends_itself() -> None:
    async def main() -> None:
        exchange = await Exchange("HEAD").run(problem_of(DOWN))
        assert (exchange.status, exchange.body) == (503, b"")
        assert exchange.headers["content-type"] == "application/problem+json"
        exchange = await Exchange(extensions={"outlast.request_id": "r1"}).run(problem_of(DOWN))
        assert exchange.json["request_id"] == "r1"
        assert exchange.headers["content-length"] == str(len(exchange.body))

    run_virtual(main)


def test_an_http_exception_of_a_framework_is_a_problem() -> None:
    async def main() -> None:
        exc: Any = SimpleNamespace(status_code=405, detail="Method Not Allowed", headers={"Allow": "GET"})
        problem = await http_problem(None, exc)
        assert members(problem) == {
            "type": "about:blank",
            "title": "Method Not Allowed",
            "status": 405,
            "code": "method not allowed",
            "kind": "rejected",
        }
        assert (b"allow", b"GET") in problem.all_headers(0)
        exc = SimpleNamespace(status_code=599, detail="no order 7", headers=None)
        assert members(await http_problem(None, exc)) == {
            "type": "about:blank",
            "title": "Status 599",
            "status": 599,
            "detail": "no order 7",
            "code": "status 599",
        }

    run_virtual(main)


@pytest.mark.parametrize("fit", [b"abc-1", b"A_b.9", b"x" * 128])
def test_the_id_of_the_client_is_taken(fit: bytes) -> None:
    assert request_id_of([(b"accept", b"*/*"), (b"x-request-id", fit)], random.Random(1)) == fit.decode()


@pytest.mark.parametrize("unfit", [b"", b"x" * 129, b'"}', b"a b", b"a\r\nb", b"\xff"])
def test_an_unfit_id_is_replaced(unfit: bytes) -> None:
    made = request_id_of([(b"x-request-id", unfit), (b"x-request-id", b"another")], random.Random(1))
    assert made == request_id_of([], random.Random(1))
    assert len(made) == 16


def test_members_of_ones_own_are_said_beside_those_of_every_problem_and_take_the_place_of_none() -> None:
    own = {"oldest": "07", "count": 0, "left_out": None, "empty": "", "status": 200, "code": "mine", "detail": "mine"}
    problem = Problem(410, "gone", detail="it is gone", members=own)
    assert members(problem) == {
        "type": "about:blank",
        "title": "Gone",
        "status": 410,
        "detail": "it is gone",
        "code": "gone",
        "oldest": "07",
        "count": 0,
    }
