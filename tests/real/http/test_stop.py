"""The stop of a server: who may finish does, who waits is let go at once, and nobody holds it up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
from served import answer, body_of, get, post, serving

from outlast.http import Limits

if TYPE_CHECKING:
    from conftest import RunAsync

STOP = "outlast.stop"


class Shop:
    """An application with a request of every sort."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.under_way: list[str] = []
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        path = scope["path"]
        self.under_way.append(path)
        try:
            await getattr(self, path[1:])(scope, receive, send)
        finally:
            self.ended.append(path)

    async def settle(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go.wait()
        await answer(send, b"done")

    async def stuck(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await self.go.wait()

    async def whole(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 20_000_000)

    async def body(self, scope: Any, receive: Any, send: Any) -> None:
        if (body := await body_of(receive)) is not None:
            await answer(send, body)

    async def poll(self, scope: Any, receive: Any, send: Any) -> None:
        await scope["extensions"][STOP].wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def events(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        await scope["extensions"][STOP].wait()
        await send({"type": "http.response.body"})

    async def big(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        await send({"type": "http.response.body"})


@pytest.mark.short
def test_a_stop_lets_work_finish_and_ends_all_who_only_wait(run_async: RunAsync) -> None:
    async def main() -> None:
        shop = Shop()
        async with serving(shop) as served, contextlib.AsyncExitStack() as stack:
            idle, kept, head, settle, poll, events = [await stack.enter_async_context(await served.connect()) for _ in range(6)]
            head.send(b"GET /settle HT")
            kept.send(post(b"x", path="/body"))
            assert (await kept.answer()).body == b"x"
            for client, path in ((settle, "/settle"), (poll, "/poll"), (events, "/events")):
                client.send(get(path))
                await served.until(lambda path=path: path in shop.under_way)  # type: ignore[misc]
            await served.until(lambda: served.open == 6)

            served.stop.fire("enough")
            assert (await poll.answer()).headers["connection"] == "close"
            assert (await events.answer()).body == b": hello\n\n"
            assert (await head.answer()).code == "stopping"
            for client in (idle, kept, head, poll, events):
                assert await client.rest() == b""
            with pytest.raises(ConnectionError):
                await served.connect()
            assert not served.running.done()
            assert served.server.health().state == "stopping"

            shop.go.set()
            got = await settle.answer()
            assert (got.status, got.body, got.headers["connection"]) == (200, b"done", "close")
            assert await settle.rest() == b""
            assert await served.running == 0
            assert served.open == 0

    run_async(main)


def test_a_request_that_has_just_arrived_is_told_that_we_stop(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(Shop()) as served, await served.connect() as kept:
            kept.send(post(b"x", path="/body"))
            await kept.answer()
            kept.send(get("/settle"))
            # What the client has sent is in the socket of the server, and the server has not read it.
            served.stop.fire("enough")
            got = await kept.answer()
            assert (got.status, got.code, got.headers["connection"]) == (503, "stopping", "close")
            assert await kept.rest() == b""

    run_async(main)


def test_those_who_wait_in_the_kernel_are_told_that_we_stop(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(Shop()) as served:
            waiting = socket.create_connection(("127.0.0.1", served.server.port))
            waiting.sendall(get("/settle"))
            served.stop.fire("enough")
            got = await asyncio.to_thread(waiting.recv, 65_536)
            waiting.close()
            assert got.startswith(b"HTTP/1.1 503")

    run_async(main)


def test_what_does_not_end_is_cancelled_answered_and_named(run_async: RunAsync, caplog: Any) -> None:
    async def main() -> None:
        shop = Shop()
        async with serving(shop, deadline_s=0.5) as served, await served.connect() as settle, await served.connect() as sent:
            settle.send(get("/settle?" + "x" * 200))
            sent.send(get("/settle") + get("/settle"))
            await served.until(lambda: shop.under_way == ["/settle"] * 2)
            served.stop.fire("enough")
            for client in (settle, sent):
                got = await client.answer()
                assert (got.status, got.code, got.headers["connection"]) == (503, "stopping", "close")
                assert await client.rest() == b""
            assert await served.running == 0

    with caplog.at_level(logging.INFO, "outlast"):
        run_async(main)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == [
        "shop: cancelled what still ran: GET /settle, GET /settle"
    ]


@pytest.mark.parametrize(("path", "sent"), [("/big", get("/big")), ("/body", get("/body", "Content-Length: 5", method="POST"))])
def test_a_client_that_does_not_read_or_send_does_not_hold_up_the_stop(run_async: RunAsync, path: str, sent: bytes) -> None:
    """It is waited for at most half of the deadline, so that its request is never cancelled and named."""

    async def main() -> None:
        shop = Shop()
        async with serving(shop, deadline_s=1.0, limits=Limits(headers_s=0.2)) as served:
            sock = socket.create_connection(("127.0.0.1", served.server.port))
            sock.sendall(sent)
            await served.until(lambda: shop.under_way == [path])
            served.stop.fire("enough")
            assert await served.running == 0
            assert shop.ended == [path]
            assert served.cut == {"reader too slow" if path == "/big" else "body too slow": 1}
            sock.close()

    run_async(main)


def test_an_answer_that_has_begun_and_does_not_end_is_broken_off(run_async: RunAsync, expected_logs: Any) -> None:
    expected_logs("cancelled what still ran: GET /stuck")

    async def main() -> None:
        async with serving(Shop(), deadline_s=0.5) as served, await served.connect() as client:
            client.send(get("/stuck"))
            await client.reader.readuntil(b"half")
            served.stop.fire("enough")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.reader.readuntil(b"\r\n0\r\n")
            assert await served.running == 0

    run_async(main)


def test_a_whole_answer_that_nobody_reads_is_given_up_at_the_end(run_async: RunAsync) -> None:
    async def main() -> None:
        shop = Shop()
        async with serving(shop) as served:
            sock = socket.create_connection(("127.0.0.1", served.server.port))
            sock.sendall(get("/whole"))
            await served.until(lambda: shop.ended == ["/whole"])
            served.stop.fire("enough")
            assert await served.running == 0
            assert served.cut == {"reader too slow": 1}
            sock.close()

    run_async(main)
