"""The middleware that answers for an application that raises: one answer, one line, however often it fails."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from asgi_exchange import Exchange, ok
from outlast import Fault, Kind, Scope, Stopping, Unavailable
from outlast.extend import attach
from outlast.http import ProblemMiddleware, http_problem
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def raising(exc: BaseException, *, after: int = 0) -> Any:
    """An application that sends so many messages of an answer, and then raises."""
    messages: list[dict[str, Any]] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"half", "more_body": True},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages[:after]:
            await send(message)
        # One exception is raised a thousand times: each would add to its traceback.
        raise exc.with_traceback(None)

    return app


def failing(kind: Kind, scope: Scope = Scope.CALL, source: str = "db") -> Exception:
    exc = RuntimeError("the statement failed")
    attach(exc, Fault(kind, "x", "a reason", source, scope))
    return exc


REFUSAL = Unavailable("db", Fault(Kind.TRANSIENT, "ECONNREFUSED", "refused", "db"), 1.0, 0.5)


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (REFUSAL, 503),
        (ExceptionGroup("a task group", [REFUSAL]), 503),
        (Stopping("SIGTERM"), 503),
        (failing(Kind.REJECTED), 400),
        (failing(Kind.TRANSIENT, Scope.DEPENDENCY), 503),
    ],
)
def test_a_refusal_is_answered_and_writes_no_line(exc: Exception, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for _ in range(3):
            exchange = await Exchange().run(ProblemMiddleware(raising(exc)))
            assert (exchange.status, exchange.ended) == (status, True)

    with caplog.at_level(logging.DEBUG, "outlast"):
        run_virtual(main)
    assert caplog.records == []


def test_a_bug_is_one_error_with_its_traceback_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = ProblemMiddleware(raising(ValueError("row 7")), name="http shop")
        for _ in range(1000):
            exchange = await Exchange().run(app)
            assert exchange.status == 500
            assert b"row 7" not in exchange.body
        assert app.incident.book.faults == 1000
        await asyncio.sleep(60)
        assert not app.incident.is_open
        await Exchange().run(app)

    with caplog.at_level(logging.INFO, "outlast"):
        run_virtual(main)
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.levelno for record in errors] == [logging.ERROR] * 2, "the second is of another incident"
    assert "http shop is failing" in errors[0].getMessage()
    assert errors[0].exc_info is not None
    assert [record.getMessage().split(":")[0] for record in caplog.records][1:3] == [
        "http shop is back after 10.0 s (1000 faults); watching it",
        "http shop resolved",
    ]


@pytest.mark.parametrize(
    ("exc", "level"),
    [
        (failing(Kind.TRANSIENT), logging.WARNING),
        (failing(Kind.TRANSIENT, Scope.DEPENDENCY, source=""), logging.WARNING),
        (failing(Kind.PERMANENT), logging.ERROR),
        (failing(Kind.FATAL), logging.CRITICAL),
    ],
)
def test_what_nobody_else_tells_is_logged_as_its_kind_says(exc: Exception, level: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await Exchange().run(ProblemMiddleware(raising(exc)))

    run_virtual(main)
    assert [record.levelno for record in caplog.records] == [level]


def test_a_failure_while_an_incident_looks_better_keeps_it_open(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = ProblemMiddleware(raising(failing(Kind.TRANSIENT)))
        for _ in range(20):
            await Exchange().run(app)
            await asyncio.sleep(9)
        assert app.incident.book.incidents == 1
        assert "is back" not in caplog.text
        await asyncio.sleep(25)
        assert app.incident.is_open
        assert caplog.text.count("is back") == 1
        await asyncio.sleep(20)
        assert not app.incident.is_open

    with caplog.at_level(logging.INFO, "outlast"):
        run_virtual(main)


def test_a_failure_after_the_answer_has_begun_closes_the_connection(expected_logs: Any) -> None:
    expected_logs("ValueError")
    aborted: list[bool] = []

    async def main() -> None:
        app = ProblemMiddleware(raising(ValueError("late"), after=2))
        exchange = await Exchange(extensions={"outlast.abort": lambda: aborted.append(True)}).run(app)
        assert (exchange.status, exchange.body, exchange.ended, aborted) == (200, b"half", False, [True])
        with pytest.raises(ValueError, match="late"):
            await Exchange().run(app)

    run_virtual(main)


def test_a_cancellation_passes() -> None:
    async def main() -> None:
        exchange = Exchange()
        task = asyncio.create_task(exchange.run(ProblemMiddleware(raising(asyncio.CancelledError()))))
        await asyncio.wait({task})
        assert task.cancelled()
        assert exchange.sent == []

    run_virtual(main)


async def fails(request: Request) -> PlainTextResponse:
    raise LookupError("inside")


async def answers_500(request: Request) -> PlainTextResponse:
    return PlainTextResponse("of its own" * int(request.query_params.get("times", "1")), 500)


async def streams_500(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "of its"
        yield " own"

    return StreamingResponse(parts(), 500)


STARLETTE = Starlette(
    routes=[Route("/fails", fails), Route("/own", answers_500), Route("/streams", streams_500)],
    exception_handlers={HTTPException: http_problem},
)


def test_a_framework_that_answers_500_and_raises_is_answered_for(expected_logs: Any) -> None:
    expected_logs("LookupError")

    async def main() -> None:
        exchange = await Exchange(path="/fails").run(ProblemMiddleware(STARLETTE))
        assert (exchange.status, exchange.json["code"], len(exchange.sent)) == (500, "bug", 2)

    run_virtual(main)


@pytest.mark.parametrize(("path", "query"), [("/own", b""), ("/own", b"times=10000"), ("/streams", b"")])
def test_an_answer_500_that_an_application_means_is_sent(path: str, query: bytes) -> None:
    async def main() -> None:
        exchange = Exchange(path=path)
        exchange.scope["query_string"] = query
        await exchange.run(ProblemMiddleware(STARLETTE))
        assert (exchange.status, exchange.body[:10], exchange.ended) == (500, b"of its own", True)

    run_virtual(main)


def test_of_an_answer_500_only_a_bounded_part_is_held_back() -> None:
    gone_out: list[int] = []

    async def main() -> None:
        exchange = Exchange()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            gone_out.append(len(exchange.sent))
            await send({"type": "http.response.body", "body": b"x" * 65_537})
            gone_out.append(len(exchange.sent))

        await exchange.run(ProblemMiddleware(app))

    run_virtual(main)
    assert gone_out == [0, 2]


def test_an_unknown_path_is_a_problem_with_the_id_of_the_request() -> None:
    async def main() -> None:
        exchange = await Exchange(path="/none", headers={"X-Request-Id": "r-7"}).run(ProblemMiddleware(STARLETTE))
        assert (exchange.status, exchange.json["code"], exchange.json["request_id"]) == (404, "not found", "r-7")
        assert exchange.headers["x-request-id"] == "r-7"

    run_virtual(main)


def test_every_answer_has_an_id_and_a_server_s_own_is_kept() -> None:
    async def main() -> None:
        app = ProblemMiddleware(ok)
        ids = {(await Exchange().run(app)).headers["x-request-id"] for _ in range(100)}
        assert len(ids) == 100
        assert (await Exchange(extensions={"outlast.request_id": "s1"}).run(app)).headers["x-request-id"] == "s1"

        async def passes_on(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"a peer's")]})
            await send({"type": "http.response.body"})

        exchange = await Exchange(extensions={"outlast.request_id": "s1"}).run(ProblemMiddleware(passes_on))
        assert exchange.sent[0]["headers"] == [(b"x-request-id", b"s1")]

    run_virtual(main)


async def reads_the_body(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def test_a_client_that_leaves_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        body = Exchange("POST", "/")
        body.leave()
        app = ProblemMiddleware(Starlette(routes=[Route("/", reads_the_body, methods=["POST"])]))
        await body.run(app)

        def gone() -> None:
            raise BrokenPipeError("the client has left")

        answer = Exchange()
        answer.before_send = gone
        await answer.run(ProblemMiddleware(ok))
        refused = Exchange()
        refused.before_send = gone
        await refused.run(ProblemMiddleware(raising(REFUSAL)))
        assert body.sent[1:] == answer.sent == refused.sent == []

    with caplog.at_level(logging.DEBUG, "outlast"):
        run_virtual(main)
    assert caplog.records == []


def test_an_oserror_of_the_application_is_no_client_that_leaves(expected_logs: Any) -> None:
    expected_logs("BrokenPipe|EPIPE")

    async def main() -> None:
        assert (await Exchange().run(ProblemMiddleware(raising(BrokenPipeError(32, "a pipe of ours"))))).status == 503

    run_virtual(main)


def test_what_is_no_request_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def main() -> None:
        await ProblemMiddleware(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type] # unused here

    run_virtual(main)
    assert seen == ["lifespan"]
