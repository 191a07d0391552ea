"""A service with long polls, event streams and work, which tests of the stop run as a process of its own; see `crowd.py`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import outlast
from outlast.http import EventFeed, EventStream, Limits, Server, long_poll

WANTED = json.loads(os.environ.get("SHOP", "{}"))

feed = EventFeed()
service = outlast.Service("shop", deadline_s=WANTED.get("deadline_s", 5.0))


async def order(request: Any) -> Response:
    await asyncio.sleep(0.002)
    return PlainTextResponse(str(len(await request.body())))


async def poll(request: Any) -> Response:
    polled = await long_poll(request.scope, request.receive, asyncio.Event().wait(), wait_s=300.0)
    return Response(status_code=204) if polled.ended else PlainTextResponse("news")


async def hang(request: Any) -> Response:
    await asyncio.Event().wait()
    return Response()


async def events(request: Any) -> EventStream:
    return EventStream(feed.watch())


async def big(request: Any) -> StreamingResponse:
    async def parts() -> Any:
        for _ in range(10_000):
            yield b"x" * 65_536

    return StreamingResponse(parts())


@service.loop(every_s=0.05)
async def news(stop: outlast.Stop) -> None:
    feed.publish("news")


app = Starlette(
    routes=[
        Route("/order", order, methods=["GET", "POST"]),
        Route("/poll", poll),
        Route("/hang", hang),
        Route("/events", events),
        Route("/big", big),
    ]
)
limits = Limits(**{"body_bytes_max": 1_000_000, **WANTED.get("limits", {})})
server = Server(app, WANTED.get("listen", "127.0.0.1:0"), limits=limits).attach(service)

if __name__ == "__main__":
    sys.exit(outlast.run(service, report=WANTED.get("report")))
