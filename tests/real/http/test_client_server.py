"""`HttpPeer` before a server of ours: what that refuses and fails comes back as the fault it is there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from served import Served, serving
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import outlast
from outlast import Fault, Kind, Scope, State, Unavailable
from outlast.admission import Rate
from outlast.extend import attached
from outlast.http import AnswerError, HttpPeer, ProblemMiddleware, Tokens, http_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from starlette.requests import Request
    from starlette.responses import Response

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs
DOWN = Fault(Kind.EXHAUSTED, "53300", "too many connections", "postgres")


async def well(request: Request) -> Response:
    return PlainTextResponse(request.headers["x-request-timeout"])


async def down(_request: Request) -> Response:
    raise Unavailable("postgres", DOWN, 12.5, 0.0625)


async def missing(_request: Request) -> Response:
    raise HTTPException(404)


async def broken(_request: Request) -> Response:
    raise KeyError("a bug")


async def slow(_request: Request) -> Response:
    await asyncio.sleep(3600)
    return PlainTextResponse("never")


def app() -> Any:
    routes = [Route(f"/{route.__name__}", route) for route in (well, down, missing, broken, slow)]
    return ProblemMiddleware(Starlette(routes=routes, exception_handlers={HTTPException: http_problem}))


@contextlib.asynccontextmanager
async def asking(headers: dict[str, str] | None = None, **options: Any) -> AsyncIterator[tuple[HttpPeer, Served]]:
    async with serving(app(), **options) as served:
        peer = HttpPeer(f"http://127.0.0.1:{served.server.port}", headers=headers, deadline_s=5.0, probe_path="/healthz")
        try:
            yield peer, served
        finally:
            await peer.close()


async def failed(call: Awaitable[object]) -> tuple[AnswerError, Fault]:
    with pytest.raises(AnswerError) as caught:
        await call
    fault = attached(caught.value)
    assert fault is not None
    return caught.value, fault


def test_what_the_server_cannot_do_without_comes_back_with_kind_code_since_when_and_the_exact_wait(run_async: RunAsync) -> None:
    async def main() -> None:
        async with asking() as (peer, _):
            assert (await peer.get("/well")).text == "5.000"
            error, fault = await failed(peer.get("/down"))
            assert (fault.kind, fault.code, fault.scope, fault.retry_after_s) == (
                Kind.EXHAUSTED,
                "53300",
                Scope.DEPENDENCY,
                0.0625,
            )
            assert error.problem is not None
            assert (error.status, error.problem.since_s, error.answer.headers["retry-after"]) == (503, 12.5, "1")
            assert peer.state is State.DOWN

    run_async(main)


def test_what_concerns_one_request_takes_nothing_down(run_async: RunAsync) -> None:
    async def main() -> None:
        async with asking() as (peer, _):
            _, fault = await failed(peer.get("/missing"))
            assert (fault.kind, fault.code, fault.scope) == (Kind.REJECTED, "not found", Scope.CALL)
            _, fault = await failed(peer.get("/broken"))
            assert (fault.kind, fault.scope) == (Kind.TRANSIENT, Scope.CALL)
            assert "KeyError" not in fault.reason
            assert peer.state is State.UP

    run_async(main)


def test_a_refusal_of_admission_concerns_the_request_and_names_its_exact_wait(run_async: RunAsync) -> None:
    async def main() -> None:
        admission = outlast.Admission("shop", rate=Rate(0.01, burst=1))
        async with asking(admission=admission) as (peer, _):
            await peer.get("/well")
            error, fault = await failed(peer.get("/well"))
            assert (error.status, fault.kind, fault.code, fault.scope) == (429, Kind.OVERLOADED, "rate", Scope.CALL)
            assert fault.retry_after_s is not None
            assert 90.0 < fault.retry_after_s < 121.0
            assert fault.retry_after_s != int(fault.retry_after_s), "exact, where the header has whole seconds"
            assert peer.state is State.UP
            await peer.probe()

    run_async(main)


def test_a_token_that_is_wrong_is_for_a_person_and_holds_everyone(run_async: RunAsync) -> None:
    async def main() -> None:
        tokens = Tokens(["shop read a-token-of-the-shop"])
        async with asking({"authorization": "Bearer of-yesterday"}, tokens=tokens) as (peer, _):
            _, fault = await failed(peer.get("/well"))
            assert (fault.kind, fault.scope, peer.state) == (Kind.PERMANENT, Scope.DEPENDENCY, State.DOWN)
            assert fault.hint
        async with asking({"authorization": "Bearer a-token-of-the-shop"}, tokens=tokens) as (peer, _):
            assert (await peer.get("/well")).status == 200

    run_async(main)


def test_a_server_that_stops_is_down_and_may_come_back(run_async: RunAsync) -> None:
    async def main() -> None:
        async with asking(deadline_s=1.0) as (peer, served):
            waiting = asyncio.create_task(peer.get("/slow"))
            await served.until(lambda: served.open == 1)
            served.stop.fire("the test says so")
            with pytest.raises(Exception):  # noqa: B017, PT011 - cut, or told so: as the library has it
                await waiting
            fault = attached(waiting.exception() or ValueError())
            assert fault is not None
            assert (fault.kind, peer.state) == (Kind.TRANSIENT, State.DOWN)

    run_async(main)
