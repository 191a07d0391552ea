"""What a server answers with, as a service uses it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import outlast
from outlast.http import (
    AdmissionMiddleware,
    Ask,
    Event,
    EventFeed,
    EventStream,
    Limits,
    Polled,
    PollEnd,
    Problem,
    ProblemMiddleware,
    Server,
    Tls,
    Token,
    TokenMiddleware,
    Tokens,
    ask,
    http_problem,
    long_poll,
    problem_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

feed = EventFeed(history_bytes_max=1_000_000)
tokens = Tokens(["reports read 0123456789abcdef tenant-7"], needs=lambda method, path: None)
assert_type(feed.publish("7", event="order"), str)


async def value() -> int:
    return 7


async def poll(request: Request) -> None:
    polled = await long_poll(request.scope, request.receive, value(), wait_s=5.0)
    assert_type(polled, Polled[int])
    assert_type(polled.value, int | None)
    assert_type(polled.ended, PollEnd | None)


async def events() -> AsyncIterator[Event | bytes]:
    yield Event("7", event="order", id="7")


async def watch(request: Request) -> EventStream:
    if request.query_params:
        return EventStream(events(), keep_alive_s=5.0)
    return EventStream(feed.watch(request.headers.get("last-event-id")))


def asking(method: str, path: str, headers: object, client: str, token: Token | None) -> Ask:
    return Ask("all", cost=2.0)


def build(app: EventStream, admission: outlast.Admission) -> Server:
    inner = AdmissionMiddleware(app, admission, ask=asking)
    AdmissionMiddleware(app, admission, ask=ask)
    whole = ProblemMiddleware(TokenMiddleware(inner, tokens), classifiers=outlast.Classifiers())
    return Server(whole, "127.0.0.1:0")


def attached(app: EventStream, admission: outlast.Admission, service: outlast.Service) -> None:
    limits = Limits(body_bytes_max=None, connections_max=None, write_s=5.0)
    tls = Tls("certificate.pem", "key.pem", password=None)
    server = Server(app, ":8080", limits=limits, tokens=tokens, tls=tls, admission=admission, ask=asking, open_to_all=True)
    assert_type(server.attach(service), Server)
    assert_type(server.port, int)
    assert_type(server.url, str)


async def answers(request: Request, error: Exception) -> None:
    assert_type(problem_of(error), Problem)
    assert_type(await http_problem(request, error), Problem)
    assert_type(tokens.check("GET", "/", []), Token | Problem | None)
