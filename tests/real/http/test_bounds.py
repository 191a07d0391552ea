"""What clients send and how slowly is bounded: answered with a problem that they can read, or cut."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import TYPE_CHECKING, Any

import pytest
from served import answer, body_of, echo, get, hello, post, serving

from outlast.http import Limits
from outlast.http._server.connection import Connection

if TYPE_CHECKING:
    from conftest import RunAsync

SMALL = Limits(url_bytes_max=100, headers_max=10, headers_bytes_max=1_000, body_bytes_max=1_000)
QUICK = Limits(headers_s=0.2, body_s=0.2, body_bytes_per_s_min=1e6, write_s=0.2, write_bytes_per_s_min=1e6, keep_alive_s=0.2)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (get("/" + "x" * 100), 414, "url too long"),
        (b"GET /" + b"x" * 2_000, 414, "url too long"),
        (get("/", *["X: y"] * 10), 431, "headers too large"),
        (get("/", "X: " + "y" * 1_000), 431, "headers too large"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 2_000, 431, "headers too large"),
        (post(b"x" * 1_001), 413, "body too large"),
        (get("/", "Content-Length: 1001", method="POST"), 413, "body too large"),
        (get("/", "Content-Length: 99999999999999999999", method="POST"), 400, "malformed request"),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"3e9\r\n" + b"x" * 1_001, 413, "body too large"),
        (get("/", "Transfer-Encoding: chunked", "Content-Length: 3", method="POST") + b"abc", 400, "malformed request"),
        (get("/", "Content-Length: 3", "Content-Length: 4", method="POST") + b"abcd", 400, "malformed request"),
        (b"nonsense\r\n\r\n", 400, "malformed request"),
        (b"CONNECT shop:443 HTTP/1.1\r\n\r\n", 400, "malformed request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400, "malformed request"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_what_is_too_much_is_answered_and_the_connection_ends(
    run_async: RunAsync, request_: bytes, status: int, code: str
) -> None:
    async def main() -> None:
        async with serving(echo, limits=SMALL) as served:
            got = await served.ask(request_)
            assert (got.status, got.code, got.headers["connection"], got.rest) == (status, code, "close", b"")
            assert served.cut == {code: 1}
            assert (await served.ask(post(b"x" * 1_000, "Connection: close"))).status == 200

    run_async(main)


def test_a_header_that_never_ends_is_refused_however_it_is_cut_into_pieces(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(hello, limits=SMALL) as served, await served.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nX: ")
            while not client.reader._buffer:  # type: ignore[attr-defined]
                client.send(b"y" * 100)
                await asyncio.sleep(0.001)
            assert (await client.answer()).code == "headers too large"

    run_async(main)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HT", "headers too slow"),
        (b"GET / HTTP/1.1\r\nHost: shop\r\nX: y", "headers too slow"),
        (get("/", "Content-Length: 5", method="POST") + b"ab", "body too slow"),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nab", "body too slow"),
    ],
    ids=lambda value: value[-10:].decode() if isinstance(value, bytes) else str(value),
)
def test_who_sends_slowly_is_answered_408(run_async: RunAsync, sent: bytes, code: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append(await body_of(receive))

    async def main() -> None:
        async with serving(app, limits=QUICK) as served:
            got = await served.ask(sent)
            assert (got.status, got.code, got.rest) == (408, code, b"")
            assert served.cut == {code: 1}
        assert seen == ([None] if code == "body too slow" else []), "the application learns that its client is gone"

    run_async(main)


def test_a_slow_body_that_keeps_to_the_rate_is_taken(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(echo, limits=Limits(body_s=0.2, body_bytes_per_s_min=1.0)) as served, await served.connect() as client:
            client.send(get("/", "Content-Length: 40", method="POST"))
            for _ in range(40):
                client.send(b"x")
                await asyncio.sleep(0.02)
            assert (await client.answer()).body == b"x" * 40

    run_async(main)


def test_a_body_is_not_slow_while_the_application_does_not_read(run_async: RunAsync) -> None:
    async def main() -> None:
        read = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await read.wait()
            await answer(send, b"%d" % len(await body_of(receive) or b""))

        async with serving(app, limits=QUICK) as served, await served.connect() as client:
            client.send(post(b"x" * 1_000_000))
            await asyncio.sleep(0.6)
            read.set()
            assert (await client.answer()).body == b"1000000"

    run_async(main)


def test_idle_connections_are_closed_without_a_word(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(hello, limits=QUICK) as served:
            async with await served.connect() as fresh, await served.connect() as kept:
                kept.send(get())
                assert (await kept.answer()).status == 200
                assert (await fresh.rest(), await kept.rest()) == (b"", b"")
            assert served.cut == {"idle": 2}

    run_async(main)


def test_a_reader_that_does_not_read_is_cut_and_the_application_goes_on(run_async: RunAsync) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1_000):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await send({"type": "http.response.body"})
            ended.set()

        async with serving(app, limits=QUICK) as served:
            sock = socket.create_connection(("127.0.0.1", served.server.port))
            sock.send(get())
            await served.until(lambda: served.open == 1)
            await served.until(lambda: served.cut == {"reader too slow": 1})
            await served.until(lambda: served.open == 0)
            await asyncio.wait_for(ended.wait(), 10)
            sock.close()

    run_async(main)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000, id="half a head"),
        pytest.param(post(b"a" * 200_000)[:-1], id="half a body"),
        pytest.param(post(b"whole"), id="a request"),
        pytest.param(b"no request\r\n\r\n", id="none"),
    ],
)
def test_a_connection_that_is_gone_leaves_nothing_to_the_collector(run_async: RunAsync, sent: bytes) -> None:
    """It counts objects and not their bytes, so that thousands of them could fill the memory before it looks."""

    def connections() -> list[Connection]:
        return [each for each in gc.get_objects() if type(each) is Connection]

    async def main() -> None:
        async with serving(echo) as served:
            gc.collect()
            gc.disable()
            try:
                async with await served.connect() as client:
                    client.send(sent)
                    await asyncio.sleep(0.05)
                await served.until(lambda: served.open == 0)
                await asyncio.sleep(0.05)
                assert connections() == []
            finally:
                gc.enable()

    run_async(main)


def test_a_body_that_is_too_large_behind_a_good_request_does_not_spoil_its_answer(run_async: RunAsync) -> None:
    async def main() -> None:
        go = asyncio.Event()
        calls: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            calls.append(scope["path"])
            await go.wait()
            await answer(send, b"whole")

        async with serving(app, limits=SMALL) as served, await served.connect() as client:
            client.send(get("/good") + get("/bad", "Transfer-Encoding: chunked", method="POST") + b"7d0\r\n" + b"x" * 2_000)
            await served.until(lambda: served.cut == {"body too large": 1})
            go.set()
            got = await client.answer()
            assert (got.status, got.body, got.headers["connection"]) == (200, b"whole", "close")
            assert await client.rest() == b""
            assert calls == ["/good"]

    run_async(main)


def test_a_body_that_grows_too_large_under_its_answer_breaks_it_off(run_async: RunAsync) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while (await receive())["type"] == "http.request":
                await send({"type": "http.response.body", "body": b"part", "more_body": True})

        async with serving(app, limits=SMALL) as served, await served.connect() as client:
            client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n")
            await client.reader.readuntil(b"part")
            client.send(b"7d0\r\n" + b"x" * 2_000)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.reader.readuntil(b"\r\n0\r\n")
            assert served.cut == {"body too large": 1}

    run_async(main)


def test_what_surrounds_the_chunks_of_a_body_is_bounded(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(echo) as served, await served.connect() as client:
            client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"1;x=")
            while not client.reader._buffer:  # type: ignore[attr-defined]
                client.send(b"y" * 10_000)
                await asyncio.sleep(0.001)
            assert (await client.answer()).code == "body too large"
            async with await served.connect() as small:
                small.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
                assert len((await small.answer()).body) == 10_000

    run_async(main)
