"""Answers as HTTP wants them: HEAD, HTTP/1.0, 100-continue, requests sent ahead, ids, half-closed clients, early answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
from served import LIMIT_S, answer, body_of, echo, get, hello, post, serving

from outlast import Fault, Kind, OutlastError
from outlast.http import Limits

if TYPE_CHECKING:
    from conftest import RunAsync


async def chunked(scope: Any, receive: Any, send: Any) -> None:
    """Answers in two parts, without a length."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"two ", "more_body": True})
    await send({"type": "http.response.body", "body": b"parts"})


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answers 403 without reading the body."""
    assert scope["type"] == "http"
    await answer(send, b"no", status=403)


@pytest.mark.short
def test_a_connection_serves_one_request_after_the_other(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(echo) as served, await served.connect() as client:
            for body in (b"one", b"", b"x" * 200_000):
                client.send(post(body))
                got = await client.answer()
                assert (got.status, got.body) == (200, body)
            assert (served.open, served.cut) == (1, {})

    run_async(main)


@pytest.mark.parametrize("app", [hello, chunked])
def test_an_answer_to_head_has_no_body(run_async: RunAsync, app: Any) -> None:
    async def main() -> None:
        async with serving(app) as served, await served.connect() as client:
            client.head = True
            for _ in range(2):
                client.send(get(method="HEAD"))
                assert (await client.answer()).status == 200
            client.send(get("/" + "x" * 9_000, method="HEAD"))
            got = await client.answer()
            assert (got.status, await client.rest()) == (414, b"")
            assert int(got.headers["content-length"]) > 0

    run_async(main)


def test_a_client_of_http_1_0_gets_no_chunks(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(chunked) as served:
            got = await served.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert (got.status, got.body, got.headers.get("transfer-encoding")) == (200, b"two parts", None)

    run_async(main)


def test_100_continue_is_sent_when_the_application_reads(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(echo) as served, await served.connect() as client:
            client.send(get("/", "Content-Length: 3", "Expect: 100-continue", method="POST"))
            assert (await client.answer()).status == 100
            client.send(b"abc")
            assert (await client.answer()).body == b"abc"
            client.send(post(b"again"))
            assert (await client.answer()).body == b"again"

    run_async(main)


@pytest.mark.parametrize("expects", [True, False], ids=["100-continue", "body at once"])
@pytest.mark.parametrize("by", ["application", "server"])
def test_an_early_refusal_is_read_by_a_client_that_sends_first(run_async: RunAsync, by: str, *, expects: bool) -> None:
    """The body is thrown away, up to a bound, so that no reset overtakes the answer; nobody is asked to go on sending."""
    size = 10_000_000

    def sent_in_full(port: int) -> tuple[bytes, bytes]:
        import socket

        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as sock:
            expect = ["Expect: 100-continue"] if expects else []
            sock.sendall(get("/", f"Content-Length: {size}", *expect, method="POST"))
            if not expects:
                sock.sendall(b"x" * size)
                sock.sendall(get("/second"))
            got = b""
            while b"\r\n\r\n" not in got:
                got += sock.recv(65_536)
            head, _, rest = got.partition(b"\r\n\r\n")
            while data := sock.recv(65_536):
                rest += data
            return head, rest

    async def main() -> None:
        limits = Limits(body_bytes_max=size if by == "application" else 1_000)
        async with serving(refuse, limits=limits) as served:
            head, rest = await asyncio.to_thread(sent_in_full, served.server.port)
            assert head.startswith(b"HTTP/1.1 403" if by == "application" else b"HTTP/1.1 413")
            assert b"connection: close" in head
            assert b"HTTP/1.1" not in rest, "one answer, and no other after it"
            await served.until(lambda: served.open == 0)

    run_async(main)


def test_what_is_drained_is_bounded(run_async: RunAsync) -> None:
    async def main() -> None:
        limits = Limits(body_bytes_max=10, drain_bytes_max=1_000, drain_s=30.0)
        async with serving(refuse, limits=limits) as served, await served.connect() as client:
            client.send(get("/", "Content-Length: 10000000", method="POST"))
            assert (await client.answer()).status == 413
            client.send(b"x" * 100_000)
            await served.until(lambda: served.open == 0)

    run_async(main)


def test_a_client_that_neither_reads_on_nor_closes_after_an_early_answer_is_closed(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(refuse, limits=Limits(body_bytes_max=10, drain_s=0.1)) as served, await served.connect() as client:
            client.send(get("/", "Content-Length: 10000000", method="POST"))
            assert (await client.answer()).status == 413
            await served.until(lambda: served.open == 0)

    run_async(main)


def test_requests_sent_ahead_are_answered_in_order_up_to_a_bound(run_async: RunAsync) -> None:
    async def main() -> None:
        most = 0
        running = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal most, running
            assert scope["type"] == "http"
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            await answer(send, scope["path"].encode())
            running -= 1

        async with serving(app, limits=Limits(pipelined_max=4)) as served, await served.connect() as client:
            client.send(b"".join(get(f"/{number}") for number in range(4)))
            assert [(await client.answer()).body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]
            client.send(b"".join(get(f"/{number}") for number in range(1_000)))
            answers = [await client.answer() for _ in range(5)]
            assert [got.body for got in answers] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
            assert [got.headers.get("connection") for got in answers] == [None] * 4 + ["close"]
            assert await client.rest() == b""
        assert most == 1

    run_async(main)


def test_what_is_wrong_behind_a_good_request_does_not_spoil_its_answer(run_async: RunAsync) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await go.wait()
            await answer(send, b"whole")

        async with serving(app) as served, await served.connect() as client:
            client.send(get() + b"nonsense\r\n\r\n")
            await served.until(lambda: served.cut == {"malformed request": 1})
            go.set()
            got = await client.answer()
            assert (got.status, got.body, got.headers["connection"]) == (200, b"whole", "close")
            assert await client.rest() == b""

    run_async(main)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("b7e2-41.x_y", True), ("x" * 129, False), ("a b", False), ("", False), ('"><script>', False), ("é", False)],
)
def test_a_request_has_an_id_which_is_the_clients_if_it_is_sane(run_async: RunAsync, sent: str, *, kept: bool) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append(scope["extensions"]["outlast.request_id"])
        await answer(send)

    async def main() -> None:
        async with serving(app) as served:
            got = await served.ask(get("/", f"X-Request-Id: {sent}", "Connection: close"))
            assert [got.headers["x-request-id"]] == seen
            assert (seen[0] == sent) is kept
            refused = await served.ask(get("/", f"X-Request-Id: {sent}", "Content-Length: 99999999"))
            assert (refused.problem["request_id"] == sent) is kept

    run_async(main)


def test_a_client_that_has_closed_its_side_still_gets_its_answer(run_async: RunAsync) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            body = await body_of(receive)
            await go.wait()
            await answer(send, body or b"")

        async with serving(app) as served, await served.connect() as client:
            client.send(post(b"last words"))
            client.half_close()
            await served.until(lambda: served.server._tally.requests == 1)
            await asyncio.sleep(0.05)
            go.set()
            got = await client.answer()
            assert (got.body, await client.rest()) == (b"last words", b"")
            await served.until(lambda: served.open == 0)

    run_async(main)


def test_who_waits_for_its_client_to_leave_learns_that_it_has_closed_its_side(run_async: RunAsync) -> None:
    async def main() -> None:
        left: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            assert await body_of(receive) == b""
            left.append((await receive())["type"])
            left.append((await receive())["type"])

        async with serving(app) as served, await served.connect() as client:
            client.send(get())
            await served.until(lambda: served.server._tally.requests == 1)
            client.half_close()
            await served.until(lambda: left == ["http.disconnect"] * 2)

    # It made no answer, and its client may still wait for one.
    run_async(main)


def test_a_stream_without_an_end_ends_when_its_client_is_gone(run_async: RunAsync) -> None:
    """It awaits nothing but `send`, and does not listen: each part is dropped at once, and others still have their turn."""

    async def main() -> None:
        parts = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal parts
            assert scope["type"] == "http"
            if scope["path"] == "/other":
                await answer(send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                parts += 1
                await send({"type": "http.response.body", "body": b"x" * 1_000, "more_body": True})

        async with serving(app) as served:
            client = await served.connect()
            client.send(get())
            await client.reader.readexactly(10_000)
            client.writer.transport.abort()
            await served.until(lambda: served.open == 0)
            assert (await served.ask(get("/other", "Connection: close"))).status == 200
            await served.until(lambda: not served.service.holders())

    run_async(main)


@pytest.mark.parametrize("last", [None, b"no request\r\n\r\n"])
def test_what_a_client_does_while_its_answer_is_under_way_leaves_no_connection_behind(
    run_async: RunAsync, last: bytes | None
) -> None:
    """`last` is what it sends then; None: it closes its side."""

    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"two ", "more_body": True})
            await go.wait()
            await send({"type": "http.response.body", "body": b"parts"})

        async with serving(app) as served, await served.connect() as client:
            client.send(get())
            await served.until(lambda: served.server._tally.requests == 1)
            await client.reader.readuntil(b"two ")
            if last is None:
                client.half_close()
            else:
                client.send(last)
            await asyncio.sleep(0.05)
            go.set()
            assert await client.rest() == b"\r\n5\r\nparts\r\n0\r\n\r\n"
            await served.until(lambda: served.open == 0)
            assert "half closed too long" not in served.cut

    run_async(main)


def test_a_half_closed_connection_is_cut_when_the_answer_takes_too_long(run_async: RunAsync) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await go.wait()
            await answer(send)

        async with serving(app, limits=Limits(half_closed_s=0.1)) as served, await served.connect() as client:
            client.send(get())
            client.half_close()
            await served.until(lambda: served.cut == {"half closed too long": 1})
            await served.until(lambda: served.open == 0)
            go.set()

    run_async(main)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", get("/", "Content-Length: 5", method="POST") + b"ab"])
def test_a_client_that_closes_before_its_request_is_whole_leaves_nothing(run_async: RunAsync, sent: bytes) -> None:
    async def main() -> None:
        async with serving(echo) as served:
            client = await served.connect()
            client.send(sent)
            client.half_close()
            assert await client.rest() == b""
            client.writer.close()
            await served.until(lambda: served.open == 0)
            assert served.cut == {}

    run_async(main)


def test_what_an_application_raises_is_answered_and_a_bug_is_said_once(run_async: RunAsync, expected_logs: Any) -> None:
    expected_logs("ValueError", optional=True)
    expected_logs("is failing|failed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/bug":
            raise ValueError("a secret")
        if scope["path"] == "/wrong":
            raise OutlastError("no such order", Fault(Kind.REJECTED, "no order", "no such order"))

    async def main() -> None:
        async with serving(app) as served, await served.connect() as client:
            for path, status in (("/bug", 500), ("/wrong", 400), ("/bug", 500)):
                client.send(get(path))
                got = await client.answer()
                assert (got.status, b"secret" in got.body) == (status, False)
            client.send(get("/nothing"))
            assert (await client.answer()).status == 500

    run_async(main)


def test_an_answer_that_breaks_off_is_seen_to_be_not_whole(run_async: RunAsync, caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] == "/raises":
            raise ValueError

    async def main() -> None:
        async with serving(app) as served:
            for path in ("/raises", "/returns"):
                async with await served.connect() as client:
                    client.send(get(path))
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                        await client.answer()
            await served.until(lambda: served.open == 0)

    with caplog.at_level(logging.INFO):
        run_async(main)
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR", "ERROR"]


def test_a_client_that_has_closed_its_socket_is_answered_all_the_same_without_an_error(run_async: RunAsync) -> None:
    """Its reset comes while we answer, so that our side cannot be ended any more: a stop would name that as a failure."""

    async def main() -> None:
        async with serving(hello) as served:
            client = socket.create_connection(("127.0.0.1", served.server.port))
            client.sendall(b"GET / HTTP/1.1\r\n")
            await served.until(lambda: served.open == 1)
            await asyncio.sleep(0.05)
            assert served.server._host is not None
            (connection,) = served.server._host.connections
            # In one step: the event loop has not seen that the client is gone.
            client.close()
            connection.shutdown()
            await served.until(lambda: served.open == 0)
            assert served.cut == {"stopping": 1}

    run_async(main)


def test_a_client_that_would_rather_speak_something_else_is_answered_and_the_connection_ends(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(hello) as served:
            got = await served.ask(get("/", "Connection: Upgrade", "Upgrade: h2c") + get("/second"))
            assert (got.status, got.headers["connection"], got.rest) == (200, "close", b"")

    run_async(main)


def test_what_even_the_middleware_cannot_answer_is_a_bug_too(run_async: RunAsync, expected_logs: Any) -> None:
    expected_logs("GET / failed .* said once")

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async def main() -> None:
        async with serving(hello) as served:
            served.server._host.app = broken
            got = await served.ask(get())
            assert (got.status, got.code, got.rest) == (500, "bug", b"")

    run_async(main)
