"""A small server made of the doors alone keeps the promises of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from served import get, serving
from server_contract import Rig, ServerContract
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import outlast
from outlast.http import AdmissionMiddleware, EventFeed, EventStream, Server, TokenMiddleware, Tokens, http_problem, long_poll
from outlast.http._app.tokens import needed_scope

if TYPE_CHECKING:
    from starlette.requests import Request

    from conftest import LogWatch, RunAsync
    from outlast.http import Limits

READER = "reader-0123456789-of-the-shop"
WRITER = "writer-0123456789-of-the-shop"


class Shop:
    """The application: a feed of orders, a poll for the next one, and what a test of a server needs."""

    def __init__(self) -> None:
        self.feed = EventFeed()

    async def orders(self, request: Request) -> Response:
        return JSONResponse({"newest": self.feed.newest})

    async def add(self, request: Request) -> Response:
        size = 0
        async for part in request.stream():
            size += len(part)
        return JSONResponse({"id": self.feed.publish(f'{{"bytes": {size}}}', event="order")})

    async def next_order(self, request: Request) -> Response:
        polled = await long_poll(request.scope, request.receive, self.feed.wait(), wait_s=60)
        return Response(status_code=204) if polled.ended else JSONResponse({"newest": self.feed.newest})

    async def watch(self, request: Request) -> EventStream:
        return EventStream(self.feed.watch(request.headers.get("last-event-id")))

    async def export(self, request: Request) -> Response:
        return PlainTextResponse("x" * 2**24)

    async def broken(self, request: Request) -> Response:
        raise LookupError("inside")

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/orders", self.orders),
                Route("/orders", self.add, methods=["POST"]),
                Route("/orders/next", self.next_order),
                Route("/orders/events", self.watch),
                Route("/orders/export", self.export),
                Route("/broken", self.broken),
            ],
            exception_handlers={HTTPException: http_problem},
        )


class ShopRig(Rig):
    reader = READER
    writer = WRITER
    ok = upload = "/orders"
    large = "/orders/export"
    poll = "/orders/next"
    events = "/orders/events"
    bug = "/broken"

    def __init__(self) -> None:
        self._admission = outlast.Admission("shop")

    def make(self, limits: Limits, deadline_s: float) -> tuple[outlast.Service, Server]:
        service = outlast.Service("shop", deadline_s=deadline_s)
        self._admission = outlast.Admission("shop")
        self._admission.attach(service)
        return service, self.server(Shop().app(), limits).attach(service)

    def server(self, app: Starlette, limits: Limits) -> Server:
        return Server(app, "127.0.0.1:0", limits=limits, tokens=tokens(), admission=self._admission)


class AskedLaterRig(ShopRig):
    """The application asks by itself, as on a server that is not ours."""

    def server(self, app: Starlette, limits: Limits) -> Server:
        guarded = TokenMiddleware(AdmissionMiddleware(app, self._admission), tokens())
        return Server(guarded, "127.0.0.1:0", limits=limits)


def tokens() -> Tokens:
    return Tokens([f"reader read {READER}", f"writer read,write {WRITER} tenant-7"])


class TestTheShop(ServerContract):
    @pytest.fixture
    def rig(self) -> ShopRig:
        return ShopRig()


class TestTheShopAskedLater(ServerContract):
    @pytest.fixture
    def rig(self) -> ShopRig:
        return AskedLaterRig()


@pytest.mark.parametrize("broken", ["ask", "needs"])
def test_a_rule_of_the_user_s_that_fails_is_a_bug_and_no_malformed_request(
    run_async: RunAsync, expected_logs: LogWatch, broken: str
) -> None:
    def fails(*_: object) -> Any:
        raise LookupError("in a rule")

    async def main() -> None:
        rules = Tokens([f"reader read {READER}"], needs=fails if broken == "needs" else needed_scope)
        more: dict[str, Any] = {"ask": fails} if broken == "ask" else {}
        async with serving(Shop().app(), tokens=rules, admission=outlast.Admission("shop"), **more) as served:
            for _ in range(3):
                answer = await served.ask(get("/orders", f"Authorization: Bearer {READER}", "Connection: close"))
                assert (answer.status, answer.code) == (500, "bug")

    expected_logs("in a rule")
    run_async(main)
    assert len(expected_logs.messages) == 1
